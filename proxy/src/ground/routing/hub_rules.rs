//! Rules of one hub for its client readers, compiled so that a message needs few lookups.

use std::sync::Arc;

use trunkline_protocol::limits::HISTORY_PATTERNS_MAX;
use trunkline_protocol::manifest::RecordedNames;
use trunkline_protocol::service::RecordedSet;

use super::path_reading::fold;
use super::rule::{HistoryRule, HistoryTerms, MessageRule, MethodRule, MirrorRule, RecordedSets};
use super::target_table::TargetTable;
use crate::ground::metrics::Counter;

/// Maximum number of characters of a method name in a refusal. Clients may send any name.
const SHOWN_TARGET_CHARS: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MethodVerdict {
    Allowed,
    /// Refused by the rule with this label; the text is sent to the client.
    Refused {
        rule: Arc<str>,
        text: String,
    },
    /// Allowed at this rate per second and user, counted per rule and method or pattern.
    Limited {
        rule: Arc<str>,
        method: Arc<str>,
        per_second: u32,
    },
}

/// Rate limit for calls of one user.
#[derive(Debug, Clone)]
struct MethodRate {
    /// Method or pattern of the rule. All methods of a pattern share one budget, because clients could invent names.
    method: Arc<str>,
    per_second: u32,
}

#[derive(Debug, Clone)]
struct MethodGate {
    label: Arc<str>,
    deny: TargetTable<()>,
    allow: Option<TargetTable<()>>,
    max_bytes: TargetTable<usize>,
    rates: TargetTable<MethodRate>,
    refused: Arc<Counter>,
}

impl From<&MethodRule> for MethodGate {
    fn from(rule: &MethodRule) -> Self {
        let rate = |per_second, method: &Arc<str>| MethodRate { method: method.clone(), per_second };
        Self {
            label: rule.label.clone(),
            deny: rule.deny.iter().map(|pattern| (pattern, ())).collect(),
            allow: rule.allow.as_ref().map(|allow| allow.iter().map(|pattern| (pattern, ())).collect()),
            max_bytes: rule.max_bytes.iter().map(|(pattern, most)| (pattern, *most)).collect(),
            rates: rule.per_second.iter().map(|(pattern, most)| (pattern, rate(*most, &pattern.text))).collect(),
            refused: rule.refused.clone(),
        }
    }
}

impl MethodGate {
    /// Text for the client if the rule refuses this method or message size.
    fn refusal(&self, target: &str, folded: &str, bytes: usize) -> Option<String> {
        let is_allowed = || self.allow.as_ref().is_none_or(|allow| allow.find(folded).is_some());
        if self.deny.find(folded).is_some() || !is_allowed() {
            return Some(format!("The method '{}' can't be called: the server's rules refuse it.", shown(target)));
        }
        let most = self.max_bytes.find(folded).filter(|most| bytes > **most)?;
        Some(format!("The method '{}' can't be called with a message of more than {most} bytes.", shown(target)))
    }
}

fn shown(target: &str) -> String {
    target.chars().filter(|letter| !letter.is_control()).take(SHOWN_TARGET_CHARS).collect()
}

/// Maximum length of a method name examined by rules, in bytes; equal to the maximum length of a pattern.
const TARGET_MAX_BYTES: usize = 256;

/// The first mirror of each group: an app server can get only one copy of a connection.
fn first_of_each_group<'a>(mirrors: impl IntoIterator<Item = &'a MirrorRule>) -> Vec<MirrorRule> {
    let mut kept: Vec<MirrorRule> = Vec::new();
    for mirror in mirrors {
        if kept.iter().all(|known| known.group != mirror.group) {
            kept.push(mirror.clone());
        }
    }
    kept
}

#[derive(Debug, Clone, Default)]
pub(crate) struct HubRules {
    groups: TargetTable<Arc<str>>,
    message_groups: Vec<Arc<str>>,
    gates: Vec<MethodGate>,
    mirrors: Vec<MirrorRule>,
    histories: Vec<RecordedSets>,
}

