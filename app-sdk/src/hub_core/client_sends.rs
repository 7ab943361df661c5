//! Frames for one client connection, by way of its home.

use std::sync::Arc;

use bytes::Bytes;
use trunkline_protocol::hub::HubMessage;
use trunkline_protocol::service::{
    ConnectionData, DataType, MultiConnectionData, Payloads, ServiceMessage, TraceReport,
};

use crate::connection::Connection;
use crate::encode;
use crate::error::SendError;
use crate::node::Node;
use crate::outbound::{Outbound, checked_frame};

/// Way of frames to one client connection.
#[derive(Clone, Copy)]
pub(crate) struct ClientSends<'a> {
    outbound: &'a Outbound,
    connection: &'a Connection,
}

impl<'a> ClientSends<'a> {
    pub(super) fn new(outbound: &'a Outbound, connection: &'a Connection) -> Self {
        Self { outbound, connection }
    }

    /// Queues the answer to the connection's handshake; never waits.
    pub(crate) fn answer_handshake(&self, payload: Bytes) {
        let data = connection_data(self.connection, payload, DataType::Handshake);
        self.outbound.control_client(self.connection, &data);
    }

    /// Queues a ping for the connection; never waits.
    pub(crate) fn ping(&self) {
        let payload = encode::message(self.connection.protocol(), &HubMessage::Ping);
        self.outbound.control_client(self.connection, &connection_data(self.connection, payload, DataType::Other));
    }

    /// Queues a call of a client method for this connection alone; waits while its send link is full, or while it
    /// moves. Returns its proxy, if that took it.
    pub(crate) async fn call(&self, payloads: Payloads) -> Result<Option<Arc<Node>>, SendError> {
        let Self { outbound, connection } = *self;
        let payload = payloads.get(connection.protocol()).filter(|_| connection.home().moves_between_nodes());
        let Some(payload) = payload.cloned() else {
            let message = MultiConnectionData { connection_ids: vec![connection.shared_id()], payloads };
            let frame = checked_frame(&ServiceMessage::MultiConnectionData(message))?;
            let node = connection.node();
            return Ok(outbound.send(&node, &frame).await.then_some(node));
        };
        // Not as one of many: those belong to an epoch, and this goes where the client is, whatever the epoch.
        let frame = checked_frame(&connection_data(connection, payload, DataType::Invocation))?;
        let passage = connection.home().pass().await;
        let is_taken = outbound.send(passage.node(), &frame).await;
        Ok(is_taken.then(|| Arc::clone(passage.node())))
    }

    /// Queues a completion for the connection. Returns its frame if that would wait: then it is for
    /// [`complete`](Self::complete).
    pub(crate) fn try_complete(&self, payload: Bytes) -> Result<(), Bytes> {
        let frame = connection_data(self.connection, payload, DataType::Invocation).to_frame();
        match self.connection.home().try_pass() {
            Some(passage) if self.outbound.try_complete(passage.node(), &frame) => Ok(()),
            _ => Err(frame),
        }
    }

    /// Queues the frame of a completion; waits only when sends and results have filled everything, or while its client
    /// moves.
    pub(crate) async fn complete(&self, frame: &Bytes) {
        let passage = self.connection.home().pass().await;
        self.outbound.complete(passage.node(), frame).await;
    }

    /// Queues a stream item for the connection; waits while its send link is full. Returns `false` if there is no link.
    pub(crate) async fn item(&self, payload: Bytes) -> bool {
        let frame = connection_data(self.connection, payload, DataType::Invocation).to_frame();
        let passage = self.connection.home().pass().await;
        self.outbound.send(passage.node(), &frame).await
    }

    /// Tells the proxy of a client how long a message took that a live trace follows; never waits.
    pub(crate) fn report_trace(&self, report: TraceReport) {
        self.outbound.control(&self.connection.node(), &ServiceMessage::TraceReport(report));
    }
}

/// Data for a connection, which ends with a hub message.
pub(super) fn connection_data(connection: &Connection, payload: Bytes, data_type: DataType) -> ServiceMessage {
    ServiceMessage::ConnectionData(ConnectionData {
        connection_id: connection.shared_id(),
        payload,
        data_type: data_type.number(),
        is_partial: false,
    })
}
