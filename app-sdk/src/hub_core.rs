//! Core of one hub, shared by its dispatcher and by the app's code: connections, proxies, awaited answers.
//!
//! ```text
//!            ┌─ Registry: the client connections that are here
//!  HubCore ──┼─ Outbound: the proxies, and the queues to them
//!            ├─ Acks: acknowledgements that are awaited
//!            └─ ClientResults: results of clients that are awaited
//! ```
//!
//! Each part is a plain value behind its own lock, held for one step at a time. Nothing here runs the app's code: where a
//! connection's inbox needs a worker, the method returns `true` and its caller starts one.

mod acks;
mod expected_result;
mod fence;
mod lost_clients;
mod parting;
mod question_limit;
mod recent_ids;
mod registry;
mod result_requests;
mod result_wait;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use tokio::sync::broadcast;
use tokio::time::Instant;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::{Close, Completion, HubMessage, HubProtocol};
use trunkline_protocol::limits::STATEFUL_RECONNECT_TIMEOUT_S;
use trunkline_protocol::service::{
    Ack, ClientInvocation, CloseConnection, ConnectionData, DataType, FlowOperation, MultiConnectionData, Payloads,
    ServiceMessage, TraceReport, header_of,
};
use trunkline_protocol::wire::MIGRATE_TO_HEADER;

use crate::connection::{CallScope, Connection, ConnectionClose, Inbox, Limits, LinkId, RestoredFrom};
use crate::encode;
use crate::error::SendError;
use crate::metrics::HubMetrics;
use crate::naming::{Codec, Naming};
use crate::node::Node;
use crate::outbound::{Outbound, checked_frame};
use crate::sync::{lock, read, write};

pub(crate) use acks::{Acks, ExpectedAck, acknowledge};
pub(crate) use expected_result::ExpectedResult;
pub(crate) use fence::{announce_shutdown, fence};
pub(crate) use lost_clients::LostClient;
use lost_clients::{FoundLost, LostClients, is_loss};
use parting::Parting;
use question_limit::QuestionLimit;
pub(crate) use question_limit::WAITING_MAX;
use recent_ids::RecentIds;
use registry::Registry;
pub(crate) use result_requests::{AbandonedRequest, Addressee, ClientResult, ClientSilence, TooManyRequests};
use result_requests::{ClientResults, ID_PREFIX, Registered};
pub(crate) use result_wait::{InboxOverfull, ResultWait};

/// Core of one hub.
pub(crate) struct HubCore {
    pub(crate) instance: Arc<str>,
    pub(crate) protocols: Vec<HubProtocol>,
    pub(crate) naming: Naming,
    pub(crate) limits: Limits,
    pub(crate) outbound: Outbound,
    registry: RwLock<Registry>,
    parting: Mutex<Parting>,
    acks: Mutex<Acks>,
    client_results: Mutex<ClientResults>,
    taken_over: broadcast::Sender<TakenOver>,
    /// A connection was ever about to be handed over: what is waited for matters to that.
    has_handovers: AtomicBool,
    /// Ids of the connections that other app servers have got from this one a while ago.
    handed_over: Mutex<RecentIds>,
    /// Limit of the questions about groups and users.
    pub(crate) questions: QuestionLimit,
    /// Lost clients that may get their groups and items back; `None` where none does.
    lost: Option<Mutex<LostClients>>,
}

/// A reassigned connection whose `on_rehomed` has run, by its id; and whether it was kept.
pub(crate) type TakenOver = (ByteString, bool);

/// Time for which proxies keep a client without a socket or a request, unless they are told otherwise.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(STATEFUL_RECONNECT_TIMEOUT_S);

/// Maximum number of reassigned connections that a slow observer is behind.
const TAKEN_OVER_MAX: usize = 16;

