//! Invocation of a method: from the hub message to the running call.
//!
//! ```text
//!  invocation ──bind──► admitted ──► its turn ──► filters, parameters, method: polled once ──► answered
//!                          └─ id in use                                           └─ it waits: becomes a task
//! ```
//!
//! A call that matches no method takes the same path, so that filters see the error. Methods that complete on the first
//! poll, as most do, need no task.

use std::future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytestring::ByteString;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio_util::task::TaskTracker;
use tracing::Instrument;
use trunkline_protocol::hub::{HubMessageError, Invocation, Outcome};
use trunkline_protocol::service::TraceReport;

use super::hook_runner::{call_span, in_order_of};
use super::running_call::{CallSetup, Rest, RunningCall};
use crate::call::CallInput;
use crate::connection::{
    Admission, CallKind, CallScope, Concurrency, Connection, IncomingCall, MessageTrace, ReplyKind, StartWorker, short,
};
use crate::context::Context;
use crate::encode;
use crate::error::{CallStage, HubError, text};
use crate::handler::filter::HubCall;
use crate::handler::{Method, ReplyFuture};
use crate::hub::MethodTable;
use crate::hub_core::HubCore;
use crate::metrics::CallOutcome;
use crate::watchdog::Turn;

pub(super) struct MethodCalls {
    setup: Arc<CallSetup>,
    methods: Arc<MethodTable>,
    tasks: TaskTracker,
}

impl MethodCalls {
    pub(super) fn new(core: Arc<HubCore>, methods: Arc<MethodTable>, is_detailed: bool, tasks: TaskTracker) -> Self {
        Self { setup: Arc::new(CallSetup::new(core, is_detailed)), methods, tasks }
    }

