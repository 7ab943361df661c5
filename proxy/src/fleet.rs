//! The fleet: the other nodes, and what nodes tell, pass on to and ask each other.
//!
//! ```text
//!  --peers, members ──► address book ──► dialler per address ──► greeting ──► member ──► link to it ═══► its admin port
//!  relay, ask, request ──► members that may want it ──► outbox of their links        its link to us ═══► our admin port
//!  what comes ──► node sink ──► route ──► shards
//! ```
//!
//! There is no leader and no store: each node believes what it sees. A node link is the link session of
//! [`trunkline_link`], dialled by the node that sends. What is passed on never waits: a node for which too much waits
//! misses it, and that is counted. A node without `--peers` has a fleet of one, and nothing here runs.

mod accepted_link;
mod address_book;
mod app_presence;
mod carry;
mod channel_host;
mod combined_answer;
mod crash;
mod dialler;
mod disagreement_notice;
mod door_question;
mod door_relay;
mod entry;
mod fleet_counters;
mod fleet_member;
mod fleet_route;
mod gathered_page;
mod housekeeping;
mod link_over;
mod link_reach;
mod link_wish;
mod member_name;
mod member_table;
mod node_link;
mod node_sink;
mod own_answer;
mod peer_request;
mod question;
mod shared_name;
mod take_over;
mod user_group_copy;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use axum::Router;
use bytes::{Bytes, BytesMut};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use trunkline_link::{LinkClock, TrySendError};
use trunkline_protocol::fleet::{
    Greeting, InterestUpdate, NodeMessage, NodePhase, NodeState, Wanted, WireVersions, encode_ask,
};
use trunkline_protocol::key::AccessKeys;
use trunkline_protocol::limits::{GREETING_MEMBERS_MAX, LINK_FRAME_MAX_BYTES};
use trunkline_protocol::service::{ServiceMessage, SessionId};

use crate::metrics::Counters;
use crate::net::address::Address;
use crate::net::connector::Connector;
use crate::shard::Shared;
use crate::upstream::HubIndex;

use accepted_link::AcceptedLinks;
use address_book::AddressBook;
use app_presence::AppPresence;
use member_table::MemberTable;
use node_link::NodeLink;
use question::Questions;

pub(crate) use channel_host::{ChannelRefused, open_channel};
pub(crate) use entry::{FleetAnswer, FleetDelivery, InvocationOutcome, NamedHub};
pub(crate) use fleet_counters::{DropCause, FleetCounters};
pub(crate) use fleet_member::{FleetMember, MemberState};
pub(crate) use fleet_route::routes;
pub(crate) use peer_request::{FromNode, PeerRequest, PeerResponse};
pub(crate) use question::NoAnswer;

/// Answers of members, by name; or why there is none.
pub(crate) type Answers<T> = Vec<(Arc<FleetMember>, Result<T, NoAnswer>)>;

/// This node's part in the fleet; its clones are one.
#[derive(Debug, Clone)]
pub(crate) struct Fleet(Arc<FleetState>);

#[derive(Debug)]
struct FleetState {
    shared: Arc<Shared>,
    /// Admin port at which other nodes reach this one; `None` if they can't.
    address: Option<Address>,
    clock: LinkClock,
    counters: FleetCounters,
    /// Counters of what is passed on to shards, which nobody reads: where threads meet, one may miss a message.
    relayed: Arc<Counters>,
    members: MemberTable,
    accepted: AcceptedLinks,
    addresses: AddressBook,
    sessions: Mutex<SessionId>,
    asks: Questions<Option<ServiceMessage>>,
    requests: Questions<PeerResponse>,
    /// Requests for client connections.
    moves: Questions<Option<Bytes>>,
    /// Results of clients at other nodes, which come some time after the question.
    results: Questions<ServiceMessage>,
    /// Admin API of this node, once it is served.
    api: OnceLock<Router>,
    /// Requests of other nodes that are answered at a time.
    answering: Semaphore,
    agrees: AtomicBool,
    /// Whether it has found the others once, or has waited long enough for them.
    has_joined: AtomicBool,
    started: Instant,
    /// App servers that have dialled in.
    presence: AppPresence,
    /// State of this node that the others were told last.
    told: Mutex<Option<NodeState>>,
    changed: Notify,
    /// Runtime of the thread on which the fleet runs.
    runtime: OnceLock<Handle>,
    new_addresses: UnboundedSender<Address>,
    diallers: Mutex<Option<UnboundedReceiver<Address>>>,
    left: CancellationToken,
}

