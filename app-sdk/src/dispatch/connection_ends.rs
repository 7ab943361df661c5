//! Ends of connections: a close by either side, a protocol violation, a lost link, or a reassignment.
//!
//! A reassignment is started by a proxy, and completed when the connection has no running calls. The rest of a closed
//! connection's inbox is still processed, so each end may start a worker.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use bytestring::ByteString;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::{CLOSED_WITH_ERROR, Close, HandshakeError, HandshakeResponse, HubProtocol};
use trunkline_protocol::service::OpenConnection;

use super::result_routing::ResultRouter;
use crate::connection::{ConnectRequest, Connection, ConnectionClose, Home, LinkId, StartWorker, short};
use crate::error::{CallStage, HubError, text};
use crate::hub_core::{HubCore, NoResultReason};
use crate::node::Node;

pub(super) struct ConnectionEnds {
    core: Arc<HubCore>,
    workers: Weak<dyn StartWorker>,
    is_detailed: bool,
}

impl ConnectionEnds {
    pub(super) fn new(core: Arc<HubCore>, workers: Weak<dyn StartWorker>, is_detailed: bool) -> Self {
        Self { core, workers, is_detailed }
    }

    pub(super) fn start(&self, connection: &Arc<Connection>) {
        if let Some(workers) = self.workers.upgrade() {
            workers.start_worker(Arc::clone(connection));
        }
    }

    pub(super) fn refuse_handshake(&self, connection: &Arc<Connection>, error: &HandshakeError) {
        tracing::debug!(hub = %self.core.name(), connection = short(connection.id()), ?error, "handshake refused");
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

    /// Handles the close message of a client. Usually the proxy handles it and does not forward it.
    pub(super) fn handle_close_message(&self, connection: &Arc<Connection>, message: Close) {
        let close = ConnectionClose { cause: Cause::ClientClosed, error: message.error };
        self.close(connection, Close::default(), close);
    }

    pub(super) fn close_with_error(&self, connection: &Arc<Connection>, cause: Cause, error: &HubError) {
        let close = ConnectionClose::with_error(cause, error.message());
        self.close(connection, Close { error: Some(self.close_text(error)), allow_reconnect: true }, close);
    }

    pub(super) fn close(&self, connection: &Arc<Connection>, message: Close, close: ConnectionClose) {
        if self.core.close_connection(connection, message, close) {
            self.start(connection);
        }
    }

    pub(super) fn close_text(&self, error: &HubError) -> ByteString {
        let base = match error.stage() {
            CallStage::Authorizing => text::CLOSED_UNAUTHORIZED,
            _ => CLOSED_WITH_ERROR,
        };
        error.describe(base, self.is_detailed).into()
    }

    pub(super) fn handle_closed(&self, connection: &Arc<Connection>, close: ConnectionClose) {
        if self.core.handle_closed(connection, close) {
            self.start(connection);
        }
    }

    /// Handles the end of a connection that no app server had: runs only what `begin` begins, and `on_disconnected`.
    pub(super) fn handle_ended(
        &self,
        home: LinkId,
        node: &Arc<Node>,
        body: &Bytes,
        message: &OpenConnection,
        close: ConnectionClose,
        begin: impl FnOnce(&Arc<Connection>),
    ) {
        // Its last link was lost while it was being handed over.
        if let Some(present) = self.core.connections.get(&message.connection_id) {
            return self.handle_closed(&present, close);
        }
        let protocol = message.protocol.as_deref().and_then(HubProtocol::from_name).unwrap_or(HubProtocol::Json);
        let home = Home::new(home, Arc::clone(node));
        let connection = Arc::new(Connection::new(ConnectRequest::new(body, message), protocol, home));
        self.core.outbound.count_ended(connection.id(), &close);
        connection.cancel();
        begin(&connection);
        let needs_worker = connection.inbox().close(close);
        if needs_worker {
            self.start(&connection);
        }
    }

    /// Replaces a connection with the client's new one over another link: cancels the calls, transfers the items.
    pub(super) fn supersede(&self, present: &Arc<Connection>, next: &Arc<Connection>) {
        *next.items() = present.take_items();
        if self.core.remove_reassigned(present) {
            self.abandon_calls(present);
        }
    }

    /// Removes a connection that another app server has taken over while this one was unreachable. Requests to its
    /// client stay open: the other app server forwards the results.
    pub(super) fn let_go(&self, connection: &Arc<Connection>) {
        if self.core.remove_reassigned(connection) {
            self.abandon_calls(connection);
        }
    }

    pub(super) fn abandon_calls(&self, connection: &Arc<Connection>) {
        if self.core.abandon_calls(connection) {
            self.start(connection);
        }
    }

    pub(super) fn end_with_link(&self, connection: &Arc<Connection>, close: ConnectionClose) {
        // It was being reassigned.
        if connection.inbox().reassignment.has_begun() {
            connection.inbox().reassignment.set_elsewhere();
            self.core.remove_reassigned(connection);
            self.abandon_calls(connection);
        } else {
            self.handle_closed(connection, close);
        }
    }
}

/// Reassignments of connections to other app servers.
pub(crate) struct Reassignments {
    core: Arc<HubCore>,
    ends: Arc<ConnectionEnds>,
    results: Arc<ResultRouter>,
}

impl Reassignments {
    pub(super) fn new(core: Arc<HubCore>, ends: Arc<ConnectionEnds>, results: Arc<ResultRouter>) -> Self {
        Self { core, ends, results }
    }

