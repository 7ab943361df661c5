//! Receiver of the frames that links read: a hub, or a raw endpoint.

use std::sync::Arc;

use bytes::Bytes;
use trunkline_protocol::service::{
    Ack, ClientCompletion, ClientInvocation, CloseConnection, ConnectionClaims, ConnectionData, ConnectionFlowControl,
    DownMark, ErrorCompletion, GroupChange, MoveConnection, OpenConnection, PresenceChanges, RestoreQuery,
    TaskCandidates,
};

use crate::connection::{Connection, ConnectionClose, DueQueue, LinkId};
use crate::node::Node;
use crate::outbound::Outbound;

/// Handles what a link brings. No handler waits for the app's code.
pub(crate) trait Endpoint: Send + Sync {
    fn outbound(&self) -> &Outbound;

    /// Opens a client connection; `message` was decoded from the frame `body`.
    fn handle_open(&self, home: LinkId, node: &Arc<Node>, body: &Bytes, message: OpenConnection);

    /// Takes bytes of a client; those of an unknown one are dropped. With the mark of the first message if a live trace
    /// follows them. Returns a connection whose worker must start, with the others of the same read.
    #[must_use = "a worker must start"]
    fn handle_data(&self, data: ConnectionData, mark: Option<i64>) -> Option<Arc<Connection>>;

    /// Starts tasks for the connections that reads of a link were for.
    fn start_workers(&self, _due: &Arc<DueQueue<Arc<Connection>>>, _tasks: usize) {}

    /// Closes a client connection of this node.
    fn handle_close(&self, node: &Arc<Node>, close: CloseConnection);

    /// Closes the connections at home on a link whose session is over.
    fn handle_link_ended(&self, link: LinkId, close: &ConnectionClose);

    /// Counts the clients that are here, and those of them whose home is this link.
    fn count_clients(&self, _link: LinkId) -> (usize, usize) {
        (0, 0)
    }

    /// Sends a hub ping to each client of a service, which sends none itself.
    fn ping_clients(&self, _service: &str) {}

    /// Closes the clients that a lost instance of a service has held.
    fn handle_instance_lost(&self, _instance: &str) {}

    /// Pauses what goes to a client, or resumes it over this link.
    fn handle_flow_control(&self, _link: LinkId, _node: &Arc<Node>, _control: ConnectionFlowControl) {}

    /// Takes the report that a client has taken what was sent to it before a mark.
    fn handle_down_done(&self, _report: &DownMark) {}

    /// Answers a node that is about to give a client connection to another one, behind all that was sent before.
    fn handle_move(&self, _node: &Arc<Node>, _request: MoveConnection) {}

    /// Answers a node whose client has lost a connection, and may have had it here.
    fn handle_restore_query(&self, _node: &Arc<Node>, _query: RestoreQuery) {}

    /// Takes note that somebody else has had a client connection join a group.
    fn handle_joined(&self, _change: GroupChange) {}

    /// Takes note that somebody else has had a client connection leave a group, or all.
    fn handle_left(&self, _change: GroupChange) {}

    /// Takes the claims of a client that has renewed its log-in.
    fn handle_claims(&self, _update: ConnectionClaims) {}

    /// Takes what a node tells of users and groups that come and go.
    fn handle_presence(&self, _node: &Arc<Node>, _update: PresenceChanges) {}

    /// Takes the list of app servers that stand for exclusive tasks, as a node has it.
    fn handle_task_candidates(&self, _node: &Arc<Node>, _told: TaskCandidates) {}

    /// Takes note that a socket of a node has ended; its session may go on.
    fn handle_socket_ended(&self, _node: &Arc<Node>) {}

    /// Fails what is awaited from a proxy that has no links any more.
    fn handle_node_lost(&self, _node: &Arc<Node>) {}

    /// Takes the acknowledgement of a group change.
    fn handle_ack(&self, _ack: Ack) {}

    /// Takes the request of another app server for the result of a client that is here.
    fn handle_client_invocation(&self, _node: &Arc<Node>, _request: ClientInvocation) {}

    /// Takes the result of a client that another app server has.
    fn handle_client_completion(&self, _completion: ClientCompletion) {}

    /// Takes the refusal of a client result.
    fn handle_error_completion(&self, _node: &Arc<Node>, _refusal: ErrorCompletion) {}
}
