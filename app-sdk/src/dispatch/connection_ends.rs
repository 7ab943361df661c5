//! Ends of connections, by whatever comes first: a close of either side, a broken rule, a lost link, another home.
//!
//! What waits in the inbox of a connection that has ended is worked off, so each end may start a worker.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use bytestring::ByteString;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::{CLOSED_WITH_ERROR, Close, HandshakeError, HandshakeResponse, HubProtocol};
use trunkline_protocol::service::OpenConnection;

use crate::connection::{ConnectRequest, Connection, ConnectionClose, Home, LinkId, StartWorker, short};
use crate::error::{CallStage, HubError, text};
use crate::hub_core::HubCore;
use crate::node::Node;

/// Ends of the connections of one hub.
pub(super) struct ConnectionEnds {
    core: Arc<HubCore>,
    workers: Weak<dyn StartWorker>,
    /// Whether clients read what went wrong.
    is_detailed: bool,
}

impl ConnectionEnds {
    pub(super) fn new(core: Arc<HubCore>, workers: Weak<dyn StartWorker>, is_detailed: bool) -> Self {
        Self { core, workers, is_detailed }
    }

    /// Starts the worker of a connection.
    pub(super) fn start(&self, connection: &Arc<Connection>) {
        if let Some(workers) = self.workers.upgrade() {
            workers.start_worker(Arc::clone(connection));
        }
    }

    pub(super) fn refuse_handshake(&self, connection: &Arc<Connection>, error: &HandshakeError) {
        tracing::debug!(hub = %self.core.name(), connection = short(connection.id()), ?error, "handshake is refused");
        let text = match error {
            HandshakeError::Malformed { detail } if self.is_detailed => {
                HubError::invalid_data(detail.as_str()).describe(&error.to_string(), true)
            }
            _ => error.to_string(),
        };
        let answer = HandshakeResponse { error: Some(text) }.encode();
        if self.core.refuse_handshake(connection, answer) {
            self.start(connection);
        }
    }

    /// Takes the close message of a client; most often the proxy keeps it to itself.
    pub(super) fn handle_close_message(&self, connection: &Arc<Connection>, message: Close) {
        let close = ConnectionClose { cause: Cause::ClientClosed, error: message.error };
        self.close(connection, Close::default(), close);
    }

    /// Closes a connection whose bytes can't be understood.
    pub(super) fn close_with_error(&self, connection: &Arc<Connection>, cause: Cause, error: &HubError) {
        let close = ConnectionClose::with_error(cause, error.message());
        self.close(connection, Close { error: Some(self.close_text(error)), allow_reconnect: true }, close);
    }

    pub(super) fn close(&self, connection: &Arc<Connection>, message: Close, close: ConnectionClose) {
        if self.core.close(connection, message, close) {
            self.start(connection);
        }
    }

    /// The text that a client reads in the close message after an error.
    pub(super) fn close_text(&self, error: &HubError) -> ByteString {
        let base = match error.stage() {
            CallStage::Authorizing => text::CLOSED_UNAUTHORIZED,
            _ => CLOSED_WITH_ERROR,
        };
        error.describe(base, self.is_detailed).into()
    }

    /// Removes a connection that the other side has closed.
    pub(super) fn handle_closed(&self, connection: &Arc<Connection>, close: ConnectionClose) {
        if self.core.handle_closed(connection, close) {
            self.start(connection);
        }
    }

    /// Tells the app of the end of a connection that no app server had any more: `on_disconnected` runs, and nothing
    /// else did here before.
    pub(super) fn handle_ended(
        &self,
        home: LinkId,
        node: &Arc<Node>,
        body: &Bytes,
        message: &OpenConnection,
        close: ConnectionClose,
    ) {
        // Its last link was lost in the moment in which it was given away.
        if let Some(present) = self.core.connections.get(&message.connection_id) {
            return self.handle_closed(&present, close);
        }
        let protocol = message.protocol.as_deref().and_then(HubProtocol::from_name).unwrap_or(HubProtocol::Json);
        let home = Home::new(home, Arc::clone(node));
        let connection = Arc::new(Connection::new(ConnectRequest::new(body, message), protocol, home));
        self.core.outbound.count_ended(connection.id(), &close);
        connection.cancel();
        let needs_worker = {
            let mut inbox = connection.inbox();
            // Somewhere on_connected has succeeded.
            inbox.set_connected();
            inbox.close(close)
        };
        if needs_worker {
            self.start(&connection);
        }
    }

    /// Replaces a connection by the next one of its client, over another link of its proxy: the old calls are
    /// cancelled, the items go over.
    pub(super) fn supersede(&self, present: &Arc<Connection>, next: &Arc<Connection>) {
        // Its proxy tells the groups anew.
        *next.items() = present.take_belongings().1;
        if self.core.remove_reassigned(present) {
            self.abandon_calls(present);
        }
    }

    /// Lets a connection go that another app server has already, since this one was cut off for a while. What was asked
    /// of its client stays open: the answer is passed on from there.
    pub(super) fn let_go(&self, connection: &Arc<Connection>) {
        if self.core.remove_reassigned(connection) {
            self.abandon_calls(connection);
        }
    }

    /// Cancels the calls of a connection that was taken over.
    pub(super) fn abandon_calls(&self, connection: &Arc<Connection>) {
        if self.core.abandon_calls(connection) {
            self.start(connection);
        }
    }

    /// Ends a connection whose home link has ended.
    pub(super) fn end_with_link(&self, connection: &Arc<Connection>, close: ConnectionClose) {
        // It was about to be reassigned.
        if connection.inbox().reassignment.has_begun() {
            connection.inbox().reassignment.set_elsewhere();
            self.core.remove_reassigned(connection);
            self.abandon_calls(connection);
        } else {
            self.handle_closed(connection, close);
        }
    }
}
