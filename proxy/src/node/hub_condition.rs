//! Conditions of hubs: their app servers, links and webhooks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::app_server_condition::{AppLinks, AppServerSubject, AppSights, limited};
use crate::edge::observer::{UpstreamProblems, unassigned_clients};
use crate::engine::shard::Shared;
use crate::engine::upstream::{AppTarget, Hub};
use crate::features::inspection::UnassignedClients;
use crate::features::webhook::Webhooks;
use crate::ground::auth::Signer;
use crate::ground::condition::{ConditionKind, Finding, HubSight, KnownHub};

/// Time after the start of a node in which missing app servers, and other nodes that were never linked, are normal.
pub(super) const START_TIME: Duration = Duration::from_secs(60);

/// Tolerated time without an app server after a crash, while clients wait.
const CRASH_TIME: Duration = Duration::from_secs(2);

/// Tolerated time without an app server after a graceful stop, while clients wait.
const RESTART_TIME: Duration = Duration::from_secs(15);

/// Time without an app server for a hub without clients.
const IDLE_TIME: Duration = Duration::from_secs(30);

/// Time for which a hub must be served to be missed without clients. Tests and previews serve their hubs for less.
const LASTING_HUB: Duration = Duration::from_secs(600);

pub(super) struct HubConditions {
    shared: Arc<Shared>,
    webhooks: Arc<Webhooks>,
    problems: Arc<UpstreamProblems>,
    /// App servers of the last hour.
    apps: AppSights,
}

impl HubConditions {
    pub(super) fn new(shared: Arc<Shared>, webhooks: Arc<Webhooks>, problems: Arc<UpstreamProblems>) -> Self {
        Self { shared, webhooks, problems, apps: AppSights::default() }
    }

    pub(super) async fn findings(&mut self, now: Instant) -> Vec<Finding> {
        let living = self.shared.hubs.living();
        self.note_hubs(&living, now);
        let mut findings = self.unserved(&living, now).await;
        findings.extend(limited(self.app_servers(&living, now)));
        let problems = self.problems.list().into_iter();
        findings.extend(problems.map(|(address, problem)| Finding::new(problem.kind, address, problem.text)));
        findings.extend(self.webhooks.findings());
        findings
    }

    /// Records which hubs are served. Hubs of webhooks need no app server, and unexpected hubs never had one.
    fn note_hubs(&self, living: &[Arc<Hub>], now: Instant) {
        let mut sights = BTreeMap::<String, HubSight>::new();
        let expected = self.shared.hubs.unserved();
        for hub in living.iter().filter(|hub| !hub.has_webhook()) {
            let (pools, is_served) = (hub.pools(), hub.is_served());
            let is_expected = expected.iter().any(|other| Arc::ptr_eq(other, hub));
            if !is_served && !is_expected && !self.shared.reports.known_hubs.has(hub.name()) {
                continue;
            }
            let counters = self.shared.counters().iter();
            let clients: u64 = counters.map(|counters| counters.hub(hub.index().get()).open()).sum();
            let sight = sights.entry(hub.name().to_owned()).or_default();
            sight.is_served |= is_served;
            sight.is_stopping |= pools.iter().any(|pool| pool.is_stopping());
            sight.clients += clients;
        }
        self.shared.reports.known_hubs.note(sights, now);
    }

    async fn unserved(&self, living: &[Arc<Hub>], now: Instant) -> Vec<Finding> {
        let hubs = self.shared.reports.known_hubs.list().into_iter();
        let unserved: Vec<_> = hubs.filter_map(|(name, hub)| Some((name, hub.unserved(now)?, hub))).collect();
        if unserved.is_empty() || self.shared.has_begun_drain() {
            return Vec::new();
        }
        let (waiting_clients, mut findings) = (unassigned_clients(&self.shared).await, Vec::new());
        let is_starting = self.shared.uptime() < START_TIME;
        for (name, unserved, hub) in unserved {
            let present = living.iter().filter(|present| present.name() == name);
            let mut waiting = UnassignedClients::default();
            present
                .filter_map(|hub| waiting_clients.get(&hub.index()))
                .for_each(|clients| waiting.merge_others(*clients));
            // A hub that this node has served is missed in its first minute, too.
            let may_be_missed = hub.served_for().is_some() || !is_starting;
            if may_be_missed && is_missed(&hub, waiting.count, unserved, self.hold()) {
                let app = app_of(&self.shared.access.owner_of(&name));
                let detail = self.numbers(waiting, unserved);
                findings.push((app, Finding::new(ConditionKind::HubWithoutAppServer, name, detail)));
            }
        }
        limited(findings)
    }

