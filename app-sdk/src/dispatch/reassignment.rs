//! Reassignment of connections: here from elsewhere, from here to elsewhere, and from one link to another.
//!
//! The client notices nothing of it, so neither `on_connected` nor `on_disconnected` runs.

use std::sync::Arc;

use bytes::Bytes;
use tracing::Instrument;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::{Close, HubProtocol};
use trunkline_protocol::service::{CloseConnection, OpenConnection, header_of};
use trunkline_protocol::wire::ITEMS_HEADER;

use super::{Dispatcher, call_span, catch_panic};
use crate::call::CallInput;
use crate::call::rehomed::{self, ITEMS_MAX_BYTES};
use crate::connection::{CallKind, ConnectRequest, Connection, ConnectionClose, Home, LinkId};
use crate::error::HubError;
use crate::handler::filter::HubCall;
use crate::handler::{HubCallKind, ReplyBody};
use crate::hub_core::ClientSilence;
use crate::node::Node;

impl Dispatcher {
    /// Accepts a connection that its client knows to be open: its handshake was answered long ago.
    pub(super) async fn accept_reassigned(self: &Arc<Self>, connection: &Arc<Connection>) {
        let context = self.context(connection, CallKind::ConnectHook);
        let taken = self.run_hooks(HubCallKind::Rehomed, connection, context, None).await;
        // Somewhere on_connected has succeeded.
        connection.inbox().set_connected();
        self.core.metrics().rehomed.inc();
        let is_kept = taken.is_ok();
        if let Err(error) = taken {
            self.log(connection, "on_rehomed", &error);
            let close = ConnectionClose::with_error(Cause::AppError, error.to_string());
            self.close(connection, Close { error: Some(self.close_text(&error)), allow_reconnect: true }, close);
        }
        self.core.taken_over.announce(connection, is_kept);
    }

    /// Drops a connection without a word or a hook, as a crash does; for the test kit.
    pub(crate) fn forget(self: &Arc<Self>, id: &str) {
        if let Some(connection) = self.core.connections.get(id)
            && self.core.remove_reassigned(&connection)
        {
            self.abandon_calls(&connection);
        }
    }