/// Time after which a node that starts is ready though it is not linked with all nodes that it has been told of.
const JOIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Time that whoever asks all nodes gives those that have just come: a node dials again within 2 s.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(3);

/// Interval at which it is looked whether they are linked.
const SETTLE_LOOK: Duration = Duration::from_millis(20);

/// Time in which a node has to answer.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Requests of other nodes that a node answers at a time; for more it has no time.
const ANSWERING_MAX: usize = 256;

impl Fleet {
    /// Part of a node whose admin port has this address.
    #[must_use]
    pub(crate) fn new(shared: Arc<Shared>, admin: SocketAddr) -> Self {
        let (new_addresses, diallers) = unbounded_channel();
        let fleet = Self(Arc::new(FleetState {
            address: own_address(admin, shared.settings.advertise.as_ref()),
            clock: LinkClock::start(),
            counters: FleetCounters::default(),
            relayed: Arc::default(),
            members: MemberTable::default(),
            accepted: AcceptedLinks::default(),
            addresses: AddressBook::default(),
            sessions: Mutex::new(SessionId::FIRST),
            asks: Questions::default(),
            requests: Questions::default(),
            moves: Questions::default(),
            results: Questions::default(),
            api: OnceLock::new(),
            answering: Semaphore::new(ANSWERING_MAX),
            agrees: AtomicBool::new(true),
            has_joined: AtomicBool::new(false),
            started: Instant::now(),
            presence: AppPresence::default(),
            told: Mutex::default(),
            changed: Notify::new(),
            runtime: OnceLock::new(),
            new_addresses,
            diallers: Mutex::new(Some(diallers)),
            left: CancellationToken::new(),
            shared: shared.clone(),
        }));
        if shared.settings.fleet.has_peers() || shared.settings.rest.is_on() {
            shared.join_fleet(Arc::new(fleet.clone()));
        }
        fleet
    }

    /// Whether this node knows of no other.
    #[must_use]
    pub(crate) fn is_alone(&self) -> bool {
        !self.0.shared.settings.fleet.has_peers()
    }

    /// Sets the API that other nodes ask, once.
    pub(crate) fn serve_api(&self, api: Router) {
        drop(self.0.api.set(api));
    }

    /// API that other nodes ask, once it is set.
    #[must_use]
    pub(crate) fn api(&self) -> Option<Router> {
        self.0.api.get().cloned()
    }

    /// Members that this node sees, itself not among them, by name.
    #[must_use]
    pub(crate) fn members(&self) -> Arc<Vec<Arc<FleetMember>>> {
        self.0.members.all()
    }

    /// Keys of which a node of the fleet has one.
    #[must_use]
    pub(crate) fn keys(&self) -> &AccessKeys {
        &self.0.shared.settings.keys
    }

    /// Connector to other nodes, for answers that don't end.
    #[must_use]
    pub(crate) fn channels(&self) -> Connector {
        self.0.shared.node_channels.clone()
    }

    /// Whether this node has just started, and is not linked with all others yet: what enters here would miss their clients.
    fn is_finding_others(&self) -> bool {
        if self.is_alone() || self.0.has_joined.load(Ordering::Relaxed) {
            return false;
        }
        let own = self.0.members.view(&self.shared().boot);
        let is_found = |member: &FleetMember| member.is_open() && member.view() == Some(own);
        let has_found = self.addresses().are_tried() && self.members().iter().all(|member| is_found(member));
        let has_joined = has_found || self.0.started.elapsed() > JOIN_TIMEOUT;
        self.0.has_joined.store(has_joined, Ordering::Relaxed);
        !has_joined
    }

