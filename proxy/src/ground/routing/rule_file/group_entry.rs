//! Tables `[groups.NAME]`: app servers with a common purpose.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use trunkline_protocol::key::{AccessKey, AccessKeys};

use super::named_file::secrets;
use super::toml_value::{TomlTable, TomlValue};
use crate::ground::net::address::{Address, shown_url};
use crate::ground::routing::rule::{DEFAULT_GROUP, DefaultGroup, GroupRule, WeightedUpstream};
use crate::ground::routing::rule_error::{Fault, RuleProblem, nearest};

/// Maximum number of groups. Each of their app servers has a watcher and a pool per hub.
const GROUPS_MAX: usize = 100;

/// Maximum number of upstreams of a group, and of weights. A name stands for any number of app servers.
const UPSTREAMS_MAX: usize = 1000;

/// Maximum number of CA files of a group.
const ROOTS_MAX: usize = 16;

/// Maximum length of names of groups and rules, which are metric labels.
pub(super) const NAME_MAX_BYTES: usize = 64;

const TABLE: &str = "a group";

/// Groups that rules may reference.
#[derive(Debug, Default)]
pub(super) struct KnownGroups {
    names: Vec<Arc<str>>,
    /// Groups with answers that reach clients.
    serving: BTreeSet<Arc<str>>,
}

impl KnownGroups {
    /// Reads the name of a group.
    fn known(&self, value: &TomlValue<'_>) -> Result<Arc<str>, Fault> {
        let name = value.text()?;
        self.names.iter().find(|known| ***known == *name).cloned().ok_or_else(|| {
            let nearest = nearest(name, self.names.iter().map(|name| &**name));
            value.fault(RuleProblem::UnknownGroup { name: name.into(), nearest })
        })
    }

    /// Reads the name of a group with answers that reach clients.
    pub(super) fn serving(&mut self, value: &TomlValue<'_>) -> Result<Arc<str>, Fault> {
        let name = self.known(value)?;
        self.serving.insert(name.clone());
        Ok(name)
    }

