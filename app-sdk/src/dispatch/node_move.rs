//! Moves of connections between nodes, or between server connections of a service, invisible to the app: calls, streams
//! and uploads continue.
//!
//! ```text
//!  old node ──pause──► hold frames for the client ──acknowledgement──► old node
//!  old node ──move───► next epoch; once earlier sends to many are queued ──moved──► old node
//!  new node ──resume─► new home: held frames are sent first
//! ```

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use futures_util::FutureExt;
use tokio::sync::futures::OwnedNotified;
use tokio::time::sleep;
use tokio_util::task::TaskTracker;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::fleet::ResumeOutcome;
use trunkline_protocol::limits::{MOVE_PAUSE_MAX_S, STATEFUL_RECONNECT_TIMEOUT_S};
use trunkline_protocol::service::{ConnectionFlowControl, FlowOperation, FlowSubject, ServiceMessage};

use super::connection_ends::ConnectionEnds;
use crate::connection::{Connection, ConnectionClose, LinkId};
use crate::hub_core::HubCore;
use crate::node::Node;
use crate::outbound::ID_IN_USE;

/// Error for a node that resumes a connection which has ended on this app server.
const NOT_HERE: &str = "the connection is over";

pub(super) struct NodeMoves {
    core: Arc<HubCore>,
    ends: Arc<ConnectionEnds>,
    tasks: TaskTracker,
}

impl NodeMoves {
    pub(super) fn new(core: Arc<HubCore>, ends: Arc<ConnectionEnds>, tasks: TaskTracker) -> Self {
        Self { core, ends, tasks }
    }

    /// Answers a node that hands a connection to another one, once earlier sends to many clients are queued.
    pub(super) fn answer_move(&self, node: &Arc<Node>, connection_id: ByteString) {
        if !self.core.outbound.request_move(node, connection_id) {
            return;
        }
        let core = Arc::clone(&self.core);
        let mut answering = Box::pin(async move { core.outbound.answer_moves().await });
        // Usually no earlier send is in flight.
        if (&mut answering).now_or_never().is_none() {
            self.tasks.spawn(answering);
        }
    }

    /// Pauses traffic to one client. If the new node was lost after the old one had released the client, so that no
    /// node ends the pause, the connection ends.
    pub(super) fn pause(&self, node: &Arc<Node>, connection_id: ByteString) {
        let Some(connection) = self.core.connections.get(&connection_id) else { return };
        let (subject, operation) = (FlowSubject::Client, FlowOperation::PauseAck);
        let answer = ConnectionFlowControl { connection_id, subject, operation };
        let answer = ServiceMessage::ConnectionFlowControl(answer).to_frame();
        let Some((pause, resumed)) = connection.home.pause(node, answer) else { return };
        let ends = Arc::clone(&self.ends);
        self.tasks.spawn(async move {
            let closed = connection.cancellation();
            tokio::select! {
                () = resumed => return,
                () = closed.cancelled() => return,
                () = sleep(Duration::from_secs(MOVE_PAUSE_MAX_S)) => {}
            }
            if connection.home.give_up_pause(pause) {
                ends.end_with_link(&connection, ConnectionClose::new(Cause::LinkLost));
            }
        });
    }

    /// Resumes a client over this link, which becomes its home if it belongs to another node. A node that comes too
    /// late is asked to close the client.
    pub(super) fn resume(&self, link: LinkId, node: &Arc<Node>, connection_id: ByteString) {
        let is_proxy = node.capabilities.supports_moves && !node.is_of_service();
        if is_proxy && let Some(closed) = self.core.connections.take_tombstone(&connection_id) {
            closed.home.resume(link, node);
            return;
        }
        let Some(connection) = self.core.connections.get(&connection_id) else {
            if is_proxy {
                self.core.outbound.refuse(node, connection_id, Cause::LinkLost, NOT_HERE);
            }
            return;
        };
        // With the inbox locked, pause and resume requests go to the old node before this point and to the new one
        // after it.
        let inbox = connection.inbox();
        match connection.home.resume(link, node) {
            ResumeOutcome::Moved if is_proxy && inbox.is_client_paused() => {
                self.core.outbound.control_flow(node, connection_id, FlowOperation::Pause);
            }
            ResumeOutcome::NotPaused if is_proxy && !Arc::ptr_eq(node, &connection.node()) => {
                self.core.outbound.refuse(node, connection_id, Cause::IdInUse, ID_IN_USE);
            }
            ResumeOutcome::Moved | ResumeOutcome::Stayed | ResumeOutcome::NotPaused => {}
        }
        drop(inbox);
        self.core.to(&connection).repeat_mark();
    }

    /// Waits for the new node of a moving connection after its old home link has closed, or ends the connection.
    pub(super) fn await_move(
        &self,
        connection: Arc<Connection>,
        link: LinkId,
        resumed: OwnedNotified,
        close: ConnectionClose,
    ) {
        let ends = Arc::clone(&self.ends);
        self.tasks.spawn(async move {
            let closed = connection.cancellation();
            tokio::select! {
                () = resumed => {}
                () = closed.cancelled() => {}
                () = sleep(Duration::from_secs(STATEFUL_RECONNECT_TIMEOUT_S)) => {}
            }
            if connection.home.give_up(link) {
                ends.end_with_link(&connection, close);
            }
        });
    }
}

#[cfg(test)]
mod tests;
