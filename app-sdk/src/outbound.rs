//! Frames of one hub or raw endpoint: its outbound side with the linked proxies, and the [receiver](Endpoint) of the
//! frames read from links.
//!
//! ```text
//!  clients, groups, results ──► Outbound ──► Node (one proxy) ──► LinkOutbox of its send link ──► link writer
//! ```
//!
//! All frames for a proxy go through one queue, the outbox of its send link, so they have one order. Other modules read
//! and write the sockets. A send to many clients is tracked until it is queued at all proxies, so that a connection
//! that moves between proxies receives it from exactly one.

mod proxies;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use tokio::sync::watch;
use tokio::time::Instant;
use trunkline_process::{LinePermit, LogLimit};
use trunkline_protocol::cause::Cause;
use trunkline_protocol::limits::LINK_FRAME_MAX_BYTES;
use trunkline_protocol::service::{
    Capabilities, CloseConnection, ConnectionData, ConnectionFlowControl, ConnectionMoved, DownMark, FlowOperation,
    FlowSubject, OpenConnection, ServiceMessage, header_of,
};
use trunkline_protocol::wire::{CAUSE_HEADER, ITEMS_HEADER, MIGRATE_TO_HEADER};

use crate::connection::{Connection, ConnectionClose, LinkId, RunQueue, short};
use crate::error::SendError;
use crate::metrics::HubMetrics;
use trunkline_link::{LinkOutbox, MoveQueue, TrySendError};

use crate::node::{Node, NodeName};
use crate::sync::{read_lock, write_lock};

pub(crate) use proxies::ManyFrame;
use proxies::Proxies;

/// Error for the second of two connections with the same ID, which requires two nodes with the same name.
pub(crate) const ID_IN_USE: &str = "the connection id is in use";

pub(crate) struct Outbound {
    pub(crate) name: Box<str>,
    pub(crate) metrics: HubMetrics,
    /// Failures of app code towards clients: enough lines to find the problem, and a few megabytes an hour.
    pub(crate) failure_limit: LogLimit,
    /// Client mistakes, which anyone can cause. A developer still sees the first ones.
    pub(crate) mistake_limit: LogLimit,
    pub(crate) hold_limit: LogLimit,
    proxies: RwLock<Proxies>,
    linked: watch::Sender<()>,
    /// Sends to many clients in progress, and the moves that wait for them.
    pub(crate) moves: MoveQueue<RequestedMove>,
    /// Set with the first mark. Before that, a lost link requires no repeated marks.
    has_sent_marks: AtomicBool,
}

#[derive(Debug)]
pub(crate) struct RequestedMove {
    node: Arc<Node>,
    connection_id: ByteString,
}

/// Maximum size of a sent frame; leaves room for a stamp around it.
pub(crate) const SEND_FRAME_MAX_BYTES: usize = LINK_FRAME_MAX_BYTES - 32;

/// Limit for methods that block their threads, because every call of such a method does.
pub(crate) fn hold_limit() -> LogLimit {
    LogLimit::new(3, Duration::from_secs(60))
}

impl Outbound {
    pub(crate) fn new(name: &str, metrics: HubMetrics) -> Self {
        Self {
            name: name.into(),
            metrics,
            failure_limit: LogLimit::new(10, Duration::from_secs(1)),
            mistake_limit: LogLimit::new(10, Duration::from_secs(10)),
            hold_limit: hold_limit(),
            proxies: RwLock::default(),
            linked: watch::Sender::new(()),
            moves: MoveQueue::default(),
            has_sent_marks: AtomicBool::new(false),
        }
    }

    /// Begins a link session, which may become the send link of its node.
    pub(crate) fn begin_session(
        &self,
        name: NodeName<'_>,
        capabilities: Capabilities,
        link: u64,
        outbox: Arc<LinkOutbox>,
    ) -> Arc<Node> {
        let now = Instant::now();
        let begun = write_lock(&self.proxies).begin_session(name, capabilities, link, outbox, now);
        self.metrics.frames_down.inc_by(begun.replayed_frames as u64);
        self.metrics.bytes_down.inc_by(begun.replayed_bytes as u64);
        self.linked.send_replace(());
        begun.node
    }

    /// Ends a link session. Returns whether its node has no links left.
    pub(crate) fn end_session(&self, node: &Arc<Node>, link: u64) -> bool {
        let ended = write_lock(&self.proxies).end_session(node, link);
        self.metrics.frames_lost.inc_by(ended.lost_frames);
        self.linked.send_replace(());
        ended.node_is_lost
    }

    pub(crate) fn retire(&self, node: &Arc<Node>) {
        write_lock(&self.proxies).retire(node);
    }

    pub(crate) fn link_changes(&self) -> watch::Receiver<()> {
        self.linked.subscribe()
    }

