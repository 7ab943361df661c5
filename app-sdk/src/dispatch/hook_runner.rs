//! Runs the hooks of a hub within its filters; execution of app code in a span, in the order of its client, with panics
//! caught.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tracing::{Instrument, Span};
use trunkline_process::LinePermit;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::{Close, Headers};

use super::connection_ends::ConnectionEnds;
use crate::call::{CallInput, ITEMS_MAX_BYTES, encode_items};
use crate::connection::{Connection, ConnectionClose, short};
use crate::context::Context;
use crate::error::{CallStage, HubError};
use crate::handler::filter::HubCall;
use crate::handler::hook::ErasedHook;
use crate::handler::{HubCallKind, Reply, ReplyBody, ReplyFuture};
use crate::hub::MethodTable;
use crate::hub_core::HubCore;
use crate::telemetry;
use crate::watchdog::{CodeId, Turn, supervise};

pub(super) struct HookRunner {
    core: Arc<HubCore>,
    pub(super) methods: Arc<MethodTable>,
    ends: Arc<ConnectionEnds>,
}

impl HookRunner {
    pub(super) fn new(core: Arc<HubCore>, methods: Arc<MethodTable>, ends: Arc<ConnectionEnds>) -> Self {
        Self { core, methods, ends }
    }

    /// Checks the hub's policies for a client that is not connected yet. Logs a refusal.
    pub(super) fn check_policies(&self, connection: &Connection, context: &Context) -> Result<(), HubError> {
        self.policies(context).inspect_err(|error| log_failure(&self.core, connection, "negotiate", error))
    }

    fn policies(&self, context: &Context) -> Result<(), HubError> {
        let _turn = Turn::begin_turn(CodeId::for_name(self.core.name(), "policy"));
        self.methods.policies.check(context)
    }

    /// Runs `on_connected`. A refused client is closed.
    pub(super) async fn connected(&self, connection: &Arc<Connection>, context: Context) {
        let ran = match self.policies(&context) {
            Ok(()) => self.run(HubCallKind::Connected, connection, context, None).await,
            Err(error) => Err(error),
        };
        let Err(error) = ran else {
            return connection.inbox().set_connected();
        };
        log_failure(&self.core, connection, "on_connected", &error);
        let is_refused = error.stage() == CallStage::Authorizing;
        let cause = if is_refused { Cause::PolicyRefused } else { Cause::AppError };
        let close = Close { error: Some(self.ends.close_text(&error)), allow_reconnect: false };
        self.ends.close(connection, close, ConnectionClose::with_error(cause, error.to_string()));
    }

    pub(super) async fn disconnected(&self, connection: &Connection, context: Context, close: ConnectionClose) {
        if let Err(error) = self.run(HubCallKind::Disconnected, connection, context, Some(close)).await {
            log_failure(&self.core, connection, "on_disconnected", &error);
        }
    }

    /// Runs `on_rehomed`. For the client the connection is already open: its handshake was answered before.
    pub(super) async fn rehomed(&self, connection: &Arc<Connection>, context: Context) {
        let taken = self.run(HubCallKind::Rehomed, connection, context, None).await;
        // `on_connected` has succeeded on another app server.
        connection.inbox().set_connected();
        self.core.outbound.metrics.rehomed.inc();
        let is_kept = taken.is_ok();
        if let Err(error) = taken {
            self.close_failed(connection, "on_rehomed", &error);
        }
        self.core.taken_over.announce(connection, is_kept);
    }

    pub(super) fn follows_refreshes(&self) -> bool {
        self.methods.hooks(HubCallKind::Refreshed).next().is_some()
    }

    /// Runs `on_refreshed`. An error closes the client.
    pub(super) async fn refreshed(&self, connection: &Arc<Connection>, context: Context) {
        if let Err(error) = self.run(HubCallKind::Refreshed, connection, context, None).await {
            self.close_failed(connection, "on_refreshed", &error);
        }
    }

    /// Runs `on_leaving` for a connection that is about to be reassigned. Returns its encoded items.
    pub(super) async fn leaving(&self, connection: &Connection, context: impl FnOnce() -> Context) -> Option<String> {
        let is_connected = connection.inbox().is_connected();
        let hook = self.methods.on_leaving.as_ref().filter(|_| is_connected)?;
        let context = context();
        let input = CallInput { context: context.clone(), arguments: Vec::new(), stream_ids: Vec::new(), close: None };
        let span = call_span(&context, connection, &hook.name, &Vec::new());
        let filters = &self.methods.filters;
        let running = match filters.is_empty() {
            true => hook.call(input),
            false => filters.wrap(HubCall::of_hook(HubCallKind::Leaving, context, None), hook.call(input)),
        };
        let ran = self.supervised("on_leaving", connection, running.instrument(span)).await;
        let wrapped = ran.and_then(|reply| match reply.0 {
            ReplyBody::Value(items) => encode_items(&items)
                .ok_or_else(|| HubError::new(format!("items dropped: over {ITEMS_MAX_BYTES} bytes"))),
            ReplyBody::Stream(_) | ReplyBody::Nothing => {
                Err(HubError::new("items dropped: only a value can be handed over"))
            }
        });
        wrapped.map_err(|error| log_failure(&self.core, connection, "on_leaving", &error)).ok()
    }

