//! The way down: what one hub sends, and through which proxies it leaves.
//!
//! ```text
//!  clients, groups, results ──► Downward ──► Node (one proxy) ──► Outbox of its lane ──► link writer
//!                                  └─ Roster: which connection is at which proxy
//! ```
//!
//! Everything for one proxy goes through one queue, the outbox of its lane: that gives one order, whatever the
//! kinds. Who reads and writes sockets is no matter of this room.

mod acks;
mod latecomers;
mod questions;
mod roster;
mod waits;

use std::sync::{Arc, OnceLock, RwLock, Weak};

use bytes::Bytes;
use bytestring::ByteString;
use tokio::time::Instant;
use trunkline_link::LinkOutbox;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::{Close, HubMessage, HubProtocol};
use trunkline_protocol::limits::LINK_FRAME_MAX_BYTES;
use trunkline_protocol::manifest::{CAUSE_HEADER, MIGRATE_TO_HEADER};
use trunkline_protocol::service::{CloseConnection, ConnectionData, ConnectionFlowControl};
use trunkline_protocol::service::{ErrorCompletion, FlowOperation, FlowSubject, ServiceMessage};

use crate::connection::{Connection, End, Inbox, Limits, short};
use crate::encode;
use crate::metrics::HubMetrics;
use crate::node::Node;
use crate::sync::{read, write};

use acks::Acks;
use latecomers::Latecomers;
pub(crate) use questions::{Answer, Questions, Taken, TooMany};
use roster::Roster;
pub(crate) use waits::Hopeless;

/// Two nodes were given one token: whoever came first stays.
pub(crate) const ID_IN_USE: &str = "the connection id is in use";

/// What a `ConnectionData` holds; numbers of the service protocol.
#[derive(Debug, Clone, Copy)]
pub(crate) enum DataType {
    Handshake = 1,
    Invocation = 2,
    Close = 4,
}

/// Whoever runs the handlers of connections.
pub(crate) trait Workers: Send + Sync {
    /// Works off the connection's inbox in a task of its own.
    fn start(&self, connection: Arc<Connection>);
}

/// The way down of one hub.
pub(crate) struct Downward {
    pub(crate) hub: Box<str>,
    pub(crate) instance: Arc<str>,
    pub(crate) protocols: Vec<HubProtocol>,
    pub(crate) roster: Roster,
    pub(crate) acks: Acks,
    pub(crate) questions: Questions,
    pub(crate) limits: Limits,
    pub(crate) metrics: HubMetrics,
    nodes: RwLock<Nodes>,
    workers: OnceLock<Weak<dyn Workers>>,
}

/// The proxies of a hub.
#[derive(Default)]
struct Nodes {
    /// Replaced as a whole when a proxy comes or goes, so that a send only takes a reference.
    here: Arc<[Arc<Node>]>,
    latecomers: Latecomers,
}

impl Downward {
    pub(crate) fn new(
        hub: &str,
        instance: Arc<str>,
        protocols: Vec<HubProtocol>,
        limits: Limits,
        metrics: HubMetrics,
    ) -> Self {
        Self {
            hub: hub.into(),
            instance,
            protocols,
            roster: Roster::default(),
            acks: Acks::default(),
            questions: Questions::default(),
            limits,
            metrics,
            nodes: RwLock::default(),
            workers: OnceLock::new(),
        }
    }

    /// Names who runs handlers; once, when the hub is put together.
    pub(crate) fn set_workers(&self, workers: Weak<dyn Workers>) {
        debug_assert!(self.workers.get().is_none(), "a hub is put together once");
        let _ = self.workers.set(workers);
    }