impl HubCore {
    pub(crate) fn new(
        instance: Arc<str>,
        protocols: Vec<HubProtocol>,
        naming: Naming,
        limits: Limits,
        outbound: Outbound,
    ) -> Self {
        let client_results = Mutex::new(ClientResults::new(&instance));
        let (registry, acks, has_handovers) = (RwLock::default(), Mutex::default(), AtomicBool::new(false));
        let (taken_over, _) = broadcast::channel(TAKEN_OVER_MAX);
        Self {
            instance,
            protocols,
            naming,
            limits,
            outbound,
            registry,
            parting: Mutex::default(),
            acks,
            client_results,
            taken_over,
            has_handovers,
            handed_over: Mutex::default(),
            questions: QuestionLimit::default(),
            lost: limits.restored_within.map(|within| Mutex::new(LostClients::new(within))),
        }
    }

    /// How values are encoded for clients that speak this protocol.
    pub(crate) fn codec(&self, protocol: HubProtocol) -> Codec {
        Codec::new(protocol, self.naming)
    }

    /// Name of the hub.
    pub(crate) fn name(&self) -> &str {
        &self.outbound.name
    }

    pub(crate) fn metrics(&self) -> &HubMetrics {
        &self.outbound.metrics
    }

    /// Announces to the test kit that `on_rehomed` of a connection has run.
    pub(crate) fn announce_taken_over(&self, connection: &Connection, is_kept: bool) {
        if self.taken_over.receiver_count() > 0 {
            let _ = self.taken_over.send((connection.shared_id(), is_kept));
        }
    }

    /// Observes the connections that are taken over from now on.
    pub(crate) fn observe_taken_over(&self) -> broadcast::Receiver<TakenOver> {
        self.taken_over.subscribe()
    }

    /// Fails what is awaited from a proxy that has no links any more.
    pub(crate) fn handle_node_lost(&self, node: &Arc<Node>) {
        lock(&self.acks).fail_node(node);
        lock(&self.client_results).fail_node(node);
    }
}

/// Connections: registry and closes.
impl HubCore {
    /// Registers a connection. Fails with the present connection of the same id, which stays.
    pub(crate) fn insert(&self, connection: &Arc<Connection>) -> Result<(), Arc<Connection>> {
        write(&self.registry).insert(connection)
    }

    pub(crate) fn connection(&self, id: &str) -> Option<Arc<Connection>> {
        read(&self.registry).get(id).map(Arc::clone)
    }

    /// Whether this very connection is here, not only its id.
    pub(crate) fn contains(&self, connection: &Arc<Connection>) -> bool {
        read(&self.registry).contains(connection)
    }

    /// Takes a connection that was closed while it moved: the node that has it hears of that when it resumes it.
    pub(crate) fn take_parting(&self, id: &str) -> Option<Arc<Connection>> {
        lock(&self.parting).take(id)
    }

    pub(crate) fn connections(&self) -> Vec<Arc<Connection>> {
        read(&self.registry).iter().map(Arc::clone).collect()
    }

    /// Counts the connections that are here, and those of them whose home is this link.
    pub(crate) fn count_connections(&self, link: LinkId) -> (usize, usize) {
        let registry = read(&self.registry);
        (registry.iter().count(), registry.at_home(link).len())
    }

    /// The connections whose home is this link.
    pub(crate) fn connections_at_home(&self, link: LinkId) -> Vec<Arc<Connection>> {
        read(&self.registry).at_home(link)
    }

    /// Closes a connection from this side, once: a hub close message, then the close. What waits in its inbox is dropped.
    /// Returns whether a worker must start.
    #[must_use = "a worker must start"]
    pub(crate) fn close(&self, connection: &Arc<Connection>, message: Close, close: ConnectionClose) -> bool {
        let payload = encode::message(connection.protocol(), &HubMessage::Close(message));
        self.close_after(connection, payload, DataType::Close, close)
    }

    /// Closes a connection whose handshake is refused: it gets no close message. Returns whether a worker must start.
    #[must_use = "a worker must start"]
    pub(crate) fn refuse_handshake(&self, connection: &Arc<Connection>, answer: Bytes) -> bool {
        let close = ConnectionClose::new(Cause::AppHandshakeRefused);
        self.close_after(connection, answer, DataType::Handshake, close)
    }

