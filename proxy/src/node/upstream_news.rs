//! Log messages and problem list of one upstream: its problem, its links and its shutdown, each reported once.
//!
//! Graceful shutdowns and brief absences are part of every rollout, so they are no warnings.

use std::sync::Arc;

use tracing::{debug, info, warn};

use crate::edge::observer::{UpstreamProblem, UpstreamProblems};
use crate::engine::shard::Shared;
use crate::engine::upstream::Pool;
use crate::features::inspection::{hub_names, warn_of_lost_app_server};
use crate::ground::condition::ConditionKind;
use crate::ground::net::address::Address;
use crate::node::manifest::ReadManifestError;

/// Kind of a problem: its text without digits, which may be times.
fn kind(problem: &str) -> String {
    problem.replace(|c: char| c.is_ascii_digit(), "")
}

#[derive(Debug)]
pub(super) struct UpstreamNews {
    address: Address,
    problems: Arc<UpstreamProblems>,
    problem: Option<String>,
    /// The app server has announced its shutdown.
    is_stopping: bool,
    /// Whether all links have been open.
    is_linked: bool,
}

impl UpstreamNews {
    pub(super) fn new(address: Address, problems: Arc<UpstreamProblems>) -> Self {
        Self { address, problems, problem: None, is_stopping: false, is_linked: false }
    }

    /// Reports that the manifest is unreadable. This is `expected` if the name has addresses of both families.
    pub(super) fn report_unreadable(&mut self, error: &ReadManifestError, expected: bool) {
        let is_expected = expected || error.is_refused() || error.is_stopping() || self.is_stopping;
        use ReadManifestError as E;
        let kind = match error {
            E::Key(_) | E::DevelopmentKey(_) => ConditionKind::AppServerRefusesKey,
            // Sidecars and gateways give such an answer while the app server starts.
            E::Status { status, .. } if status.is_server_error() => ConditionKind::AppServerUnreachable,
            E::Node(_) | E::Status { .. } | E::Body { .. } => ConditionKind::AppServerIncompatible,
            E::Request(_) | E::Refused { .. } | E::Middleware { .. } => ConditionKind::AppServerUnreachable,
        };
        let problem = UpstreamProblem { text: error.to_string(), kind };
        self.report_problem(problem, is_expected);
    }

    pub(super) fn report_unusable(&mut self, problem: String) {
        let kind = ConditionKind::AppServerIncompatible;
        self.report_problem(UpstreamProblem { text: problem, kind }, false);
    }

    /// Clears the problem: the upstream is usable, or no longer watched.
    pub(super) fn report_usable(&mut self) {
        self.problem = None;
        self.problems.set(&self.address.to_string(), None);
    }

    /// Stores a problem, and logs it if its kind is new. If it lasts, it is a condition.
    fn report_problem(&mut self, problem: UpstreamProblem, is_expected: bool) {
        let (upstream, text) = (&self.address, &problem.text);
        if self.problem.replace(kind(text)) != Some(kind(text)) {
            match is_expected {
                true => info!(%upstream, problem = text, "waiting for the app server"),
                false => warn!(%upstream, problem = text, "waiting for the app server"),
            }
        }
        self.problems.set(&upstream.to_string(), Some(problem));
    }

    /// Checks the links of the app server and reports changes.
    pub(super) fn update<'a>(&mut self, pools: impl Iterator<Item = &'a Arc<Pool>>) {
        let pools: Vec<_> = pools.cloned().collect();
        let Some(first) = pools.first() else { return };
        let (upstream, app) = (&self.address, &first.app.name);
        if pools.iter().any(|pool| pool.is_draining()) {
            if !std::mem::replace(&mut self.is_stopping, true) {
                info!(%upstream, %app, hubs = hub_names(&pools), "app server stops: reassigning its clients");
            }
            return;
        }
        let open: usize = pools.iter().map(|pool| pool.open_links()).sum();
        let all: usize = pools.iter().map(|pool| pool.size()).sum();
        if open >= all && !std::mem::replace(&mut self.is_linked, true) {
            info!(%upstream, %app, hubs = hub_names(&pools), links = open, "app server linked");
        }
    }

    /// Reports a discovered app server, which replaces the former one.
    pub(super) fn report_found(&mut self, instance: &str) {
        debug!(upstream = %self.address, instance, "app server found");
        self.is_stopping = false;
        self.is_linked = false;
    }

    /// Reports that the app server with these pools is given up, and why.
    pub(super) async fn report_gone(&mut self, shared: &Shared, pools: &[Arc<Pool>], reason: &str) {
        match self.is_stopping {
            true => info!(upstream = %self.address, "app server stopped"),
            false => warn_of_lost_app_server(shared, pools, reason).await,
        }
        self.is_linked = false;
    }
}
