//! Trace of single calls: a sampled one gets a span, which its message names to the app server.
//!
//! It is the one message that a node writes anew. Its headers are where the standard, official servers and the SDK look
//! for the parent of their own spans.

use bytes::{Bytes, BytesMut};
use memchr::memmem;
use trunkline_protocol::hub::{CallScan, HubMessage, HubProtocol, next_frame};
use trunkline_protocol::trace_context::{TRACEPARENT_HEADER, TraceContext};

use crate::shard::{ShardState, Slot, short};

/// Whether a payload may hold a message with a trace context.
pub(super) fn may_name_context(payload: &[u8]) -> bool {
    memmem::find(payload, TRACEPARENT_HEADER.as_bytes()).is_some()
}

/// Begins the span of a call that is about to go up, and returns the message that names it; `None` if it is not
/// sampled. The span ends with the answer; of a call that wants none, at once.
pub(super) fn trace_call(
    state: &mut ShardState,
    slot: Slot,
    protocol: HubProtocol,
    call: &CallScan<'_>,
    message: &[u8],
) -> Option<Bytes> {
    let client = state.core.connections.get(slot)?;
    let tracer = state.core.context.shared.tracer.as_ref()?;
    let frame = next_frame(protocol, message, usize::MAX).ok()??;
    // What can't be read goes up as it is.
    let mut decoded = protocol.decode(&Bytes::copy_from_slice(message.get(frame.body)?)).ok()??;
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
