//! Crashes of other nodes, as app servers are told of them: they give up at once what they would keep for a node that
//! is only cut off.
//!
//! ```text
//!  its address refuses for 2 s, or another start answers there ──► and it has no link to this node ──► a ping to each app server
//! ```
//!
//! A process that is frozen, or cut off, or slow, refuses nothing: its system accepts for it, or nobody answers. An app
//! server that has a socket of that node still believes the socket.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;
use tracing::info;
use trunkline_protocol::service::{CRASHED_NODE_KEY, Ping};

use super::fleet_member::FleetMember;
use crate::shard::Shared;

/// Time for which nobody listens at the address of a node that has crashed: as long as app servers have.
const CRASHED_AFTER: Duration = Duration::from_secs(2);

/// Longest time between two dials of an address that refuses, until its node counts as crashed.
const REFUSED_LOOK: Duration = Duration::from_millis(500);

/// Dials of a member that were refused, one after the other.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    since: Option<Instant>,
    is_told: bool,
}

impl Refusals {
    /// Takes note of one. Returns how long nobody has listened there.
    pub(super) fn note(&mut self, shared: &Shared, member: &FleetMember) -> Duration {
        let lasted = self.since.get_or_insert_with(Instant::now).elapsed();
        if lasted >= CRASHED_AFTER {
            self.tell(shared, member);
        }
        lasted
    }

    /// Tells of the crash, if that was not done.
    pub(super) fn tell(&mut self, shared: &Shared, member: &FleetMember) {
        self.is_told = self.is_told || tell_of_crash(shared, member);
    }

    /// Takes note of a dial that was not refused.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }

    /// Longest time until the next dial.
    #[must_use]
    pub(super) fn longest_wait(&self) -> Duration {
        if self.since.is_some() && !self.is_told { REFUSED_LOOK } else { Duration::MAX }
    }
}

/// Tells the app servers that a node has crashed; `false` if it is linked to this one, and so lives.
#[must_use]
fn tell_of_crash(shared: &Shared, member: &FleetMember) -> bool {
    if member.links().has_incoming_socket() {
        return false;
    }
    let ping = Ping { pairs: vec![(CRASHED_NODE_KEY.into(), member.boot().into())] };
    let mut told = HashSet::new();
    let hubs = shared.hubs.all();
    // Azure's SDK would end all clients of that node, wherever they are by now.
    let pools = hubs.iter().filter(|hub| hub.capabilities().takes_crash_notices).flat_map(|hub| hub.pools().to_vec());
    for pool in pools {
        let links = pool.links();
        if let Some(link) = links.iter().find(|link| link.is_open() && !told.contains(&pool.app().id)) {
            link.outbox().echo(&ping);
            told.insert(pool.app().id);
        }
    }
    let (peer, app_servers) = (member.name(), told.len());
    info!(peer, boot = member.boot(), app_servers, "a node has crashed: app servers are told");
    true
}
