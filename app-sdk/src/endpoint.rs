//! What a link brings frames to: a hub, or a raw endpoint.

use std::sync::Arc;

use bytes::Bytes;
use trunkline_protocol::service::{
    ClientCompletion, ClientInvocation, CloseConnection, ConnectionData, ErrorCompletion, OpenConnection,
};

use crate::connection::{End, LinkId};
use crate::downward::Downward;
use crate::node::Node;

/// The far side of a link's reader. Nothing of it waits for the app's code.
pub(crate) trait Endpoint: Send + Sync {
    /// Its way down.
    fn down(&self) -> &Arc<Downward>;

    /// A client connection begins; `message` was read from the frame `body`.
    fn handle_open(&self, home: LinkId, node: &Arc<Node>, body: &Bytes, message: OpenConnection);

    /// Bytes of a client; those of an unknown one are dropped.
    fn handle_data(&self, data: ConnectionData);

    /// A client has left.
    fn handle_left(&self, close: CloseConnection);

    /// The session of a link is over, and with it the connections at home on it.
    fn handle_link_ended(&self, link: LinkId, end: &End);

    /// Another app server asks one of the clients.
    fn handle_question(&self, _node: &Arc<Node>, _question: ClientInvocation) {}

    /// A client of another app server has answered.
    fn handle_answer(&self, _answer: ClientCompletion) {}

    /// Nobody will answer.
    fn handle_refusal(&self, _node: &Arc<Node>, _refusal: ErrorCompletion) {}
}
