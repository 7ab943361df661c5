//! Membership in the fleet: known members, their addresses, and this node's own reported state.
//!
//! Names of members serve requests about their connections. Addresses are stored because some orchestrators remove a
//! node's name as soon as they stop it.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::info;
use trunkline_link::LinkClock;
use trunkline_protocol::fleet::{Greeting, InterestUpdate, NodeMessage, NodePhase, NodeState, Wanted, WireVersions};
use trunkline_protocol::limits::GREETING_MEMBERS_MAX;
use trunkline_protocol::service::SessionId;

use super::address_book::{AddressBook, AddressProblem};
use super::fleet_member::{FleetMember, MemberState};
use super::member_table::MemberTable;
use super::own_interest::OwnInterest;
use crate::engine::shard::Shared;
use crate::engine::upstream::Hub;
use crate::ground::net::address::Address;
use crate::ground::net::connector::Connector;

/// Time after which a starting node becomes ready without links to all discovered nodes.
const JOIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Time that a query to all nodes allows new nodes to link. Nodes redial within 2 s.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(3);

/// Poll interval while waiting for those links.
const SETTLE_LOOK: Duration = Duration::from_millis(20);

/// Time for other nodes to receive a goodbye.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct Membership {
    pub(super) shared: Arc<Shared>,
    /// Subscriptions of this node at other nodes; `None` for a node without peers.
    interest: Option<Arc<OwnInterest>>,
    /// Admin address of this node for other nodes; `None` if unreachable.
    address: Option<Address>,
    pub(super) clock: LinkClock,
    table: MemberTable,
    pub(super) addresses: AddressBook,
    sessions: Mutex<SessionId>,
    agrees: AtomicBool,
    /// Whether all others were found once, or the wait for them timed out.
    has_joined: AtomicBool,
    /// Time from which other nodes can be found.
    searching: OnceLock<Instant>,
    /// State last reported to the others.
    told: Mutex<Option<NodeState>>,
    changed: Notify,
    new_addresses: UnboundedSender<Address>,
    learnt: Mutex<Option<UnboundedReceiver<Address>>>,
    left: CancellationToken,
}

impl Membership {
    pub(super) fn new(shared: Arc<Shared>, interest: Option<Arc<OwnInterest>>, admin: SocketAddr) -> Self {
        let (new_addresses, learnt) = unbounded_channel();
        // Through a broker, nodes announce themselves.
        let has_ports = !shared.settings.fleet.by_nats || !shared.settings.fleet.peers.is_empty();
        Self {
            address: own_address(admin, shared.settings.advertise.as_ref()).filter(|_| has_ports),
            clock: LinkClock::start(),
            table: MemberTable::default(),
            addresses: AddressBook::default(),
            sessions: Mutex::new(SessionId::FIRST),
            agrees: AtomicBool::new(true),
            has_joined: AtomicBool::new(false),
            searching: OnceLock::new(),
            told: Mutex::default(),
            changed: Notify::new(),
            new_addresses,
            learnt: Mutex::new(Some(learnt)),
            left: CancellationToken::new(),
            interest,
            shared,
        }
    }

    /// Connector for unbounded responses from other nodes.
    pub(crate) fn channels(&self) -> Connector {
        self.shared.ways.node_channels.clone()
    }

    pub(crate) fn is_alone(&self) -> bool {
        !self.shared.settings.fleet.has_peers()
    }

    /// Other members, by name.
    pub(crate) fn all(&self) -> Arc<Vec<Arc<FleetMember>>> {
        self.table.all()
    }

    pub(crate) fn find(&self, boot: &str) -> Option<Arc<FleetMember>> {
        self.table.find(boot)
    }

