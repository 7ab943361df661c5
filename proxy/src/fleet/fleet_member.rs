//! Member of the fleet: one process start of another node.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use trunkline_protocol::fleet::{
    Awaited, Greeting, InterestUpdate, LATE_AFTER_MS, NodePhase, NodeState, PeerInterest, PeerPresence, PresenceUpdate,
    Wanted,
};
use trunkline_protocol::limits::INTEREST_STALE_MS;

use super::member_links::MemberLinks;
use super::node_link::NodeLink;
use crate::ground::net::address::Address;

/// Time from the greeting of a node until missing links are logged. DNS names may resolve late.
const SETTLING_MAX: Duration = Duration::from_secs(10);

/// Time from the greeting of a node to its first link, and from its last link until it is gone.
const UNLINKED_MAX: Duration = Duration::from_secs(10);

/// State of a node, as seen by another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberState {
    /// The node does not accept clients yet.
    Starting,
    /// The node accepts clients.
    #[default]
    Ready,
    /// The node is about to stop.
    Draining,
    /// An answer of the node is overdue, or one of its two links is missing.
    Late,
    /// The address of the node refuses connections.
    Unreachable,
}

impl MemberState {
    pub(crate) const ALL: [Self; 5] = [Self::Starting, Self::Ready, Self::Draining, Self::Late, Self::Unreachable];

    /// Label in metrics, logs and snapshots.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Late => "late",
            Self::Unreachable => "unreachable",
        }
    }
}

impl From<NodePhase> for MemberState {
    fn from(phase: NodePhase) -> Self {
        match phase {
            NodePhase::Starting => Self::Starting,
            NodePhase::Ready => Self::Ready,
            NodePhase::Draining => Self::Draining,
        }
    }
}

#[derive(Debug)]
pub(crate) struct FleetMember {
    name: String,
    boot: Arc<str>,
    version: String,
    /// Admin port for other nodes.
    address: ArcSwapOption<Address>,
    pub(crate) links: MemberLinks,
    interest: ArcSwap<PeerInterest>,
    presence: ArcSwap<PeerPresence>,
    client_port: Option<Address>,
    met_at: Instant,
    status: Mutex<MemberStatus>,
}

#[derive(Debug, Default)]
struct MemberStatus {
    reported: Option<NodeState>,
    /// The last dial was refused.
    is_refused: bool,
    /// The node has said goodbye, or is certainly gone.
    has_left: bool,
    /// Number of messages dropped since the node last accepted one.
    dropped: u64,
    /// Number of messages that it has missed since its start, and the time of the last one.
    missed: Option<(u64, Instant)>,
    /// State that was logged last.
    noted: Option<MemberState>,
    /// Start of the time without a link.
    unlinked_since: Option<Instant>,
    /// Time of the last answer to a beat of the node over the outgoing link, which carries the interest.
    echoed_ms: Option<u64>,
}