    /// Removes a connection that the other side has closed, once. What waits in its inbox is still handled. Returns
    /// whether a worker must start.
    #[must_use = "a worker must start"]
    pub(crate) fn handle_closed(&self, connection: &Arc<Connection>, close: ConnectionClose) -> bool {
        if !self.remove(connection) {
            return false;
        }
        self.outbound.count_closed(connection.id(), &close);
        self.begin_loss(connection, close.cause);
        connection.cancel();
        connection.inbox().close(close)
    }

    /// Removes a connection that another app server or link takes over, without a close. Returns `false` if it is not here.
    pub(crate) fn remove_reassigned(&self, connection: &Arc<Connection>) -> bool {
        let was_here = self.remove(connection);
        if was_here {
            self.metrics().connections.dec();
        }
        was_here
    }

    /// Cancels the calls of a connection that was taken over. Returns whether a worker must start.
    #[must_use = "a worker must start"]
    pub(crate) fn abandon_calls(&self, connection: &Arc<Connection>) -> bool {
        connection.cancel();
        connection.inbox().close_reassigned()
    }

    fn remove(&self, connection: &Arc<Connection>) -> bool {
        let was_here = write(&self.registry).remove(connection);
        if was_here {
            connection.home().end_pause();
        }
        was_here
    }

    fn close_after(
        &self,
        connection: &Arc<Connection>,
        last_payload: Bytes,
        data_type: DataType,
        close: ConnectionClose,
    ) -> bool {
        if !write(&self.registry).remove(connection) {
            return false;
        }
        self.outbound.count_closed(connection.id(), &close);
        self.begin_loss(connection, close.cause);
        let last = connection_data(connection, last_payload, data_type);
        let closing = Outbound::close_of(&connection.node(), connection.shared_id(), close.cause, None);
        if connection.home().keep_last(&[last.to_frame(), closing.to_frame()]) {
            lock(&self.parting).push(connection);
        } else {
            connection.home().end_pause();
            let node = connection.node();
            self.outbound.control(&node, &last);
            self.outbound.control(&node, &closing);
        }
        connection.cancel();
        let mut inbox = connection.inbox();
        inbox.discard();
        inbox.close(close)
    }
}

/// Lost clients, and what they had.
impl HubCore {
    /// Whether lost clients get their groups and items back.
    pub(crate) fn restores(&self) -> bool {
        self.lost.is_some()
    }

    /// Notes the end of a connection whose client may begin anew. To be called before its worker can see the end.
    fn begin_loss(&self, connection: &Connection, cause: Cause) {
        if let Some(lost) = self.lost.as_ref().filter(|_| is_loss(cause)) {
            let user_id = connection.request().user_id();
            lock(lost).begin(connection.shared_id(), LostClient::new(cause, self.lost_at(connection, cause), user_id));
        }
    }

    /// Time at which a connection may have been lost that ends now: noticing it took a while.
    fn lost_at(&self, connection: &Connection, cause: Cause) -> Instant {
        let (now, client_timeout) = (Instant::now(), self.limits.client_timeout);
        let (heard_at, may_return) = (connection.node().heard_at(), connection.home().moves_between_nodes());
        let unnoticed_for = match cause {
            Cause::LinkLost => now - heard_at,
            // Of its node nothing is heard any more, so that is what was lost.
            Cause::Restored if !connection.node().is_linked() => now - heard_at,
            Cause::Restored => (now - heard_at).max(client_timeout),
            Cause::KeepAliveTimeout => client_timeout,
            Cause::PollsStopped => RECONNECT_TIMEOUT,
            Cause::Drained | Cause::Rebalanced => Duration::ZERO,
            _ if may_return => RECONNECT_TIMEOUT,
            _ => Duration::ZERO,
        };
        now.checked_sub(unnoticed_for).unwrap_or(now)
    }