    pub(super) fn wanting(&self, hub: &str, wanted: &[Wanted<'_>]) -> Vec<Arc<FleetMember>> {
        self.wanting_of(&self.all(), hub, wanted)
    }

    pub(super) fn wanting_of(
        &self,
        members: &[Arc<FleetMember>],
        hub: &str,
        wanted: &[Wanted<'_>],
    ) -> Vec<Arc<FleetMember>> {
        let now_ms = self.now_ms();
        members.iter().filter(|member| member.may_want(hub, wanted, now_ms)).cloned().collect()
    }

    /// Adds a greeting node, and returns whether it is new. `None` at the member limit.
    pub(super) fn meet(&self, greeting: &Greeting, address: Option<&Address>) -> Option<(Arc<FleetMember>, bool)> {
        let is_new = self.find(&greeting.boot).is_none();
        let member = self.table.meet(greeting, address)?;
        if is_new {
            info!(peer = member.name(), boot = member.boot(), version = member.version(), "node joined the fleet");
        }
        Some((member, is_new))
    }

    pub(super) fn remove_gone(&self) -> Vec<Arc<FleetMember>> {
        self.table.remove_gone()
    }

    /// Whether a member currently accepts links from app servers.
    pub(super) fn is_alive(&self, member: &FleetMember) -> bool {
        matches!(member.state(self.now_ms()), MemberState::Ready | MemberState::Starting)
    }

    /// Names shared by several live nodes, including this one.
    pub(crate) fn shared_names(&self) -> BTreeSet<String> {
        let members = self.all();
        let alive = members
            .iter()
            .filter(|member| !matches!(member.state(self.now_ms()), MemberState::Late | MemberState::Unreachable));
        let mut seen = BTreeSet::new();
        let names = alive.map(|member| member.name()).chain([self.shared.settings.node.as_str()]);
        names.filter(|name| !seen.insert(*name)).map(str::to_owned).collect()
    }

    pub(super) fn send_to_members(&self, message: &NodeMessage) {
        for member in self.all().iter() {
            if let Some(link) = member.links.outgoing() {
                link.notify(message);
            }
        }
    }

    /// Whether this starting node is not yet linked to all others. Messages would miss their clients.
    pub(super) fn is_finding_others(&self) -> bool {
        if self.is_alone() || self.has_joined.load(Ordering::Relaxed) {
            return false;
        }
        let own = self.view();
        let is_found = |member: &FleetMember| member.links.are_open() && member.view() == Some(own);
        let has_found = self.addresses.are_tried() && self.all().iter().all(|member| is_found(member));
        let has_joined = has_found || self.searching.get().is_some_and(|begun| begun.elapsed() > JOIN_TIMEOUT);
        self.has_joined.store(has_joined, Ordering::Relaxed);
        !has_joined
    }

    /// Waits, 3 s at most, until this node and new members are linked and accept clients. Queries would miss them
    /// earlier.
    pub(crate) async fn settled(&self) {
        let until = Instant::now() + SETTLE_TIMEOUT;
        while self.is_settling() && Instant::now() < until {
            sleep(SETTLE_LOOK).await;
        }
    }

    fn is_settling(&self) -> bool {
        let is_on_its_way =
            |member: &FleetMember| matches!(member.state(self.now_ms()), MemberState::Late | MemberState::Starting);
        let is_new = |member: &FleetMember| member.age() < SETTLE_TIMEOUT && !member.is_leaving();
        self.is_finding_others() || self.all().iter().any(|member| is_new(member) && is_on_its_way(member))
    }

    pub(crate) fn unreachable(&self) -> Vec<AddressProblem> {
        self.addresses.problems()
    }

    /// Whether all nodes see the same members, according to this node.
    pub(crate) fn agrees(&self) -> bool {
        self.agrees.load(Ordering::Relaxed)
    }

    pub(super) fn set_agrees(&self, agrees: bool) {
        self.agrees.store(agrees, Ordering::Relaxed);
    }

    /// Hash of this node and the linked members.
    pub(super) fn view(&self) -> u64 {
        self.table.view(&self.shared.boot)
    }

    /// Time on the clock of node links, for states and lags.
    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    pub(super) fn next_session(&self) -> SessionId {
        let mut next = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let id = *next;
        *next = id.next();
        id
    }

    /// Greeting of this node, sent first on contact.
    pub(super) fn greeting(&self) -> Greeting {
        let Self { shared, address, .. } = self;
        let members = self.all();
        let known = members.iter().filter(|member| member.links.are_complete()).filter_map(|member| member.address());
        Greeting {
            name: shared.settings.node.clone(),
            boot: shared.boot.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            wire: WireVersions::CURRENT,
            address: address.as_ref().map(ToString::to_string),
            advertised: shared.settings.advertise.as_ref().map(ToString::to_string),
            known: known.map(|address| url(&address)).take(GREETING_MEMBERS_MAX).collect(),
        }
    }

    /// Dials the addresses in a greeting: the sender's address and its members' addresses.
    pub(super) fn record_addresses(&self, greeting: &Greeting) {
        // A loopback address refers to the other machine.
        let is_local = self.address.as_ref().is_some_and(Address::is_loopback);
        let told = greeting.address.iter().chain(&greeting.known).filter_map(|url| url.parse::<Address>().ok());
        for address in told.filter(|address| is_local || !address.is_loopback()) {
            let is_own = Some(&address) == self.address.as_ref();
            let members = self.all();
            let is_linked = members.iter().any(|member| {
                member.links.outgoing().is_some()
                    && member.address().is_some_and(|known| url(&known) == address.to_string())
            });
            if !is_own && !is_linked && self.addresses.record(&address) {
                // Fails when the node stops.
                drop(self.new_addresses.send(address));
            }
        }
    }

    /// Dials the address of a node that has announced itself.
    pub(super) fn note_announced(&self, address: Address) {
        let member = address.node().and_then(|(boot, _)| self.find(boot));
        let is_linked = member.is_some_and(|member| member.links.outgoing().is_some());
        if !is_linked && self.addresses.record(&address) {
            // Fails when the node stops.
            drop(self.new_addresses.send(address));
        }
    }

    pub(super) fn begin_search(&self) {
        self.searching.get_or_init(Instant::now);
    }

    /// Returns the queue of discovered addresses, once.
    pub(super) fn take_learnt(&self) -> Option<UnboundedReceiver<Address>> {
        self.learnt.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn interest(&self) -> Option<&Arc<OwnInterest>> {
        self.interest.as_ref()
    }

    /// Full interest update of a hub.
    pub(super) fn interest_in(&self, hub: &Hub) -> InterestUpdate {
        let map = self.interest.as_ref().map(|interest| interest.map(hub.index())).unwrap_or_default();
        InterestUpdate::Whole { hub: hub.key().into(), map }
    }

    /// Records that a member has received everything sent before a beat.
    pub(super) fn note_beat(&self, member: &FleetMember, beat: u64) {
        self.interest.iter().for_each(|interest| interest.answered(member.boot_id(), beat, self.now_ms()));
    }

    /// Records that a member is gone. Waits for it end.
    pub(super) fn note_gone(&self, member: &FleetMember) {
        self.interest.iter().for_each(|interest| interest.gone(member.boot_id(), self.now_ms()));
    }

    /// State of this node as reported to the others.
    pub(super) fn state(&self) -> NodeState {
        let linked = self.all().iter().filter(|member| member.links.are_complete()).count();
        let count = u32::try_from(linked + 1).unwrap_or(u32::MAX);
        NodeState { phase: own_phase(&self.shared), members: count, view: self.view() }
    }

    /// Signals a possible change of this node's state.
    pub(super) fn state_changed(&self) {
        self.changed.notify_one();
    }

    /// Waits for a possible change; returns the state if it is not yet reported.
    pub(super) async fn next_state(&self) -> Option<NodeState> {
        self.changed.notified().await;
        let state = self.state();
        let before = self.told.lock().unwrap_or_else(PoisonError::into_inner).replace(state);
        (before != Some(state)).then_some(state)
    }

    /// Whether this node has left and greets no other node.
    pub(super) fn has_left(&self) -> bool {
        self.left.is_cancelled()
    }

    pub(super) async fn left(&self) {
        self.left.cancelled().await;
    }

    /// Leaves the fleet: says goodbye and closes all links.
    pub(crate) async fn leave(&self) {
        // A node without clients stops between two beats. Without a goodbye, it would count as lost.
        self.send_to_members(&NodeMessage::State(self.state()));
        self.left.cancel();
        self.interest.iter().for_each(|interest| interest.end_waits());
        let links: Vec<_> = self.all().iter().flat_map(|member| member.links.living()).collect();
        links.iter().for_each(|link| link.give_up());
        let all_gone = async {
            for link in &links {
                link.detached().await;
            }
        };
        drop(timeout(LEAVE_TIMEOUT, all_gone).await);
    }
}

pub(crate) fn own_phase(shared: &Shared) -> NodePhase {
    match () {
        () if shared.has_begun_drain() => NodePhase::Draining,
        () if shared.hubs_are_served() && !shared.other_nodes().are_sought() => NodePhase::Ready,
        () => NodePhase::Starting,
    }
}

/// Admin address for other nodes. A loopback address works only from this machine.
fn own_address(admin: SocketAddr, advertise: Option<&Address>) -> Option<Address> {
    let host = match advertise {
        _ if !admin.ip().is_unspecified() => return format!("http://{admin}").parse().ok(),
        Some(advertise) => advertise.host(),
        None => return None,
    };
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    format!("http://{host}:{}", admin.port()).parse().ok()
}

/// URL of an address for use by another node.
pub(super) fn url(address: &Address) -> String {
    match address.resolved() {
        Some(at) if !address.is_tls() => format!("http://{at}"),
        _ => address.to_string(),
    }
}

/// Retry interval for unresolved names. The name of a new node may appear only once it is healthy.
const LEARN_INTERVAL: Duration = Duration::from_secs(5);

/// Maximum number of concurrent DNS lookups.
const RESOLVED_AT_ONCE: usize = 16;

/// Records the machine of a member's link as a possible address of its name.
pub(super) fn note_address(shared: &Shared, member: &FleetMember) {
    let (Some(name), Some(link)) = (name_of(member), member.address()) else { return };
    let ip = link.resolved().map(|at| at.ip()).or_else(|| link.host().parse::<IpAddr>().ok());
    if let (Some(ip), Some(port)) = (ip, name.port()) {
        shared.ways.node_names.note_reported(&name, SocketAddr::new(ip, port));
    }
}

/// Resolves the names of members, once each.
pub(super) async fn keep_names(members: &Membership) {
    let mut learning = interval(LEARN_INTERVAL);
    learning.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        learning.tick().await;
        let names: Vec<_> = members.all().iter().filter_map(|member| name_of(member)).collect();
        let node_names = &members.shared.ways.node_names;
        stream::iter(&names).for_each_concurrent(RESOLVED_AT_ONCE, |name| node_names.resolve_once(name)).await;
    }
}

/// Name of a member in the network for requests, as in its connection tokens.
fn name_of(member: &FleetMember) -> Option<Address> {
    let name = member.client_port()?.of_start(member.boot());
    if name.node().is_none() { Some(name) } else { None }
}
