//! Traces of single calls: a sampled call gets a span, and its message carries the span's context to the app server.
//!
//! Only these messages are re-encoded by a node. The context is stored in headers, where official servers and the SDK
//! look for the parent of their spans.

use bytes::{Bytes, BytesMut};
use memchr::memmem;
use trunkline_protocol::hub::{CallScan, HubMessage, HubProtocol, whole_messages};
use trunkline_protocol::trace_context::{TRACEPARENT_HEADER, TraceContext};

use crate::engine::shard::{ShardState, Slot, short};

/// Whether a payload may contain a message with a trace context.
pub(super) fn may_name_context(payload: &[u8]) -> bool {
    memmem::find(payload, TRACEPARENT_HEADER.as_bytes()).is_some()
}

/// Begins the span of a call, and returns the message with its context; `None` if not sampled. The span ends with the
/// answer, or immediately for a call without one.
pub(super) fn trace_call(
    state: &mut ShardState,
    slot: Slot,
    protocol: HubProtocol,
    call: &CallScan<'_>,
    message: &[u8],
) -> Option<Bytes> {
    let client = state.core.connections.get(slot)?;
    let tracer = state.core.context.shared.tracer.as_ref()?;
    let body = Bytes::copy_from_slice(whole_messages(protocol, message).next()?.body);
    // Unreadable messages are forwarded unchanged.
    let mut decoded = protocol.decode(&body).ok()??;
    let (HubMessage::Invocation(invocation) | HubMessage::StreamInvocation(invocation)) = &mut decoded else {
        return None;
    };
    let shown = invocation.headers.iter().find(|(name, _)| is_traceparent(name));
    let shown: Option<TraceContext> = shown.and_then(|(_, value)| value.parse().ok());
    let hub = client.home().hub_identity().name();
    let method = &*invocation.target;
    let mut span = tracer.begin_call(&format!("{hub}/{method}"), client.cold().origin().trace.as_deref(), shown)?;
    span.set("rpc.system", "signalr");
    span.set("rpc.service", hub);
    span.set("rpc.method", method);
    span.set("signalr.connection.id", short(client.id()));
    let context = span.context()?.to_string();
    invocation.headers.retain(|(name, _)| !is_traceparent(name));
    invocation.headers.push((TRACEPARENT_HEADER.into(), context.into()));
    let mut traced = BytesMut::new();
    protocol.encode(&decoded, &mut traced);
    if let Some(id) = &call.invocation_id {
        state.core.keep_call_span(slot, id, span);
    }
    Some(traced.freeze())
}

fn is_traceparent(name: &str) -> bool {
    name.eq_ignore_ascii_case(TRACEPARENT_HEADER)
}
