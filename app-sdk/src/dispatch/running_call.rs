//! A running call, until it is answered.
//!
//! ```text
//!  method ──value, error──────────────► ID released ──► completion queued ──► done: the next may start
//!     └───stream──► item, item, … ──────────▲
//!                    └─ cancelled: the stream is dropped
//! ```
//!
//! Its ID is released before the completion is queued, because the client may reuse the ID once it has read the
//! completion. The call is done only afterwards, so that sequential calls are answered in order.

use std::mem;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;
use bytestring::ByteString;
use futures_util::future::{BoxFuture, CatchUnwind, OptionFuture};
use futures_util::{FutureExt, StreamExt};
use tracing::instrument::Instrumented;
use tracing::{Instrument, Span};
use trunkline_process::LinePermit;
use trunkline_protocol::hub::{Outcome, Payload};
use trunkline_protocol::limits::LINK_FRAME_MAX_BYTES;
use trunkline_protocol::service::TraceReport;

use super::hook_runner::log_failure;
use crate::connection::{CallScope, Connection, MessageTrace, ReplyKind, micros, short};
use crate::error::{CallStage, HubError, text};
use crate::handler::{ItemStream, Method, Reply, ReplyBody, ReplyFuture};
use crate::hub_core::HubCore;
use crate::metrics::{CallOutcome, Counted, MethodMetrics, UNKNOWN_METHOD};
use crate::watchdog::{CodeId, note_turn, watch};
use crate::{encode, telemetry};

/// Maximum overhead of a result's frame: IDs, target and headers come from the client and are small.
const ENVELOPE_MAX_BYTES: usize = 256 * 1024;

pub(super) struct CallSetup {
    pub(super) core: Arc<HubCore>,
    unknown_method: MethodMetrics,
    unknown_code: CodeId,
    pub(super) is_detailed: bool,
}

impl CallSetup {
    pub(super) fn new(core: Arc<HubCore>, is_detailed: bool) -> Self {
        let unknown_code = CodeId::for_name(core.name(), UNKNOWN_METHOD);
        Self { core, unknown_method: MethodMetrics::default(), unknown_code, is_detailed }
    }

    /// Counts an answered call. Unknown method names share one label.
    pub(super) fn count(&self, method: Option<&Method>, outcome: CallOutcome, took: Duration) {
        let (metrics, name) = match method {
            Some(method) => (&method.metrics, &*method.name),
            None => (&self.unknown_method, UNKNOWN_METHOD),
        };
        self.core.outbound.metrics.invoked(metrics, name, outcome, took);
    }
}

/// A running call. It is done when dropped.
pub(super) struct RunningCall {
    setup: Arc<CallSetup>,
    scope: Arc<CallScope>,
    target: ByteString,
    method: Option<Arc<Method>>,
    since: Instant,
    stream_ids: Vec<ByteString>,
    reply_kind: ReplyKind,
    is_forgotten: bool,
    /// It did not complete on the first poll.
    has_waited: bool,
    span: Span,
    _counted: Counted,
}

/// A running method. Panics are caught.
pub(super) type Replying = CatchUnwind<AssertUnwindSafe<Instrumented<ReplyFuture>>>;

pub(super) enum Rest {
    /// Its answer waits for space in the queue.
    Answer(BoxFuture<'static, ()>),
    Stream(RunningStream),
}

pub(super) struct RunningStream {
    call: RunningCall,
    items: ItemStream,
}

impl RunningCall {
    pub(super) fn new(
        setup: &Arc<CallSetup>,
        scope: Arc<CallScope>,
        target: ByteString,
        method: Option<Arc<Method>>,
        stream_ids: Vec<ByteString>,
        reply_kind: ReplyKind,
        span: Span,
    ) -> Self {
        let (_counted, since) = (Counted::new(&setup.core.outbound.metrics.running), Instant::now());
        let (setup, is_forgotten, has_waited) = (Arc::clone(setup), false, false);
        Self { setup, scope, target, method, since, stream_ids, reply_kind, is_forgotten, has_waited, span, _counted }
    }

    /// Waits for the method and answers. A cancelled call for a stream is dropped immediately.
    pub(super) async fn wait(self, replying: Replying) {
        let replying = watch(&self.setup.core.outbound, self.code(), replying);
        let ran = match self.reply_kind {
            ReplyKind::Result => Some(replying.await),
            ReplyKind::Stream => {
                let cancellation = self.scope.cancellation().clone();
                cancellation.run_until_cancelled_owned(replying).await
            }
        };
        match ran {
            None => {
                OptionFuture::from(self.complete(Outcome::Void, CallOutcome::Cancelled)).await;
            }
            Some(ran) => match self.answer_call(ran.unwrap_or_else(|panic| Err(HubError::from_panic(&*panic)))) {
                None => {}
                Some(Rest::Answer(waiting)) => waiting.await,
                Some(Rest::Stream(stream)) => stream.send().await,
            },
        }
    }