    /// Handles an invocation from a frame of `bytes`. Returns a future if the worker must wait.
    pub(super) fn invoke(
        &self,
        connection: &Arc<Connection>,
        mut invocation: Invocation,
        reply_kind: ReplyKind,
        (bytes, trace): (usize, Option<Box<MessageTrace>>),
        workers: Arc<dyn StartWorker>,
    ) -> Option<BoxFuture<'static, ()>> {
        let stream_count = invocation.stream_ids.len();
        let bound = self.bind(&invocation, stream_count, reply_kind);
        if bound.is_err() {
            // Its streams are not read; filters only see their number.
            invocation.stream_ids = Vec::new();
        }
        let concurrency = match &bound {
            Ok(method) if method.has_streams() => Concurrency::Background,
            Ok(_) => Concurrency::Slot,
            // Filters may take time.
            Err(_) if !self.methods.filters.is_empty() => Concurrency::Slot,
            Err(_) => Concurrency::Rejected,
        };
        let (kind, id) = (CallKind::Method(concurrency), invocation.invocation_id.clone());
        let scope = CallScope::new(connection, workers, kind, id, trace);
        let call = IncomingCall { call: Arc::clone(&scope), invocation, stream_count, reply_kind, bytes };
        let admission = {
            let mut inbox = connection.inbox();
            let admission = inbox.admit(call, &self.setup.core.limits);
            self.setup.core.apply_flow_control(connection, &mut inbox);
            admission
        };
        match admission {
            Admission::Start(call) => self.start(call, bound),
            Admission::Queued => None,
            Admission::IdInUse(id) => {
                let method = bound.ok().map(|method| &**method);
                self.refuse_call(scope, method, text::id_in_use(&id))
            }
            Admission::TooManyStreams(count) => {
                let method = bound.ok().map(|method| &**method);
                self.refuse_call(scope, method, text::too_many_streams(count))
            }
        }
    }

    /// Starts a queued call. Returns a future if the worker must wait.
    pub(super) fn start_queued(&self, call: IncomingCall<CallScope>) -> Option<BoxFuture<'static, ()>> {
        let bound = self.bind(&call.invocation, call.stream_count, call.reply_kind);
        self.start(call, bound)
    }

    fn start(
        &self,
        call: IncomingCall<CallScope>,
        bound: Result<&Arc<Method>, HubError>,
    ) -> Option<BoxFuture<'static, ()>> {
        let IncomingCall { call: scope, invocation, stream_count, reply_kind, .. } = call;
        let Invocation { headers, target, arguments, stream_ids, .. } = invocation;
        // A method of this name may exist even if the call could not be bound.
        let named = bound.as_ref().ok().copied().or_else(|| self.methods.find(&target)).cloned();
        let context = Context::new(Arc::clone(&scope), Arc::clone(&self.setup.core));
        let name = named.as_ref().map_or(&*target, |method| &*method.name);
        let span = call_span(&context, &scope.connection, name, &headers);
        let input = CallInput { context, arguments, stream_ids: stream_ids.clone(), close: None };
        let replying = match bound {
            Ok(method) => in_order_of(&scope.connection, method.call(input)),
            Err(error) => self.reject(&target, &input, stream_count, error),
        };
        let mut running =
            RunningCall::new(&self.setup, Arc::clone(&scope), target, named, stream_ids, reply_kind, span.clone());
        let mut replying = AssertUnwindSafe(replying.instrument(span)).catch_unwind();
        // No waker needed yet: a call that waits is polled again by its own task.
        let turn = Turn::begin_turn(running.code());
        let ran = (&mut replying).now_or_never();
        drop(turn);
        match ran {
            Some(ran) => match running.answer_call(ran.unwrap_or_else(|panic| Err(HubError::from_panic(&*panic)))) {
                None => None,
                Some(Rest::Answer(waiting)) => Some(waiting),
                Some(Rest::Stream(stream)) => {
                    self.tasks.spawn(stream.send());
                    None
                }
            },
            None => {
                running.note_wait();
                running.report_begun();
                let name = running.method_name();
                scope.connection.inbox().calls().0.note_waiting(&scope, name);
                self.tasks.spawn(running.wait(replying));
                None
            }
        }
    }

    /// Fails a call that matches no method, within the hub's filters.
    fn reject(&self, target: &ByteString, input: &CallInput, uploads: usize, error: HubError) -> ReplyFuture {
        let rejected = Box::pin(future::ready(Err(error)));
        let filters = &self.methods.filters;
        match filters.is_empty() {
            true => rejected,
            false => filters.wrap(HubCall::unbound(target.clone(), input, uploads), rejected),
        }
    }

    /// Finds the method and makes all checks that do not need its types.
    fn bind(
        &self,
        invocation: &Invocation,
        stream_count: usize,
        reply_kind: ReplyKind,
    ) -> Result<&Arc<Method>, HubError> {
        let Invocation { target, arguments, .. } = invocation;
        let method = self.methods.find(target).ok_or_else(text::no_such_method)?;
        if arguments.len() != method.arguments {
            return Err(text::argument_count(arguments.len(), method.arguments));
        }
        match reply_kind {
            ReplyKind::Stream if !method.is_streaming => return Err(HubError::refusal(text::not_streaming(target))),
            ReplyKind::Result if method.is_streaming => return Err(HubError::refusal(text::streaming(target))),
            ReplyKind::Stream | ReplyKind::Result => {}
        }
        if stream_count != method.uploads {
            let error = text::stream_count(stream_count, method.uploads);
            return Err(HubError::refusal(text::invoking_failed(target, &error, self.setup.is_detailed)));
        }
        Ok(method)
    }

    /// Answers a call that cannot be decoded. Returns a future if the worker must wait.
    pub(super) fn refuse_undecodable(
        &self,
        connection: &Arc<Connection>,
        error: HubMessageError,
        trace: Option<Box<MessageTrace>>,
        workers: Arc<dyn StartWorker>,
    ) -> Option<BoxFuture<'static, ()>> {
        let problem = HubError::invalid_data(error.to_string()).at(CallStage::Binding);
        let HubMessageError { invocation_id, target, .. } = error;
        let (target, kind) = (target.unwrap_or_default(), CallKind::Method(Concurrency::Rejected));
        let scope = CallScope::new(connection, workers, kind, invocation_id, trace);
        let method = self.methods.find(&target).map(|method| &**method);
        self.refuse_call(scope, method, text::call_failed(&target, &problem, self.setup.is_detailed))
    }

    /// Answers a call that is not admitted. Returns a future if the answer has to wait.
    fn refuse_call(
        &self,
        scope: Arc<CallScope>,
        method: Option<&Method>,
        text: String,
    ) -> Option<BoxFuture<'static, ()>> {
        self.setup.count(method, CallOutcome::Unbound, Duration::ZERO);
        let connection = &scope.connection;
        tracing::debug!(hub = %self.setup.core.name(), connection = short(connection.id()), text, "call refused");
        let queued = scope.state.invocation_id.as_ref().map_or(Ok(()), |id| {
            let error = Outcome::Error(text.into());
            self.setup.core.to(connection).try_answer(encode::completion(
                connection.protocol,
                Vec::new(),
                id.clone(),
                error,
            ))
        });
        let Err(frame) = queued else {
            report_refused(&self.setup.core, &scope);
            return None;
        };
        let core = Arc::clone(&self.setup.core);
        Some(Box::pin(async move {
            core.to(&scope.connection).answer(&frame).await;
            report_refused(&core, &scope);
        }))
    }
}

fn report_refused(core: &HubCore, scope: &CallScope) {
    if let Some(trace) = scope.trace() {
        let connection = &scope.connection;
        let begun = trace.begun(connection.shared_id(), Instant::now());
        core.to(connection).report_trace(TraceReport { ran_us: Some(0), has_failed: true, ..begun });
    }
}
