//! Invocation of a method: from the hub message to the running call.
//!
//! ```text
//!  invocation ──bind──► admitted ──► its turn ──► parameters ──► polled once ──► answered at once
//!       │                  └─ id in use              │                └─ it waits: becomes a task
//!       └─ no such method, …                         └─ an argument doesn't fit
//! ```
//!
//! Most methods are done when they are polled for the first time, and those cost no task.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use trunkline_protocol::hub::{Invocation, Outcome};

use super::Dispatcher;
use super::running_call::RunningCall;
use crate::call::{CallInput, Rejection, RejectionStage};
use crate::connection::{Admission, CallKind, CallScope, Concurrency, Connection, IncomingCall, ReplyKind, short};
use crate::context::Context;
use crate::encode;
use crate::error::{HubError, text};
use crate::handler::{Method, ReplyFuture};
use crate::metrics::{CallOutcome, UNKNOWN_METHOD};

impl Dispatcher {
    /// Handles an invocation, in a frame of `bytes`.
    pub(super) async fn invoke(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
        invocation: Invocation,
        reply_kind: ReplyKind,
        bytes: usize,
    ) {
        let bound = self.bind(&invocation, reply_kind);
        let concurrency = match &bound {
            Ok(method) if method.has_streams() => Concurrency::Background,
            Ok(_) => Concurrency::Slot,
            Err(_) => Concurrency::Rejected,
        };
        let scope = self.scope(connection, CallKind::Method(concurrency), invocation.invocation_id.clone());
        let call = IncomingCall { call: Arc::clone(&scope), invocation, reply_kind, bytes };
        let admission = {
            let mut inbox = connection.inbox();
            let admission = inbox.admit(call, &self.core.limits);
            self.core.apply_flow_control(connection, &mut inbox);
            admission
        };
        match admission {
            Admission::Start(call) => self.start(call, bound).await,
            Admission::Queued => {}
            Admission::IdInUse(id) => {
                let method = bound.ok().map(|method| &**method);
                self.refuse_call(&scope, method, text::id_in_use(&id)).await;
            }
        }
    }

    /// Starts a queued call whose turn has come.
    pub(super) async fn start_queued(self: &Arc<Self>, call: IncomingCall<CallScope>) {
        let bound = self.bind(&call.invocation, call.reply_kind);
        self.start(call, bound).await;
    }

    async fn start(self: &Arc<Self>, call: IncomingCall<CallScope>, bound: Result<&Arc<Method>, String>) {
        let IncomingCall { call: scope, invocation, reply_kind, .. } = call;
        let Invocation { target, arguments, stream_ids, .. } = invocation;
        // One that could not be bound may have a name all the same.
        let named = bound.as_ref().ok().copied().or_else(|| self.methods.find(&target)).cloned();
        let running = RunningCall::new(self, Arc::clone(&scope), target, named, stream_ids.clone(), reply_kind);
        let method = match bound {
            Ok(method) => method,
            Err(text) => return running.unbound(text).await,
        };
        let context = Context::new(Arc::clone(&scope), Arc::clone(&self.core));
        let filtered = (!self.methods.filters.is_empty()).then(|| context.clone());
        let replying = match take_parameters(method, CallInput { context, arguments, stream_ids, close: None }) {
            Ok(replying) => match filtered {
                Some(context) => self.methods.filters.wrap(context, method, replying),
                None => replying,
            },
            Err(Rejection { error, stage: RejectionStage::Binding }) => {
                let text = text::binding_failed(running.target(), &error, self.settings.detailed_errors);
                return running.unbound(text).await;
            }
            Err(Rejection { error, stage: RejectionStage::Invoking }) => return running.failed(&error).await,
        };
        let mut replying = AssertUnwindSafe(replying).catch_unwind();
        match poll_fn(|context| Poll::Ready(Pin::new(&mut replying).poll(context))).await {
            Poll::Ready(ran) => {
                let ran = ran.unwrap_or_else(|panic| Err(HubError::from_panic(&*panic)));
                if let Some(stream) = running.answer(ran).await {
                    self.tasks.spawn(stream.send());
                }
            }
            Poll::Pending => {
                scope.connection().inbox().calls().0.remember(&scope);
                self.tasks.spawn(running.wait(replying));
            }
        }
    }

    /// Finds the method, and checks what can be checked without its types.
    fn bind(&self, invocation: &Invocation, reply_kind: ReplyKind) -> Result<&Arc<Method>, String> {
        let Invocation { target, arguments, stream_ids, .. } = invocation;
        let detailed = self.settings.detailed_errors;
        let unbound = |error| text::binding_failed(target, &error, detailed);
        let method = self.methods.find(target).ok_or_else(|| unbound(text::no_such_method()))?;
        if arguments.len() != method.arguments {
            return Err(unbound(text::argument_count(arguments.len(), method.arguments)));
        }
        match reply_kind {
            ReplyKind::Stream if !method.is_streaming => return Err(text::not_streaming(target)),
            ReplyKind::Result if method.is_streaming => return Err(text::streaming(target)),
            ReplyKind::Stream | ReplyKind::Result => {}
        }
        if stream_ids.len() != method.uploads {
            return Err(text::invoking_failed(target, &text::stream_count(stream_ids.len(), method.uploads), detailed));
        }
        Ok(method)
    }

    /// Counts a call that is answered. Names that clients make up share one label.
    pub(super) fn count_call(&self, method: Option<&Method>, outcome: CallOutcome, took: Duration) {
        let (metrics, name) = match method {
            Some(method) => (&method.metrics, &*method.name),
            None => (&self.unknown_method, UNKNOWN_METHOD),
        };
        self.core.metrics().invoked(metrics, name, outcome, took);
    }

    /// Answers a call that is not admitted.
    async fn refuse_call(&self, scope: &CallScope, method: Option<&Method>, text: String) {
        self.count_call(method, CallOutcome::Unbound, Duration::ZERO);
        let connection = scope.connection();
        tracing::debug!(hub = %self.core.name(), connection = short(connection.id()), text, "call is not let in");
        if let Some(id) = scope.invocation_id() {
            let payload = encode::completion(connection.protocol(), id.clone(), Outcome::Error(text.into()));
            self.core.complete(connection, payload).await;
        }
    }
}

/// Calls the extractors of a method. A panic becomes an error, so that it affects only this call.
fn take_parameters(method: &Method, input: CallInput) -> Result<ReplyFuture, Rejection> {
    catch_unwind(AssertUnwindSafe(|| method.call(input)))
        .unwrap_or_else(|panic| Err(HubError::from_panic(&*panic).into()))
}