impl FleetMember {
    pub(super) fn new(greeting: &Greeting, address: Option<Address>) -> Self {
        Self {
            name: greeting.name.clone(),
            boot: greeting.boot.as_str().into(),
            version: greeting.version.clone(),
            address: ArcSwapOption::from_pointee(address),
            links: MemberLinks::default(),
            interest: ArcSwap::default(),
            presence: ArcSwap::default(),
            client_port: greeting.advertised.as_deref().and_then(Address::of_other_node),
            met_at: Instant::now(),
            status: Mutex::default(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn boot(&self) -> &str {
        &self.boot
    }

    pub(super) fn boot_id(&self) -> &Arc<str> {
        &self.boot
    }

    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Admin port for other nodes; `None` until this node has reached the port.
    pub(crate) fn address(&self) -> Option<Arc<Address>> {
        self.address.load_full()
    }

    pub(super) fn set_address(&self, address: &Address) {
        self.address.store(Some(Arc::new(address.clone())));
    }

    pub(super) fn set_outgoing(&self, link: Option<Arc<NodeLink>>) {
        let mut status = self.status();
        (status.is_refused, status.has_left) = (false, status.has_left && link.is_none());
        drop(status);
        self.links.set_outgoing(link);
    }

    /// Replaces the incoming link. A new session starts without interest and presence, which the node sends again.
    pub(super) fn set_incoming(&self, link: Option<Arc<NodeLink>>) {
        if link.is_some() {
            self.status().has_left = false;
        }
        self.interest.store(Arc::default());
        self.presence.store(Arc::default());
        self.links.set_incoming(link);
    }

    /// Whether any client of the node may want a message.
    pub(super) fn may_want(&self, hub: &str, wanted: &[Wanted<'_>], now_ms: u64) -> bool {
        self.interest.load().may_want(hub, wanted, now_ms)
    }

    /// Whether the node has ever reported clients of a hub.
    pub(super) fn has_announced(&self, hub: &str) -> bool {
        self.interest.load().has_announced(hub)
    }

    /// Called by the one reader of the incoming link.
    pub(super) fn apply_interest(&self, update: InterestUpdate) {
        let mut interest = PeerInterest::clone(&self.interest.load());
        interest.apply(update);
        self.interest.store(Arc::new(interest));
    }

    pub(super) fn presence(&self) -> Arc<PeerPresence> {
        self.presence.load_full()
    }

    /// Called by the one reader of the incoming link.
    pub(super) fn apply_presence(&self, update: PresenceUpdate) {
        let mut presence = PeerPresence::clone(&self.presence.load());
        presence.apply(update);
        self.presence.store(Arc::new(presence));
    }

    pub(crate) fn client_port(&self) -> Option<&Address> {
        self.client_port.as_ref()
    }

    /// Notes that the reported interest is complete as of this time.
    pub(super) fn confirm(&self, asked_ms: u64) {
        let mut interest = PeerInterest::clone(&self.interest.load());
        interest.confirm(asked_ms);
        self.interest.store(Arc::new(interest));
    }

    /// Notes that a beat of the node was answered at this time over the outgoing link.
    pub(super) fn note_echo(&self, now_ms: u64) {
        self.status().echoed_ms = Some(now_ms);
    }

    /// Time until the node has received everything queued now. `None` if it has no interest from this node.
    pub(super) fn awaited(&self, now_ms: u64) -> Option<Awaited<Arc<str>>> {
        let status = self.status();
        // The beat preceded its answer. From then on, the node uses its interest for this time.
        let until_ms = status.echoed_ms? + INTEREST_STALE_MS + 1;
        if status.has_left || until_ms <= now_ms {
            return None;
        }
        drop(status);
        let beat = self.links.outgoing().map_or(u64::MAX, |link| link.beat_behind());
        Some(Awaited { peer: self.boot.clone(), beat, until_ms })
    }

    pub(super) fn set_reported(&self, state: NodeState) {
        self.status().reported = Some(state);
    }

    pub(super) fn set_left(&self) {
        self.status().has_left = true;
    }

    pub(super) fn set_refused(&self) {
        self.status().is_refused = true;
    }

    /// Whether missing links are expected: the node has just greeted, or is about to stop.
    pub(crate) fn may_be_away(&self) -> bool {
        let is_new = self.status().noted.is_none() && self.age() < SETTLING_MAX;
        is_new || self.is_leaving()
    }

    pub(super) fn age(&self) -> Duration {
        self.met_at.elapsed()
    }

    /// Whether the node is about to stop, or has said goodbye.
    pub(super) fn is_leaving(&self) -> bool {
        let status = self.status();
        status.has_left || status.reported.as_ref().is_some_and(|reported| reported.phase == NodePhase::Draining)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.status().reported.as_ref().is_some_and(|reported| reported.phase == NodePhase::Draining)
    }

    /// Notes that the node has accepted a socket.
    pub(super) fn set_reached(&self) {
        self.status().is_refused = false;
    }

    /// Whether the state differs from the last call.
    pub(super) fn has_changed(&self, state: MemberState) -> bool {
        self.status().noted.replace(state) != Some(state)
    }

    /// Whether the node has left, or had no link for too long. A node links soon after its greeting.
    pub(super) fn is_gone(&self) -> bool {
        if self.links.living().next().is_some() {
            self.status().unlinked_since = None;
            return false;
        }
        let mut status = self.status();
        let since = *status.unlinked_since.get_or_insert_with(Instant::now);
        status.has_left || since.elapsed() > UNLINKED_MAX
    }

    /// Hash of the members that the node reports.
    pub(super) fn view(&self) -> Option<u64> {
        self.status().reported.as_ref().map(|reported| reported.view)
    }

    /// Counts dropped messages. Returns `true` for the first since a message was accepted.
    pub(super) fn note_dropped(&self, count: u64) -> bool {
        let mut status = self.status();
        let is_first = status.dropped == 0;
        status.dropped += count;
        let before = status.missed.map_or(0, |(missed, _)| missed);
        status.missed = Some((before + count, Instant::now()));
        is_first
    }

    /// Number of messages that the node has missed, and the time of the last one.
    pub(crate) fn missed(&self) -> Option<(u64, Instant)> {
        self.status().missed
    }

    pub(super) fn take_dropped(&self) -> u64 {
        std::mem::take(&mut self.status().dropped)
    }

    pub(crate) fn state(&self, now_ms: u64) -> MemberState {
        let are_open = self.links.are_open();
        let status = self.status();
        match &status.reported {
            _ if status.is_refused && !are_open => MemberState::Unreachable,
            Some(reported) if are_open && self.links.lag_ms(now_ms) < LATE_AFTER_MS => reported.phase.into(),
            _ => MemberState::Late,
        }
    }

    fn status(&self) -> MutexGuard<'_, MemberStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
