//! Receiver of the frames read from links: a hub or a raw endpoint.

use std::sync::Arc;

use bytes::Bytes;
use trunkline_protocol::service::{
    Ack, ClientCompletion, ClientInvocation, CloseConnection, ConnectionClaims, ConnectionData, ConnectionFlowControl,
    DownMark, ErrorCompletion, GroupChange, MoveConnection, OpenConnection, PresenceChanges, RestoreQuery,
    TaskCandidates,
};

use crate::connection::{Connection, ConnectionClose, LinkId, RunQueue};
use crate::node::Node;
use crate::outbound::Outbound;

/// Handles frames from links. No handler waits for app code.
pub(crate) trait Endpoint: Send + Sync {
    fn outbound(&self) -> &Outbound;

    /// Opens a client connection. `message` was decoded from the frame `body`.
    fn handle_open(&self, home: LinkId, node: &Arc<Node>, body: &Bytes, message: OpenConnection);

    /// Handles bytes from a client; drops those of unknown clients. `mark` is the mark of the first message if a live
    /// trace follows it. Returns a connection if its worker must be started together with others of the same read.
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

    /// Pauses or resumes traffic to a client over this link.
    fn handle_flow_control(&self, _link: LinkId, _node: &Arc<Node>, _control: ConnectionFlowControl) {}

    /// Handles the report that a client has received everything sent before a mark.
    fn handle_down_done(&self, _report: &DownMark) {}

    /// Answers a node that is about to move a client connection to another node, behind everything sent before.
    fn handle_move(&self, _node: &Arc<Node>, _request: MoveConnection) {}

    /// Answers a node about its client's lost connection, which may have been on this app server.
    fn handle_restore_query(&self, _node: &Arc<Node>, _query: RestoreQuery) {}

    /// Records that another party added a client connection to a group.
    fn handle_joined(&self, _change: GroupChange) {}

    /// Records that another party removed a client connection from one or all groups.
    fn handle_left(&self, _change: GroupChange) {}

    /// Updates the claims of a client that has refreshed its authentication.
    fn handle_claims(&self, _update: ConnectionClaims) {}

    fn handle_presence(&self, _node: &Arc<Node>, _update: PresenceChanges) {}

    fn handle_task_candidates(&self, _node: &Arc<Node>, _told: TaskCandidates) {}

    /// Handles the end of a node's socket. Its session may continue.
    fn handle_socket_ended(&self, _node: &Arc<Node>) {}

    /// Fails everything that is pending at a proxy without links.
    fn handle_node_lost(&self, _node: &Arc<Node>) {}

    fn handle_ack(&self, _ack: Ack) {}

    /// Handles another app server's request for a result of a local client.
    fn handle_client_invocation(&self, _node: &Arc<Node>, _request: ClientInvocation) {}

    /// Handles the result of a client of another app server.
    fn handle_client_completion(&self, _completion: ClientCompletion) {}

    fn handle_error_completion(&self, _node: &Arc<Node>, _refusal: ErrorCompletion) {}
}
