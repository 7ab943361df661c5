//! One hub at work: connections come and go, their messages become calls.
//!
//! ```text
//!  link reader ──open, data, left──► inbox ──worker──► handshake, on_connected, methods…, on_disconnected
//!                  (never waits)               (one task, only while the inbox has something)
//! ```
//!
//! The messages of one connection are worked off one after the other, so its calls run in their order.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures_util::FutureExt;
use tokio_util::task::TaskTracker;
use trunkline_protocol::hub::{
    Close, FramingError, HandshakeError, HandshakeRequest, HandshakeResponse, HubMessage, HubMessageError, Invocation,
    Outcome, Payload,
};
use trunkline_protocol::limits::LINK_FRAME_MAX_BYTES;
use trunkline_protocol::service::{CloseConnection, ConnectionData, FlowOperation, OpenConnection};

use crate::call::{Rejection, Stage};
use crate::connection::{Connection, End, LinkId, Next, Opening, short};
use crate::context::Context;
use crate::downward::{Downward, Workers};
use crate::encode;
use crate::error::HubError;
use crate::handler::{Method, Reply};
use crate::hub::{BuiltHub, HubSettings, Methods};
use crate::node::Node;
use crate::text;

/// After so many messages a worker lets others run: a busy client must not keep a thread for itself.
const MESSAGES_PER_TURN: u32 = 32;

/// A hub whose methods can be called.
pub(crate) struct HubAtWork {
    pub(crate) down: Arc<Downward>,
    settings: HubSettings,
    methods: Methods,
    tasks: TaskTracker,
    me: Weak<HubAtWork>,
}

/// How a client invoked a method.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Result,
    Stream,
}

/// Whether a worker goes on.
#[derive(PartialEq, Eq)]
enum Turn {
    Again,
    Done,
}

impl HubAtWork {
    pub(crate) fn new(hub: BuiltHub, down: Arc<Downward>, tasks: TaskTracker) -> Arc<Self> {
        let BuiltHub { settings, methods, .. } = hub;
        let hub = Arc::new_cyclic(|me| Self { down, settings, methods, tasks, me: Weak::clone(me) });
        let me: Weak<Self> = Arc::downgrade(&hub);
        hub.down.set_workers(me);
        hub
    }

    /// A client connection begins; `body` is the frame that says so.
    pub(crate) fn handle_open(&self, home: LinkId, node: &Arc<Node>, body: &Bytes, message: OpenConnection) {
        let connection_id = message.connection_id.clone();
        let opening = match Opening::new(body, message) {
            Ok(opening) => opening,
            Err(error) => {
                tracing::warn!(hub = %self.down.hub, connection = short(&connection_id), %error, "connection is turned away");
                let error = Some(error.to_string().into());
                return self
                    .down
                    .turn_away(node, CloseConnection { connection_id, error, ..CloseConnection::default() });
            }
        };
        let connection = Arc::new(Connection::new(opening, home, Arc::clone(node)));
        if let Err(present) = self.down.roster.insert(&connection) {
            if !Arc::ptr_eq(present.node(), node) {
                // Two nodes were given one token: whoever came first stays.
                let error = Some("the connection id is in use".into());
                return self
                    .down
                    .turn_away(node, CloseConnection { connection_id, error, ..CloseConnection::default() });
            }
            // The proxy opens an id anew when it knows that the old connection is gone.
            self.down.left(&present, End::default());
            if self.down.roster.insert(&connection).is_err() {
                return;
            }
        }
        self.down.metrics.connections.inc();
        tracing::debug!(hub = %self.down.hub, connection = short(connection.id()), "connection opened");
    }

    /// Bytes of a client; those of an unknown one are dropped.
    pub(crate) fn handle_data(&self, data: ConnectionData) {
        let Some(connection) = self.down.roster.get(&data.connection_id) else { return };
        let mut inbox = connection.inbox();
        let pushed = inbox.push(data.payload, self.settings.inbox_max_bytes);
        if pushed.pause {
            // Queued under the lock, or the worker's resume could overtake it.
            self.down.control_flow(&connection, FlowOperation::Pause);
            self.down.metrics.pauses.inc();
        }
        drop(inbox);
        self.down.start_if(pushed.start, &connection);
    }

    /// A client has left.
    pub(crate) fn handle_left(&self, close: CloseConnection) {
        let Some(connection) = self.down.roster.get(&close.connection_id) else { return };
        let error = close.error.filter(|error| !error.is_empty());
        tracing::debug!(hub = %self.down.hub, connection = short(connection.id()), error = error.as_deref(), "connection left");
        self.down.left(&connection, End { error });
    }

