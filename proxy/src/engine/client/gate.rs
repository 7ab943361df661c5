//! Gate of a client's messages: the operator's rules, and traces of calls. It is open for hubs without rules about
//! messages, unless calls are traced; open gates are asked nothing.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use memchr::memmem;
use trunkline_protocol::hub::{CallScan, HubMessage, HubProtocol, whole_messages};
use trunkline_protocol::trace_context::{TRACEPARENT_HEADER, TraceContext};

use super::inbound_error::InboundError;
use crate::engine::shard::{ShardState, Slot, Verdict, firewall, short};
use crate::engine::upstream::{HomeLink, Hub};
use crate::ground::routing::HubRules;
use crate::ground::telemetry::SpanTracer;

/// Error for a client if rules about methods can't be applied to a message.
const UNREADABLE: &str = "A message is malformed, and the server's rules about methods can't be applied to it.";

/// Treatment of one message. The link is a secondary's; `None` for the home.
#[derive(Debug)]
pub(super) enum GateDecision {
    Forward(Option<HomeLink>),
    /// Forward this copy of a call, which names its span, alone.
    ForwardTraced(Bytes, Option<HomeLink>),
    /// Refused, or part of a refused call.
    Drop,
    /// Hold this and later messages: no app server of the group is available.
    Wait,
}

#[derive(Debug)]
pub(super) struct Gate {
    rules: Option<Arc<HubRules>>,
    is_traced: bool,
}

impl Gate {
    /// Gate for one read of a client. The messages of a client with secondaries are always checked individually.
    pub(super) fn new(hub: &Hub, has_secondaries: bool, is_traced: bool) -> Self {
        Self { rules: hub.message_rules().or_else(|| has_secondaries.then(Arc::default)), is_traced }
    }

    /// Whether messages pass unasked, in runs.
    pub(super) fn is_open(&self) -> bool {
        self.rules.is_none() && !self.is_traced
    }

    /// Closes the gate if sampling decisions of clients are respected and a payload may contain one.
    pub(super) fn note_contexts(&mut self, state: &ShardState, has_begun: bool, payload: &[u8]) {
        let trusts_clients = state.core.context.shared.tracer.as_ref().is_some_and(SpanTracer::trusts_clients);
        self.is_traced |= trusts_clients && (has_begun || may_name_context(payload));
    }

    /// Decides about a message, and tracks a call that is forwarded. Fails if the message is unreadable, or the client
    /// has too many streams to calls.
    pub(super) fn admit(
        &mut self,
        state: &mut ShardState,
        slot: Slot,
        (protocol, scan): (HubProtocol, Option<&CallScan<'_>>),
        message: &[u8],
    ) -> Result<GateDecision, InboundError> {
        let rules = self.rules.get_or_insert_default();
        let Some(scan) = scan else {
            // Some app servers accept malformed messages, and would find a method in this one.
            let is_refused = rules.judge_methods();
            return if is_refused {
                Err(InboundError::Message(UNREADABLE.into()))
            } else {
                Ok(GateDecision::Forward(None))
            };
        };
        let secondary = match firewall::rule(state, slot, rules, scan, message.len()) {
            Verdict::Home => None,
            Verdict::Secondary(link) => Some(link),
            Verdict::Follows => {
                state.core.follow(slot, protocol, scan, message);
                return Ok(GateDecision::Drop);
            }
            Verdict::Dropped => return Ok(GateDecision::Drop),
            Verdict::Waits => return Ok(GateDecision::Wait),
            Verdict::TooMany(problem) => return Err(InboundError::Message(problem)),
        };
        let is_traced = self.is_traced && scan.kind.is_call();
        let traced = is_traced.then(|| trace_call(state, slot, protocol, scan, message)).flatten();
        Ok(match traced {
            Some(traced) => GateDecision::ForwardTraced(traced, secondary),
            None => GateDecision::Forward(secondary),
        })
    }
}

/// Whether a payload may contain a message with a trace context.
pub(super) fn may_name_context(payload: &[u8]) -> bool {
    memmem::find(payload, TRACEPARENT_HEADER.as_bytes()).is_some()
}

/// Begins the span of a call, and returns the message with its context; `None` if not sampled. The span ends with the
/// answer, or immediately for a call without one.
///
/// Only these messages are re-encoded by a node. The context is stored in headers, where official servers and the SDK
/// look for the parent of their spans.
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
    span.set("signalr.connection.id", short(&client.id));
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
