//! Dispatcher of one hub: opens and closes connections, and turns their messages into calls.
//!
//! ```text
//!  link reader ──open, data, close──► inbox ──worker──► handshake, on_connected, messages…, on_disconnected
//!                  (never waits)                (only while the inbox is not empty)
//!                                                     │
//!                                                     ├─ calls: polled immediately; a waiting call becomes a task
//!                                                     └─ items, completions, cancellations: to running calls
//! ```
//!
//! The worker handles the messages of one connection in order. It never waits for a call, because messages that the
//! call needs may be queued behind it.

#[cfg(test)]
mod client_flow;
mod connection_ends;
mod hook_runner;
mod invocation;
mod node_move;
mod raw_calls;
mod result_routing;
mod running_call;
#[cfg(test)]
mod simulation;
mod worker;

use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::dial_in::INSTANCE_ID_HEADER;
use trunkline_protocol::hub::{
    FramingError, HandshakeError, HandshakeRequest, HandshakeResponse, HubMessage, HubMessageError, HubProtocol,
    StreamItem,
};
use trunkline_protocol::service::{
    CloseConnection, ConnectionClaims, ConnectionData, ConnectionFlowControl, FlowOperation, FlowSubject,
    OpenConnection, ServiceMessage,
};

use crate::connection::{
    CallKind, CallScope, ConnectRequest, Connection, ConnectionClose, Home, HomeEnd, LinkId, MessageTrace, ReplyKind,
    RunQueue, StartWorker, UploadItem, short,
};
use crate::context::Context;
use crate::error::{HubError, text};
use crate::hub::{BuiltHub, HubSettings};
use crate::hub_core::{HubCore, Records};
use crate::node::Node;
use crate::outbound::{Endpoint, ID_IN_USE, Outbound, ignore};
use crate::presence::Presence;
use crate::raw::{HANDLER_CALL, RawMessage};
use connection_ends::{ConnectionEnds, Reassignments};
use hook_runner::HookRunner;
use invocation::MethodCalls;
use node_move::NodeMoves;
use raw_calls::RawCalls;
use result_routing::ResultRouter;

/// Error text for the app when a service has lost the instance that held a client.
const INSTANCE_LOST: &str = "The service has lost the instance that held the client.";

pub(crate) struct Dispatcher {
    pub(crate) core: Arc<HubCore>,
    settings: HubSettings,
    pub(crate) presence: Option<Arc<Presence>>,
    tasks: TaskTracker,
    /// Cancelled when a shutdown no longer waits for methods of disconnected clients.
    pub(crate) calls_given_up: CancellationToken,
    ends: Arc<ConnectionEnds>,
    moves: NodeMoves,
    pub(crate) reassignments: Reassignments,
    results: Arc<ResultRouter>,
    calls: MethodCalls,
    hooks: HookRunner,
    /// Handler of a raw endpoint, which has no methods.
    raw: Option<RawCalls>,
}

impl Dispatcher {
    pub(crate) fn new(hub: BuiltHub, instance: Arc<str>, outbound: Outbound, tasks: TaskTracker) -> Arc<Self> {
        let BuiltHub { manifest, settings, methods, presence, raw, .. } = hub;
        let (protocols, records) = (settings.protocols.clone(), Records::new(&settings.history));
        let core = HubCore::new(instance, protocols, settings.naming, settings.limits, records, outbound);
        let core = Arc::new(core);
        let presence = Presence::new(&core, presence, settings.presence_grace, tasks.clone());
        let methods = Arc::new(methods);
        Arc::new_cyclic(|workers: &Weak<Self>| {
            let workers: Weak<dyn StartWorker> = Weak::<Self>::clone(workers);
            let ends = Arc::new(ConnectionEnds::new(Arc::clone(&core), workers, settings.detailed_errors));
            let results = Arc::new(ResultRouter::new(Arc::clone(&core)));
            let moves = NodeMoves::new(Arc::clone(&core), Arc::clone(&ends), tasks.clone());
            let reassignments = Reassignments::new(Arc::clone(&core), Arc::clone(&ends), Arc::clone(&results));
            let hooks = HookRunner::new(Arc::clone(&core), Arc::clone(&methods), Arc::clone(&ends));
            let calls = MethodCalls::new(Arc::clone(&core), methods, settings.detailed_errors, tasks.clone());
            let raw = raw.map(|serve| {
                RawCalls::new(Arc::clone(&core), Arc::clone(&ends), serve, manifest.is_movable, tasks.clone())
            });
            Self {
                core,
                settings,
                presence,
                tasks,
                calls_given_up: CancellationToken::new(),
                ends,
                moves,
                reassignments,
                results,
                calls,
                hooks,
                raw,
            }
        })
    }

