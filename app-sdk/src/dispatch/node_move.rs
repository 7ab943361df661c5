//! Moves of connections from one node to another, or between server connections of a service. The app notices nothing: the
//! connection stays what it is, and so do its calls, streams and uploads.
//!
//! ```text
//!  old node ──pause──► hold back what is for the client ──acknowledgement──► old node
//!  old node ──move───► next epoch; once earlier sends to many are queued ──moved──► old node
//!  new node ──resume─► the home is there: what was held back leaves first
//! ```

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use futures_util::FutureExt;
use tokio::sync::futures::OwnedNotified;
use tokio::time::sleep;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::limits::STATEFUL_RECONNECT_TIMEOUT_S;
use trunkline_protocol::service::{ConnectionFlowControl, FlowOperation, FlowSubject, ServiceMessage};

use super::Dispatcher;
use crate::connection::{Connection, ConnectionClose, LinkId, Resumption};
use crate::node::Node;
use crate::outbound::ID_IN_USE;

/// Error for a node that resumes a connection which has ended here.
const NOT_HERE: &str = "the connection is over";

impl Dispatcher {
    /// Answers a node that gives a connection to another one, once the sends to many that began before are queued.
    pub(super) fn answer_move(&self, node: &Arc<Node>, connection_id: ByteString) {
        if !self.core.outbound.request_move(node, connection_id) {
            return;
        }
        let core = Arc::clone(&self.core);
        let mut answering = Box::pin(async move { core.outbound.answer_moves().await });
        // Most often no earlier send is under way.
        if (&mut answering).now_or_never().is_none() {
            self.tasks.spawn(answering);
        }
    }

    /// Pauses what goes to a client alone.
    pub(super) fn pause(&self, node: &Arc<Node>, connection_id: ByteString) {
        let Some(connection) = self.core.connection(&connection_id) else { return };
        let (subject, operation) = (FlowSubject::Client, FlowOperation::PauseAck);
        let answer = ConnectionFlowControl { connection_id, subject, operation };
        connection.home().pause(node, ServiceMessage::ConnectionFlowControl(answer).to_frame());
    }

    /// Resumes a client over this link, which becomes its home if it is another node's. A node that comes too late is told
    /// to close the client.
    pub(super) fn resume(&self, link: LinkId, node: &Arc<Node>, connection_id: ByteString) {
        let is_proxy = node.knows_moves() && !node.is_of_service();
        let Some(connection) = self.core.connection(&connection_id) else {
            if is_proxy {
                self.core.outbound.refuse(node, connection_id, Cause::LinkLost, NOT_HERE);
            }
            return;
        };
        // Whoever reads the inbox tells the node to pause or to resume the client: the old one before, the new one after.
        let inbox = connection.inbox();
        match connection.home().resume(link, node) {
            Resumption::Moved if is_proxy && inbox.is_client_paused() => {
                self.core.outbound.control_flow(node, connection_id, FlowOperation::Pause);
            }
            Resumption::NotPaused if is_proxy && !Arc::ptr_eq(node, &connection.node()) => {
                self.core.outbound.refuse(node, connection_id, Cause::IdInUse, ID_IN_USE);
            }
            Resumption::Moved | Resumption::Stayed | Resumption::NotPaused => {}
        }
    }

    /// Ends a connection whose home link has ended.
    pub(super) fn end_with_link(self: &Arc<Self>, connection: &Arc<Connection>, close: ConnectionClose) {
        // It was about to be handed over.
        if connection.inbox().is_reassigning() {
            connection.inbox().set_handed_over();
            self.core.remove_reassigned(connection);
            self.abandon_calls(connection);
        } else {
            self.handle_closed(connection, close);
        }
    }

    /// Waits for the node to which a connection moves, whose old home link has ended. Without it the connection ends.
    pub(super) fn await_move(
        self: &Arc<Self>,
        connection: Arc<Connection>,
        link: LinkId,
        resumed: OwnedNotified,
        close: ConnectionClose,
    ) {
        let dispatcher = Arc::clone(self);
        self.tasks.spawn(async move {
            let closed = connection.cancellation();
            tokio::select! {
                () = resumed => {}
                () = closed.cancelled() => {}
                () = sleep(Duration::from_secs(STATEFUL_RECONNECT_TIMEOUT_S)) => {}
            }
            if connection.home().give_up(link) {
                dispatcher.end_with_link(&connection, close);
            }
        });
    }
}