    /// Keeps what a connection had that has ended, if its client may begin anew. Returns whether somebody has to begin to
    /// [drop](Self::drop_old_lost) what is old.
    pub(crate) fn end_loss(&self, connection: &Connection, was_connected: bool) -> bool {
        let Some(lost) = &self.lost else { return false };
        if !lock(lost).is_ending(connection.id()) {
            return false;
        }
        // What was restored is not lost because its connection was, too, before its hook had run.
        let has_any = was_connected || connection.items().get::<RestoredFrom>().is_some();
        let had = has_any.then(|| connection.take_belongings());
        let mut lost = lock(lost);
        let waited = lost.waiting();
        let dropped = lost.end(connection.id(), had, Instant::now());
        self.metrics().restorable_dropped.inc_by(dropped as u64);
        waited == 0 && lost.waiting() > 0
    }

    /// Whether anything is kept of a lost connection for a client with this user, or about to be.
    pub(crate) fn keeps_lost(&self, id: &str, user_id: Option<&str>) -> bool {
        self.lost.as_ref().is_some_and(|lost| lock(lost).contains(id, user_id, Instant::now()))
    }

    /// Takes what the client of a lost connection had, once `on_disconnected` of that has run.
    pub(crate) async fn take_lost(&self, id: &str, user_id: Option<&str>) -> Option<Box<LostClient>> {
        loop {
            let found = lock(self.lost.as_ref()?).take(id, user_id, Instant::now());
            match found {
                FoundLost::Taken(lost) => return Some(lost),
                FoundLost::Ending(ended) => ended.cancelled().await,
                FoundLost::Nothing => return None,
            }
        }
    }

    /// Drops what lost clients had whose time is over. Returns when that is to be done again.
    pub(crate) fn drop_old_lost(&self, now: Instant) -> Option<Instant> {
        lock(self.lost.as_ref()?).drop_old(now)
    }
}

/// Frames to connections and proxies.
impl HubCore {
    /// Queues the answer to the connection's handshake; never waits.
    pub(crate) fn answer_handshake(&self, connection: &Connection, payload: Bytes) {
        let data = connection_data(connection, payload, DataType::Handshake);
        self.outbound.control_client(connection, &data);
    }

    /// Queues a ping for the connection; never waits.
    pub(crate) fn ping(&self, connection: &Connection) {
        let payload = encode::message(connection.protocol(), &HubMessage::Ping);
        self.outbound.control_client(connection, &connection_data(connection, payload, DataType::Other));
    }

    /// Queues a call of a client method for this connection alone; waits while its send link is full, or while it moves.
    /// Returns its proxy, if that took it.
    pub(crate) async fn call_client(
        &self,
        connection: &Connection,
        payloads: Payloads,
    ) -> Result<Option<Arc<Node>>, SendError> {
        let payload = payloads.get(connection.protocol()).filter(|_| connection.home().moves_between_nodes());
        let Some(payload) = payload.cloned() else {
            let message = MultiConnectionData { connection_ids: vec![connection.shared_id()], payloads };
            let frame = checked_frame(&ServiceMessage::MultiConnectionData(message))?;
            let node = connection.node();
            return Ok(self.outbound.send(&node, &frame).await.then_some(node));
        };
        // Not as one of many: those belong to an epoch, and this goes where the client is, whatever the epoch.
        let frame = checked_frame(&connection_data(connection, payload, DataType::Invocation))?;
        let passage = connection.home().pass().await;
        let is_taken = self.outbound.send(passage.node(), &frame).await;
        Ok(is_taken.then(|| Arc::clone(passage.node())))
    }

    /// Queues a completion for the connection. Returns its frame if that would wait: then it is for
    /// [`complete`](Self::complete).
    pub(crate) fn try_complete(&self, connection: &Connection, payload: Bytes) -> Result<(), Bytes> {
        let frame = connection_data(connection, payload, DataType::Invocation).to_frame();
        match connection.home().try_pass() {
            Some(passage) if self.outbound.try_complete(passage.node(), &frame) => Ok(()),
            _ => Err(frame),
        }
    }

    /// Queues the frame of a completion; waits only when sends and results have filled everything, or while its client moves.
    pub(crate) async fn complete(&self, connection: &Connection, frame: &Bytes) {
        let passage = connection.home().pass().await;
        self.outbound.complete(passage.node(), frame).await;
    }