    /// A session of a link begins: it may become the lane of its node.
    pub(crate) fn begin_session(
        &self,
        name: &str,
        boot: &str,
        knows_causes: bool,
        slot: u32,
        outbox: Arc<LinkOutbox>,
    ) -> Arc<Node> {
        let mut nodes = write(&self.nodes);
        if let Some(node) = nodes.here.iter().find(|node| node.is(name, boot)) {
            node.open(slot, outbox);
            return Arc::clone(node);
        }
        let (node, now) = (Arc::new(Node::new(name, boot, knows_causes)), Instant::now());
        node.open(slot, outbox);
        if nodes.here.is_empty() {
            nodes.latecomers.expect(now);
        }
        // Before anything newer: whoever sends asks for the proxies under this lock.
        for frame in nodes.latecomers.welcome(name, boot, now).iter().filter(|frame| node.control(frame)) {
            self.count_queued(1, frame);
        }
        nodes.here = nodes.here.iter().cloned().chain([Arc::clone(&node)]).collect();
        node
    }

    /// A session is over: what it never sent moves to the next lane of its node; a node without links is forgotten.
    pub(crate) fn end_session(&self, node: &Arc<Node>, slot: u32) {
        let mut nodes = write(&self.nodes);
        let ended = node.end(slot);
        self.metrics.frames_lost.inc_by(ended.lost_frames);
        if ended.was_last {
            nodes.here = nodes.here.iter().filter(|other| !Arc::ptr_eq(other, node)).cloned().collect();
            self.acks.fail_of(node);
            self.questions.fail_of_node(node);
        }
    }

    pub(crate) fn nodes(&self) -> Arc<[Arc<Node>]> {
        Arc::clone(&read(&self.nodes).here)
    }

    /// The proxies that are to get a frame now. One that comes late gets it too, once; `frame` is called if that may be.
    pub(crate) fn nodes_for(&self, frame: impl FnOnce() -> Bytes) -> Arc<[Arc<Node>]> {
        {
            let nodes = read(&self.nodes);
            if !nodes.latecomers.are_expected() {
                return Arc::clone(&nodes.here);
            }
        }
        let frame = frame();
        let mut nodes = write(&self.nodes);
        nodes.latecomers.keep(&frame, Instant::now());
        Arc::clone(&nodes.here)
    }

    /// Queues a frame for every proxy and returns how many took it.
    ///
    /// Proxies with room get it at once, so that a slow one delays the others as little as possible.
    pub(crate) async fn send_to_all(&self, frame: &Bytes) -> usize {
        let nodes = self.nodes_for(|| frame.clone());
        let mut taken = 0;
        let mut full = Vec::new();
        for node in nodes.iter() {
            match node.try_send(frame) {
                Some(true) => taken += 1,
                Some(false) => {}
                None => full.push(node),
            }
        }
        for node in full {
            taken += usize::from(node.send(frame).await);
        }
        self.count_queued(taken, frame);
        taken
    }

    /// Queues a frame for one proxy; waits while its lane is full. `false`: no link of it is open.
    pub(crate) async fn send(&self, node: &Node, frame: &Bytes) -> bool {
        let taken = node.send(frame).await;
        self.count_queued(usize::from(taken), frame);
        taken
    }

    /// Queues a result for the connection; waits only when sends and results have filled everything.
    pub(crate) async fn complete(&self, connection: &Connection, payload: Bytes) {
        let frame = data(connection, payload, DataType::Invocation).to_frame();
        if connection.node().complete(&frame).await {
            self.count_queued(1, &frame);
        }
    }

    /// Queues the answer to the connection's handshake; never waits.
    pub(crate) fn answer_handshake(&self, connection: &Connection, payload: Bytes) {
        self.control(connection.node(), &data(connection, payload, DataType::Handshake));
    }

    /// Queues an item of a stream for the connection; waits while its lane is full. `false`: no link is open.
    pub(crate) async fn send_item(&self, connection: &Connection, payload: Bytes) -> bool {
        self.send(connection.node(), &data(connection, payload, DataType::Invocation).to_frame()).await
    }

    /// Queues what another app server is told of its question; waits as a result does.
    pub(crate) async fn answer_question(&self, node: &Node, message: &ServiceMessage) {
        let frame = message.to_frame();
        if node.complete(&frame).await {
            self.count_queued(1, &frame);
        }
    }

    /// Tells another app server that its question will not be answered; never waits.
    pub(crate) fn refuse_question(&self, node: &Node, refusal: ErrorCompletion) {
        self.control(node, &ServiceMessage::ErrorCompletion(refusal));
    }