    pub(super) fn answer_call(mut self, ran: Result<Reply, HubError>) -> Option<Rest> {
        let waiting = match (ran.map(|Reply(body)| body), self.reply_kind) {
            (Ok(ReplyBody::Stream(items)), ReplyKind::Stream) => {
                self.has_waited = true;
                return Some(Rest::Stream(RunningStream { call: self, items }));
            }
            (Ok(ReplyBody::Value(payload)), ReplyKind::Result) => match check_size(&payload) {
                Ok(()) => self.complete(Outcome::Value(payload), CallOutcome::Ok),
                Err(error) => self.failed(&error),
            },
            (Ok(_), _) => {
                let text = text::no_stream(&self.target);
                self.complete(Outcome::Error(text.into()), CallOutcome::Failed)
            }
            (Err(error), _) => self.failed(&error),
        };
        waiting.map(Rest::Answer)
    }

    /// Answers a call that failed before or in the method.
    fn failed(self, error: &HubError) -> Option<BoxFuture<'static, ()>> {
        let outcome = match error.stage() {
            CallStage::Invoking | CallStage::Authorizing => CallOutcome::Failed,
            CallStage::Binding | CallStage::Refusing => CallOutcome::Unbound,
        };
        telemetry::fail(&self.span, error.message());
        let is_detailed = self.setup.is_detailed;
        match outcome {
            CallOutcome::Unbound => self.span.in_scope(|| self.log_unbound(error)),
            _ => self.span.in_scope(|| log_failure(&self.setup.core, self.connection(), &self.target, error)),
        }
        let text = text::call_failed(&self.target, error, is_detailed);
        self.complete(Outcome::Error(text.into()), outcome)
    }

    /// Logs why a call matches no method. The client sees the reason only with detailed errors.
    fn log_unbound(&self, error: &HubError) {
        let reason = error.source().map_or_else(|| error.message().to_owned(), ToString::to_string);
        let (hub, connection) = (self.setup.core.name(), short(self.connection().id()));
        let method = telemetry::clipped_method(&self.target);
        let reason = telemetry::clipped_reason(&reason);
        match self.setup.core.outbound.mistake_limit.take_line() {
            Some(LinePermit { left_out }) => {
                tracing::info!(hub, connection, method, reason, left_out, "call does not match its method");
            }
            None => tracing::debug!(hub, connection, method, reason, "call does not match its method"),
        }
    }