    /// Waits until this node and those that have just come are linked and take clients, 3 s at most: until then it can't ask
    /// them.
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
        self.is_finding_others() || self.members().iter().any(|member| is_new(member) && is_on_its_way(member))
    }

    /// Finds the member with this boot id.
    #[must_use]
    pub(crate) fn member(&self, boot: &str) -> Option<Arc<FleetMember>> {
        self.0.members.find(boot)
    }

    /// Addresses of `--peers` that lead to no node, each with the reason.
    #[must_use]
    pub(crate) fn unreachable(&self) -> Vec<(String, String)> {
        self.0.addresses.problems()
    }

    /// Whether all nodes see the same members, as far as this one knows.
    #[must_use]
    pub(crate) fn agrees(&self) -> bool {
        self.0.agrees.load(Ordering::Relaxed)
    }

    /// Time on the clock of node links, for states and lags.
    #[must_use]
    pub(crate) fn now_ms(&self) -> u64 {
        self.0.clock.now_ms()
    }

    #[must_use]
    pub(crate) fn counters(&self) -> &FleetCounters {
        &self.0.counters
    }

    /// Passes a message on to the members where somebody may want it. Never waits; nobody answers.
    #[cfg(test)]
    pub(crate) fn relay(&self, hub: &str, wanted: &[Wanted<'_>], message: &ServiceMessage) {
        let mut frame = BytesMut::new();
        trunkline_protocol::fleet::encode_relay(hub, &message.to_body(), &mut frame);
        for member in self.wanting(hub, wanted) {
            self.pass_to(&member, &frame);
        }
    }

    /// Asks the members where somebody may be concerned: at once, so that questions keep their order. The future waits for
    /// the answers.
    #[cfg(test)]
    pub(crate) fn ask(
        &self,
        hub: &str,
        wanted: &[Wanted<'_>],
        message: &ServiceMessage,
    ) -> impl Future<Output = Answers<Option<ServiceMessage>>> + use<> {
        self.ask_members(self.wanting(hub, wanted), hub, &message.to_body())
    }

    /// Asks these members by the body of a message: at once, so that questions keep their order. The future waits for the
    /// answers.
    fn ask_members(
        &self,
        asked: Vec<Arc<FleetMember>>,
        hub: &str,
        body: &[u8],
    ) -> impl Future<Output = Answers<Option<ServiceMessage>>> + use<> {
        let question = self.0.asks.open();
        let (sent, unsent) = match &question {
            Some(question) => {
                let mut frame = BytesMut::new();
                encode_ask(question.number(), hub, body, &mut frame);
                let sent = asked.into_iter().partition::<Vec<_>, _>(|member| self.pass_to(member, &frame));
                watch(&sent.0);
                sent
            }
            None => (Vec::new(), asked),
        };
        let fleet = self.clone();
        async move {
            let is_overdue = |member: &FleetMember| member.is_overdue(fleet.now_ms());
            let answers = match question {
                Some(question) => question.answers(sent, ANSWER_TIMEOUT, is_overdue).await,
                None => Vec::new(),
            };
            with_missing(answers, unsent)
        }
    }

    /// Asks all members for something of their API.
    pub(crate) async fn request_all(&self, request: &PeerRequest, within: Duration) -> Answers<PeerResponse> {
        self.request(self.members().to_vec(), request, within).await
    }

    /// Asks some members for something of their API.
    pub(crate) async fn request(
        &self,
        asked: Vec<Arc<FleetMember>>,
        request: &PeerRequest,
        within: Duration,
    ) -> Answers<PeerResponse> {
        let Some(question) = self.0.requests.open() else { return none_of(asked) };
        let PeerRequest { method, target, body } = request.clone();
        let message = NodeMessage::Request { question: question.number(), method, target, body };
        let frame = message.to_frame();
        let (sent, unsent): (Vec<_>, _) = asked.into_iter().partition(|member| self.send(member, &frame).is_ok());
        watch(&sent);
        let is_overdue = |member: &FleetMember| member.is_overdue(self.now_ms());
        with_missing(question.answers(sent, within, is_overdue).await, unsent)
    }

    /// Answers a request of another node.
    async fn answer(&self, request: PeerRequest) -> PeerResponse {
        match (self.0.answering.try_acquire(), self.0.api.get()) {
            (Ok(_turn), Some(api)) => request.answer(api.clone()).await,
            (Err(_), _) => PeerResponse::busy(),
            (_, None) => PeerResponse::starting(),
        }
    }

    fn wanting(&self, hub: &str, wanted: &[Wanted<'_>]) -> Vec<Arc<FleetMember>> {
        let now_ms = self.now_ms();
        let members = self.members();
        members.iter().filter(|member| member.may_want(hub, wanted, now_ms)).cloned().collect()
    }

    /// Queues a frame for a member. A question that is not queued has no answer, so its asker knows.
    fn send(&self, member: &FleetMember, frame: &[u8]) -> Result<(), DropCause> {
        // Its prefix says its length in five bytes at most.
        if frame.len() > LINK_FRAME_MAX_BYTES + 5 {
            return Err(DropCause::TooLarge);
        }
        let link = member.outgoing().ok_or(DropCause::Unlinked)?;
        link.try_send(frame).map_err(|error| match error {
            TrySendError::Full => DropCause::Full,
            TrySendError::Closed => DropCause::Unlinked,
        })
    }

    /// Queues a message to clients for a member, or counts that it is dropped; `false` then.
    fn pass_to(&self, member: &FleetMember, frame: &[u8]) -> bool {
        let sent = self.send(member, frame);
        if let Err(cause) = sent {
            self.0.counters.drop_messages(cause, 1);
            if member.note_dropped(1) {
                let (peer, cause) = (member.name(), cause.label());
                warn!(peer, cause, "messages to a node are dropped: its clients miss them, no others do");
            }
        }
        sent.is_ok()
    }

    /// Takes a node that greets; `None` when there are too many.
    fn meet(&self, greeting: &Greeting, address: Option<&Address>) -> Option<Arc<FleetMember>> {
        let is_new = self.member(&greeting.boot).is_none();
        let member = self.0.members.meet(greeting, address)?;
        if is_new {
            self.presence_changed();
            info!(
                peer = member.name(),
                boot = member.boot(),
                version = member.version(),
                "a node of the fleet is here"
            );
        }
        Some(member)
    }

    /// Greeting of this node, which it says to another one first.
    fn greeting(&self) -> Greeting {
        let FleetState { shared, address, .. } = &*self.0;
        let members = self.members();
        let known = members.iter().filter(|member| member.is_linked()).filter_map(|member| member.address());
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

    /// Has the addresses dialled that another node tells: its own, and those of its members.
    fn learn_addresses(&self, greeting: &Greeting) {
        // An address of that machine is none of this one.
        let is_local = self.0.address.as_ref().is_some_and(Address::is_loopback);
        let told = greeting.address.iter().chain(&greeting.known).filter_map(|url| url.parse::<Address>().ok());
        for address in told.filter(|address| is_local || !address.is_loopback()) {
            let is_own = Some(&address) == self.0.address.as_ref();
            let members = self.members();
            let is_linked = members.iter().any(|member| {
                member.outgoing().is_some() && member.address().is_some_and(|known| url(&known) == address.to_string())
            });
            if !is_own && !is_linked && self.0.addresses.learn(&address) {
                // It fails when the node stops.
                drop(self.0.new_addresses.send(address));
            }
        }
    }

    /// Notes the link that this node dials to a member. What is told from now on goes there, too.
    fn begin_outgoing(&self, member: &FleetMember, link: &Arc<NodeLink>) {
        member.set_outgoing(Some(link.clone()));
        self.note_address(member);
        self.0.changed.notify_one();
    }

    /// Tells a member all that it has to know first: the state of this node, and its interest.
    fn introduce(&self, member: &FleetMember, link: &Arc<NodeLink>) {
        self.introduce_app_servers(link);
        link.tell(&NodeMessage::State(self.state()));
        for hub in self.0.shared.hubs.living().iter() {
            link.tell(&NodeMessage::Interest(self.interest(hub.key(), hub.index())));
        }
        link.tell(&NodeMessage::Interest(InterestUpdate::Complete));
        self.introduce_user_groups(link);
        let address = member.address().map(|address| url(&address));
        info!(peer = member.name(), address, "linked to a node of the fleet");
        self.0.changed.notify_one();
    }

    fn interest(&self, hub: &str, index: HubIndex) -> InterestUpdate {
        let map = self.0.shared.interest.as_ref().map(|interest| interest.map(index)).unwrap_or_default();
        InterestUpdate::Whole { hub: hub.into(), map }
    }

    /// A session to or from a member is over: nobody waits for its answers any more.
    fn link_over(&self, member: &FleetMember) {
        if member.outgoing().is_none() {
            self.0.asks.lost(member.boot());
            self.0.requests.lost(member.boot());
            self.0.moves.lost(member.boot());
            // Who can't be dialled and has no socket either is gone.
            if let Some(incoming) = member.incoming().filter(|incoming| !incoming.is_open()) {
                incoming.give_up();
            }
            self.shared().client_results.node_gone(member.boot());
        }
        self.presence_changed();
        self.0.changed.notify_one();
    }

    /// State of this node as it tells it.
    fn state(&self) -> NodeState {
        let FleetState { shared, members, .. } = &*self.0;
        let phase = own_phase(shared);
        let linked = members.all().iter().filter(|member| member.is_linked()).count();
        let count = u32::try_from(linked + 1).unwrap_or(u32::MAX);
        NodeState { phase, members: count, view: members.view(&shared.boot) }
    }

    /// Notes that a member has heard all that was told before a beat.
    fn note_heard(&self, member: &FleetMember, beat: u64) {
        self.shared().interest.iter().for_each(|interest| interest.answered(member.boot_id(), beat, self.now_ms()));
    }

    /// Notes that a member is gone with certainty: nobody waits for it.
    fn note_gone(&self, member: &FleetMember) {
        self.shared().interest.iter().for_each(|interest| interest.gone(member.boot_id(), self.now_ms()));
    }

    fn next_session(&self) -> SessionId {
        let mut next = self.0.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let id = *next;
        *next = id.next();
        id
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    fn relayed(&self) -> &Arc<Counters> {
        &self.0.relayed
    }

    fn clock(&self) -> LinkClock {
        self.0.clock
    }

    fn accepted(&self) -> &AcceptedLinks {
        &self.0.accepted
    }

    fn addresses(&self) -> &AddressBook {
        &self.0.addresses
    }

    fn asks(&self) -> &Questions<Option<ServiceMessage>> {
        &self.0.asks
    }

    fn requests(&self) -> &Questions<PeerResponse> {
        &self.0.requests
    }

    fn moves(&self) -> &Questions<Option<Bytes>> {
        &self.0.moves
    }
}

/// Phase of the life of this node.
#[must_use]
pub(crate) fn own_phase(shared: &Shared) -> NodePhase {
    match () {
        () if shared.has_begun_drain() => NodePhase::Draining,
        () if shared.hubs_are_served() && !shared.other_nodes().are_sought() => NodePhase::Ready,
        () => NodePhase::Starting,
    }
}

/// Address at which other nodes reach this admin port: a loopback address is reached from this machine alone.
fn own_address(admin: SocketAddr, advertise: Option<&Address>) -> Option<Address> {
    let host = match advertise {
        _ if !admin.ip().is_unspecified() => return format!("http://{admin}").parse().ok(),
        Some(advertise) => advertise.host(),
        None => return None,
    };
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    format!("http://{host}:{}", admin.port()).parse().ok()
}

/// URL of an address as another node can use it.
fn url(address: &Address) -> String {
    match address.resolved() {
        Some(at) if !address.is_tls() => format!("http://{at}"),
        _ => address.to_string(),
    }
}

/// Asks members for a sign of life that are asked for something else.
fn watch(asked: &[Arc<FleetMember>]) {
    asked.iter().filter_map(|member| member.outgoing()).for_each(|link| link.watch());
}

fn none_of<T>(asked: Vec<Arc<FleetMember>>) -> Answers<T> {
    with_missing(Vec::new(), asked)
}

fn with_missing<T>(mut answers: Answers<T>, missing: Vec<Arc<FleetMember>>) -> Answers<T> {
    answers.extend(missing.into_iter().map(|member| (member, Err(NoAnswer::Unlinked))));
    answers
}