    /// Reads the name of a mirror group, with discarded answers.
    pub(super) fn mirroring(&self, value: &TomlValue<'_>) -> Result<Arc<str>, Fault> {
        let name = self.known(value)?;
        match self.serving.contains(&name) || *name == *DEFAULT_GROUP {
            true => Err(value.fault(RuleProblem::MirrorOfServingGroup { name: name.to_string() })),
            false => Ok(name),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct GroupTables {
    pub groups: Vec<GroupRule>,
    pub default_group: DefaultGroup,
    pub known: KnownGroups,
}

pub(super) fn groups(value: Option<TomlValue<'_>>) -> Result<GroupTables, Fault> {
    let mut tables = GroupTables::default();
    tables.known.names.push(DEFAULT_GROUP.into());
    for (name, at, value) in value.map(|value| value.entries(GROUPS_MAX)).transpose()?.unwrap_or_default() {
        if name == DEFAULT_GROUP {
            tables.default_group = default_group(&value)?;
            continue;
        }
        let name: Arc<str> = checked_name("group", name).map_err(|problem| problem.at(at))?;
        tables.known.names.push(name.clone());
        tables.groups.push(group(name, &value)?);
    }
    Ok(tables)
}

pub(super) fn checked_name(key: &'static str, text: &str) -> Result<Arc<str>, RuleProblem> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    match is_plain && (1..=NAME_MAX_BYTES).contains(&text.len()) {
        true => Ok(text.into()),
        false => Err(RuleProblem::Name { key, text: text.into(), most: NAME_MAX_BYTES }),
    }
}

fn default_group(value: &TomlValue<'_>) -> Result<DefaultGroup, Fault> {
    let mut table = TomlTable::new("[groups.default]", value)?;
    let weights = table.take("weights").map(|value| weights(&value)).transpose()?.unwrap_or_default();
    let pool_size = pool_size(&mut table)?;
    for flag in ["upstream", "access-key", "access-key-file", "upstream-ca", "upstream-cert", "upstream-key"] {
        if table.take(flag).is_some() {
            return Err(table.fault(RuleProblem::DefaultGroup { key: flag, flag }));
        }
    }
    table.finish()?;
    Ok(DefaultGroup { weights: weights.into_iter().map(|(_, upstream)| upstream).collect(), pool_size })
}

fn group(name: Arc<str>, value: &TomlValue<'_>) -> Result<GroupRule, Fault> {
    let mut table = TomlTable::new(TABLE, value)?;
    let mut upstreams = upstreams(&mut table)?;
    for (key, weighted) in table.take("weights").map(|value| weights(&value)).transpose()?.unwrap_or_default() {
        let Some(upstream) = upstreams.iter_mut().find(|upstream| upstream.address == weighted.address) else {
            return Err(key);
        };
        upstream.weight = weighted.weight;
    }
    let rule = GroupRule {
        name,
        upstreams,
        pool_size: pool_size(&mut table)?,
        keys: keys(&mut table)?,
        roots: table.take("upstream-ca").map(|value| paths(&value)).transpose()?.unwrap_or_default(),
        identity: identity(&mut table)?,
    };
    table.finish()?;
    Ok(rule)
}

fn upstreams(table: &mut TomlTable<'_>) -> Result<Vec<WeightedUpstream>, Fault> {
    let value = table.require("upstream", "give the address of an app server, such as \"http://canary:5000\"")?;
    let mut upstreams: Vec<WeightedUpstream> = Vec::new();
    for item in value.items(UPSTREAMS_MAX)? {
        let address = address(item.text()?).map_err(|problem| item.fault(problem))?;
        if upstreams.iter().any(|known| known.address == address) {
            return Err(item.fault(RuleProblem::Duplicate { key: "upstream", text: address.to_string() }));
        }
        upstreams.push(WeightedUpstream { address, weight: 1 });
    }
    Ok(upstreams)
}

fn address(text: &str) -> Result<Address, RuleProblem> {
    text.parse().map_err(|problem| RuleProblem::Address { key: "upstream", text: shown_url(text), problem })
}

/// Reads weights, each with the fault to report if the group has no such upstream.
fn weights(value: &TomlValue<'_>) -> Result<Vec<(Fault, WeightedUpstream)>, Fault> {
    let read = |(url, at, weight): (&str, usize, TomlValue<'_>)| {
        let address = address(url).map_err(|problem| problem.at(at))?;
        let strange = RuleProblem::StrangeWeight { key: "weights", text: url.into() }.at(at);
        // Zero is not allowed: to remove an app server, omit it from `upstream`.
        Ok((strange, WeightedUpstream { address, weight: weight.number(1..=1000)? }))
    };
    value.entries(UPSTREAMS_MAX)?.into_iter().map(read).collect()
}

fn pool_size(table: &mut TomlTable<'_>) -> Result<Option<usize>, Fault> {
    let size = table.take("pool-size").map(|value| value.number(1..=256)).transpose()?;
    Ok(size.and_then(|size| usize::try_from(size).ok()))
}

fn keys(table: &mut TomlTable<'_>) -> Result<Option<AccessKeys>, Fault> {
    let mut keys = Vec::new();
    for (item, text) in secrets(table, "access-key", "access-key-file")? {
        let refused = |source| item.fault(RuleProblem::Key { key: item.key, source });
        keys.push(AccessKey::new(&text).map_err(refused)?);
    }
    let at = table.at;
    let keys = (!keys.is_empty()).then(|| AccessKeys::new(keys)).transpose();
    keys.map_err(|source| RuleProblem::Key { key: "access-key", source }.at(at))
}

fn paths(value: &TomlValue<'_>) -> Result<Vec<PathBuf>, Fault> {
    value.items(ROOTS_MAX)?.iter().map(|item| item.text().map(Into::into)).collect()
}

fn identity(table: &mut TomlTable<'_>) -> Result<Option<(PathBuf, PathBuf)>, Fault> {
    let (certificate, key) = (table.take("upstream-cert"), table.take("upstream-key"));
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some((certificate.text()?.into(), key.text()?.into()))),
        (Some(one), None) => Err(one.fault(RuleProblem::Alone { key: "upstream-cert", needed: "upstream-key" })),
        (None, Some(one)) => Err(one.fault(RuleProblem::Alone { key: "upstream-key", needed: "upstream-cert" })),
        (None, None) => Ok(None),
    }
}

/// Labels of the rules of one kind, in order.
#[derive(Debug, Default)]
pub(super) struct Labels {
    count: usize,
    taken: HashSet<Arc<str>>,
}

impl Labels {
    /// Returns the label of the next rule.
    pub(super) fn take(&mut self, table: &mut TomlTable<'_>) -> Result<Arc<str>, Fault> {
        self.count += 1;
        let (label, at) = match table.take("name") {
            Some(value) => (checked_name("name", value.text()?).map_err(|problem| value.fault(problem))?, value.at),
            None => (self.count.to_string().into(), table.at),
        };
        match self.taken.insert(label.clone()) {
            true => Ok(label),
            false => Err(RuleProblem::Duplicate { key: "name", text: label.to_string() }.at(at)),
        }
    }
}