impl HubRules {
    /// Compiles the rules that name the hub, in order.
    pub(super) fn new<'a>(
        messages: impl IntoIterator<Item = &'a MessageRule>,
        methods: impl IntoIterator<Item = &'a MethodRule>,
        mirrors: impl IntoIterator<Item = &'a MirrorRule>,
        histories: impl IntoIterator<Item = &'a HistoryRule>,
    ) -> Self {
        let targets = |rule: &'a MessageRule| rule.targets.iter().map(|target| (target, rule.group.clone()));
        let groups: TargetTable<_> = messages.into_iter().flat_map(targets).collect();
        let mut message_groups: Vec<Arc<str>> = groups.values().cloned().collect();
        message_groups.sort_unstable();
        message_groups.dedup();
        Self {
            groups,
            message_groups,
            gates: methods.into_iter().map(Into::into).collect(),
            mirrors: first_of_each_group(mirrors),
            histories: histories.into_iter().map(|rule| rule.sets.clone()).collect(),
        }
    }

    /// Rules of the operator, with the records that the app servers of a hub have chosen in place of theirs.
    pub(crate) fn with_records(rules: Option<&Self>, recorded: &[RecordedNames]) -> Option<Arc<Self>> {
        let mut rules = rules.cloned().unwrap_or_default();
        rules.histories = recorded.iter().take(HISTORY_PATTERNS_MAX).filter_map(RecordedSets::of_app).collect();
        (!rules.is_empty()).then(|| Arc::new(rules))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.gates.is_empty() && self.mirrors.is_empty() && !self.has_history()
    }

    /// Whether any rule needs individual messages. Otherwise they are forwarded unread, in runs.
    pub(crate) fn read_messages(&self) -> bool {
        !self.groups.is_empty() || !self.gates.is_empty() || self.has_history()
    }

    /// Whether any group or user is recorded.
    pub(crate) fn has_history(&self) -> bool {
        !self.histories.is_empty()
    }

    /// How many messages to a group or a user are kept; `None` without a record. The first rule counts.
    pub(crate) fn history_of(&self, set: &RecordedSet) -> Option<HistoryTerms> {
        let records = |rule: &&RecordedSets| {
            rule.of_users == set.is_user && rule.names.iter().any(|name| name.matches(&set.name))
        };
        self.histories.iter().find(records).map(|rule| rule.terms)
    }

    /// Whether any rule allows or refuses methods.
    pub(crate) fn judge_methods(&self) -> bool {
        !self.gates.is_empty()
    }

    /// Group for invocations of this method; `None` for the connection's home.
    pub(crate) fn group_of(&self, target: &str) -> Option<&Arc<str>> {
        let is_asked = !self.groups.is_empty() && target.len() <= TARGET_MAX_BYTES;
        if is_asked { self.groups.find(&fold(target)) } else { None }
    }

    /// Groups for methods of this hub, without duplicates.
    pub(crate) fn message_groups(&self) -> impl Iterator<Item = &Arc<str>> {
        self.message_groups.iter()
    }

    /// Checks an invocation of this method with a message of this size in bytes. One refusing rule is enough; the
    /// lowest rate applies.
    pub(crate) fn judge(&self, target: &str, bytes: usize) -> MethodVerdict {
        if self.gates.is_empty() {
            return MethodVerdict::Allowed;
        }
        if target.len() > TARGET_MAX_BYTES {
            // Bounds the work per call.
            let text = format!(
                "A method name of {} bytes can't be called: the server's rules allow {TARGET_MAX_BYTES}.",
                target.len()
            );
            return MethodVerdict::Refused {
                rule: self.gates.first().map_or_else(|| "".into(), |gate| gate.label.clone()),
                text,
            };
        }
        let folded = fold(target);
        let refused = self.gates.iter().find_map(|gate| Some((gate, gate.refusal(target, &folded, bytes)?)));
        if let Some((gate, text)) = refused {
            return MethodVerdict::Refused { rule: gate.label.clone(), text };
        }
        let rates = self.gates.iter().filter_map(|gate| Some((gate, gate.rates.find(&folded)?)));
        rates.min_by_key(|(_, rate)| rate.per_second).map_or(MethodVerdict::Allowed, |(gate, rate)| {
            let (rule, method) = (gate.label.clone(), rate.method.clone());
            MethodVerdict::Limited { rule, method, per_second: rate.per_second }
        })
    }

    /// Counts a refused call, for the rule in a verdict of [`judge`](Self::judge).
    pub(crate) fn count_refusal(&self, rule: &Arc<str>) {
        if let Some(gate) = self.gates.iter().find(|gate| Arc::ptr_eq(&gate.label, rule)) {
            gate.refused.increment();
        }
    }

    /// Mirrors that get copies of this connection.
    pub(crate) fn mirrors_of(&self, connection_id: &str) -> impl Iterator<Item = &MirrorRule> {
        self.mirrors.iter().filter(move |mirror| mirror.samples(connection_id))
    }
}