    /// Whether clients may continue on another app server when this one stops.
    pub(crate) fn is_movable(&self) -> bool {
        self.raw.as_ref().is_none_or(|raw| raw.is_movable)
    }

    pub(crate) fn has_policies(&self) -> bool {
        !self.hooks.methods.policies.is_empty()
    }

    /// Checks the hub's policies for a negotiating client. If they refuse it, returns the error text for the client:
    /// empty, as in the official server, unless the hub has detailed errors.
    pub(crate) fn refuse(self: &Arc<Self>, client: OpenConnection) -> Option<String> {
        // A request that cannot be encoded is checked when the client connects.
        let request = ConnectRequest::of_message(client)?;
        if self.settings.requires_authentication && request.user_id().is_none() {
            return None; // refused with 401 by the code that checked its token
        }
        let home = Home::new(LinkId(0), Arc::new(Node::unlinked()));
        let connection = Arc::new(Connection::new(request, HubProtocol::Json, home));
        let context = self.context(&connection, CallKind::ConnectHook);
        let error = self.hooks.check_policies(&connection, &context).err()?;
        Some(if self.settings.detailed_errors { error.to_string() } else { String::new() })
    }

    async fn handle_handshake(self: &Arc<Self>, connection: &Arc<Connection>, request: HandshakeRequest) {
        let protocol = request.protocol;
        if !self.core.protocols.contains(&protocol) {
            return self.ends.refuse_handshake(connection, &HandshakeError::Protocol(protocol.name().to_owned()));
        }
        if protocol != connection.protocol {
            let detail = format!("the connection was opened for {}", connection.protocol.name());
            return self.ends.refuse_handshake(connection, &HandshakeError::Malformed { detail });
        }
        if connection.request.is_reassigned {
            let context = self.context(connection, CallKind::ConnectHook);
            return self.hooks.rehomed(connection, context).await;
        }
        self.core.to(connection).answer_handshake(HandshakeResponse::default().encode());
        self.hooks.connected(connection, self.context(connection, CallKind::ConnectHook)).await;
    }

    fn context(self: &Arc<Self>, connection: &Arc<Connection>, kind: CallKind) -> Context {
        Context::new(CallScope::new(connection, self.workers(), kind, None, None), Arc::clone(&self.core))
    }

    fn workers(self: &Arc<Self>) -> Arc<dyn StartWorker> {
        Arc::<Self>::clone(self)
    }

    /// Handles a message. Returns a future if the worker must wait.
    fn dispatch(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
        body: &Bytes,
        bytes: usize,
        trace: Option<Box<MessageTrace>>,
    ) -> Option<BoxFuture<'static, ()>> {
        let message = connection.protocol.decode(body);
        let is_call = match &message {
            Ok(message) => message.as_ref().is_some_and(|message| message.kind().is_call()),
            Err(error) => error.call_id().is_some(),
        };
        if let Some(trace) = trace.as_ref().filter(|_| !is_call) {
            self.core.to(connection).report_trace(trace.taken(connection.shared_id()));
        }
        match message {
            Ok(Some(HubMessage::Invocation(invocation))) => {
                return self.calls.invoke(connection, invocation, ReplyKind::Result, (bytes, trace), self.workers());
            }
            Ok(Some(HubMessage::StreamInvocation(invocation))) => {
                return self.calls.invoke(connection, invocation, ReplyKind::Stream, (bytes, trace), self.workers());
            }
            Ok(Some(HubMessage::StreamItem(StreamItem { invocation_id: id, item: payload, .. }))) => {
                self.results.handle_item(connection, &id, UploadItem { payload, raw: None, bytes });
            }
            Ok(Some(HubMessage::Completion(completion))) => {
                return self.results.handle_completion(connection, completion);
            }
            Ok(Some(HubMessage::CancelInvocation(cancel))) => self.results.cancel(connection, &cancel),
            Ok(Some(HubMessage::Close(close))) => self.ends.handle_close_message(connection, close),
            // These are handled by the proxy, which counts messages for stateful reconnect.
            Ok(Some(HubMessage::Ping | HubMessage::Ack { .. } | HubMessage::Sequence { .. })) => {}
            Ok(None) => tracing::debug!(hub = %self.core.name(), "message of a newer type is skipped"),
            Err(error) if error.is_dropped_call() => {
                tracing::debug!(hub = %self.core.name(), %error, "call without an id is dropped");
            }
            Err(error) => return self.handle_undecodable(connection, error, trace),
        }
        None
    }

    /// Fails the call or upload of a message that cannot be decoded, or closes the connection if neither is known.
    /// Returns a future if the worker must wait.
    #[cold]
    fn handle_undecodable(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
        error: HubMessageError,
        trace: Option<Box<MessageTrace>>,
    ) -> Option<BoxFuture<'static, ()>> {
        if error.call_id().is_some() {
            return self.calls.refuse_undecodable(connection, error, trace, self.workers());
        }
        if let Some(completion) = error.failed_end() {
            return self.results.handle_completion(connection, completion);
        }
        self.ends.close_with_error(connection, Cause::HubProtocol, &message_error(&error));
        None
    }
}