    /// Runs a hook until it returns or times out. A panic becomes an error.
    async fn supervised<T>(
        &self,
        hook: &str,
        connection: &Connection,
        running: impl Future<Output = Result<T, HubError>>,
    ) -> Result<T, HubError> {
        supervise(&self.core.outbound, (hook, short(connection.id())), self.core.limits.hook_timeout, running).await
    }

    /// Closes a client after its hook has failed. The client may reconnect.
    fn close_failed(&self, connection: &Arc<Connection>, hook: &str, error: &HubError) {
        log_failure(&self.core, connection, hook, error);
        let close = Close { error: Some(self.ends.close_text(error)), allow_reconnect: true };
        self.ends.close(connection, close, ConnectionClose::with_error(Cause::AppError, error.to_string()));
    }

    /// Runs the hooks of one kind within the hub's filters. A panic becomes an error of this connection.
    async fn run(
        &self,
        kind: HubCallKind,
        connection: &Connection,
        context: Context,
        close: Option<ConnectionClose>,
    ) -> Result<(), HubError> {
        let span = call_span(&context, connection, kind.hook_name(), &Headers::new());
        let hooks = run_in_order(kind, self.methods.hooks(kind), &context, close.as_ref());
        let filters = &self.methods.filters;
        let running: ReplyFuture = match filters.is_empty() {
            true => hooks,
            false => filters.wrap(HubCall::of_hook(kind, context, close), hooks),
        };
        let running = in_order_of(connection, running).instrument(span.clone());
        let ran = self.supervised(kind.hook_name(), connection, running).await;
        ran.map(drop).inspect_err(|error| telemetry::fail(&span, error.message()))
    }
}

/// Runs hooks sequentially: for an incoming connection up to the first failure, for a closed one all.
pub(super) fn run_in_order<'a>(
    kind: HubCallKind,
    hooks: impl Iterator<Item = &'a ErasedHook>,
    context: &Context,
    close: Option<&ConnectionClose>,
) -> ReplyFuture {
    let input =
        || CallInput { context: context.clone(), arguments: Vec::new(), stream_ids: Vec::new(), close: close.cloned() };
    let running: Vec<_> = hooks.map(|hook| hook(input())).collect();
    Box::pin(async move {
        let mut ended = Ok(Reply::nothing());
        for hook in running {
            match catch_panic(hook).await {
                Ok(()) => {}
                Err(error) if kind == HubCallKind::Disconnected => ended = Err(error),
                Err(error) => return Err(error),
            }
        }
        ended
    })
}

/// Span around app code for this caller. Its parent comes from the message or the connect request.
pub(super) fn call_span(context: &Context, connection: &Connection, method: &str, message: &Headers) -> Span {
    let span = telemetry::call_span(context.hub(), method, short(context.connection_id()), context.user_id());
    telemetry::adopt(&span, message, || connection.request.trace_headers());
    span
}

/// Sends of the call use the server connection of its client, if a service has several.
pub(super) fn in_order_of(connection: &Connection, running: ReplyFuture) -> ReplyFuture {
    let node = connection.node();
    if node.is_of_service() { Box::pin(node.run_call(running)) } else { running }
}

pub(super) async fn catch_panic<T>(running: impl Future<Output = Result<T, HubError>>) -> Result<T, HubError> {
    let ran = AssertUnwindSafe(running).catch_unwind().await;
    ran.unwrap_or_else(|panic| Err(HubError::from_panic(&*panic)))
}

/// Logs a failure of app code, at a level that depends on its cause.
pub(super) fn log_failure(core: &HubCore, connection: &Connection, method: &str, error: &HubError) {
    let (hub, connection) = (core.name(), short(connection.id()));
    if error.is_shown() {
        tracing::debug!(hub, connection, method, ?error, "method failed; the client received the error");
    } else if error.is_of_client() {
        let text = match error.stage() {
            CallStage::Authorizing => "a policy refuses the user",
            _ => "method failed: a client has disconnected or does not answer",
        };
        let reason = error.to_string();
        let reason = telemetry::clipped_reason(&reason);
        match core.outbound.mistake_limit.take_line() {
            Some(LinePermit { left_out }) => tracing::info!(hub, connection, method, reason, left_out, "{text}"),
            None => tracing::debug!(hub, connection, method, reason, "{text}"),
        }
    } else if let Some(LinePermit { left_out }) = core.outbound.failure_limit.take_line() {
        tracing::error!(hub, connection, method, ?error, left_out, "method failed");
    } else {
        tracing::debug!(hub, connection, method, ?error, "method failed, like others a moment ago");
    }
}