    /// Begins to reassign a connection. Its calls finish first.
    pub(super) fn begin_reassignment(&self, connection: &Arc<Connection>) {
        if self.core.begin_reassignment(connection) {
            self.ends.start(connection);
        }
    }

    /// Begins to reassign a connection to a less loaded app server, if it is idle. Otherwise it stays.
    pub(super) fn begin_idle(&self, connection: &Arc<Connection>) {
        if self.core.begin_idle_reassignment(connection) {
            self.ends.start(connection);
        }
    }

    /// Hands a connection over with the items from the app.
    pub(super) async fn give_away(&self, connection: &Arc<Connection>, items: Option<String>) {
        // Not during a move: the node that has the connection then is not aware of the reassignment yet.
        let permit = connection.home.pass().await;
        connection.inbox().reassignment.set_elsewhere();
        self.core.reassigned.insert(connection.shared_id());
        if !self.core.give_away(connection, &permit.node, items) {
            return;
        }
        self.results.end_waits(connection, NoResultReason::Leaving);
        self.ends.abandon_calls(connection);
    }

    /// Fails everything that waits for clients in reassignment, because the time limit of their calls has passed.
    /// Returns whether there was anything.
    pub(crate) fn give_up_waits(&self) -> bool {
        let connections = self.core.connections.all();
        let leaving = connections.iter().filter(|connection| connection.inbox().reassignment.has_begun());
        leaving.filter(|connection| self.results.end_waits(connection, NoResultReason::Leaving)).count() > 0
    }

    /// Advances all reassignments, because waits of other app servers end only by timeout.
    pub(crate) fn advance(&self) {
        for connection in self.core.connections.all() {
            if self.core.advance_reassignment(&connection) {
                self.ends.start(&connection);
            }
        }
    }

    /// Counts all connections, and those in reassignment. A service waits for its clients' calls itself.
    pub(crate) fn count(&self) -> (usize, usize) {
        let is_moving = |connection: &Arc<Connection>| {
            let is_of_service = connection.node().is_of_service();
            let inbox = connection.inbox();
            inbox.reassignment.has_begun() || (is_of_service && inbox.has_calls())
        };
        let all = self.core.connections.all();
        (all.len(), all.iter().filter(|connection| is_moving(connection)).count())
    }
}