    /// Queues a stream item for the connection; waits while its send link is full. Returns `false` if there is no link.
    pub(crate) async fn send_item(&self, connection: &Connection, payload: Bytes) -> bool {
        let frame = connection_data(connection, payload, DataType::Invocation).to_frame();
        let passage = connection.home().pass().await;
        self.outbound.send(passage.node(), &frame).await
    }

    /// Tells the proxy of a client how long a message took that a live trace follows; never waits.
    pub(crate) fn report_trace(&self, connection: &Connection, report: TraceReport) {
        self.outbound.control(&connection.node(), &ServiceMessage::TraceReport(report));
    }

    /// Asks the proxy to pause or resume the client, if that is due; never waits. Called with the inbox under its lock,
    /// or a later request could overtake an earlier one.
    pub(crate) fn apply_flow_control(&self, connection: &Connection, inbox: &mut Inbox<CallScope>) {
        if let Some(operation) = inbox.poll_flow(&self.limits) {
            self.outbound.control_flow(&connection.node(), connection.shared_id(), operation);
        }
        if inbox.is_reassigning()
            && connection.node().reads_on()
            && let Some(operation) = inbox.poll_handover(self.is_asked(connection.id()))
        {
            self.outbound.control_flow(&connection.node(), connection.shared_id(), operation);
        }
    }

    /// Begins to hand a connection over: nothing more comes from its client, unless its proxy is asked to read on. Returns
    /// whether a worker must start.
    #[must_use = "a worker must start"]
    pub(crate) fn begin_reassignment(&self, connection: &Connection) -> bool {
        self.has_handovers.store(true, Ordering::Relaxed);
        connection.inbox().begin_reassignment()
    }

    /// Begins to hand a connection over if nothing of it runs and no result of its client is waited for; otherwise its proxy
    /// is told to read the client on, and the connection stays. Returns whether a worker must start.
    #[must_use = "a worker must start"]
    pub(crate) fn begin_idle_reassignment(&self, connection: &Connection) -> bool {
        let mut inbox = connection.inbox();
        if inbox.is_quiet() && !self.is_asked(connection.id()) {
            self.has_handovers.store(true, Ordering::Relaxed);
            return inbox.begin_reassignment();
        }
        self.outbound.control_flow(&connection.node(), connection.shared_id(), FlowOperation::ReadOn);
        false
    }

    /// Advances the hand-over of a connection, after what is waited for has changed. Returns whether a worker must start.
    #[must_use = "a worker must start"]
    pub(crate) fn advance_handover(&self, connection: &Connection) -> bool {
        let mut inbox = connection.inbox();
        self.apply_flow_control(connection, &mut inbox);
        inbox.is_reassigning() && inbox.start_handover(self.is_asked(connection.id()))
    }

    /// Notes that another app server gets a connection, before it is removed here.
    pub(crate) fn remember_handed_over(&self, id: ByteString) {
        lock(&self.handed_over).insert(id);
    }

    /// Whether another app server has got this connection from here.
    pub(crate) fn was_handed_over(&self, id: &str) -> bool {
        lock(&self.handed_over).contains(id)
    }

    /// Offers a connection to its proxy for another app server; never waits.
    pub(crate) fn hand_over(&self, node: &Node, mut close: CloseConnection) {
        close.headers.push(header_of(MIGRATE_TO_HEADER, ""));
        self.outbound.control(node, &ServiceMessage::CloseConnection(close));
    }

    /// Tells the proxies that this app server is about to stop, as [`announce_shutdown`] does.
    pub(crate) async fn announce_shutdown(&self) {
        announce_shutdown(&self.outbound, &self.acks).await;
    }

    /// Waits until all proxies have applied what was queued for them before, as [`fence`] does.
    pub(crate) async fn fence(&self) {
        fence(&self.outbound, &self.acks).await;
    }
}