    pub(crate) async fn linked(&self) {
        let mut changes = self.link_changes();
        while self.nodes().is_empty() && changes.changed().await.is_ok() {}
    }

    /// Names and boot IDs of the linked proxies and services.
    pub(crate) fn peer_names(&self) -> BTreeSet<(String, String)> {
        let peer_name = |node: &Arc<Node>| {
            let (name, boot) = node.peer_name();
            (name.to_owned(), boot.to_owned())
        };
        self.nodes().iter().map(peer_name).collect()
    }

    pub(crate) fn nodes(&self) -> Arc<[Arc<Node>]> {
        read_lock(&self.proxies).linked(Node::of_caller().as_ref())
    }

    /// Returns the proxies for a frame. Calls `frame` only if it must be recorded for proxies that connect late.
    pub(crate) fn nodes_for(&self, frame: impl FnOnce() -> Bytes) -> Arc<[Arc<Node>]> {
        let caller = Node::of_caller();
        {
            let proxies = read_lock(&self.proxies);
            if !proxies.is_recording() {
                return proxies.linked(caller.as_ref());
            }
        }
        let frame = frame();
        let mut proxies = write_lock(&self.proxies);
        proxies.record(&frame, Instant::now());
        proxies.linked(caller.as_ref())
    }

    /// Queues a frame for every proxy. Returns the proxies, and how many of them accepted it.
    ///
    /// Proxies with free space are served first, so that a slow proxy delays others little.
    pub(crate) async fn send_to_all(&self, frame: &Bytes) -> (Arc<[Arc<Node>]>, usize) {
        let send = self.moves.begin_send();
        let nodes = self.nodes_for(|| frame.clone());
        let frame = ManyFrame::of_send(&send, frame.clone());
        let mut taken = 0;
        let mut full = Vec::new();
        for node in nodes.iter() {
            match self.try_send(node, frame.for_node(node)) {
                Some(is_taken) => taken += usize::from(is_taken),
                None => full.push(node),
            }
        }
        for node in full {
            taken += usize::from(self.send(node, frame.for_node(node)).await);
        }
        (nodes, taken)
    }

    /// Handles a request to move a connection. Returns whether the caller must [answer](Self::answer_moves).
    pub(crate) fn request_move(&self, node: &Arc<Node>, connection_id: ByteString) -> bool {
        self.moves.push(RequestedMove { node: Arc::clone(node), connection_id }).unwrap_or_else(|error| {
            tracing::debug!(node = node.name(), %error, "a connection cannot be moved");
            false
        })
    }

    /// Answers all requested moves, each after the sends that began before it.
    pub(crate) async fn answer_moves(&self) {
        while let Some((epoch, moves)) = self.moves.next_moves().await {
            for RequestedMove { node, connection_id } in moves {
                self.control(&node, &ServiceMessage::ConnectionMoved(ConnectionMoved { connection_id, epoch }));
            }
        }
    }

    /// Queues a frame for one proxy without waiting. `Some(false)`: it has no link; `None`: its send link is full.
    pub(crate) fn try_send(&self, node: &Node, frame: &Bytes) -> Option<bool> {
        while let Some(link) = node.send_link() {
            match link.try_send(frame) {
                Ok(()) => return Some(self.count_queued(frame)),
                Err(TrySendError::Full) => return None,
                Err(TrySendError::Closed) => {}
            }
        }
        Some(false)
    }

    /// Queues a frame for one proxy; waits while its send link is full. Returns `false` if it has no link.
    pub(crate) async fn send(&self, node: &Node, frame: &Bytes) -> bool {
        while let Some(link) = node.send_link() {
            if link.send(frame).await.is_ok() {
                return self.count_queued(frame);
            }
        }
        false
    }

    /// Queues an answer for one proxy. Waits only if sends and answers have used up all space.
    pub(crate) async fn answer(&self, node: &Node, frame: &Bytes) -> bool {
        while let Some(link) = node.send_link() {
            if link.complete(frame).await.is_ok() {
                return self.count_queued(frame);
            }
        }
        false
    }

    /// Queues a control message for one client; never waits.
    pub(crate) fn control_client(&self, connection: &Connection, message: &ServiceMessage) {
        let frame = message.to_frame();
        if connection.home.control(frame.clone()) {
            self.count_queued(&frame);
        }
    }

    /// Queues a control message for one proxy; never waits.
    pub(crate) fn control(&self, node: &Node, message: &ServiceMessage) {
        let frame = message.to_frame();
        if node.control(&frame) {
            self.count_queued(&frame);
        }
    }

    /// Sends a mark to the proxy of one client; never waits.
    pub(crate) fn mark(&self, node: &Node, mark: DownMark) {
        self.has_sent_marks.store(true, Ordering::Relaxed);
        self.control(node, &ServiceMessage::DownMark(mark));
    }

