//! Conditions of the fleet in JSON: active ones, and those of the last day.

use serde::{Deserialize, Serialize};

use crate::ground::condition::{ActiveCondition, ConditionRegistry};

/// Condition of one subject at one node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConditionSnapshot {
    /// Name of the node.
    pub node: String,
    /// Name in the catalogue, such as `hub-without-app-server`.
    pub name: String,
    /// `error` (users are not served) or `warning` (they soon may not be).
    pub severity: String,
    /// Hub, app server, node, file or flag.
    pub subject: String,
    /// State in a few words.
    pub text: String,
    /// Current numbers, or the last ones.
    pub detail: String,
    /// Action for the operator.
    pub remedy: String,
    /// Time of the beginning, in milliseconds since 1970.
    pub since_ms: u64,
    /// Time of the end; `None` while active.
    pub ended_ms: Option<u64>,
}

/// Conditions of all answering nodes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FleetConditions {
    /// Active conditions, errors first, then those of the last day, newest first.
    pub conditions: Vec<ConditionSnapshot>,
    /// Nodes without an answer.
    pub missing: Vec<String>,
}

impl ConditionSnapshot {
    /// Condition of a node, active or ended.
    pub(crate) fn from_condition(node: &str, condition: &ActiveCondition, has_ended: bool) -> Self {
        let entry = condition.kind.entry();
        let lasts_ms = u64::try_from(condition.lasts.as_millis()).unwrap_or(u64::MAX);
        Self {
            node: node.into(),
            name: entry.name.into(),
            severity: entry.severity.label().into(),
            subject: condition.subject.clone(),
            text: entry.text.into(),
            detail: condition.detail.clone(),
            remedy: entry.remedy.into(),
            since_ms: condition.since_ms,
            ended_ms: has_ended.then(|| condition.since_ms.saturating_add(lasts_ms)),
        }
    }

    pub(super) fn active(node: &str, registry: &ConditionRegistry) -> Vec<Self> {
        registry.list().iter().map(|condition| Self::from_condition(node, condition, false)).collect()
    }
}

impl FleetConditions {
    pub(super) fn of_node(node: &str, registry: &ConditionRegistry) -> Self {
        let ended = registry.history();
        let ended = ended.iter().map(|condition| ConditionSnapshot::from_condition(node, condition, true));
        let conditions = ConditionSnapshot::active(node, registry).into_iter().chain(ended).collect();
        Self { conditions, missing: Vec::new() }
    }

    pub(super) fn sort(&mut self) {
        self.conditions.sort_by(|one, other| {
            let key = |of: &ConditionSnapshot| (of.ended_ms.is_some(), of.ended_ms.map_or(0, |ended| u64::MAX - ended));
            (key(one), &one.severity, &one.name, &one.subject).cmp(&(
                key(other),
                &other.severity,
                &other.name,
                &other.subject,
            ))
        });
    }
}
