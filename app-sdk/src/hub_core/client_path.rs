//! Path of frames to one client: the client's window, its home, and the send link of its node.
//!
//! ```text
//!  answers, items, sends ──► room in the window ──► permit of the home ──► send link ──► mark behind it, when due
//!                               └─ in line              └─ a move           └─ a full link
//! ```
//!
//! Senders wait in a line for the client's [window](ClientWindow); marks follow queued messages. The window is always
//! open for a node without support for marks.

use std::sync::Arc;

use bytes::Bytes;
use trunkline_protocol::hub::HubMessage;
use trunkline_protocol::service::{
    ConnectionData, DataType, DownMark, MultiConnectionData, Payloads, ServiceMessage, TraceReport,
};

use crate::connection::{CallScope, ClientWindow, Connection, Inbox, Limits};
use crate::encode;
use crate::error::SendError;
use crate::node::Node;
use crate::outbound::{Outbound, checked_frame};

/// Maximum number of sends waiting for one client; further sends fail. Results and stream items always wait: the
/// client's own calls limit their number.
pub(crate) const WAITING_SENDS_MAX: usize = 1_024;

#[derive(Clone, Copy)]
pub(crate) struct ClientPath<'a> {
    pub(super) outbound: &'a Outbound,
    pub(super) connection: &'a Connection,
    pub(super) limits: &'a Limits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoRoom {
    Closed,
    TooManyWaiting,
}

/// Reserved space in a client's window, released if dropped before the message is queued.
#[must_use = "the room is free again when this is dropped"]
pub(crate) struct WindowRoom<'a> {
    /// `None` if the window is always open.
    path: Option<ClientPath<'a>>,
    bytes: u32,
}

/// Waiting sender of a window; ends its wait when dropped.
struct WindowWait<'a>(ClientPath<'a>);

impl<'a> ClientPath<'a> {
    /// Queues the hub handshake response without waiting.
    pub(crate) fn answer_handshake(self, payload: Bytes) {
        let data = connection_data(self.connection, payload, DataType::Handshake);
        self.outbound.control_client(self.connection, &data);
    }

    /// Queues a ping without waiting.
    pub(crate) fn ping(self) {
        let payload = encode::message(self.connection.protocol, &HubMessage::Ping);
        self.outbound.control_client(self.connection, &connection_data(self.connection, payload, DataType::Other));
    }

    /// Queues a call of a client method for this connection only. Waits for the client, a full send link and a move.
    /// Returns the proxy, if it accepted the call.
    pub(crate) async fn call(self, payloads: Payloads) -> Result<Option<Arc<Node>>, SendError> {
        let Self { outbound, connection, .. } = self;
        let payload = payloads.get(connection.protocol).cloned();
        let length = payload.as_ref().map_or(0, Bytes::len);
        if let Some(limit) = self.limit_under(length) {
            return Err(SendError::TooLarge { length, limit });
        }
        if let Some(payload) = payload.filter(|_| connection.home.moves_between_nodes()) {
            // Not a multi-connection message: those carry an epoch, while this one follows the client in any epoch.
            let frame = checked_frame(&connection_data(connection, payload, DataType::Invocation))?;
            return self.send(&frame, WAITING_SENDS_MAX).await.or_else(not_sent);
        }
        let message = MultiConnectionData { connection_ids: vec![connection.shared_id()], payloads };
        let frame = checked_frame(&ServiceMessage::MultiConnectionData(message))?;
        let room = match self.room(frame.len(), WAITING_SENDS_MAX).await {
            Ok(room) => room,
            Err(reason) => return not_sent(reason),
        };
        let node = connection.node();
        let is_taken = outbound.send(&node, &frame).await;
        room.note_queued();
        Ok(is_taken.then_some(node))
    }

    /// Queues a stream item. Waits for the client and for a full send link. Returns `false` without a link.
    pub(crate) async fn item(self, payload: Bytes) -> bool {
        let frame = connection_data(self.connection, payload, DataType::Invocation).to_frame();
        matches!(self.send(&frame, usize::MAX).await, Ok(Some(_)))
    }

    /// Queues a frame. Waits for the client, for a move and for a full send link. Returns the node that accepted it.
    async fn send(self, frame: &Bytes, waiting_max: usize) -> Result<Option<Arc<Node>>, NoRoom> {
        let room = self.room(frame.len(), waiting_max).await?;
        let permit = self.connection.home.pass().await;
        let is_taken = self.outbound.send(&permit.node, frame).await;
        room.note_queued();
        Ok(is_taken.then(|| Arc::clone(&permit.node)))
    }

    /// Message size limit of the client at its node, if a message of this length exceeds it.
    pub(crate) fn limit_under(self, length: usize) -> Option<usize> {
        self.connection.home.client_message_max_bytes().filter(|limit| length > *limit)
    }

    /// Queues an answer. Returns its frame if it would have to wait; pass that to [`answer`](Self::answer).
    pub(crate) fn try_answer(self, payload: Bytes) -> Result<(), Bytes> {
        let frame = connection_data(self.connection, payload, DataType::Invocation).to_frame();
        let Some(room) = self.try_room(frame.len()) else { return Err(frame) };
        match self.connection.home.try_pass() {
            Ok(permit) if self.outbound.try_send(&permit.node, &frame).is_some() => {
                room.note_queued();
                Ok(())
            }
            _ => Err(frame),
        }
    }

