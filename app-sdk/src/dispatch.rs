//! One hub at work: connections come and go, their messages become calls.
//!
//! ```text
//!  link reader ──open, data, left──► inbox ──worker──► handshake, on_connected, messages…, on_disconnected
//!                  (never waits)               (one task, only while the inbox has something)
//!                                                    │
//!                                                    ├─ calls: run at once; one that waits becomes a task
//!                                                    └─ items, completions, cancellations: to the calls that run
//! ```
//!
//! The worker takes the messages of one connection in their order and starts its calls in that order. It never waits
//! for a call: what that call needs may stand behind it.

mod calls;
mod moving;
mod questions;
mod running;
#[cfg(test)]
mod tests;

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};
use std::task::Waker;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio_util::task::TaskTracker;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::{
    CancelInvocation, Close, Completion, FramingError, HandshakeError, HandshakeRequest, HandshakeResponse, HubMessage,
    HubMessageError, HubProtocol, Outcome, StreamItem,
};
use trunkline_protocol::manifest::MIGRATE_TO_HEADER;
use trunkline_protocol::service::{
    ClientCompletion, ClientInvocation, CloseConnection, ConnectionData, ErrorCompletion, OpenConnection,
};

use crate::call::{Given, Rejection};
use crate::connection::{Connection, End, Errand, LinkId, Next, Opening, Scope, UploadEnd, Wanted, short};
use crate::context::Context;
use crate::downward::{Downward, ID_IN_USE, Workers};
use crate::endpoint::Endpoint;
use crate::error::HubError;
use crate::handler::Method;
use crate::hub::{BuiltHub, HubSettings, Methods};
use crate::metrics::MethodMetrics;
use crate::node::Node;
use crate::text;

/// After so many messages a worker lets others run: a busy client must not keep a thread for itself.
const MESSAGES_PER_TURN: u32 = 32;