impl Endpoint for Arc<Dispatcher> {
    fn outbound(&self) -> &Outbound {
        &self.core.outbound
    }

    fn handle_open(&self, home: LinkId, node: &Arc<Node>, body: &Bytes, message: OpenConnection) {
        if let Some(close) = ConnectionClose::of_ended(&message) {
            return self
                .ends
                .handle_ended(home, node, body, &message, close, |connection| self.begin_ended(connection));
        }
        let connection_id = message.connection_id.clone();
        // Raw connections have no hub protocol.
        let unnamed = self.raw.as_ref().map(|_| HubProtocol::Json);
        let Some(protocol) = message.protocol.as_deref().and_then(HubProtocol::from_name).or(unnamed) else {
            let error = "the opening frame names no hub protocol that is known here";
            tracing::warn!(hub = %self.core.name(), connection = short(&connection_id), error, "client connection refused");
            return self.core.outbound.refuse(node, connection_id, Cause::AppHandshakeRefused, error);
        };
        let home = match self.settings.reconnect_buffer_bytes() {
            Some(_) => Home::of_stateful(home, Arc::clone(node)),
            None => Home::new(home, Arc::clone(node)),
        };
        let connection = Arc::new(Connection::new(ConnectRequest::new(body, &message), protocol, home));
        if let Err(present) = self.core.connections.insert(&connection) {
            // The resume notification of its new node was lost with its link.
            let has_moved = connection.request.is_reassigned && present.home.may_have_moved();
            if !present.node().is_same(node) && !has_moved {
                return self.core.outbound.refuse(node, connection_id, Cause::IdInUse, ID_IN_USE);
            }
            if connection.request.is_reassigned {
                self.ends.supersede(&present, &connection);
            } else {
                // The proxy reopens an ID only after it has detected that the old connection is gone.
                self.ends.handle_closed(&present, ConnectionClose::new(Cause::Superseded));
            }
            if self.core.connections.insert(&connection).is_err() {
                return;
            }
        }
        self.core.outbound.metrics.connections.inc();
        if !connection.request.is_reassigned {
            self.core.outbound.metrics.opened.inc();
        }
        tracing::debug!(
            hub = self.core.name(),
            node = node.name(),
            connection = short(connection.id()),
            "connection opened"
        );
        if let Some(raw) = &self.raw {
            if connection.request.is_reassigned {
                self.core.outbound.metrics.rehomed.inc();
            }
            raw.start_handler(&connection, self.workers());
        }
    }

    fn handle_data(&self, data: ConnectionData, mark: Option<i64>) -> Option<Arc<Connection>> {
        let connection = self.core.connections.get(&data.connection_id)?;
        if self.raw.is_some() {
            self.results.handle_item(&connection, HANDLER_CALL, RawMessage::to_item(data));
            return None;
        }
        let (needs_worker, overfull_waits) = {
            let mut inbox = connection.inbox();
            let needs_worker = match mark {
                None => inbox.push(data.payload),
                Some(mark) => inbox.push_traced(data.payload, mark),
            };
            let overfull_waits = inbox.take_overfull_waits(&self.core.limits);
            self.core.apply_flow_control(&connection, &mut inbox);
            (needs_worker, overfull_waits)
        };
        overfull_waits.wake();
        needs_worker.then_some(connection)
    }

    fn start_workers(&self, due: &Arc<RunQueue<Arc<Connection>>>, tasks: usize) {
        for _ in 0..tasks {
            self.tasks.spawn(Arc::clone(self).work_off(Arc::clone(due)));
        }
    }

    fn handle_close(&self, node: &Arc<Node>, close: CloseConnection) {
        let Some(connection) = self.core.connections.get(&close.connection_id) else { return };
        // It has since moved to another node.
        if connection.home.moves_between_nodes() && !connection.node().is_same(node) {
            return;
        }
        let reason = close.reason();
        match reason.next_home {
            Some("") if let Some(raw) = &self.raw => raw.begin_reassignment(&connection),
            Some("") if reason.is_if_idle => self.reassignments.begin_idle(&connection),
            Some("") => self.reassignments.begin_reassignment(&connection),
            Some(_) => self.ends.let_go(&connection),
            None => self.ends.handle_closed(&connection, ConnectionClose::from_frame(&close)),
        }
    }