    /// A link has ended, and the connections at home on it are over.
    pub(crate) fn handle_link_ended(&self, link: LinkId, end: &End) {
        for connection in self.down.roster.at_home(link) {
            self.down.left(&connection, end.clone());
        }
    }

    async fn work(self: Arc<Self>, connection: Arc<Connection>) {
        let context = Context::new(Arc::clone(&connection), Arc::clone(&self.down));
        let mut messages = 0;
        while self.turn(&context, &connection).await == Turn::Again {
            messages += 1;
            if messages % MESSAGES_PER_TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    async fn turn(&self, context: &Context, connection: &Arc<Connection>) -> Turn {
        match self.next(connection) {
            Next::Handshake(Ok(request)) => self.welcome(context, connection, &request).await,
            Next::Handshake(Err(error)) => self.refuse(connection, &error),
            Next::Message(body) => self.dispatch(context, connection, &body).await,
            Next::Broken(error) => self.fail(connection, &framing_error(&error)),
            Next::End(end, owed) => {
                if owed {
                    self.say_goodbye(context, end).await;
                }
                return Turn::Done;
            }
            Next::Idle => return Turn::Done,
        }
        Turn::Again
    }

    fn next(&self, connection: &Connection) -> Next {
        let mut inbox = connection.inbox();
        let next = inbox.next(connection.protocol(), self.settings.message_max_bytes);
        if inbox.take_resume(self.settings.inbox_max_bytes) {
            self.down.control_flow(connection, FlowOperation::Resume);
        }
        next
    }

    async fn welcome(&self, context: &Context, connection: &Arc<Connection>, request: &HandshakeRequest) {
        let protocol = request.protocol;
        if !self.down.protocols.contains(&protocol) {
            return self.refuse(connection, &HandshakeError::Protocol(protocol.name().to_owned()));
        }
        if protocol != connection.protocol() {
            let detail = format!("the connection was opened for {}", connection.protocol().name());
            return self.refuse(connection, &HandshakeError::Malformed { detail });
        }
        self.down.answer_handshake(connection, HandshakeResponse::default().encode());
        let greeted = match &self.methods.on_connected {
            Some(method) => self.run(method, context, Vec::new(), None).await.map(drop),
            None => Ok(()),
        };
        match greeted {
            Ok(()) => connection.inbox().set_connected(),
            Err(Rejection { error, .. }) => {
                self.log(context, "on_connected", &error);
                let text = error.describe(text::CLOSED_WITH_ERROR, self.settings.detailed_errors);
                let close = Close { error: Some(text.into()), allow_reconnect: false };
                self.down.close(connection, close, End { error: Some(error.to_string().into()) });
            }
        }
    }

    fn refuse(&self, connection: &Arc<Connection>, error: &HandshakeError) {
        tracing::info!(hub = %self.down.hub, connection = short(connection.id()), ?error, "handshake is refused");
        let text = match error {
            HandshakeError::Malformed { detail } if self.settings.detailed_errors => {
                HubError::invalid_data(detail.as_str()).describe(&error.to_string(), true)
            }
            _ => error.to_string(),
        };
        self.down.refuse(connection, HandshakeResponse { error: Some(text) }.encode());
    }

    async fn say_goodbye(&self, context: &Context, end: End) {
        if let Some(method) = &self.methods.on_disconnected {
            let reason = end.error.map(String::from);
            if let Err(Rejection { error, .. }) = self.run(method, context, Vec::new(), reason).await {
                self.log(context, "on_disconnected", &error);
            }
        }
    }

    async fn dispatch(&self, context: &Context, connection: &Arc<Connection>, body: &Bytes) {
        match connection.protocol().decode(body) {
            Ok(Some(HubMessage::Invocation(invocation))) => {
                self.invoke(context, connection, invocation, Wanted::Result).await;
            }
            Ok(Some(HubMessage::StreamInvocation(invocation))) => {
                self.invoke(context, connection, invocation, Wanted::Stream).await;
            }
            Ok(Some(HubMessage::Close(close))) => self.leave(connection, close),
            // Pings end at the proxy. The others belong to streams and client results, which no method has asked for.
            Ok(Some(
                HubMessage::Ping
                | HubMessage::StreamItem(_)
                | HubMessage::Completion(_)
                | HubMessage::CancelInvocation(_)
                | HubMessage::Ack { .. }
                | HubMessage::Sequence { .. },
            )) => {}
            Ok(None) => tracing::debug!(hub = %self.down.hub, "message of a newer type is skipped"),
            Err(error) => self.fail(connection, &message_error(&error)),
        }
    }

    async fn invoke(&self, context: &Context, connection: &Arc<Connection>, invocation: Invocation, wanted: Wanted) {
        let Invocation { invocation_id, target, arguments, stream_ids, .. } = invocation;
        let outcome = match self.bind(&target, arguments.len(), stream_ids.len(), wanted) {
            Ok(method) => self.answer(context, &target, self.run(method, context, arguments, None).await),
            Err(text) => {
                self.down.metrics.invocations_unbound.inc();
                tracing::debug!(hub = %self.down.hub, connection = short(connection.id()), text, "call can't be bound");
                Err(text)
            }
        };
        let Some(invocation_id) = invocation_id else { return };
        if !self.down.roster.holds(connection) {
            return;
        }
        let protocol = connection.protocol();
        let outcome = match outcome {
            Ok(payload) if payload.as_bytes().len() + ENVELOPE_MAX_BYTES > LINK_FRAME_MAX_BYTES => {
                let error = HubError::invalid_data("The result is too large for a link.");
                Outcome::Error(text::invoking_failed(&target, &error, self.settings.detailed_errors).into())
            }
            Ok(payload) => Outcome::Value(payload),
            Err(text) => Outcome::Error(text.into()),
        };
        self.down.complete(connection, encode::completion(protocol, invocation_id, outcome)).await;
    }

    /// Finds the method, and checks what can be checked without its types.
    fn bind(&self, target: &str, arguments: usize, streams: usize, wanted: Wanted) -> Result<&Method, String> {
        let detailed = self.settings.detailed_errors;
        let unbound = |error| text::binding_failed(target, &error, detailed);
        let method = self.methods.find(target).ok_or_else(|| unbound(text::no_such_method()))?;
        if arguments != method.arguments() {
            return Err(unbound(text::argument_count(arguments, method.arguments())));
        }
        if wanted == Wanted::Stream {
            return Err(text::not_streaming(target));
        }
        if streams != 0 {
            return Err(text::invoking_failed(target, &text::stream_count(streams, 0), detailed));
        }
        Ok(method)
    }

    /// Runs a method; a panic becomes an error, because it must hurt nobody else.
    async fn run(
        &self,
        method: &Method,
        context: &Context,
        arguments: Vec<Payload>,
        reason: Option<String>,
    ) -> Result<Payload, Rejection> {
        let calling = AssertUnwindSafe(async { method.call(context.clone(), arguments, reason).await });
        match calling.catch_unwind().await {
            Ok(Ok(Reply(payload))) => Ok(payload),
            Ok(Err(rejection)) => Err(rejection),
            Err(panic) => Err(HubError::named("Panic", panic_text(&*panic)).into()),
        }
    }

    /// What the client is answered: its result, or the text that it may read.
    fn answer(&self, context: &Context, target: &str, ran: Result<Payload, Rejection>) -> Result<Payload, String> {
        let (metrics, detailed) = (&self.down.metrics, self.settings.detailed_errors);
        match ran {
            Ok(payload) => {
                metrics.invocations_ok.inc();
                Ok(payload)
            }
            Err(Rejection { error, stage: Stage::Binding }) => {
                metrics.invocations_unbound.inc();
                Err(text::binding_failed(target, &error, detailed))
            }
            Err(Rejection { error, stage: Stage::Invoking }) => {
                metrics.invocations_failed.inc();
                self.log(context, target, &error);
                Err(text::invoking_failed(target, &error, detailed))
            }
        }
    }

    /// The client says goodbye itself; most often the proxy has eaten that.
    fn leave(&self, connection: &Arc<Connection>, close: Close) {
        self.down.close(connection, Close::default(), End { error: close.error });
    }

    /// What the client sent can't be understood: this connection can't go on.
    fn fail(&self, connection: &Arc<Connection>, error: &HubError) {
        tracing::info!(hub = %self.down.hub, connection = short(connection.id()), %error, "connection breaks the protocol");
        let text = error.describe(text::CLOSED_WITH_ERROR, self.settings.detailed_errors);
        let close = Close { error: Some(text.into()), allow_reconnect: true };
        self.down.close(connection, close, End { error: Some(error.message().into()) });
    }

    fn log(&self, context: &Context, method: &str, error: &HubError) {
        let (hub, connection) = (&*self.down.hub, short(context.connection_id()));
        if error.is_shown() {
            tracing::debug!(hub, connection, method, ?error, "method failed, and the client was told why");
        } else {
            tracing::error!(hub, connection, method, ?error, "method failed");
        }
    }
}

/// What a result has around it at most: ids, target and headers of frames, which are the client's and thus small.
const ENVELOPE_MAX_BYTES: usize = 256 * 1024;

impl Workers for HubAtWork {
    fn start(&self, connection: Arc<Connection>) {
        if let Some(me) = self.me.upgrade() {
            self.tasks.spawn(me.work(connection));
        }
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

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a text".into())
}