    /// Tells the app of the end of a connection that no app server had any more: `on_disconnected` runs, and nothing else did here
    /// before.
    pub(super) fn handle_ended(
        self: &Arc<Self>,
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
            self.spawn_worker(&connection);
        }
    }

    /// Replaces a connection by the next one of its client, over another link of its proxy: the old calls are cancelled,
    /// the items go over.
    pub(super) fn supersede(self: &Arc<Self>, present: &Arc<Connection>, next: &Arc<Connection>) {
        // Its proxy tells the groups anew.
        *next.items() = present.take_belongings().1;
        if self.core.remove_reassigned(present) {
            self.abandon_calls(present);
        }
    }

    /// Begins to hand a connection over to another app server: its calls end first.
    pub(super) fn begin_reassignment(self: &Arc<Self>, connection: &Arc<Connection>) {
        if self.core.begin_reassignment(connection) {
            self.spawn_worker(connection);
        }
    }

    /// Begins to hand a connection over to an app server that has too few, if it is idle; else it stays.
    pub(super) fn begin_idle_reassignment(self: &Arc<Self>, connection: &Arc<Connection>) {
        if self.core.begin_idle_reassignment(connection) {
            self.spawn_worker(connection);
        }
    }

    /// Lets a connection go that another app server has already, since this one was cut off for a while. What was asked of its
    /// client stays open: the answer is passed on from there.
    pub(super) fn let_go(self: &Arc<Self>, connection: &Arc<Connection>) {
        if self.core.remove_reassigned(connection) {
            self.abandon_calls(connection);
        }
    }

    /// Fails what waits for a client that is about to be handed over, if its proxy can't read it on.
    pub(super) fn give_up_waits_unread(&self, connection: &Arc<Connection>) {
        if !connection.node().reads_on() && connection.inbox().is_reassigning() {
            self.end_waits(connection, ClientSilence::Leaving);
        }
    }

    /// Cancels the calls of a connection that was taken over.
    pub(super) fn abandon_calls(self: &Arc<Self>, connection: &Arc<Connection>) {
        if self.core.abandon_calls(connection) {
            self.spawn_worker(connection);
        }
    }

    /// Hands a connection over whose calls have ended. One that was asked for a result while `on_leaving` ran stays until it
    /// has answered.
    pub(super) async fn hand_over(self: &Arc<Self>, connection: &Arc<Connection>) {
        let items = self.items_of(connection).await;
        if !self.core.client_results.is_asked(connection.id()) {
            self.give_away(connection, items).await;
        }
    }

    async fn give_away(self: &Arc<Self>, connection: &Arc<Connection>, items: Option<String>) {
        // Not while it moves: the node that has it then knows of no hand-over yet.
        let passage = connection.home().pass().await;
        connection.inbox().set_handed_over();
        self.core.handed_over.insert(connection.shared_id());
        if !self.core.remove_reassigned(connection) {
            return;
        }
        let mut close = CloseConnection { connection_id: connection.shared_id(), ..CloseConnection::default() };
        close.headers.extend(items.map(|items| header_of(ITEMS_HEADER, items)));
        self.core.hand_over(passage.node(), close);
        self.end_waits(connection, ClientSilence::Leaving);
        self.abandon_calls(connection);
    }

    /// Fails what waits for clients that are about to be handed over, because the time for their calls is up. Returns whether
    /// anything did.
    pub(crate) fn give_up_waits(&self) -> bool {
        let connections = self.core.connections.all();
        let leaving = connections.iter().filter(|connection| connection.inbox().is_reassigning());
        leaving.filter(|connection| self.end_waits(connection, ClientSilence::Leaving)).count() > 0
    }

    /// Advances all hand-overs: what other app servers wait for ends by time alone.
    pub(crate) fn advance_handovers(self: &Arc<Self>) {
        for connection in self.core.connections.all() {
            if self.core.advance_handover(&connection) {
                self.spawn_worker(&connection);
            }
        }
    }

    /// Hands the remaining connections over, because the time for their calls is up. Those that move are left to their nodes.
    pub(crate) async fn hand_over_remaining(self: &Arc<Self>) {
        for connection in self.core.connections.all() {
            if connection.inbox().is_reassigning() && !connection.home().is_paused() {
                let items = self.items_of(&connection).await;
                self.give_away(&connection, items).await;
            }
        }
    }

    /// Counts the connections that are here, and those of them that are about to be handed over. A service waits for their
    /// calls by itself.
    pub(crate) fn count_connections(&self) -> (usize, usize) {
        let is_moving = |connection: &Arc<Connection>| {
            let is_of_service = connection.node().is_of_service();
            let inbox = connection.inbox();
            inbox.is_reassigning() || (is_of_service && inbox.has_calls())
        };
        let all = self.core.connections.all();
        (all.len(), all.iter().filter(|connection| is_moving(connection)).count())
    }

    async fn items_of(self: &Arc<Self>, connection: &Arc<Connection>) -> Option<String> {
        let is_connected = connection.inbox().is_connected();
        let hook = self.methods.on_leaving.as_ref().filter(|_| is_connected)?;
        let context = self.context(connection, CallKind::DisconnectHook);
        let input = CallInput { context: context.clone(), arguments: Vec::new(), stream_ids: Vec::new(), close: None };
        let span = call_span(&context, connection, &hook.name, &Vec::new());
        let filters = &self.methods.filters;
        let running = match filters.is_empty() {
            true => hook.call(input),
            false => filters.wrap(HubCall::of_hook(HubCallKind::Leaving, context, None), hook.call(input)),
        };
        let ran = catch_panic(running).instrument(span).await;
        let wrapped = ran.and_then(|reply| match reply.0 {
            ReplyBody::Value(items) => rehomed::wrap(&items)
                .ok_or_else(|| HubError::new(format!("items are over {ITEMS_MAX_BYTES} bytes and stay behind"))),
            ReplyBody::Stream(_) | ReplyBody::Nothing => Err(HubError::new("only a value can be handed over")),
        });
        wrapped.map_err(|error| self.log(connection, "on_leaving", &error)).ok()
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::task::TaskTracker;
    use trunkline_protocol::service::{
        Attachment, Capabilities, ConnectionData, ConnectionFlowControl, FlowOperation, FrameBuffer, ServiceMessage,
    };
    use trunkline_protocol::wire::{IF_IDLE_HEADER, MIGRATE_FROM_HEADER, MIGRATE_TO_HEADER};

    use trunkline_link::LinkOutbox;

    use super::*;
    use crate::Hub;
    use crate::endpoint::Endpoint;
    use crate::hub_core::HubCore;
    use crate::metrics::Metrics;
    use crate::node::{NodeName, next_piece, open_outbox};
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
        scene.hub.begin_reassignment(&connection);
        assert!(connection.inbox().is_reassigning());
    }
}