    /// Asks the proxy to stop or go on reading the client, if there is reason to; never waits. Called with the inbox
    /// under its lock, or a later wish could overtake an earlier one.
    pub(crate) fn settle_flow(&self, connection: &Connection, inbox: &mut Inbox) {
        if let Some(operation) = inbox.poll_flow(&self.limits) {
            self.control_flow(connection.node(), connection.shared_id(), operation);
        }
    }

    /// Asks a proxy to stop or go on reading a client; never waits, and has the same to be called under the lock of
    /// whatever decides.
    pub(crate) fn control_flow(&self, node: &Node, connection_id: ByteString, operation: FlowOperation) {
        if operation == FlowOperation::Pause {
            self.metrics.pauses.inc();
        }
        let message = ConnectionFlowControl { connection_id, subject: FlowSubject::Client, operation };
        self.control(node, &ServiceMessage::ConnectionFlowControl(message));
    }

    /// Ends a connection from this side, once: a hub close message, then the end. What waits in its inbox is dropped.
    pub(crate) fn close(&self, connection: &Arc<Connection>, close: Close, end: End) {
        let payload = encode::message(connection.protocol(), &HubMessage::Close(close));
        self.end_from_here(connection, Some(data(connection, payload, DataType::Close)), end);
    }

    /// As [`close`](Self::close), for a connection whose handshake was refused: it gets no close message.
    pub(crate) fn refuse(&self, connection: &Arc<Connection>, handshake_answer: Bytes) {
        let answer = data(connection, handshake_answer, DataType::Handshake);
        self.end_from_here(connection, Some(answer), End::of(Cause::AppHandshakeRefused));
    }

    /// Tells a proxy that one of its connections is not wanted here.
    pub(crate) fn turn_away(&self, node: &Node, connection_id: ByteString, cause: Cause, error: &'static str) {
        self.end_at_proxy(node, connection_id, cause, Some(ByteString::from_static(error)));
    }

    /// Tells a proxy to close one of its connections, after all that was queued for it.
    pub(crate) fn end_at_proxy(&self, node: &Node, connection_id: ByteString, cause: Cause, error: Option<ByteString>) {
        let told = node.knows_causes().then(|| (CAUSE_HEADER.into(), vec![cause.label().into()]));
        let close = CloseConnection { connection_id, error, headers: told.into_iter().collect() };
        self.control(node, &ServiceMessage::CloseConnection(close));
    }

    /// A connection has ended at the other side, once. What waits in its inbox is still worked off.
    pub(crate) fn left(&self, connection: &Arc<Connection>, end: End) {
        if self.roster.remove(connection) {
            self.ended(connection.id(), &end);
            connection.cancel();
            let start = connection.inbox().finish(end);
            self.start_if(start, connection);
        }
    }

    /// A connection goes on elsewhere: it is none of ours any more, and nobody is told of an end. `false`: it is not here.
    pub(crate) fn leave_quietly(&self, connection: &Arc<Connection>) -> bool {
        let is_here = self.roster.remove(connection);
        if is_here {
            self.metrics.connections.dec();
        }
        is_here
    }

    /// Cancels what still runs for a connection that is none of ours any more.
    pub(crate) fn give_up_calls(&self, connection: &Arc<Connection>) {
        connection.cancel();
        let start = connection.inbox().finish_quietly();
        self.start_if(start, connection);
    }

    /// Tells a proxy that a connection may go on elsewhere; never waits.
    pub(crate) fn hand_over(&self, node: &Node, mut close: CloseConnection) {
        close.headers.push((MIGRATE_TO_HEADER.into(), vec![ByteString::new()]));
        self.control(node, &ServiceMessage::CloseConnection(close));
    }

    /// Tells all proxies that this app server is about to stop: they ask for their connections.
    pub(crate) fn announce_leaving(&self) {
        let message = ConnectionFlowControl {
            connection_id: ByteString::new(),
            subject: FlowSubject::Server,
            operation: FlowOperation::Offline,
        };
        for node in self.nodes().iter() {
            self.control(node, &ServiceMessage::ConnectionFlowControl(message.clone()));
        }
    }