    fn handle_link_ended(&self, link: LinkId, close: &ConnectionClose) {
        for connection in self.core.connections.at_home(link) {
            match connection.home.end_link(link) {
                // No other app server takes it over.
                HomeEnd::Over if self.raw.is_some() => self.ends.handle_closed(&connection, close.clone()),
                HomeEnd::Over => self.ends.end_with_link(&connection, close.clone()),
                HomeEnd::Moving(resumed) => self.moves.await_move(connection, link, resumed, close.clone()),
                HomeEnd::Elsewhere => {}
            }
        }
        if self.core.outbound.has_sent_marks() {
            // Some marks may be lost with the link.
            self.core.connections.all().iter().for_each(|connection| self.core.to(connection).repeat_mark());
        }
    }

    fn count_clients(&self, link: LinkId) -> (usize, usize) {
        self.core.connections.count(link)
    }

    fn ping_clients(&self, service: &str) {
        for connection in self.core.connections.all() {
            if connection.node().service.as_deref() == Some(service) && connection.inbox().is_connected() {
                self.core.to(&connection).ping();
            }
        }
    }

    fn handle_instance_lost(&self, instance: &str) {
        for connection in self.core.connections.all() {
            if connection.request.header(INSTANCE_ID_HEADER).is_some_and(|holder| holder == instance) {
                self.ends.handle_closed(&connection, ConnectionClose::with_error(Cause::LinkLost, INSTANCE_LOST));
            }
        }
    }

    fn handle(&self, link: LinkId, node: &Arc<Node>, message: ServiceMessage) {
        use ServiceMessage as M;
        match message {
            M::ConnectionFlowControl(control) => self.handle_flow_control(link, node, control),
            M::DownDone(report) => {
                if let Some(connection) = self.core.connections.get(&report.connection_id) {
                    connection.inbox().window.confirm(report.number);
                }
            }
            M::MoveConnection(request) => self.moves.answer_move(node, request.connection_id),
            M::PresenceChanges(update) => {
                if let Some(presence) = &self.presence {
                    presence.handle_update(node, update);
                }
            }
            M::UpdateConnectionClaims(update) => self.update_claims(update),
            M::Ack(ack) => self.core.acks.acknowledge(ack),
            M::ClientInvocation(request) => self.results.register_request(node, request),
            M::ClientCompletion(completion) => self.results.route_remote_result(completion),
            M::ErrorCompletion(refusal) => self.results.route_refusal(node, refusal),
            other => ignore(self.outbound(), &other),
        }
    }

    fn handle_socket_ended(&self, node: &Arc<Node>) {
        if let Some(presence) = &self.presence {
            presence.handle_socket_ended(node);
        }
    }

    fn handle_node_lost(&self, node: &Arc<Node>) {
        self.core.handle_node_lost(node);
        if let Some(presence) = &self.presence {
            presence.handle_node_lost(node);
        }
    }
}

impl Dispatcher {
    /// Begins what follows the end of a client that no app server had.
    fn begin_ended(self: &Arc<Self>, connection: &Arc<Connection>) {
        match &self.raw {
            // `on_connected` has succeeded on another app server.
            None => connection.inbox().set_connected(),
            Some(raw) if raw.is_movable => raw.start_handler(connection, self.workers()),
            Some(_) => {}
        }
    }

    fn handle_flow_control(&self, link: LinkId, node: &Arc<Node>, control: ConnectionFlowControl) {
        let ConnectionFlowControl { connection_id, subject, operation } = control;
        if subject == FlowSubject::Server {
            // The service retires this server connection.
            return self.core.outbound.retire(node);
        }
        match operation {
            FlowOperation::Pause => self.moves.pause(node, connection_id),
            FlowOperation::Resume => self.moves.resume(link, node, connection_id),
            _ => {}
        }
    }

    /// Updates the claims of a client that has refreshed its authentication.
    fn update_claims(self: &Arc<Self>, update: ConnectionClaims) {
        let Some(connection) = self.core.connections.get(&update.connection_id) else { return };
        connection.refresh_claims(update.claims);
        // If `on_connected` has not run yet, it will see the new claims.
        if self.hooks.follows_refreshes() && connection.inbox().is_connected() {
            let hub = Arc::clone(self);
            self.tasks.spawn(async move {
                let context = hub.context(&connection, CallKind::ConnectHook);
                hub.hooks.refreshed(&connection, context).await;
            });
        }
    }
}

impl StartWorker for Dispatcher {
    fn start_worker(self: Arc<Self>, connection: Arc<Connection>) {
        self.spawn_worker(&connection);
    }
}

fn cause_of(error: &FramingError) -> Cause {
    match error {
        FramingError::TooLarge { .. } => Cause::MessageTooLarge,
        _ => Cause::HubProtocol,
    }
}

fn framing_error(error: &FramingError) -> HubError {
    match error {
        FramingError::TooLarge { limit } => text::message_too_large(*limit),
        other => HubError::invalid_data(other.to_string()),
    }
}

fn message_error(error: &HubMessageError) -> HubError {
    HubError::invalid_data(error.to_string())
}