/// A hub whose methods can be called.
pub(crate) struct HubAtWork {
    pub(crate) down: Arc<Downward>,
    settings: HubSettings,
    methods: Methods,
    unknown_method: MethodMetrics,
    tasks: TaskTracker,
    me: Weak<HubAtWork>,
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
        let hub = Arc::new_cyclic(|me| Self {
            down,
            settings,
            methods,
            unknown_method: MethodMetrics::default(),
            tasks,
            me: Weak::clone(me),
        });
        let me: Weak<Self> = Arc::downgrade(&hub);
        hub.down.set_workers(me);
        hub
    }

    async fn work(self: Arc<Self>, connection: Arc<Connection>) {
        let mut messages = 0;
        while self.turn(&connection).await == Turn::Again {
            messages += 1;
            if messages % MESSAGES_PER_TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
    }
    async fn turn(self: &Arc<Self>, connection: &Arc<Connection>) -> Turn {
        match self.next(connection) {
            Next::Handshake(Ok(request)) => self.welcome(connection, &request).await,
            Next::Handshake(Err(error)) => self.refuse(connection, &error),
            Next::Message(body, bytes) => self.dispatch(connection, &body, bytes).await,
            Next::Start(call) => self.start_held(call).await,
            Next::Broken(error) => self.fail(connection, cause_of(&error), &framing_error(&error)),
            Next::Over => self.tell_of_end(connection),
            Next::End(end, owed) => {
                if owed {
                    self.say_goodbye(connection, end).await;
                }
                return Turn::Done;
            }
            Next::Move => self.hand_over(connection).await,
            Next::Idle => return Turn::Done,
        }
        Turn::Again
    }

    fn next(&self, connection: &Connection) -> Next {
        let mut inbox = connection.inbox();
        let next = inbox.next(connection.protocol(), &self.down.limits);
        self.down.settle_flow(connection, &mut inbox);
        next
    }

    async fn welcome(&self, connection: &Arc<Connection>, request: &HandshakeRequest) {
        let protocol = request.protocol;
        if !self.down.protocols.contains(&protocol) {
            return self.refuse(connection, &HandshakeError::Protocol(protocol.name().to_owned()));
        }
        if protocol != connection.protocol() {
            let detail = format!("the connection was opened for {}", connection.protocol().name());
            return self.refuse(connection, &HandshakeError::Malformed { detail });
        }
        if connection.opening().is_rehomed {
            return self.take_over(connection).await;
        }
        self.down.answer_handshake(connection, HandshakeResponse::default().encode());
        match self.greet(connection).await {
            Ok(()) => connection.inbox().set_connected(),
            Err(error) => {
                self.log(connection, "on_connected", &error);
                let text = error.describe(text::CLOSED_WITH_ERROR, self.settings.detailed_errors);
                let close = Close { error: Some(text.into()), allow_reconnect: false };
                self.down.close(connection, close, End::by(Cause::AppError, error.to_string()));
            }
        }
    }

    async fn greet(&self, connection: &Arc<Connection>) -> Result<(), HubError> {
        let context = self.context(connection, Errand::Greeting);
        for hook in &self.methods.on_connected {
            self.run_hook(hook, &context, None).await?;
        }
        Ok(())
    }

    async fn say_goodbye(&self, connection: &Arc<Connection>, end: End) {
        let context = self.context(connection, Errand::Farewell);
        for hook in &self.methods.on_disconnected {
            if let Err(error) = self.run_hook(hook, &context, Some(end.clone())).await {
                self.log(connection, "on_disconnected", &error);
            }
        }
    }

    fn context(&self, connection: &Arc<Connection>, errand: Errand) -> Context {
        Context::new(Scope::new(connection, errand), Arc::clone(&self.down))
    }

    /// Runs a hook; a panic becomes an error, because it must hurt nobody else.
    async fn run_hook(&self, hook: &Method, context: &Context, end: Option<End>) -> Result<(), HubError> {
        let (arguments, stream_ids) = (Vec::new(), Vec::new());
        let given = Given { context: context.clone(), arguments, stream_ids, end };
        caught(async { hook.call(given).map_err(Rejection::into_error)?.await }).await.map(drop)
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

    async fn dispatch(self: &Arc<Self>, connection: &Arc<Connection>, body: &Bytes, bytes: usize) {
        match connection.protocol().decode(body) {
            Ok(Some(HubMessage::Invocation(invocation))) => {
                self.invoke(connection, invocation, Wanted::Result, bytes).await;
            }
            Ok(Some(HubMessage::StreamInvocation(invocation))) => {
                self.invoke(connection, invocation, Wanted::Stream, bytes).await;
            }
            Ok(Some(HubMessage::StreamItem(item))) => self.take_item(connection, item, bytes),
            Ok(Some(HubMessage::Completion(completion))) => self.take_completion(connection, completion).await,
            Ok(Some(HubMessage::CancelInvocation(cancel))) => self.cancel(connection, &cancel),
            Ok(Some(HubMessage::Close(close))) => self.leave(connection, close),
            // Pings end at the proxy, and nobody has agreed to count messages.
            Ok(Some(HubMessage::Ping | HubMessage::Ack { .. } | HubMessage::Sequence { .. })) => {}
            Ok(None) => tracing::debug!(hub = %self.down.hub, "message of a newer type is skipped"),
            Err(error) => self.fail(connection, Cause::HubProtocol, &message_error(&error)),
        }
    }

    /// An item of an upload; one of a stream that nobody knows is dropped.
    fn take_item(&self, connection: &Connection, StreamItem { invocation_id: id, item, .. }: StreamItem, bytes: usize) {
        let waiting = {
            let mut inbox = connection.inbox();
            let waiting = inbox.take_item(&id, item, bytes, &self.down.limits);
            self.down.settle_flow(connection, &mut inbox);
            waiting
        };
        match waiting {
            Some(waiting) => waiting.into_iter().for_each(Waker::wake),
            None => tracing::debug!(hub = %self.down.hub, stream = %id, "item of an unknown stream is dropped"),
        }
    }

    /// The end of an upload, or the result that the client was asked for.
    async fn take_completion(&self, connection: &Arc<Connection>, completion: Completion) {
        let end = match &completion.outcome {
            Outcome::Error(text) => UploadEnd::Failed(text.clone()),
            Outcome::Void | Outcome::Value(_) => UploadEnd::Complete,
        };
        let waiting = {
            let mut inbox = connection.inbox();
            let waiting = inbox.end_upload(&completion.invocation_id, end);
            self.down.settle_flow(connection, &mut inbox);
            waiting
        };
        match waiting {
            Some(waiting) => waiting.into_iter().for_each(Waker::wake),
            None => self.take_answer(connection, completion).await,
        }
    }

    fn cancel(&self, connection: &Connection, cancel: &CancelInvocation) {
        let call = connection.inbox().calls().0.active(&cancel.invocation_id);
        match call {
            Some(call) => call.cancel(),
            None => tracing::debug!(hub = %self.down.hub, id = %cancel.invocation_id, "call to cancel is over"),
        }
    }

    /// The client says nothing more: its uploads are at an end, and it answers no question.
    fn tell_of_end(&self, connection: &Arc<Connection>) {
        let waiting = {
            let mut inbox = connection.inbox();
            let (calls, flow) = inbox.calls();
            calls.end_uploads(flow)
        };
        waiting.into_iter().for_each(Waker::wake);
        self.give_up_questions(connection);
    }

    /// The client says goodbye itself; most often the proxy has eaten that.
    fn leave(&self, connection: &Arc<Connection>, close: Close) {
        self.down.close(connection, Close::default(), End { cause: Cause::ClientClosed, error: close.error });
    }

    /// What the client sent can't be understood: this connection can't go on.
    fn fail(&self, connection: &Arc<Connection>, cause: Cause, error: &HubError) {
        let text = error.describe(text::CLOSED_WITH_ERROR, self.settings.detailed_errors);
        let close = Close { error: Some(text.into()), allow_reconnect: true };
        self.down.close(connection, close, End::by(cause, error.message()));
    }

    fn log(&self, connection: &Connection, method: &str, error: &HubError) {
        let (hub, connection) = (&*self.down.hub, short(connection.id()));
        if error.is_shown() {
            tracing::debug!(hub, connection, method, ?error, "method failed, and the client was told why");
        } else {
            tracing::error!(hub, connection, method, ?error, "method failed");
        }
    }
}

impl Endpoint for HubAtWork {
    fn down(&self) -> &Arc<Downward> {
        &self.down
    }

    fn handle_open(&self, home: LinkId, node: &Arc<Node>, body: &Bytes, message: OpenConnection) {
        let connection_id = message.connection_id.clone();
        let Some(protocol) = message.protocol.as_deref().and_then(HubProtocol::from_name) else {
            let error = "the opening frame names no hub protocol that is known here";
            tracing::warn!(hub = %self.down.hub, connection = short(&connection_id), error, "connection is turned away");
            return self.down.turn_away(node, connection_id, Cause::AppHandshakeRefused, error);
        };
        let connection = Arc::new(Connection::new(Opening::new(body, &message), protocol, home, Arc::clone(node)));
        if let Err(present) = self.down.roster.insert(&connection) {
            if !present.node().is_same(node) {
                return self.down.turn_away(node, connection_id, Cause::IdInUse, ID_IN_USE);
            }
            if connection.opening().is_rehomed {
                self.supersede(&present, &connection);
            } else {
                // The proxy opens an id anew when it knows that the old connection is gone.
                self.down.left(&present, End::of(Cause::Superseded));
            }
            if self.down.roster.insert(&connection).is_err() {
                return;
            }
        }
        self.down.metrics.connections.inc();
        if !connection.opening().is_rehomed {
            self.down.metrics.opened.inc();
        }
        let (hub, node, connection) = (&*self.down.hub, node.name(), short(connection.id()));
        tracing::debug!(hub, node, connection, "connection opened");
    }

    fn handle_data(&self, data: ConnectionData) {
        let Some(connection) = self.down.roster.get(&data.connection_id) else { return };
        let (start, hopeless) = {
            let mut inbox = connection.inbox();
            let start = inbox.push(data.payload);
            let hopeless = inbox.take_hopeless(&self.down.limits);
            self.down.settle_flow(&connection, &mut inbox);
            (start, hopeless)
        };
        hopeless.tell();
        self.down.start_if(start, &connection);
    }

    fn handle_left(&self, close: CloseConnection) {
        let Some(connection) = self.down.roster.get(&close.connection_id) else { return };
        if close.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(MIGRATE_TO_HEADER)) {
            return self.begin_leaving(&connection);
        }
        self.down.left(&connection, End::told(&close));
    }

    fn handle_link_ended(&self, link: LinkId, end: &End) {
        for connection in self.down.roster.at_home(link) {
            // It was to go on elsewhere anyhow.
            if connection.inbox().is_moving() {
                self.down.leave_quietly(&connection);
                self.down.give_up_calls(&connection);
            } else {
                self.down.left(&connection, end.clone());
            }
        }
    }

    fn handle_question(&self, node: &Arc<Node>, question: ClientInvocation) {
        self.take_question(node, question);
    }

    fn handle_answer(&self, answer: ClientCompletion) {
        self.take_foreign_answer(answer);
    }

    fn handle_refusal(&self, node: &Arc<Node>, refusal: ErrorCompletion) {
        self.take_refusal(node, refusal);
    }
}

impl Workers for HubAtWork {
    fn start(&self, connection: Arc<Connection>) {
        if let Some(me) = self.me.upgrade() {
            self.tasks.spawn(me.work(connection));
        }
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

/// Runs code of the app; a panic becomes an error.
async fn caught<T>(running: impl Future<Output = Result<T, HubError>>) -> Result<T, HubError> {
    let ran = AssertUnwindSafe(running).catch_unwind().await;
    ran.unwrap_or_else(|panic| Err(panicked(&*panic)))
}

/// The error of code that panicked.
pub(crate) fn panicked(panic: &(dyn std::any::Any + Send)) -> HubError {
    HubError::named("Panic", panic_text(panic))
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a text".into())
}
