//! Crash notices: app servers drop state that they would keep for a node that is only unreachable.
//!
//! ```text
//!  connection refused for 2 s, or another start answers ──► and the node has no link to this one ──► ping to each app server
//! ```
//!
//! A frozen, disconnected or slow process refuses no connection: its kernel accepts, or the dial times out. An app
//! server with an open socket from the node ignores the notice.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;
use trunkline_protocol::service::{CRASHED_NODE_KEY, Ping};

use super::fleet_member::FleetMember;
use crate::engine::shard::Shared;

/// Time for which connections must be refused until a node counts as crashed, as in app servers.
const CRASHED_AFTER: Duration = Duration::from_secs(2);

/// Maximum time between two dials of a refusing address until the node counts as crashed.
const REFUSED_LOOK: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
pub(super) struct Refusals {
    since: Option<Instant>,
    is_reported: bool,
}

impl Refusals {
    /// Records a refused dial. Returns how long dials have been refused.
    pub(super) fn note_refusal(&mut self, shared: &Shared, member: &FleetMember) -> Duration {
        let lasted = self.since.get_or_insert_with(Instant::now).elapsed();
        if lasted >= CRASHED_AFTER {
            self.report(shared, member);
        }
        lasted
    }

    /// Reports the crash once.
    pub(super) fn report(&mut self, shared: &Shared, member: &FleetMember) {
        self.is_reported = self.is_reported || report_crash(shared, member);
    }

    /// Records a dial that was not refused.
    pub(super) fn end_refusals(&mut self) {
        *self = Self::default();
    }

    pub(super) fn longest_wait(&self) -> Duration {
        if self.since.is_some() && !self.is_reported { REFUSED_LOOK } else { Duration::MAX }
    }
}

/// Notifies app servers that a node has crashed. Returns `false` if the node has a link to this one and so is alive.
#[must_use]
fn report_crash(shared: &Shared, member: &FleetMember) -> bool {
    if member.links.has_incoming_socket() {
        return false;
    }
    let ping = Ping { pairs: vec![(CRASHED_NODE_KEY.into(), member.boot().into())] };
    let mut notified = HashSet::new();
    let hubs = shared.hubs.all();
    // Azure's SDK would end all clients of that node, even those already at another node.
    let pools = hubs.iter().filter(|hub| hub.capabilities().takes_crash_notices).flat_map(|hub| hub.pools().to_vec());
    for pool in pools {
        let links = pool.links();
        if let Some(link) = links.iter().find(|link| link.is_open() && !notified.contains(&pool.app.id)) {
            link.outbox().echo(&ping);
            notified.insert(pool.app.id);
        }
    }
    warn!(peer = member.name(), boot = member.boot(), notified_app_servers = notified.len(), "node crashed");
    true
}
