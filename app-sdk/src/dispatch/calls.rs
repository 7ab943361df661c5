//! From an invocation to a method that runs.
//!
//! ```text
//!  invocation ──bind──► admitted ──► its turn ──► parameters ──► polled once ──► answered at once
//!       │                  └─ id in use              │                └─ it waits: a task of its own
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

use super::running::Running;
use super::{HubAtWork, panicked};
use crate::call::{Given, Rejection, Stage};
use crate::connection::{Admission, Connection, Incoming, Scope, Takes, Wanted, short};
use crate::context::Context;
use crate::encode;
use crate::handler::{Answering, Method};
use crate::metrics::{Outcome as Counting, UNKNOWN_METHOD};
use crate::text;

impl HubAtWork {
    /// A call has come, in a frame of so many bytes.
    pub(super) async fn invoke(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
        invocation: Invocation,
        wanted: Wanted,
        bytes: usize,
    ) {
        let bound = self.bind(&invocation, wanted);
        let takes = match &bound {
            Ok(method) if method.has_streams() => Takes::Background,
            Ok(_) => Takes::Slot,
            Err(_) => Takes::Nothing,
        };
        let scope = Scope::call(connection, takes, invocation.invocation_id.clone());
        let admission = {
            let mut inbox = connection.inbox();
            let admission =
                inbox.admit(Incoming { scope: Arc::clone(&scope), invocation, wanted, bytes }, &self.down.limits);
            self.down.settle_flow(connection, &mut inbox);
            admission
        };
        match admission {
            Admission::Start(call) => self.start(call, bound).await,
            Admission::Held => {}
            Admission::InUse(id) => {
                let method = bound.ok().map(|method| &**method);
                self.refuse_call(&scope, method, text::id_in_use(&id)).await;
            }
        }
    }

    /// The turn of a call has come that was held.
    pub(super) async fn start_held(self: &Arc<Self>, call: Incoming) {
        let bound = self.bind(&call.invocation, call.wanted);
        self.start(call, bound).await;
    }

    async fn start(self: &Arc<Self>, call: Incoming, bound: Result<&Arc<Method>, String>) {
        let Incoming { scope, invocation: Invocation { target, arguments, stream_ids, .. }, wanted, .. } = call;
        // One that could not be bound may have a name all the same.
        let called = bound.as_ref().ok().copied().or_else(|| self.methods.find(&target)).cloned();
        let running = Running::new(self, Arc::clone(&scope), target, called, stream_ids.clone(), wanted);
        let method = match bound {
            Ok(method) => method,
            Err(text) => return running.unbound(text).await,
        };
        let context = Context::new(Arc::clone(&scope), Arc::clone(&self.down));
        let given = Given { context: context.clone(), arguments, stream_ids, end: None };
        let answering = match take_parameters(method, given) {
            Ok(answering) => self.methods.filters.wrap(&context, method, answering),
            Err(Rejection { error, stage: Stage::Binding }) => {
                let text = text::binding_failed(running.target(), &error, self.settings.detailed_errors);
                return running.unbound(text).await;
            }
            Err(Rejection { error, stage: Stage::Invoking }) => return running.failed(&error).await,
        };
        drop(context);
        let mut answering = AssertUnwindSafe(answering).catch_unwind();
        match poll_fn(|context| Poll::Ready(Pin::new(&mut answering).poll(context))).await {
            Poll::Ready(ran) => {
                let ran = ran.unwrap_or_else(|panic| Err(panicked(&*panic)));
                if let Some(stream) = running.answer(ran).await {
                    self.tasks.spawn(stream.send());
                }
            }
            Poll::Pending => {
                scope.connection().inbox().calls().0.remember(&scope);
                self.tasks.spawn(running.wait(answering));
            }
        }
    }

    /// Finds the method, and checks what can be checked without its types.
    fn bind(&self, invocation: &Invocation, wanted: Wanted) -> Result<&Arc<Method>, String> {
        let Invocation { target, arguments, stream_ids, .. } = invocation;
        let detailed = self.settings.detailed_errors;
        let unbound = |error| text::binding_failed(target, &error, detailed);
        let method = self.methods.find(target).ok_or_else(|| unbound(text::no_such_method()))?;
        if arguments.len() != method.arguments {
            return Err(unbound(text::argument_count(arguments.len(), method.arguments)));
        }
        match wanted {
            Wanted::Stream if !method.is_streaming => return Err(text::not_streaming(target)),
            Wanted::Result if method.is_streaming => return Err(text::streaming(target)),
            Wanted::Stream | Wanted::Result => {}
        }
        if stream_ids.len() != method.uploads {
            return Err(text::invoking_failed(target, &text::stream_count(stream_ids.len(), method.uploads), detailed));
        }
        Ok(method)
    }

    /// Counts a call that is answered. Names that clients make up are all the same.
    pub(super) fn count_call(&self, method: Option<&Method>, outcome: Counting, took: Duration) {
        let (metrics, name) = match method {
            Some(method) => (&method.metrics, &*method.name),
            None => (&self.unknown_method, UNKNOWN_METHOD),
        };
        self.down.metrics.invoked(metrics, name, outcome, took);
    }

    /// Answers a call that was not let in.
    async fn refuse_call(&self, scope: &Scope, method: Option<&Method>, text: String) {
        self.count_call(method, Counting::Unbound, Duration::ZERO);
        let connection = scope.connection();
        tracing::debug!(hub = %self.down.hub, connection = short(connection.id()), text, "call is not let in");
        if let Some(id) = scope.invocation_id() {
            let payload = encode::completion(connection.protocol(), id.clone(), Outcome::Error(text.into()));
            self.down.complete(connection, payload).await;
        }
    }
}

/// A panic in an extractor of the app must hurt nobody else.
fn take_parameters(method: &Method, given: Given) -> Result<Answering, Rejection> {
    catch_unwind(AssertUnwindSafe(|| method.call(given))).unwrap_or_else(|panic| Err(panicked(&*panic).into()))
}
