//! Entries of `[[messages]]`, `[[mirrors]]`, `[[methods]]` and `[[history]]`: rules for messages of a hub's
//! connections.

use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use trunkline_protocol::limits::{
    HISTORY_AGE_MAX, HISTORY_AGE_MIN, HISTORY_AGE_MS, HISTORY_MESSAGES, HISTORY_MESSAGES_MAX,
};
use trunkline_protocol::pattern::{Pattern, PatternError};

use super::group_entry::{KnownGroups, Labels};
use super::toml_value::{TomlTable, TomlValue};
use crate::ground::routing::route_condition::PathPattern;
use crate::ground::routing::rule::{HistoryRule, HistoryTerms, MessageRule, MethodRule, MirrorRule, RecordedSets};
use crate::ground::routing::rule_error::{Fault, RuleProblem};
use crate::ground::routing::target_table::TargetPattern;

/// Maximum number of methods and patterns of a rule. Patterns with wildcards are tried one by one for each call.
const TARGETS_MAX: usize = 256;

/// Maximum rate limit for calls; a higher one would be meaningless.
const PER_SECOND_MAX: u32 = 1_000_000;

/// Maximum message size in a rule, equal to the largest message of any node.
const MESSAGE_MAX_BYTES: u32 = 1024 * 1024 * 1024;

const HUB_ADVICE: &str = "name the hub, such as \"/chat\", or \"*\" for all";

pub(super) fn message(
    value: &TomlValue<'_>,
    labels: &mut Labels,
    groups: &mut KnownGroups,
) -> Result<MessageRule, Fault> {
    let mut table = TomlTable::new("a message rule", value)?;
    let label = labels.take(&mut table)?;
    let hub = hub(&mut table)?;
    let targets = table.require("target", "name a method, such as \"Say\", or a pattern such as \"Admin*\"")?;
    let targets = targets.patterns(TARGETS_MAX, TargetPattern::new)?;
    let group = table.require("group", "name the group that takes these messages")?;
    let group = groups.serving(&group)?;
    table.finish()?;
    Ok(MessageRule { label, hub, targets, group })
}

pub(super) fn mirror(value: &TomlValue<'_>, labels: &mut Labels, groups: &KnownGroups) -> Result<MirrorRule, Fault> {
    let mut table = TomlTable::new("a mirror", value)?;
    let label = labels.take(&mut table)?;
    let hub = hub(&mut table)?;
    let group = table.require("group", "name the group that gets the copies")?;
    let group = groups.mirroring(&group)?;
    let sample = table.take("sample").map(|value| value.fraction(0.0..=1.0)).transpose()?.unwrap_or(1.0);
    let copies_down = table.take("down").map(|value| value.truth()).transpose()?.unwrap_or_default();
    table.finish()?;
    Ok(MirrorRule { label, hub, group, sample, copies_down, counters: Arc::default() })
}

pub(super) fn method(value: &TomlValue<'_>, labels: &mut Labels) -> Result<MethodRule, Fault> {
    let mut table = TomlTable::new("a method rule", value)?;
    let label = labels.take(&mut table)?;
    let hub = hub(&mut table)?;
    let patterns = |value: TomlValue<'_>| value.patterns(TARGETS_MAX, TargetPattern::new);
    let rule = MethodRule {
        label,
        hub,
        deny: table.take("deny").map(patterns).transpose()?.unwrap_or_default(),
        allow: table.take("allow").map(patterns).transpose()?,
        per_second: by_target(table.take("per-second"), |value| value.number(1..=PER_SECOND_MAX))?,
        max_bytes: by_target(table.take("max-bytes"), size)?,
        refused: Arc::default(),
    };
    if rule.deny.is_empty() && rule.allow.is_none() && rule.per_second.is_empty() && rule.max_bytes.is_empty() {
        let advice = "give deny, allow, per-second or max-bytes";
        return Err(table.fault(RuleProblem::Empty { table: "a method rule", advice }));
    }
    table.finish()?;
    Ok(rule)
}

pub(super) fn history(value: &TomlValue<'_>, labels: &mut Labels) -> Result<HistoryRule, Fault> {
    let mut table = TomlTable::new("a history rule", value)?;
    let label = labels.take(&mut table)?;
    let hub = hub(&mut table)?;
    let groups = table.take("groups");
    let users = table.take("users");
    let (of_users, names) = match (groups, users) {
        (Some(groups), None) => (false, groups),
        (None, Some(users)) => (true, users),
        _ => {
            let advice = "give either groups or users, a pattern such as \"chat-*\"";
            return Err(table.fault(RuleProblem::Empty { table: "a history rule", advice }));
        }
    };
    let names = names.patterns(TARGETS_MAX, Pattern::new)?;
    let messages = table.take("messages").map(|value| value.number(1..=HISTORY_MESSAGES_MAX)).transpose()?;
    let age = table.take("age").map(|value| value.milliseconds(HISTORY_AGE_MIN..=HISTORY_AGE_MAX)).transpose()?;
    table.finish()?;
    let messages = usize::try_from(messages.unwrap_or(HISTORY_MESSAGES)).unwrap_or(usize::MAX);
    let terms = HistoryTerms { messages, age: Duration::from_millis(age.unwrap_or(HISTORY_AGE_MS)) };
    Ok(HistoryRule { label, hub, sets: RecordedSets { of_users, names, terms } })
}

fn hub(table: &mut TomlTable<'_>) -> Result<PathPattern, Fault> {
    table.require("hub", HUB_ADVICE)?.pattern(PathPattern::new)
}

/// Reads a table of numbers by method: names first, then patterns in file order.
fn by_target<T>(
    value: Option<TomlValue<'_>>,
    read: impl Fn(&TomlValue<'_>) -> Result<T, Fault>,
) -> Result<Vec<(TargetPattern, T)>, Fault> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let mut entries = Vec::new();
    for (text, at, number) in value.entries(TARGETS_MAX)? {
        let refused = |source: PatternError| RuleProblem::Pattern { key: value.key, text: text.into(), source }.at(at);
        entries.push((TargetPattern::new(text).map_err(refused)?, read(&number)?));
    }
    entries.sort_by_key(|(pattern, _)| !pattern.is_exact());
    Ok(entries)
}

/// Reads a size: a number of bytes, or a text such as `4KiB`.
pub(super) fn size(value: &TomlValue<'_>) -> Result<usize, Fault> {
    let bytes = if value.is_text() { written_size(value)? } else { value.number(1..=MESSAGE_MAX_BYTES)? };
    Ok(usize::try_from(bytes).unwrap_or(usize::MAX))
}

fn written_size(value: &TomlValue<'_>) -> Result<u32, Fault> {
    let text = value.text()?;
    let parsed = text.trim().parse::<ByteSize>().ok().and_then(|size| u32::try_from(size.as_u64()).ok());
    parsed.filter(|bytes| (1..=MESSAGE_MAX_BYTES).contains(bytes)).ok_or_else(|| {
        let wanted = "a number of bytes or a size from \"1B\" to \"1GiB\", such as \"4KiB\"";
        value.fault(RuleProblem::Choice { key: value.key, found: text.into(), wanted })
    })
}
