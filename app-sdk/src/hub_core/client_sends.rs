//! Frames for one client connection, sent through its assigned node.

use std::sync::Arc;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use trunkline_protocol::hub::HubMessage;
use trunkline_protocol::service::{
    ConnectionData, DataType, DownMark, MultiConnectionData, Payloads, ServiceMessage, TraceReport,
};

use crate::connection::{
    CallScope, ClientWindow, Connection, Inbox, Limits, NoRoom, WAITING_SENDS_MAX, WindowRoom, WindowedClient, room,
    try_room,
};
use crate::encode;
use crate::error::SendError;
use crate::node::Node;
use crate::outbound::{Outbound, checked_frame};

#[derive(Clone, Copy)]
pub(crate) struct ClientSends<'a> {
    outbound: &'a Outbound,
    connection: &'a Connection,
    limits: &'a Limits,
}

impl<'a> ClientSends<'a> {
    pub(super) fn new(outbound: &'a Outbound, connection: &'a Connection, limits: &'a Limits) -> Self {
        Self { outbound, connection, limits }
    }

    /// Queues the hub handshake response without waiting.
    pub(crate) fn answer_handshake(&self, payload: Bytes) {
        let data = connection_data(self.connection, payload, DataType::Handshake);
        self.outbound.control_client(self.connection, &data);
    }

    /// Queues a ping without waiting.
    pub(crate) fn ping(&self) {
        let payload = encode::message(self.connection.protocol, &HubMessage::Ping);
        self.outbound.control_client(self.connection, &connection_data(self.connection, payload, DataType::Other));
    }

    /// Queues a call of a client method for this connection only. Waits for the client, a full send link and a move.
    /// Returns the proxy, if it accepted the call.
    pub(crate) async fn call(&self, payloads: Payloads) -> Result<Option<Arc<Node>>, SendError> {
        let Self { outbound, connection, .. } = *self;
        let payload = payloads.get(connection.protocol).cloned();
        let length = payload.as_ref().map_or(0, Bytes::len);
        if let Some(limit) = self.limit_under(length) {
            return Err(SendError::TooLarge { length, limit });
        }
        let Some(payload) = payload.filter(|_| connection.home.moves_between_nodes()) else {
            let message = MultiConnectionData { connection_ids: vec![connection.shared_id()], payloads };
            let frame = checked_frame(&ServiceMessage::MultiConnectionData(message))?;
            let Some(room) = self.room_of_send(&frame).await? else { return Ok(None) };
            let node = connection.node();
            let is_taken = outbound.send(&node, &frame).await;
            room.note_queued();
            return Ok(is_taken.then_some(node));
        };
        // Not a multi-connection message: those carry an epoch, while this one follows the client in any epoch.
        let frame = checked_frame(&connection_data(connection, payload, DataType::Invocation))?;
        let Some(room) = self.room_of_send(&frame).await? else { return Ok(None) };
        let permit = connection.home.pass().await;
        let is_taken = outbound.send(&permit.node, &frame).await;
        room.note_queued();
        Ok(is_taken.then(|| Arc::clone(&permit.node)))
    }

    /// Waits for space for a send; `None` if the connection closes meanwhile.
    async fn room_of_send(&self, frame: &Bytes) -> Result<Option<WindowRoom<'_, Self>>, SendError> {
        match room(self, frame.len(), WAITING_SENDS_MAX).await {
            Ok(room) => Ok(Some(room)),
            Err(NoRoom::Closed) => Ok(None),
            Err(NoRoom::TooManyWaiting) => Err(SendError::TooManyWaiting(WAITING_SENDS_MAX)),
        }
    }

    /// Message size limit of the client at its node, if a message of this length exceeds it.
    pub(crate) fn limit_under(&self, length: usize) -> Option<usize> {
        self.connection.home.client_message_max_bytes().filter(|limit| length > *limit)
    }

    /// Queues a completion. Returns its frame if it would have to wait; pass that to [`complete`](Self::complete).
    pub(crate) fn try_complete(&self, payload: Bytes) -> Result<(), Bytes> {
        let frame = connection_data(self.connection, payload, DataType::Invocation).to_frame();
        let Some(room) = try_room(self, frame.len()) else { return Err(frame) };
        match self.connection.home.try_pass() {
            Some(permit) if self.outbound.try_complete(&permit.node, &frame) => {
                room.note_queued();
                Ok(())
            }
            _ => Err(frame),
        }
    }

    /// Queues the frame of a completion. Waits for the client, for a move, and while all queues are full.
    pub(crate) async fn complete(&self, frame: &Bytes) {
        let Ok(room) = room(self, frame.len(), usize::MAX).await else { return };
        let permit = self.connection.home.pass().await;
        self.outbound.complete(&permit.node, frame).await;
        room.note_queued();
    }

    /// Queues a stream item. Waits for the client and for a full send link. Returns `false` without a link.
    pub(crate) async fn item(&self, payload: Bytes) -> bool {
        let frame = connection_data(self.connection, payload, DataType::Invocation).to_frame();
        let Ok(room) = room(self, frame.len(), usize::MAX).await else { return false };
        let permit = self.connection.home.pass().await;
        let is_taken = self.outbound.send(&permit.node, &frame).await;
        room.note_queued();
        is_taken
    }

    /// Asks the proxy to pause or resume the client if due, without waiting. Call with the inbox locked, or a later
    /// request could overtake an earlier one.
    pub(crate) fn apply_flow_control(&self, inbox: &mut Inbox<CallScope>) {
        if let Some(operation) = inbox.poll_flow(self.limits) {
            self.outbound.control_flow(&self.connection.node(), self.connection.shared_id(), operation);
        }
    }

    /// Reports the duration of a traced message to the client's proxy, without waiting.
    pub(crate) fn report_trace(&self, report: TraceReport) {
        self.outbound.control(&self.connection.node(), &ServiceMessage::TraceReport(report));
    }
}

impl WindowedClient for ClientSends<'_> {
    fn with_window<R>(&self, step: impl FnOnce(&mut ClientWindow) -> R) -> R {
        step(&mut self.connection.inbox().window)
    }

    fn has_reports(&self) -> bool {
        self.connection.home.client_message_max_bytes().is_some()
    }

    /// During a move the mark is skipped; the last one is repeated when the move ends.
    fn send_mark(&self, number: i64) -> bool {
        let Some(permit) = self.connection.home.try_pass() else { return true };
        let has_reports = permit.node.capabilities.client_message_max_bytes.is_some();
        if has_reports {
            let mark = DownMark { connection_id: self.connection.shared_id(), number };
            self.outbound.mark(&permit.node, mark);
        }
        has_reports
    }

    fn closed(&self) -> &CancellationToken {
        self.connection.cancellation()
    }

    /// Keeps reading a client that acknowledges messages: the acknowledgements may be behind unread data.
    fn note_wait(&self, begins: bool) {
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

/// Connection data that ends with a complete hub message.
pub(super) fn connection_data(connection: &Connection, payload: Bytes, data_type: DataType) -> ServiceMessage {
    ServiceMessage::ConnectionData(ConnectionData {
        connection_id: connection.shared_id(),
        payload,
        data_type: data_type.number(),
        is_partial: false,
    })
}