    #[must_use]
    pub(crate) fn has_sent_marks(&self) -> bool {
        self.has_sent_marks.load(Ordering::Relaxed)
    }

    /// Requests a proxy to pause or resume a client; never waits. Must be called under the lock of the flow control
    /// that made the decision, which keeps requests in order.
    pub(crate) fn control_flow(&self, node: &Node, connection_id: ByteString, operation: FlowOperation) {
        if operation == FlowOperation::Pause {
            self.metrics.pauses.inc();
        }
        let message = ConnectionFlowControl { connection_id, subject: FlowSubject::Client, operation };
        self.control(node, &ServiceMessage::ConnectionFlowControl(message));
    }

    pub(crate) fn refuse(&self, node: &Node, connection_id: ByteString, cause: Cause, error: &'static str) {
        self.close_at_proxy(node, connection_id, cause, Some(ByteString::from_static(error)));
    }

    /// Requests a proxy to close a connection, after everything that was queued for it.
    pub(crate) fn close_at_proxy(
        &self,
        node: &Node,
        connection_id: ByteString,
        cause: Cause,
        error: Option<ByteString>,
    ) {
        self.control(node, &Self::close_of(node, connection_id, cause, error));
    }

    pub(crate) fn close_of(
        node: &Node,
        connection_id: ByteString,
        cause: Cause,
        error: Option<ByteString>,
    ) -> ServiceMessage {
        let named = node.capabilities.supports_causes.then(|| header_of(CAUSE_HEADER, cause.label()));
        let close = CloseConnection { connection_id, error, headers: named.into_iter().collect() };
        ServiceMessage::CloseConnection(close)
    }

    /// Offers a connection and its items to its proxy for another app server; never waits.
    pub(crate) fn hand_over(&self, node: &Node, connection_id: ByteString, items: Option<String>) {
        let items = items.map(|items| header_of(ITEMS_HEADER, items));
        let headers = items.into_iter().chain([header_of(MIGRATE_TO_HEADER, "")]).collect();
        let close = CloseConnection { connection_id, headers, ..CloseConnection::default() };
        self.control(node, &ServiceMessage::CloseConnection(close));
    }

    pub(crate) fn count_closed(&self, id: &str, close: &ConnectionClose) {
        self.metrics.connections.dec();
        self.count_ended(id, close);
    }

    /// Counts and logs the end of a connection that was no longer on this app server.
    pub(crate) fn count_ended(&self, id: &str, close: &ConnectionClose) {
        self.metrics.closed(close.cause).inc();
        let (hub, connection, cause, error) = (&*self.name, short(id), close.cause, close.error.as_deref());
        let permit = match cause {
            cause if cause.is_notable() => self.failure_limit.take_line(),
            cause if cause.is_mistake() => self.mistake_limit.take_line(),
            _ => None,
        };
        if let Some(LinePermit { left_out }) = permit {
            tracing::info!(hub, connection, %cause, error, left_out, "connection closed");
        } else {
            tracing::debug!(hub, connection, %cause, error, "connection closed");
        }
    }

    /// Counts a queued frame. Returns `true`.
    fn count_queued(&self, frame: &[u8]) -> bool {
        self.metrics.frames_down.inc();
        self.metrics.bytes_down.inc_by(frame.len() as u64);
        true
    }
}

/// Encodes a message as a frame. Fails if the frame is too large for a proxy.
pub(crate) fn checked_frame(message: &ServiceMessage) -> Result<Bytes, SendError> {
    let frame = message.to_frame();
    if frame.len() > SEND_FRAME_MAX_BYTES {
        return Err(SendError::TooLarge { length: frame.len(), limit: SEND_FRAME_MAX_BYTES });
    }
    Ok(frame)
}

/// Handles frames from links. No handler waits for app code.
pub(crate) trait Endpoint: Send + Sync {
    fn outbound(&self) -> &Outbound;

    /// Opens a client connection. `message` was decoded from the frame `body`.
    fn handle_open(&self, home: LinkId, node: &Arc<Node>, body: &Bytes, message: OpenConnection);

    /// Handles bytes from a client; drops the bytes of unknown clients. `mark` is the mark of the first message if a
    /// live trace follows it. Returns a connection if its worker must be started together with others of the same read.
    #[must_use = "a worker must be started"]
    fn handle_data(&self, data: ConnectionData, mark: Option<i64>) -> Option<Arc<Connection>>;

    /// Starts tasks for connections that received data in reads of a link.
    fn start_workers(&self, _due: &Arc<RunQueue<Arc<Connection>>>, _tasks: usize) {}

    fn handle_close(&self, node: &Arc<Node>, close: CloseConnection);