    fn hold(&self) -> Duration {
        Duration::from_secs(self.shared.settings.rehoming.hold_timeout_s.into())
    }

    /// Clients of a stopping app server wait only once it has closed its links, so their time is counted separately.
    fn numbers(&self, waiting: UnassignedClients, unserved: Duration) -> String {
        let unserved_s = unserved.as_secs();
        match waiting.count {
            0 => format!("for {unserved_s} s, no client waits"),
            count => {
                let left_s = self.shared.settings.rehoming.hold_timeout_s.saturating_sub(waiting.waited_s);
                format!("for {unserved_s} s, waiting clients: {count}, closed in {left_s} s")
            }
        }
    }

    fn app_servers(&mut self, living: &[Arc<Hub>], now: Instant) -> Vec<(Arc<str>, Finding)> {
        let mut apps = BTreeMap::<AppServerSubject, AppLinks>::new();
        for hub in living.iter().filter(|hub| !hub.has_webhook()) {
            let owner = app_of(&self.shared.access.owner_of(hub.name()));
            for pool in hub.pools().iter() {
                let (app, down) = (&pool.app, pool.down() + pool.resuming());
                let subject = match &app.target {
                    AppTarget::Network(address) => format!("{} at {address}", app.name),
                    AppTarget::DialsIn(Some(ip)) => format!("{} at {ip}", app.name),
                    AppTarget::Memory(_) | AppTarget::DialsIn(None) => app.name.clone(),
                };
                let key = (owner.clone(), subject);
                // App servers without links for clients only send, and may end at any time.
                if !pool.links().iter().any(|link| link.may_carry_clients()) {
                    // One without clients stops within a second.
                    if pool.is_stopping() {
                        self.apps.note_stop(&key);
                    }
                    continue;
                }
                let links = apps.entry(key).or_default();
                links.hubs.push(hub.name().to_owned());
                links.open += pool.open_links();
                links.wanted += pool.open_links() + down;
                let silence = pool.silence().filter(|_| pool.open_links() > 0);
                links.silence = links.silence.into_iter().chain(silence).min();
                links.is_full |= pool.links().iter().any(|link| link.is_full());
                links.is_stopping |= pool.is_stopping();
            }
        }
        let mut findings = self.apps.note(&apps, now);
        findings.extend(apps.into_iter().filter_map(|((app, name), links)| Some((app, links.finding(name)?))));
        findings
    }
}

/// Name of an app; empty for holders of the access key.
fn app_of(owner: &Signer) -> Arc<str> {
    match owner {
        Signer::Fleet => "".into(),
        Signer::App(name) => name.clone(),
    }
}

/// Whether a hub without an app server is missed, and not just restarting or removed by a release.
fn is_missed(hub: &KnownHub, waiting: usize, unserved: Duration, hold: Duration) -> bool {
    let lasted = || hub.served_for().is_none_or(|served| served >= LASTING_HUB);
    match (hub.is_present, hub.has_stopped, waiting > 0) {
        (true, false, true) => unserved >= CRASH_TIME,
        (true, true, true) => unserved >= RESTART_TIME,
        (true, false, false) => unserved >= IDLE_TIME && lasted(),
        // A hub that a release has dropped is removed after the hold timeout.
        (true, true, false) => unserved >= hold + IDLE_TIME && lasted(),
        (false, is_release, _) => {
            !is_release && (hub.had_clients || hub.served_for().is_some_and(|served| served >= LASTING_HUB))
        }
    }
}
