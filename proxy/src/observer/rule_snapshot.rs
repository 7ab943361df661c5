//! Snapshots of the rules in force, with what they have counted and how fast.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::routing::Ruleset;
use crate::shard::{SeenDifference, Shared};

/// Rules in a snapshot.
const RULES_MAX: usize = 200;

/// Differences in a snapshot, the newest ones.
const DIFFERENCES_MAX: usize = 20;

/// Snapshot of one rule at one node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RuleSnapshot {
    /// Kind: `route`, `messages`, `mirror` or `methods`.
    pub kind: String,
    /// Its name in metrics and logs.
    pub label: String,
    /// Its conditions and what it does, for people.
    pub text: String,
    /// Connections that a route has held for, messages that a mirror got, or calls that were refused; `None` where
    /// nothing is counted.
    pub count: Option<u64>,
    /// Rate of that count per second; `None` without a recent snapshot to compare with.
    pub per_second: Option<f64>,
    /// Messages that a mirror has missed.
    pub dropped: u64,
    /// Answers of a mirror that differ from those of the primary app server.
    pub differences: u64,
}

/// Snapshot of an answer of a mirror that differs. It holds no content.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DifferenceSnapshot {
    /// Time, in milliseconds since 1970.
    pub at_ms: u64,
    pub mirror: String,
    pub hub: String,
    /// Connection id, or the first 22 characters of one that is a token.
    pub connection: String,
    pub target: String,
    pub invocation_id: String,
    /// Kind and size of the primary app server's answer.
    pub primary: String,
    /// Kind and size of the mirror's answer.
    pub answer: String,
}

/// Counts of the previous snapshot, by kind and label of the rule.
pub(super) type RuleCounts = HashMap<(String, String), u64>;

/// Takes snapshots of the rules in force.
#[must_use]
pub(super) fn rules(rules: &Ruleset) -> Vec<RuleSnapshot> {
    let row = |kind: &str, label: &str, text: String, count: Option<u64>| RuleSnapshot {
        kind: kind.into(),
        label: label.into(),
        text,
        count,
        ..RuleSnapshot::default()
    };
    let routes = rules.routes.iter().map(|rule| row("route", &rule.label, rule.to_string(), Some(rule.matches.get())));
    let messages = rules.messages.iter().map(|rule| row("messages", &rule.label, rule.to_string(), None));
    let mirrors = rules.mirrors.iter().map(|rule| RuleSnapshot {
        dropped: rule.counters.dropped.get(),
        differences: rule.counters.differences.get(),
        ..row("mirror", &rule.label, rule.to_string(), Some(rule.counters.sent.get()))
    });
    let methods =
        rules.methods.iter().map(|rule| row("methods", &rule.label, rule.to_string(), Some(rule.refused.get())));
    routes.chain(messages).chain(mirrors).chain(methods).take(RULES_MAX).collect()
}

/// Newest differences of a node.
#[must_use]
pub(super) fn differences(shared: &Shared) -> Vec<DifferenceSnapshot> {
    let snapshot = |seen: SeenDifference| DifferenceSnapshot {
        at_ms: seen.at_ms,
        mirror: seen.mirror.to_string(),
        hub: seen.hub.into(),
        connection: seen.connection.into(),
        target: seen.target.into(),
        invocation_id: seen.invocation_id.into(),
        primary: seen.primary,
        answer: seen.answer,
    };
    shared.reports.differences.newest().into_iter().take(DIFFERENCES_MAX).map(snapshot).collect()
}

/// Adds rates since the previous counts, if there are any; returns those of this snapshot.
pub(super) fn compare(rules: &mut [RuleSnapshot], before: Option<(&RuleCounts, f64)>) -> RuleCounts {
    let mut counts = RuleCounts::new();
    for rule in rules {
        let (key, Some(count)) = ((rule.kind.clone(), rule.label.clone()), rule.count) else { continue };
        if let Some((before, seconds)) = before
            && let Some(before) = before.get(&key)
        {
            #[expect(clippy::cast_precision_loss, reason = "rates need no more than 52 bits")]
            let rate = count.saturating_sub(*before) as f64 / seconds.max(0.001);
            rule.per_second = Some((rate * 10.0).round() / 10.0);
        }
        counts.insert(key, count);
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(count: u64) -> RuleSnapshot {
        RuleSnapshot { kind: "route".into(), label: "1".into(), count: Some(count), ..RuleSnapshot::default() }
    }

    #[test]
    fn a_rate_needs_a_count_before() {
        let mut now = [rule(10)];
        let before = compare(&mut now, None);
        assert_eq!(now[0].per_second, None);
        let mut now = [rule(25), RuleSnapshot { label: "2".into(), ..rule(1) }];
        compare(&mut now, Some((&before, 2.0)));
        assert_eq!((now[0].per_second, now[1].per_second), (Some(7.5), None));
    }
}