    /// Starts a worker for the connection, if there is to be one.
    pub(crate) fn start_if(&self, start: bool, connection: &Arc<Connection>) {
        if start && let Some(workers) = self.workers.get().and_then(Weak::upgrade) {
            workers.start(Arc::clone(connection));
        }
    }

    /// A connection is none of ours any more: counts and logs why.
    pub(crate) fn ended(&self, id: &str, end: &End) {
        self.metrics.connections.dec();
        self.metrics.closed(end.cause).inc();
        let (hub, connection, cause, error) = (&*self.hub, short(id), end.cause, end.error.as_deref());
        if cause.is_notable() {
            tracing::info!(hub, connection, %cause, error, "connection closed");
        } else {
            tracing::debug!(hub, connection, %cause, error, "connection closed");
        }
    }

    fn end_from_here(&self, connection: &Arc<Connection>, last: Option<ServiceMessage>, end: End) {
        if !self.roster.remove(connection) {
            return;
        }
        self.ended(connection.id(), &end);
        if let Some(last) = last {
            self.control(connection.node(), &last);
        }
        self.end_at_proxy(connection.node(), connection.shared_id(), end.cause, None);
        connection.cancel();
        let start = {
            let mut inbox = connection.inbox();
            inbox.clear();
            inbox.finish(end)
        };
        self.start_if(start, connection);
    }

    fn count_queued(&self, proxies: usize, frame: &[u8]) {
        self.metrics.frames_down.inc_by(proxies as u64);
        self.metrics.bytes_down.inc_by(proxies.saturating_mul(frame.len()) as u64);
    }

    fn control(&self, node: &Node, message: &ServiceMessage) {
        let frame = message.to_frame();
        if node.control(&frame) {
            self.count_queued(1, &frame);
        }
    }
}

/// The frame of a message, if a proxy would take it.
pub(crate) fn frame(message: &ServiceMessage) -> Result<Bytes, crate::SendError> {
    let frame = message.to_frame();
    if frame.len() > LINK_FRAME_MAX_BYTES {
        return Err(crate::SendError::TooLarge { length: frame.len(), limit: LINK_FRAME_MAX_BYTES });
    }
    Ok(frame)
}

fn data(connection: &Connection, payload: Bytes, data_type: DataType) -> ServiceMessage {
    ServiceMessage::ConnectionData(ConnectionData {
        connection_id: connection.shared_id(),
        payload,
        data_type: data_type as i64,
        is_partial: false,
    })
}

#[cfg(test)]
mod tests {
    use trunkline_protocol::service::Attachment;

    use super::*;
    use crate::metrics::Metrics;
    use crate::node::{next_piece, open_outbox};

    fn written(outbox: &LinkOutbox, socket: Attachment) -> Vec<u8> {
        std::iter::from_fn(|| next_piece(outbox, socket)).flat_map(|piece| piece.bytes).collect()
    }

    #[tokio::test]
    async fn a_proxy_that_comes_late_gets_what_was_sent_to_all_once_and_before_anything_newer() {
        let down = Downward::new("hub", "me".into(), Vec::new(), Limits::default(), Metrics::new().hub("hub"));
        let [(first, first_socket), (late, late_socket)] = [open_outbox(1_000), open_outbox(1_000)];
        let (first, late) = (Arc::new(first), Arc::new(late));
        down.begin_session("first", "boot", true, 0, Arc::clone(&first));
        assert_eq!(down.send_to_all(&Bytes::from_static(b"\x01a")).await, 1);
        assert_eq!(down.nodes_for(|| Bytes::from_static(b"\x01b")).len(), 1);
        let node = down.begin_session("late", "boot", true, 3, Arc::clone(&late));
        down.begin_session("late", "boot", true, 4, Arc::new(open_outbox(1_000).0));
        assert_eq!(down.send_to_all(&Bytes::from_static(b"\x01c")).await, 2);
        assert!(node.control(b"\x01d"));
        assert_eq!(written(&first, first_socket), b"\x01a\x01c");
        assert_eq!(written(&late, late_socket), b"\x01a\x01b\x01c\x01d");
    }
}
