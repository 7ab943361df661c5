//! Snapshots of the active rules, with counts and rates.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::ground::routing::Ruleset;

/// Maximum number of rules in a snapshot.
const RULES_MAX: usize = 200;

/// Snapshot of one rule at one node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RuleSnapshot {
    /// Kind: `route`, `messages`, `mirror` or `methods`.
    pub kind: String,
    /// Name in metrics and logs.
    pub label: String,
    /// Conditions and effect, as text for people.
    pub text: String,
    /// Connections matched by a route, messages sent to a mirror, or calls refused; `None` if not counted.
    pub count: Option<u64>,
    /// Change of the count per second; `None` without a recent snapshot.
    pub per_second: Option<f64>,
    /// Messages dropped for a mirror.
    pub dropped: u64,
}

/// Counts of the previous snapshot, by kind and label of the rule.
pub(super) type RuleCounts = HashMap<(String, String), u64>;

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
        ..row("mirror", &rule.label, rule.to_string(), Some(rule.counters.sent.get()))
    });
    let methods =
        rules.methods.iter().map(|rule| row("methods", &rule.label, rule.to_string(), Some(rule.refused.get())));
    let histories = rules.histories.iter().map(|rule| row("history", &rule.label, rule.to_string(), None));
    routes.chain(messages).chain(mirrors).chain(methods).chain(histories).take(RULES_MAX).collect()
}

/// Adds rates from the previous counts, if any; returns the current counts.
pub(super) fn compare(rules: &mut [RuleSnapshot], before: Option<(&RuleCounts, f64)>) -> RuleCounts {
    let mut counts = RuleCounts::new();
    for rule in rules {
        let (key, Some(count)) = ((rule.kind.clone(), rule.label.clone()), rule.count) else { continue };
        if let Some((before, seconds)) = before
            && let Some(before) = before.get(&key)
        {
            #[expect(clippy::cast_precision_loss, reason = "rates fit into 52 bits")]
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
