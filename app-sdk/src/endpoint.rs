//! Receiver of the frames read from links: a hub or a raw endpoint.

use std::sync::Arc;

use bytes::Bytes;
use trunkline_protocol::service::{CloseConnection, ConnectionData, OpenConnection, ServiceMessage};

use crate::connection::{Connection, ConnectionClose, LinkId, RunQueue};
use crate::node::Node;
use crate::outbound::Outbound;

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
