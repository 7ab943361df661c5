//! Readiness: whether this node accepts clients, and if not, why.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::shard::Shared;

/// Problems of upstreams without a link, by address.
#[derive(Debug, Default)]
pub(crate) struct UpstreamProblems(Mutex<BTreeMap<String, String>>);

impl UpstreamProblems {
    /// Sets or clears the problem of an upstream.
    pub(crate) fn set(&self, address: &str, problem: Option<String>) {
        let mut problems = self.lock();
        match problem {
            Some(problem) => problems.insert(address.into(), problem),
            None => problems.remove(address),
        };
    }

    /// Lists upstreams with problems, by address.
    #[must_use]
    pub(crate) fn list(&self) -> Vec<(String, String)> {
        self.lock().iter().map(|(address, problem)| (address.clone(), problem.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Readiness of this node, from its hubs and upstream problems. A node is ready while it serves a hub.
#[derive(Debug, Clone)]
pub(crate) struct Readiness {
    shared: Arc<Shared>,
    problems: Arc<UpstreamProblems>,
}

impl Readiness {
    pub(crate) fn new(shared: Arc<Shared>, problems: Arc<UpstreamProblems>) -> Self {
        Self { shared, problems }
    }

    #[must_use]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Reasons for refusing clients; empty if the node is ready.
    #[must_use]
    pub(crate) fn reasons_not_ready(&self) -> Vec<String> {
        if self.shared.has_begun_drain() {
            return vec!["draining: this node is stopping".into()];
        }
        if self.shared.other_nodes().are_sought() {
            return vec!["starting: looking for the other nodes of the fleet".into()];
        }
        if self.shared.hubs_are_served() {
            return Vec::new();
        }
        let problems = self.problems.list();
        if problems.is_empty() {
            return vec![format!("waiting for links of hubs: {}", self.unserved())];
        }
        problems.iter().map(|(address, problem)| format!("waiting for app server {address}: {problem}")).collect()
    }

    /// Warnings of a ready node: hubs without an app server, while other hubs have one.
    #[must_use]
    pub(crate) fn warnings(&self) -> Vec<String> {
        let unserved = self.unserved();
        if unserved.is_empty() || !self.reasons_not_ready().is_empty() {
            return Vec::new();
        }
        vec![format!("no app server serves these hubs: {unserved}")]
    }

    fn unserved(&self) -> String {
        let hubs = self.shared.hubs.unserved();
        hubs.iter().map(|hub| hub.name()).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_solved_problem_is_not_listed_and_the_others_are_by_address() {
        let problems = UpstreamProblems::default();
        problems.set("http://b", Some("refused".into()));
        problems.set("http://a", Some("no answer".into()));
        problems.set("http://b", Some("404".into()));
        let listed =
            |problems: &UpstreamProblems| problems.list().into_iter().map(|(_, text)| text).collect::<Vec<_>>();
        assert_eq!(listed(&problems), ["no answer", "404"]);
        problems.set("http://a", None);
        assert_eq!(listed(&problems), ["404"]);
    }
}
