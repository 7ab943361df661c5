//! Member of the fleet: one start of another node, as this node sees it.

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
use crate::net::address::Address;

/// Time from the greeting of a node until both links to it are open, after which it is missed: names resolve late.
const SETTLING_MAX: Duration = Duration::from_secs(10);

/// Time from the greeting of a node to its first link, and from its last link until it is gone.
const UNLINKED_MAX: Duration = Duration::from_secs(10);

/// State of a node, as another one sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberState {
    /// It does not accept clients yet, or not at the moment.
    Starting,
    /// It accepts clients now.
    #[default]
    Ready,
    /// It is about to stop.
    Draining,
    /// It owes an answer, or one of the two links to it is missing.
    Late,
    /// Nobody listens at its address.
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

/// One start of another node.
#[derive(Debug)]
pub(crate) struct FleetMember {
    name: String,
    boot: Arc<str>,
    version: String,
    /// Its admin port, where other nodes reach it.
    address: ArcSwapOption<Address>,
    links: MemberLinks,
    interest: ArcSwap<PeerInterest>,
    presence: ArcSwap<PeerPresence>,
    /// Its port for clients, at which other nodes reach it, too.
    client_port: Option<Address>,
    met_at: Instant,
    status: Mutex<MemberStatus>,
}

#[derive(Debug, Default)]
struct MemberStatus {
    /// State that it tells of itself; `None` until it has.
    told: Option<NodeState>,
    /// Nobody listened at the last dial.
    is_refused: bool,
    /// It has said goodbye, or is gone with certainty.
    has_left: bool,
    /// Messages that were dropped since it took any.
    dropped: u64,
    /// State that was logged last.
    noted: Option<MemberState>,
    /// Moment since which it has no link.
    unlinked_since: Option<Instant>,
    /// Time of the last answer to one of its beats over the link that tells it of interest.
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
            client_port: greeting.advertised.as_ref().and_then(|url| url.parse().ok()),
            met_at: Instant::now(),
            status: Mutex::default(),
        }
    }

    #[must_use]
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Random id of this start.
    #[must_use]
    pub(crate) fn boot(&self) -> &str {
        &self.boot
    }

    /// Boot id in a form that may be kept.
    pub(super) fn boot_id(&self) -> &Arc<str> {
        &self.boot
    }

    #[must_use]
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Its admin port, where other nodes reach it; `None` as long as only it has reached this node.
    #[must_use]
    pub(crate) fn address(&self) -> Option<Arc<Address>> {
        self.address.load_full()
    }

    pub(super) fn set_address(&self, address: &Address) {
        self.address.store(Some(Arc::new(address.clone())));
    }

    /// Links to it and from it.
    #[must_use]
    pub(crate) fn links(&self) -> &MemberLinks {
        &self.links
    }

    pub(super) fn set_outgoing(&self, link: Option<Arc<NodeLink>>) {
        let mut status = self.status();
        (status.is_refused, status.has_left) = (false, status.has_left && link.is_none());
        drop(status);
        self.links.set_outgoing(link);
    }

    /// A new session begins without any knowledge of its interest and its app servers: it tells all again.
    pub(super) fn set_incoming(&self, link: Option<Arc<NodeLink>>) {
        if link.is_some() {
            self.status().has_left = false;
        }
        self.interest.store(Arc::default());
        self.presence.store(Arc::default());
        self.links.set_incoming(link);
    }

    /// Whether somebody there may want a message.
    #[must_use]
    pub(super) fn may_want(&self, hub: &str, wanted: &[Wanted<'_>], now_ms: u64) -> bool {
        self.interest.load().may_want(hub, wanted, now_ms)
    }

    /// Whether it has told of clients of a hub.
    #[must_use]
    pub(super) fn has_told(&self, hub: &str) -> bool {
        self.interest.load().has_told(hub)
    }

    /// Takes what it tells of its interest. Called by the one reader of its link.
    pub(super) fn learn(&self, update: InterestUpdate) {
        let mut interest = PeerInterest::clone(&self.interest.load());
        interest.apply(update);
        self.interest.store(Arc::new(interest));
    }

    /// App servers that have dialled in there, as far as it has told.
    pub(super) fn presence(&self) -> Arc<PeerPresence> {
        self.presence.load_full()
    }

    /// Takes what it tells of its app servers. Called by the one reader of its link.
    pub(super) fn learn_presence(&self, update: PresenceUpdate) {
        let mut presence = PeerPresence::clone(&self.presence.load());
        presence.apply(update);
        self.presence.store(Arc::new(presence));
    }

    /// Its port for clients, if it has told it.
    pub(super) fn client_port(&self) -> Option<&Address> {
        self.client_port.as_ref()
    }

    /// Notes that it has told all that it knew at this time.
    pub(super) fn confirm(&self, asked_ms: u64) {
        let mut interest = PeerInterest::clone(&self.interest.load());
        interest.confirm(asked_ms);
        self.interest.store(Arc::new(interest));
    }

    /// Notes that one of its beats is answered at this time, over the link that tells it of interest.
    pub(super) fn note_echo(&self, now_ms: u64) {
        self.status().echoed_ms = Some(now_ms);
    }

    /// How to wait until it has heard what was told now; `None` if it goes by nothing that it was told before.
    pub(super) fn awaited(&self, now_ms: u64) -> Option<Awaited<Arc<str>>> {
        let status = self.status();
        // It had asked before it was answered, and believes what it knows for that long from then on.
        let until_ms = status.echoed_ms? + INTEREST_STALE_MS + 1;
        if status.has_left || until_ms <= now_ms {
            return None;
        }
        drop(status);
        let beat = self.links.outgoing().map_or(u64::MAX, |link| link.beat_behind());
        Some(Awaited { peer: self.boot.clone(), beat, until_ms })
    }

    pub(super) fn set_told(&self, state: NodeState) {
        self.status().told = Some(state);
    }

    /// Notes that it has said goodbye, or is gone with certainty.
    pub(super) fn set_left(&self) {
        self.status().has_left = true;
    }

    pub(super) fn set_refused(&self) {
        self.status().is_refused = true;
    }

    /// Whether nobody misses it: it has just come, or it is about to stop.
    pub(super) fn may_be_away(&self) -> bool {
        let has_just_come = self.status().noted.is_none() && self.age() < SETTLING_MAX;
        has_just_come || self.is_leaving()
    }

    /// Time since it has greeted.
    pub(super) fn age(&self) -> Duration {
        self.met_at.elapsed()
    }

    /// Whether it is about to stop, or has said goodbye.
    pub(super) fn is_leaving(&self) -> bool {
        let status = self.status();
        status.has_left || status.told.as_ref().is_some_and(|told| told.phase == NodePhase::Draining)
    }

    /// Whether it has told that it is about to stop.
    #[must_use]
    pub(crate) fn is_draining(&self) -> bool {
        self.status().told.as_ref().is_some_and(|told| told.phase == NodePhase::Draining)
    }

    /// Notes that it has taken a socket.
    pub(super) fn set_reached(&self) {
        self.status().is_refused = false;
    }

    /// Whether its state is another one than at the last call.
    pub(super) fn has_changed(&self, state: MemberState) -> bool {
        self.status().noted.replace(state) != Some(state)
    }

    /// Whether it has had no link for so long that it is gone: a node that greets links a moment later.
    pub(super) fn is_gone(&self) -> bool {
        if self.links.living().next().is_some() {
            self.status().unlinked_since = None;
            return false;
        }
        let mut status = self.status();
        let since = *status.unlinked_since.get_or_insert_with(Instant::now);
        status.has_left || since.elapsed() > UNLINKED_MAX
    }

    /// Hash of the members that it sees; `None` until it has said so.
    pub(super) fn view(&self) -> Option<u64> {
        self.status().told.as_ref().map(|told| told.view)
    }

    /// Counts messages that are dropped for it; `true` for the first ones since it took any.
    pub(super) fn note_dropped(&self, count: u64) -> bool {
        let mut status = self.status();
        let is_first = status.dropped == 0;
        status.dropped += count;
        is_first
    }

    /// Takes the number of messages that were dropped since the last call.
    pub(super) fn take_dropped(&self) -> u64 {
        std::mem::take(&mut self.status().dropped)
    }

    /// Its state, as this node sees it now.
    #[must_use]
    pub(crate) fn state(&self, now_ms: u64) -> MemberState {
        let are_open = self.links.are_open();
        let status = self.status();
        match &status.told {
            _ if status.is_refused && !are_open => MemberState::Unreachable,
            Some(told) if are_open && self.links.lag_ms(now_ms) < LATE_AFTER_MS => told.phase.into(),
            _ => MemberState::Late,
        }
    }

    fn status(&self) -> MutexGuard<'_, MemberStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