/// Acknowledgements and client results.
impl HubCore {
    /// Registers a request to a node that will be acknowledged.
    pub(crate) fn expect_ack(&self, node: &Arc<Node>) -> ExpectedAck<'_> {
        ExpectedAck::new(&self.acks, node)
    }

    /// Passes an acknowledgement on; one that nobody waits for is dropped.
    pub(crate) fn handle_ack(&self, ack: Ack) {
        acks::acknowledge(&self.acks, ack);
    }

    /// Registers a request to a client that is here, or that one of the asked proxies may have.
    fn register_request(
        &self,
        connection_id: &ByteString,
        asked: Vec<Arc<Node>>,
    ) -> Result<Registered, TooManyRequests> {
        let max = self.limits.client_results_max;
        let registered = lock(&self.client_results).request(connection_id, asked, max)?;
        self.requests_changed(connection_id);
        Ok(registered)
    }

    /// Forgets a request that nobody waits for any more.
    fn forget_request(&self, id: &str, connection_id: &str) {
        lock(&self.client_results).forget(id);
        self.requests_changed(connection_id);
    }

    /// Has a client read on, or not any more, that is about to be handed over.
    fn requests_changed(&self, connection_id: &str) {
        if self.has_handovers.load(Ordering::Relaxed)
            && let Some(connection) = self.connection(connection_id)
        {
            let mut inbox = connection.inbox();
            self.apply_flow_control(&connection, &mut inbox);
        }
    }

    /// Whether a result of this connection is waited for.
    pub(crate) fn is_asked(&self, connection_id: &str) -> bool {
        lock(&self.client_results).is_asked(connection_id, self.limits.client_result_timeout, Instant::now())
    }

    /// The other app server that has asked a question of this id.
    pub(crate) fn requester_of<'a>(&self, id: &'a str) -> Option<&'a str> {
        lock(&self.client_results).requester_of(id)
    }

    /// Counts an answer that nobody here waits for; the end of an upload that its method has left is none.
    pub(crate) fn count_dropped_result(&self, id: &str) {
        if id.starts_with(ID_PREFIX) {
            self.metrics().client_results_dropped.inc();
        }
    }

    /// Registers the request of another app server to a client that is here.
    pub(crate) fn expect_result_for(&self, request: &ClientInvocation) -> Result<(), TooManyRequests> {
        let ClientInvocation { invocation_id, connection_id, caller_server_id, .. } = request;
        let (app_server, id) = (caller_server_id.clone(), invocation_id.clone());
        let max = self.limits.client_results_max;
        lock(&self.client_results).request_for(app_server, id, connection_id.clone(), max, Instant::now())?;
        self.requests_changed(connection_id);
        Ok(())
    }

    /// Passes a client's completion on to the method here that waits for it; the caller handles other addressees.
    pub(crate) fn handle_result(
        &self,
        connection_id: &str,
        protocol: HubProtocol,
        completion: &Completion,
    ) -> Option<Addressee> {
        let addressee = lock(&self.client_results).complete(&completion.invocation_id, connection_id);
        let Addressee::Local(sender) = addressee else { return Some(addressee) };
        // A method that has stopped waiting in this moment wants no result.
        let _ = sender.send(ClientResult::Completed(protocol, completion.outcome.clone()));
        None
    }

    /// Notes that a proxy does not have the client that a request is for.
    pub(crate) fn handle_unknown_client(&self, invocation_id: &str, node: &Arc<Node>) {
        lock(&self.client_results).deny(invocation_id, node);
    }

    /// Fails a request of a method here.
    pub(crate) fn handle_refusal(&self, invocation_id: &str, connection_id: &str, refusal: ClientResult) {
        lock(&self.client_results).refuse(invocation_id, connection_id, refusal);
    }

    /// Fails the requests to a connection that gives no results here any more. Returns those of other app servers, which must
    /// be told.
    pub(crate) fn fail_requests(&self, connection_id: &str, silence: ClientSilence) -> Vec<AbandonedRequest> {
        lock(&self.client_results).fail_connection(connection_id, silence)
    }

    /// Number of client result requests that are open.
    #[cfg(test)]
    pub(crate) fn open_requests(&self) -> usize {
        lock(&self.client_results).len()
    }
}

fn connection_data(connection: &Connection, payload: Bytes, data_type: DataType) -> ServiceMessage {
    ServiceMessage::ConnectionData(ConnectionData {
        connection_id: connection.shared_id(),
        payload,
        data_type: data_type.number(),
        is_partial: false,
    })
}