    /// Queues the frame of an answer. Waits for the client, for a move, and while all queues are full.
    pub(crate) async fn answer(self, frame: &Bytes) {
        let Ok(room) = self.room(frame.len(), usize::MAX).await else { return };
        let permit = self.connection.home.pass().await;
        self.outbound.answer(&permit.node, frame).await;
        room.note_queued();
    }

    /// Asks the proxy to pause or resume the client if due, without waiting. Call with the inbox locked, or a later
    /// request could overtake an earlier one.
    pub(crate) fn apply_flow_control(self, inbox: &mut Inbox<CallScope>) {
        if let Some(operation) = inbox.poll_flow(self.limits) {
            self.outbound.control_flow(&self.connection.node(), self.connection.shared_id(), operation);
        }
    }

    /// Reports the duration of a traced message to the client's proxy, without waiting.
    pub(crate) fn report_trace(self, report: TraceReport) {
        self.outbound.control(&self.connection.node(), &ServiceMessage::TraceReport(report));
    }
}

impl<'a> ClientPath<'a> {
    /// Reserves space for a message if available immediately.
    fn try_room(self, bytes: usize) -> Option<WindowRoom<'a>> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let path = self.connection.home.client_message_max_bytes().map(|_| self);
        let has_room = path.is_none() || self.connection.inbox().window.reserve(bytes);
        has_room.then_some(WindowRoom { path, bytes })
    }

    /// Waits for space for a message, or for the connection to close. Cancel-safe.
    pub(crate) async fn room(self, bytes: usize, waiting_max: usize) -> Result<WindowRoom<'a>, NoRoom> {
        match self.try_room(bytes) {
            Some(room) => Ok(room),
            // Boxed to keep the future small for senders that need not wait.
            None => Box::pin(self.wait(u32::try_from(bytes).unwrap_or(u32::MAX), waiting_max)).await,
        }
    }

    async fn wait(self, bytes: u32, waiting_max: usize) -> Result<WindowRoom<'a>, NoRoom> {
        let line = self.connection.inbox().window.begin_wait(waiting_max).ok_or(NoRoom::TooManyWaiting)?;
        let _wait = WindowWait::begin_wait(self);
        let waiting = async {
            let _turn = line.turn.lock().await;
            while !self.reserve_first(bytes) {
                line.freed.notified().await;
            }
        };
        let has_room = self.connection.cancellation().run_until_cancelled(waiting).await;
        has_room.map(|()| WindowRoom { path: Some(self), bytes }).ok_or(NoRoom::Closed)
    }

    fn reserve_first(self, bytes: u32) -> bool {
        let mut inbox = self.connection.inbox();
        let window = &mut inbox.window;
        let has_room = window.reserve_first(bytes);
        if !has_room {
            let rest = window.mark_rest();
            self.mark(window, rest);
        }
        has_room
    }

    /// Sends the last unconfirmed mark again: its frame may be lost, or the client may have moved to another node.
    pub(crate) fn repeat_mark(self) {
        let mut inbox = self.connection.inbox();
        let window = &mut inbox.window;
        self.mark(window, window.last_mark());
    }

    /// Queues a mark, if one is due. Call with the window locked, or a later mark could overtake an earlier one. During
    /// a move the mark is skipped; the last one is repeated when the move ends.
    fn mark(self, window: &mut ClientWindow, due: Option<i64>) {
        let Some(number) = due else { return };
        let Ok(permit) = self.connection.home.try_pass() else { return };
        match permit.node.capabilities.client_message_max_bytes {
            Some(_) => {
                self.outbound.mark(&permit.node, DownMark { connection_id: self.connection.shared_id(), number });
            }
            // This node confirms no marks.
            None => window.release(),
        }
    }

    /// Keeps reading a waiting client that acknowledges messages: the acknowledgements may be behind unread data.
    fn note_wait(self, begins: bool) {
        if !self.connection.home.moves_between_nodes() {
            return;
        }
        let mut inbox = self.connection.inbox();
        let (_, flow) = inbox.calls();
        if begins {
            flow.begin_wait()
        } else {
            flow.end_wait()
        }
        self.apply_flow_control(&mut inbox);
    }
}

impl WindowRoom<'_> {
    pub(crate) fn note_queued(mut self) {
        if let Some(path) = self.path.take() {
            let mut inbox = path.connection.inbox();
            let window = &mut inbox.window;
            let due = window.note_queued(self.bytes);
            path.mark(window, due);
        }
    }
}

impl Drop for WindowRoom<'_> {
    fn drop(&mut self) {
        if let Some(path) = self.path {
            path.connection.inbox().window.give_up(self.bytes);
        }
    }
}

impl<'a> WindowWait<'a> {
    fn begin_wait(path: ClientPath<'a>) -> Self {
        path.note_wait(true);
        Self(path)
    }
}

impl Drop for WindowWait<'_> {
    fn drop(&mut self) {
        self.0.connection.inbox().window.end_wait();
        self.0.note_wait(false);
    }
}

/// Result of a send without room. A closed client is no error of the sender.
fn not_sent(reason: NoRoom) -> Result<Option<Arc<Node>>, SendError> {
    match reason {
        NoRoom::Closed => Ok(None),
        NoRoom::TooManyWaiting => Err(SendError::TooManyWaiting(WAITING_SENDS_MAX)),
    }
}

/// Connection data that ends with a complete hub message.
pub(super) fn connection_data(connection: &Connection, payload: Bytes, data_type: DataType) -> ServiceMessage {
    ServiceMessage::ConnectionData(ConnectionData {
        connection_id: connection.shared_id(),
        payload,
        data_type: data_type.number(),
        is_partial: false,
    })
}