    /// Closes the connections with their home on a link with an ended session.
    fn handle_link_ended(&self, link: LinkId, close: &ConnectionClose);

    /// Counts all clients, and the clients with their home on this link.
    fn count_clients(&self, _link: LinkId) -> (usize, usize) {
        (0, 0)
    }

    /// Sends a hub ping to each client of a service, because services send none themselves.
    fn ping_clients(&self, _service: &str) {}

    /// Closes the clients of a lost service instance.
    fn handle_instance_lost(&self, _instance: &str) {}

    fn handle(&self, _link: LinkId, _node: &Arc<Node>, message: ServiceMessage) {
        ignore(self.outbound(), &message);
    }

    /// Handles the end of a node's socket. Its session may continue.
    fn handle_socket_ended(&self, _node: &Arc<Node>) {}

    /// Fails everything that is pending at a proxy without links.
    fn handle_node_lost(&self, _node: &Arc<Node>) {}
}

/// Logs a frame that its endpoint does not handle.
pub(crate) fn ignore(outbound: &Outbound, message: &ServiceMessage) {
    tracing::debug!(hub = %outbound.name, kind = message.name(), "frame is ignored");
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use trunkline_protocol::service::Attachment;

    use super::*;
    use crate::metrics::Metrics;
    use crate::node::{next_piece, open_outbox};

    fn written(outbox: &LinkOutbox, socket: Attachment) -> Vec<u8> {
        std::iter::from_fn(|| next_piece(outbox, socket)).flat_map(|piece| piece.bytes).collect()
    }

    #[tokio::test]
    async fn a_send_that_waits_for_a_full_link_delays_the_answer_to_a_move_and_no_other_send() {
        let outbound = Outbound::new("hub", Metrics::new().hub("hub"));
        let [(first, first_socket), (slow, slow_socket)] = [open_outbox(10_000), open_outbox(4)];
        let (first, slow) = (Arc::new(first), Arc::new(slow));
        let begin = |name, outbox: &Arc<LinkOutbox>| {
            outbound.begin_session(NodeName::proxy(name, "boot"), Capabilities::plain(), 0, Arc::clone(outbox))
        };
        let (first_node, _) = (begin("first", &first), begin("slow", &slow));
        while outbound.send_to_all(&Bytes::from_static(b"\x01a")).now_or_never().is_some() {}
        let frame = Bytes::from_static(b"\x01b");
        let mut waiting = Box::pin(outbound.send_to_all(&frame));
        assert!((&mut waiting).now_or_never().is_none());
        assert!(outbound.request_move(&first_node, "c1".into()));
        let mut answering = Box::pin(outbound.answer_moves());
        assert!((&mut answering).now_or_never().is_none());
        assert!(written(&first, first_socket).ends_with(b"\x01a\x01b"));
        assert!(outbound.send(&first_node, &Bytes::from_static(b"\x01c")).now_or_never().unwrap());
        assert_eq!(written(&first, first_socket), b"\x01c");
        while (&mut waiting).now_or_never().is_none() {
            assert!(written(&first, first_socket).is_empty());
            written(&slow, slow_socket);
        }
        answering.await;
        let moved = ConnectionMoved { connection_id: "c1".into(), epoch: 1 };
        assert_eq!(written(&first, first_socket), ServiceMessage::ConnectionMoved(moved).to_frame());
    }

    #[tokio::test]
    async fn a_late_proxy_gets_earlier_broadcasts_once_and_before_anything_newer() {
        let outbound = Outbound::new("hub", Metrics::new().hub("hub"));
        let [(first, first_socket), (late, late_socket)] = [open_outbox(1_000), open_outbox(1_000)];
        let (first, late) = (Arc::new(first), Arc::new(late));
        outbound.begin_session(NodeName::proxy("first", "boot"), Capabilities::plain(), 0, Arc::clone(&first));
        assert_eq!(outbound.send_to_all(&Bytes::from_static(b"\x01a")).await.1, 1);
        assert_eq!(outbound.nodes_for(|| Bytes::from_static(b"\x01b")).len(), 1);
        let node = outbound.begin_session(NodeName::proxy("late", "boot"), Capabilities::plain(), 3, Arc::clone(&late));
        outbound.begin_session(
            NodeName::proxy("late", "boot"),
            Capabilities::plain(),
            4,
            Arc::new(open_outbox(1_000).0),
        );
        assert_eq!(outbound.send_to_all(&Bytes::from_static(b"\x01c")).await.1, 2);
        assert!(node.control(b"\x01d"));
        assert_eq!(written(&first, first_socket), b"\x01a\x01c");
        assert_eq!(written(&late, late_socket), b"\x01a\x01b\x01c\x01d");
    }
}
