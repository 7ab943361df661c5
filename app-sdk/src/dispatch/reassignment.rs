//! Reassignment of connections: here from elsewhere, from here to elsewhere, and from one link to another.
//!
//! The client notices nothing of it, so neither `on_connected` nor `on_disconnected` runs.

use std::sync::Arc;

use super::Dispatcher;
use crate::connection::{CallKind, Connection};

impl Dispatcher {
    /// Drops a connection without a word or a hook, as a crash does; for the test kit.
    pub(crate) fn forget(self: &Arc<Self>, id: &str) {
        if let Some(connection) = self.core.connections.get(id) {
            self.ends.let_go(&connection);
        }
    }

    /// Hands a connection over whose calls have ended. One that was asked for a result while `on_leaving` ran stays
    /// until it has answered.
    pub(super) async fn hand_over(self: &Arc<Self>, connection: &Arc<Connection>) {
        let context = || self.context(connection, CallKind::DisconnectHook);
        let items = self.hooks.leaving(connection, context).await;
        if !self.core.client_results.is_asked(connection.id()) {
            self.handovers.give_away(connection, items).await;
        }
    }

    /// Hands the remaining connections over, because the time for their calls is up. Those that move are left to their
    /// nodes.
    pub(crate) async fn hand_over_remaining(self: &Arc<Self>) {
        for connection in self.core.connections.all() {
            if connection.inbox().is_reassigning() && !connection.home().is_paused() {
                let context = || self.context(&connection, CallKind::DisconnectHook);
                let items = self.hooks.leaving(&connection, context).await;
                self.handovers.give_away(&connection, items).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::task::TaskTracker;
    use trunkline_protocol::service::{
        Attachment, Capabilities, CloseConnection, ConnectionData, ConnectionFlowControl, FlowOperation, FrameBuffer,
        OpenConnection, ServiceMessage,
    };
    use trunkline_protocol::wire::{IF_IDLE_HEADER, ITEMS_HEADER, MIGRATE_FROM_HEADER, MIGRATE_TO_HEADER};

    use trunkline_link::LinkOutbox;

    use super::*;
    use crate::Hub;
    use crate::connection::LinkId;
    use crate::endpoint::Endpoint;
    use crate::hub_core::HubCore;
    use crate::metrics::Metrics;
    use crate::node::{Node, NodeName, next_piece, open_outbox};
    use crate::outbound::Outbound;

    /// A hub with one client, at rest, and its link to the proxy.
    struct Scene {
        hub: Arc<Dispatcher>,
        node: Arc<Node>,
        outbox: Arc<LinkOutbox>,
        socket: Attachment,
    }

    impl Scene {
        async fn new() -> Self {
            let hub = Hub::new("/test").method("Wait", std::future::pending::<()>);
            let hub = hub.on_leaving(async || "items").build().unwrap();
            let outbound = Outbound::new("test", Metrics::new().hub("test"));
            let (protocols, naming) = (hub.settings.protocols.clone(), hub.settings.naming);
            let core = HubCore::new("me".into(), protocols, naming, hub.settings.limits, outbound);
            let hub = Dispatcher::new(hub, Arc::new(core), TaskTracker::new());
            let (outbox, socket) = open_outbox(10_000);
            let outbox = Arc::new(outbox);
            let name = NodeName::proxy("proxy", "boot");
            let node = hub.core.outbound.begin_session(name, Capabilities::plain(), 0, Arc::clone(&outbox));
            let scene = Self { hub, node, outbox, socket };
            let headers = vec![(MIGRATE_FROM_HEADER.into(), vec!["other".into()])];
            let (connection_id, protocol) = ("c1".into(), Some("json".into()));
            let open = OpenConnection { connection_id, protocol, headers, ..OpenConnection::default() };
            let body = ServiceMessage::OpenConnection(open).to_body();
            let Ok(Some(ServiceMessage::OpenConnection(open))) = ServiceMessage::decode(&body) else { panic!() };
            scene.hub.handle_open(LinkId(1), &scene.node, &body, open);
            scene.data("{\"protocol\":\"json\",\"version\":1}\u{1e}").await;
            scene
        }

        /// Takes bytes of the client, and does what follows.
        async fn data(&self, payload: &'static str) {
            let data =
                ConnectionData { connection_id: "c1".into(), payload: payload.into(), ..ConnectionData::default() };
            if let Some(connection) = self.hub.handle_data(data, None) {
                self.hub.spawn_worker(&connection);
            }
            self.settle().await;
        }

        async fn settle(&self) {
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        }

        /// Asks for the client if it is idle; returns what the proxy is told.
        async fn ask(&self) -> Vec<ServiceMessage> {
            self.told();
            let headers = [(MIGRATE_TO_HEADER, ""), (IF_IDLE_HEADER, "1")];
            let headers = headers.map(|(name, value)| (name.into(), vec![value.into()])).into();
            self.hub.handle_close(&self.node, CloseConnection { connection_id: "c1".into(), error: None, headers });
            self.settle().await;
            self.told()
        }

        fn told(&self) -> Vec<ServiceMessage> {
            let mut frames = FrameBuffer::default();
            std::iter::from_fn(|| next_piece(&self.outbox, self.socket)).for_each(|piece| frames.push(piece.bytes));
            let bodies = std::iter::from_fn(|| frames.next_body().unwrap());
            bodies.map(|body| ServiceMessage::decode(&body).unwrap().unwrap()).collect()
        }
    }

    #[tokio::test]
    async fn an_idle_connection_is_given_to_a_newcomer_with_its_items() {
        let scene = Scene::new().await;
        let told = scene.ask().await;
        let [ServiceMessage::CloseConnection(close)] = &told[..] else { panic!("{told:?}") };
        assert_eq!(close.reason().next_home, Some(""));
        assert!(close.headers.iter().any(|(name, _)| name == ITEMS_HEADER));
        assert!(scene.hub.core.connections.get("c1").is_none());
    }

    #[tokio::test]
    async fn a_connection_of_which_a_call_runs_stays_and_is_read_on_and_a_stop_takes_it_all_the_same() {
        let scene = Scene::new().await;
        // The proxy does not see that it runs: nobody waits for an answer.
        scene.data("{\"type\":1,\"target\":\"Wait\",\"arguments\":[]}\u{1e}").await;
        let told = scene.ask().await;
        let [ServiceMessage::ConnectionFlowControl(ConnectionFlowControl { connection_id, operation, .. })] = &told[..]
        else {
            panic!("{told:?}")
        };
        assert_eq!((&**connection_id, *operation), ("c1", FlowOperation::ReadOn));
        let connection = scene.hub.core.connections.get("c1").unwrap();
        assert!(!connection.inbox().is_reassigning());
        scene.hub.handovers.begin(&connection);
        assert!(connection.inbox().is_reassigning());
    }
}