    /// Counts the call, and queues its answer if one is expected. Returns a future if it has to wait.
    fn complete(mut self, outcome: Outcome, counted: CallOutcome) -> Option<BoxFuture<'static, ()>> {
        let (encoded, counted) = self.encode(outcome, counted);
        self.count(counted);
        let report = self.scope.trace().map(|trace| self.report_of_end(trace, counted));
        self.forget();
        let (core, connection) = (&self.setup.core, self.connection());
        let queued = encoded.map_or(Ok(()), |encoded| core.to(connection).try_answer(encoded));
        let Err(frame) = queued else {
            self.report_answered(report);
            return None;
        };
        Some(Box::pin(async move {
            self.setup.core.to(self.connection()).answer(&frame).await;
            self.report_answered(report);
        }))
    }

    /// Encodes the answer, if one is expected. A result over the limit of the client's node becomes an error.
    fn encode(&self, outcome: Outcome, counted: CallOutcome) -> (Option<Bytes>, CallOutcome) {
        let (core, connection) = (&self.setup.core, self.connection());
        let Some(id) = self.scope.state.invocation_id.as_ref().filter(|_| core.connections.contains(connection)) else {
            return (None, counted);
        };
        let completion = |headers, outcome| encode::completion(connection.protocol, headers, id.clone(), outcome);
        let encoded = completion(telemetry::headers_of(&self.span), outcome);
        let Err(error) = check_limit(core, connection, encoded.len()) else { return (Some(encoded), counted) };
        telemetry::fail(&self.span, error.message());
        self.span.in_scope(|| log_failure(core, connection, &self.target, &error));
        let text = text::call_failed(&self.target, &error, self.setup.is_detailed);
        (Some(completion(Vec::new(), Outcome::Error(text.into()))), CallOutcome::Failed)
    }

    /// Reports the end of the call to its trace, after the answer because its time is part of the report.
    fn report_answered(&self, report: Option<(TraceReport, Instant)>) {
        if let Some((report, ended_at)) = report {
            let answered_us = self.scope.state.invocation_id.as_ref().map(|_| micros(ended_at.elapsed()));
            self.setup.core.to(self.connection()).report_trace(TraceReport { answered_us, ..report });
        }
    }

    fn report_of_end(&self, trace: &MessageTrace, counted: CallOutcome) -> (TraceReport, Instant) {
        let ended_at = Instant::now();
        let ran_us = Some(micros(ended_at.saturating_duration_since(self.since)));
        let has_failed = matches!(counted, CallOutcome::Failed | CallOutcome::Unbound);
        (TraceReport { ran_us, has_failed, ..trace.begun(self.connection().shared_id(), self.since) }, ended_at)
    }

    pub(super) fn report_begun(&self) {
        if let Some(trace) = self.scope.trace() {
            let connection = self.connection();
            self.setup.core.to(connection).report_trace(trace.begun(connection.shared_id(), self.since));
        }
    }

    async fn send_items(&self, mut items: ItemStream) -> Result<(), HubError> {
        let (core, connection) = (&self.setup.core, self.connection());
        let id = self.scope.state.invocation_id.clone().unwrap_or_default();
        while let Some(item) = items.next().await {
            let item = item?;
            check_size(&item)?;
            let item = encode::item(connection.protocol, id.clone(), item);
            check_limit(core, connection, item.len())?;
            if !core.to(connection).item(item).await {
                break;
            }
            core.outbound.metrics.items_down.inc();
        }
        Ok(())
    }

    fn forget(&mut self) {
        if mem::replace(&mut self.is_forgotten, true) {
            return;
        }
        let connection = self.connection();
        let wakers = {
            let mut inbox = connection.inbox();
            let (calls, flow) = inbox.calls();
            let wakers = calls.forget(&self.scope, &self.stream_ids, flow);
            self.setup.core.apply_flow_control(connection, &mut inbox);
            wakers
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    fn count(&self, outcome: CallOutcome) {
        let took = self.since.elapsed();
        self.setup.count(self.method.as_deref(), outcome, took);
        if !self.has_waited {
            self.note_turn(took);
        }
    }

    /// Records that the call waits, after its first poll.
    pub(super) fn note_wait(&mut self) {
        self.has_waited = true;
        self.note_turn(self.since.elapsed());
    }

    fn note_turn(&self, took: Duration) {
        note_turn(&self.setup.core.outbound, self.code(), took);
    }

    pub(super) fn code(&self) -> CodeId {
        self.method.as_ref().map_or(self.setup.unknown_code, |method| method.code(self.setup.core.name()))
    }

    /// Name of the method. Unknown methods share one.
    pub(super) fn method_name(&self) -> ByteString {
        self.method.as_ref().map_or(ByteString::from_static(UNKNOWN_METHOD), |method| method.name.clone())
    }

    fn connection(&self) -> &Arc<Connection> {
        &self.scope.connection
    }
}

impl Drop for RunningCall {
    fn drop(&mut self) {
        self.forget();
        let connection = self.connection();
        let needs_worker = connection.inbox().release(&self.scope.state, &self.setup.core.limits);
        if needs_worker {
            self.scope.start_worker();
        }
    }
}

impl RunningStream {
    /// Sends the items as fast as the link accepts them, until the stream ends, fails or is cancelled.
    pub(super) async fn send(self) {
        let Self { call, items } = self;
        let _counted = Counted::new(&call.setup.core.outbound.metrics.streams);
        let cancellation = call.scope.cancellation().clone();
        let (sent, good) = {
            let sending = AssertUnwindSafe(call.send_items(items).instrument(call.span.clone())).catch_unwind();
            let sending = pin!(sending);
            let sending = watch(&call.setup.core.outbound, call.code(), sending);
            match cancellation.run_until_cancelled(sending).await {
                None => (Ok(()), CallOutcome::Cancelled),
                Some(sent) => (sent.unwrap_or_else(|panic| Err(HubError::from_panic(&*panic))), CallOutcome::Ok),
            }
        };
        match sent {
            Ok(()) => {
                OptionFuture::from(call.complete(Outcome::Void, good)).await;
            }
            Err(error) => {
                telemetry::fail(&call.span, error.message());
                log_failure(&call.setup.core, call.connection(), &call.target, &error);
                let text = text::streaming_failed(&error, call.setup.is_detailed);
                OptionFuture::from(call.complete(Outcome::Error(text.into()), CallOutcome::Failed)).await;
            }
        }
    }
}

fn check_limit(core: &HubCore, connection: &Connection, length: usize) -> Result<(), HubError> {
    match core.to(connection).limit_under(length) {
        Some(limit) => Err(HubError::invalid_data(format!("The result is too large: a client takes {limit} bytes."))),
        None => Ok(()),
    }
}

fn check_size(payload: &Payload) -> Result<(), HubError> {
    if payload.as_bytes().len() + ENVELOPE_MAX_BYTES > LINK_FRAME_MAX_BYTES {
        return Err(HubError::invalid_data("The result is too large for a link."));
    }
    Ok(())
}
