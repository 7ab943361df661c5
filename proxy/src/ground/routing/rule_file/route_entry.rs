//! Entries of `[[routes]]`: conditions and one action.

use std::path::PathBuf;
use std::sync::Arc;

use http::StatusCode;
use ipnet::IpNet;
use trunkline_protocol::pattern::Pattern;

use super::group_entry::{KnownGroups, Labels};
use super::toml_value::{TomlTable, TomlValue, read_beyond};
use crate::ground::net::address::parse_network;
use crate::ground::routing::route_condition::{Condition, PathPattern, ValueSource, ValueTest};
use crate::ground::routing::rule::{OnDown, Rejection, RouteAction, RouteRule};
use crate::ground::routing::rule_error::{Fault, RuleProblem};

/// Maximum size of a page shown in place of a hub. It is kept in memory and sent to any client.
const PAGE_MAX_BYTES: usize = 64 * 1024;

/// Actions of a route in the file.
const ACTIONS: [&str; 3] = ["group", "reject", "next"];

pub(super) fn route(value: &TomlValue<'_>, labels: &mut Labels, groups: &mut KnownGroups) -> Result<RouteRule, Fault> {
    let mut table = TomlTable::new("a route", value)?;
    let label = labels.take(&mut table)?;
    let action = action(&mut table, groups)?;
    let on_down = on_down(&mut table, &action)?;
    // Makes canaries independent of each other, and of rules added before them.
    let salt = match &action {
        RouteAction::Group(group) => group,
        RouteAction::Reject(_) => "reject",
        RouteAction::Next => "next",
    };
    let conditions = conditions(&mut table, salt)?;
    table.finish()?;
    Ok(RouteRule { label, conditions, action, on_down, matches: Arc::default() })
}

fn action(table: &mut TomlTable<'_>, groups: &mut KnownGroups) -> Result<RouteAction, Fault> {
    let found: Vec<_> = ACTIONS.into_iter().filter_map(|key| table.take(key)).collect();
    let (text, page) = (table.take("text"), table.take("page"));
    let [value] = &*found else {
        let names: Vec<_> = found.iter().map(|value| value.key).collect();
        let found = if names.is_empty() { "none".to_owned() } else { names.join(" and ") };
        return Err(table.fault(RuleProblem::Action { found }));
    };
    if let Some(alone) = text.or(page).filter(|_| value.key != "reject") {
        return Err(alone.fault(RuleProblem::Alone { key: alone.key, needed: "reject" }));
    }
    match value.key {
        "group" => groups.serving(value).map(RouteAction::Group),
        "reject" => rejection(value, text, page).map(RouteAction::Reject),
        _ if value.truth()? => Ok(RouteAction::Next),
        _ => Err(value.fault(RuleProblem::Choice { key: "next", found: "false".into(), wanted: "true" })),
    }
}

fn on_down(table: &mut TomlTable<'_>, action: &RouteAction) -> Result<OnDown, Fault> {
    let Some(value) = table.take("on-down") else { return Ok(OnDown::default()) };
    if !matches!(action, RouteAction::Group(_)) {
        return Err(value.fault(RuleProblem::Alone { key: "on-down", needed: "group" }));
    }
    match value.text()? {
        "wait" => Ok(OnDown::Wait),
        "next" => Ok(OnDown::Next),
        other => Err(value.fault(RuleProblem::Choice {
            key: "on-down",
            found: other.into(),
            wanted: "\"wait\" or \"next\"",
        })),
    }
}

fn rejection(
    value: &TomlValue<'_>,
    text: Option<TomlValue<'_>>,
    page: Option<TomlValue<'_>>,
) -> Result<Rejection, Fault> {
    let number = value.number(400..=599)?;
    let status = u16::try_from(number).ok().and_then(|number| StatusCode::from_u16(number).ok());
    let status = status.unwrap_or(StatusCode::FORBIDDEN);
    let (body, content_type): (Arc<str>, _) = match (text, page) {
        (Some(_), Some(page)) => {
            return Err(page.fault(RuleProblem::Exclusive { key: "page", other: "text" }));
        }
        (None, Some(page)) => (read_page(&page)?.into(), "text/html; charset=utf-8"),
        (text, None) => {
            let usual = status.canonical_reason().unwrap_or("Refused");
            let text = text.map(|text| text.text()).transpose()?.unwrap_or(usual);
            (text.into(), "text/plain; charset=utf-8")
        }
    };
    Ok(Rejection { status, body, content_type })
}

fn read_page(value: &TomlValue<'_>) -> Result<String, Fault> {
    let path = PathBuf::from(value.text()?);
    let read = read_beyond(&path, PAGE_MAX_BYTES);
    let page = read.map_err(|source| value.fault(RuleProblem::File { key: "page", path, source }))?;
    match page.len() {
        bytes if bytes > PAGE_MAX_BYTES => {
            Err(value.fault(RuleProblem::NamedFileTooLarge { key: "page", most: PAGE_MAX_BYTES }))
        }
        _ => Ok(page),
    }
}

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
