//! Execution of app code: in a span, in the order of its client, with panics caught.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use tracing::Span;
use trunkline_protocol::hub::Headers;

use crate::call::CallInput;
use crate::connection::{Connection, ConnectionClose, short};
use crate::context::Context;
use crate::error::{CallStage, HubError};
use crate::handler::hook::ErasedHook;
use crate::handler::{HubCallKind, Reply, ReplyFuture};
use crate::hub_core::HubCore;
use crate::log_limit::LinePermit;
use crate::telemetry;

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
    telemetry::adopt(&span, message, || connection.request().trace_headers());
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
        match core.outbound.mistake_limit.take() {
            Some(LinePermit { left_out }) => tracing::info!(hub, connection, method, reason, left_out, "{text}"),
            None => tracing::debug!(hub, connection, method, reason, "{text}"),
        }
    } else if let Some(LinePermit { left_out }) = core.outbound.failure_limit.take() {
        tracing::error!(hub, connection, method, ?error, left_out, "method failed");
    } else {
        tracing::debug!(hub, connection, method, ?error, "method failed, like others a moment ago");
    }
}
