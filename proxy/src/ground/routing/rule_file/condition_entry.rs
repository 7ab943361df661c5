//! Conditions of an entry of `[[routes]]`.

use ipnet::IpNet;

use super::toml_value::{TomlTable, TomlValue};
use crate::ground::net::address::parse_network;
use crate::ground::routing::pattern::Pattern;
use crate::ground::routing::route_condition::{Condition, PathPattern, ValueSource, ValueTest};
use crate::ground::routing::rule_error::{Fault, RuleProblem};

/// Maximum number of conditions of a route, and of patterns or networks of a condition. All may be tested for each
/// connection and request.
const CONDITIONS_MAX: usize = 64;

/// Maximum length of compared names and values.
const VALUE_MAX_BYTES: usize = 1024;

/// Reads the conditions of a route. `salt` distributes the users of `percent`.
pub(super) fn conditions(table: &mut TomlTable<'_>, salt: &str) -> Result<Vec<Condition>, Fault> {
    let mut conditions = Vec::new();
    if let Some(value) = table.take("hub") {
        conditions.push(Condition::Hub(value.patterns(CONDITIONS_MAX, PathPattern::new)?));
    }
    if let Some(value) = table.take("path") {
        conditions.push(Condition::Path(value.patterns(CONDITIONS_MAX, PathPattern::new)?));
    }
    for (source, key) in ValueSource::ALL {
        for item in table.take(key).map(|value| value.items(CONDITIONS_MAX)).transpose()?.unwrap_or_default() {
            conditions.push(value_condition(source, &item)?);
        }
    }
    if let Some(value) = table.take("user") {
        conditions.push(Condition::User(value.patterns(CONDITIONS_MAX, Pattern::new)?));
    }
    if let Some(value) = table.take("address") {
        let networks = value.items(CONDITIONS_MAX)?.iter().map(network).collect::<Result<_, _>>()?;
        conditions.push(Condition::Address(networks));
    }
    if let Some(value) = table.take("percent") {
        conditions.push(Condition::Percent { percent: value.fraction(0.0..=100.0)?, salt: salt.into() });
    }
    match conditions.len() {
        count if count > CONDITIONS_MAX => {
            Err(table.fault(RuleProblem::TooMany { key: "a route's conditions", count, most: CONDITIONS_MAX }))
        }
        _ => Ok(conditions),
    }
}

fn value_condition(source: ValueSource, value: &TomlValue<'_>) -> Result<Condition, Fault> {
    let mut table = TomlTable::new("a condition", value)?;
    let name = table.require("name", "give the name of the value, as in { name = \"x-tenant\", equals = \"acme\" }")?;
    let name = short(&name)?.into();
    let equals = table.take("equals").map(|value| short(&value).map(|text| ValueTest::Equals(text.into())));
    let prefix = table.take("prefix").map(|value| short(&value).map(|text| ValueTest::Prefix(text.into())));
    let present = table.take("present").map(|value| match value.truth() {
        Ok(true) => Ok(ValueTest::Present),
        Ok(false) => Ok(ValueTest::Absent),
        Err(fault) => Err(fault),
    });
    let at = table.at;
    table.finish()?;
    let mut tests: Vec<_> = [equals, prefix, present].into_iter().flatten().collect::<Result<_, _>>()?;
    match (tests.pop(), tests.len()) {
        (Some(test), 0) => Ok(Condition::Value { source, name, test }),
        (last, more) => {
            let found = if last.is_some() { (more + 1).to_string() } else { "none".to_owned() };
            Err(RuleProblem::Operator { key: source.key(), found }.at(at))
        }
    }
}

fn short<'t>(value: &TomlValue<'t>) -> Result<&'t str, Fault> {
    let text = value.text()?;
    match text.len() {
        bytes if bytes > VALUE_MAX_BYTES => {
            Err(value.fault(RuleProblem::TooLong { key: value.key, bytes, most: VALUE_MAX_BYTES }))
        }
        _ => Ok(text),
    }
}

fn network(value: &TomlValue<'_>) -> Result<IpNet, Fault> {
    let text = value.text()?;
    parse_network(text).ok_or_else(|| value.fault(RuleProblem::Network { text: text.into() }))
}
