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
use trunkline_protocol::fleet::ResumeOutcome;
use trunkline_protocol::limits::{MOVE_PAUSE_MAX_S, STATEFUL_RECONNECT_TIMEOUT_S};
use trunkline_protocol::service::{ConnectionFlowControl, FlowOperation, FlowSubject, ServiceMessage};

use super::Dispatcher;
use crate::connection::{Connection, ConnectionClose, LinkId};
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

    /// Pauses what goes to a client alone. Without a node that ends the pause the connection ends: the new one was lost after
    /// the old one had forgotten it.
    pub(super) fn pause(self: &Arc<Self>, node: &Arc<Node>, connection_id: ByteString) {
        let Some(connection) = self.core.connections.get(&connection_id) else { return };
        let (subject, operation) = (FlowSubject::Client, FlowOperation::PauseAck);
        let answer = ConnectionFlowControl { connection_id, subject, operation };
        let answer = ServiceMessage::ConnectionFlowControl(answer).to_frame();
        let Some((pause, resumed)) = connection.home().pause(node, answer) else { return };
        let dispatcher = Arc::clone(self);
        self.tasks.spawn(async move {
            let closed = connection.cancellation();
            tokio::select! {
                () = resumed => return,
                () = closed.cancelled() => return,
                () = sleep(Duration::from_secs(MOVE_PAUSE_MAX_S)) => {}
            }
            if connection.home().give_up_pause(pause) {
                dispatcher.end_with_link(&connection, ConnectionClose::new(Cause::LinkLost));
            }
        });
    }

    /// Resumes a client over this link, which becomes its home if it is another node's. A node that comes too late is told
    /// to close the client.
    pub(super) fn resume(&self, link: LinkId, node: &Arc<Node>, connection_id: ByteString) {
        let is_proxy = node.knows_moves() && !node.is_of_service();
        if is_proxy && let Some(closed) = self.core.connections.take_parting(&connection_id) {
            closed.home().resume(link, node);
            return;
        }
        let Some(connection) = self.core.connections.get(&connection_id) else {
            if is_proxy {
                self.core.outbound.refuse(node, connection_id, Cause::LinkLost, NOT_HERE);
            }
            return;
        };
        // Whoever reads the inbox tells the node to pause or to resume the client: the old one before, the new one after.
        let inbox = connection.inbox();
        match connection.home().resume(link, node) {
            ResumeOutcome::Moved if is_proxy && inbox.is_client_paused() => {
                self.core.outbound.control_flow(node, connection_id, FlowOperation::Pause);
            }
            ResumeOutcome::NotPaused if is_proxy && !Arc::ptr_eq(node, &connection.node()) => {
                self.core.outbound.refuse(node, connection_id, Cause::IdInUse, ID_IN_USE);
            }
            ResumeOutcome::Moved | ResumeOutcome::Stayed | ResumeOutcome::NotPaused => {}
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

#[cfg(test)]
mod tests {
    use tokio_util::task::TaskTracker;
    use trunkline_protocol::service::{Capabilities, OpenConnection};
    use trunkline_protocol::wire::MIGRATE_FROM_HEADER;

    use super::*;
    use crate::Hub;
    use crate::endpoint::Endpoint;
    use crate::hub_core::HubCore;
    use crate::metrics::Metrics;
    use crate::node::{NodeName, open_outbox};
    use crate::outbound::Outbound;

    fn dispatcher() -> Arc<Dispatcher> {
        let hub = Hub::new("/test").stateful_reconnect(true).build().unwrap();
        let outbound = Outbound::new("test", Metrics::new().hub("test"));
        let (protocols, naming) = (hub.settings.protocols.clone(), hub.settings.naming);
        let core = HubCore::new("me".into(), protocols, naming, hub.settings.limits, outbound);
        Dispatcher::new(hub, Arc::new(core), TaskTracker::new())
    }

    fn begin(hub: &Arc<Dispatcher>, name: &str) -> Arc<Node> {
        let outbox = Arc::new(open_outbox(1_000).0);
        hub.core.outbound.begin_session(NodeName::proxy(name, "boot"), Capabilities::plain(), 0, outbox)
    }

    /// Opens the client, with this header if there is one.
    fn open(hub: &Arc<Dispatcher>, link: LinkId, node: &Arc<Node>, header: Option<&'static str>) -> Arc<Connection> {
        let (connection_id, protocol) = ("c1".into(), Some("json".into()));
        let headers = header.map(|name| (name.into(), vec!["me".into()])).into_iter().collect();
        let open = OpenConnection { connection_id, protocol, headers, ..OpenConnection::default() };
        let body = ServiceMessage::OpenConnection(open).to_body();
        let Ok(Some(ServiceMessage::OpenConnection(open))) = ServiceMessage::decode(&body) else { panic!("{body:?}") };
        hub.handle_open(link, node, &body, open);
        hub.core.connections.get("c1").unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_whose_node_is_lost_while_it_moves_ends_unless_another_node_says_that_it_has_it() {
        for is_taken_over in [true, false] {
            let hub = dispatcher();
            let [old, new] = ["old", "new"].map(|name| begin(&hub, name));
            let connection = open(&hub, LinkId(1), &old, None);
            hub.pause(&old, "c1".into());
            hub.handle_link_ended(LinkId(1), &ConnectionClose::new(Cause::LinkLost));
            tokio::task::yield_now().await;
            assert!(hub.core.connections.contains(&connection));
            if is_taken_over {
                hub.resume(LinkId(2), &new, "c1".into());
            }
            hub.tasks.close();
            hub.tasks.wait().await;
            assert_eq!(hub.core.connections.contains(&connection), is_taken_over);
            assert_eq!(connection.node().name(), if is_taken_over { "new" } else { "old" });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_whose_new_node_is_lost_before_its_word_came_ends() {
        for is_resumed in [true, false] {
            let hub = dispatcher();
            let old = begin(&hub, "old");
            let connection = open(&hub, LinkId(1), &old, None);
            hub.pause(&old, "c1".into());
            tokio::task::yield_now().await;
            if is_resumed {
                hub.resume(LinkId(1), &old, "c1".into());
            }
            hub.tasks.close();
            hub.tasks.wait().await;
            assert_eq!(hub.core.connections.contains(&connection), is_resumed);
        }
    }

    #[tokio::test]
    async fn a_client_is_opened_anew_by_a_node_whose_word_was_lost() {
        let hub = dispatcher();
        let [old, new] = ["old", "new"].map(|name| begin(&hub, name));
        let before = open(&hub, LinkId(1), &old, None);
        hub.pause(&old, "c1".into());
        let after = open(&hub, LinkId(2), &new, Some(MIGRATE_FROM_HEADER));
        assert!(!Arc::ptr_eq(&before, &after));
        assert_eq!(after.node().name(), "new");
    }
}
