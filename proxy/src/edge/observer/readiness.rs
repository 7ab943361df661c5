//! Readiness: whether this node accepts clients, and if not, why.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::engine::shard::Shared;
use crate::engine::upstream::Hub;
use crate::features::store::Store;
use crate::ground::condition::{ActiveCondition, ConditionKind};

/// Problems of upstreams without a link, by address.
#[derive(Debug, Default)]
pub(crate) struct UpstreamProblems(Mutex<BTreeMap<String, UpstreamProblem>>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UpstreamProblem {
    pub text: String,
    pub kind: ConditionKind,
}

impl From<String> for UpstreamProblem {
    fn from(text: String) -> Self {
        Self { text, kind: ConditionKind::AppServerUnreachable }
    }
}

impl UpstreamProblems {
    pub(crate) fn set(&self, address: &str, problem: Option<UpstreamProblem>) {
        let mut problems = self.lock();
        match problem {
            Some(problem) => problems.insert(address.into(), problem),
            None => problems.remove(address),
        };
    }

    pub(crate) fn list(&self) -> Vec<(String, UpstreamProblem)> {
        self.lock().iter().map(|(address, problem)| (address.clone(), problem.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, UpstreamProblem>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Readiness of this node, from its hubs and upstream problems. A node is ready while it serves a hub.
#[derive(Debug, Clone)]
pub(crate) struct Readiness {
    pub(crate) shared: Arc<Shared>,
    problems: Arc<UpstreamProblems>,
    store: Option<Arc<Store>>,
}

impl Readiness {
    pub(crate) fn new(shared: Arc<Shared>, problems: Arc<UpstreamProblems>) -> Self {
        Self { shared, problems, store: None }
    }

    #[must_use]
    pub(crate) fn with_store(self, store: Option<&Arc<Store>>) -> Self {
        Self { store: store.cloned(), ..self }
    }

    pub(super) fn store(&self) -> Option<&Store> {
        self.store.as_deref()
    }

    /// Reasons for refusing clients; empty if the node is ready.
    pub(crate) fn reasons_not_ready(&self) -> Vec<String> {
        if self.shared.has_begun_drain() {
            let left = self.shared.sockets() + self.shared.clients_away();
            return vec![format!("draining: this node is stopping, clients left: {left}")];
        }
        if let Some(reason) = self.store.as_ref().and_then(|store| store.reason_closed()) {
            return vec![reason];
        }
        if self.shared.other_nodes().are_sought() {
            return vec!["starting: looking for the other nodes of the fleet".into()];
        }
        let is_local = |condition: &ActiveCondition| condition.kind.entry().is_local;
        let stuck: Vec<_> = self.conditions().iter().filter(|condition| is_local(condition)).map(describe).collect();
        if !stuck.is_empty() {
            return stuck;
        }
        if self.shared.hubs_are_served() {
            return Vec::new();
        }
        let problems = self.problems.list();
        if problems.is_empty() {
            return vec![format!("waiting for links of hubs: {}", self.unserved())];
        }
        problems
            .iter()
            .map(|(address, problem)| format!("waiting for app server {address}: {}", problem.text))
            .collect()
    }

    /// Warnings: the active conditions, and hubs without an app server while other hubs have one.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.conditions().iter().map(describe).chain(self.unserved_warning()).collect()
    }

    /// Warning about hubs without an app server that are not, or not yet, a condition.
    pub(super) fn unserved_warning(&self) -> Option<String> {
        let conditions = self.conditions();
        let is_new = |hub: &&Arc<Hub>| {
            let is_of = |condition: &ActiveCondition| {
                condition.kind == ConditionKind::HubWithoutAppServer && condition.subject == hub.name()
            };
            !conditions.iter().any(is_of)
        };
        let unserved = self.shared.hubs.unserved();
        let unserved: Vec<_> = unserved.iter().filter(is_new).map(|hub| hub.name()).collect();
        let is_worth_it = !unserved.is_empty() && self.reasons_not_ready().is_empty();
        is_worth_it.then(|| format!("no app server serves these hubs: {}", unserved.join(", ")))
    }

    pub(crate) fn conditions(&self) -> Vec<ActiveCondition> {
        self.shared.reports.conditions.list()
    }

    fn unserved(&self) -> String {
        let hubs = self.shared.hubs.unserved();
        hubs.iter().map(|hub| hub.name()).collect::<Vec<_>>().join(", ")
    }
}

/// Line of a condition in `/readyz`: name, subject, numbers and remedy.
fn describe(condition: &ActiveCondition) -> String {
    let (entry, ActiveCondition { subject, detail, .. }) = (condition.kind.entry(), condition);
    format!("{}: {subject}: {}: {detail} ({})", entry.name, entry.text, entry.remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_solved_problem_is_not_listed_and_the_others_are_by_address() {
        let problems = UpstreamProblems::default();
        problems.set("http://b", Some("refused".to_owned().into()));
        problems.set("http://a", Some("no answer".to_owned().into()));
        problems.set("http://b", Some("404".to_owned().into()));
        let listed = |problems: &UpstreamProblems| {
            problems.list().into_iter().map(|(_, problem)| problem.text).collect::<Vec<_>>()
        };
        assert_eq!(listed(&problems), ["no answer", "404"]);
        problems.set("http://a", None);
        assert_eq!(listed(&problems), ["404"]);
    }
}
