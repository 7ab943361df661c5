//! Tracing of requests that start a connection: negotiate and connect.
//!
//! ```text
//!  negotiate, traceparent ─► sampled? ─► span, sealed into the connection token ─┐
//!                               └─ no ─► the client's context, sealed            ├─► connect ─► span ─► open frame ─► app
//!  connect with its own traceparent, which browsers can't set on a WebSocket ────┘
//! ```
//!
//! Without `--otlp`, the client's context is passed to the app in the same way, because the app may trace on its own.

use bytestring::ByteString;
use http::HeaderMap;
use trunkline_protocol::manifest::Transport;
use trunkline_protocol::service::OpenConnection;
use trunkline_protocol::token::Claim;
use trunkline_protocol::trace_context::{TRACEPARENT_HEADER, TraceContext};
use trunkline_protocol::wire::TRACE_CLAIM;

use crate::edge::frontend::endpoint::Endpoint;
use crate::edge::frontend::hub_request::ConnectingClient;
use crate::engine::shard::short;
use crate::engine::upstream::Hub;
use crate::ground::clock::unix_ns;
use crate::ground::telemetry::{ConnectionTrace, OpenSpan};

/// Trace of a connection between negotiation and connect, stored in its token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SealedTrace {
    /// Context from the client; this fleet does not trace the connection.
    OfClient(TraceContext),
    /// Span of the negotiation.
    Sampled(ConnectionTrace),
}

impl SealedTrace {
    const OF_CLIENT: &str = "client";
    const SAMPLED: &str = "span";
    const SAMPLED_OF_CLIENT: &str = "span-of-client";

    /// Claim of a connection token that stores it.
    fn claim(self) -> Claim {
        let (kind, context) = match self {
            Self::OfClient(context) => (Self::OF_CLIENT, context),
            Self::Sampled(trace) if trace.is_of_client => (Self::SAMPLED_OF_CLIENT, trace.context),
            Self::Sampled(trace) => (Self::SAMPLED, trace.context),
        };
        (TRACE_CLAIM.into(), format!("{kind} {context}"))
    }

    fn from_claims(claims: &[Claim]) -> Option<Self> {
        let (_, value) = claims.iter().find(|(name, _)| name == TRACE_CLAIM)?;
        let (kind, context) = value.split_once(' ')?;
        let context = context.parse().ok()?;
        let sampled = |is_of_client| Self::Sampled(ConnectionTrace { context, is_of_client });
        match kind {
            Self::OF_CLIENT => Some(Self::OfClient(context)),
            Self::SAMPLED => Some(sampled(false)),
            Self::SAMPLED_OF_CLIENT => Some(sampled(true)),
            _ => None,
        }
    }

    fn context(self) -> TraceContext {
        match self {
            Self::OfClient(context) => context,
            Self::Sampled(trace) => trace.context,
        }
    }
}

/// Traces a negotiation: seals its trace into the claims of the connection token. Returns a span if sampled.
pub(crate) fn negotiate(
    endpoint: &Endpoint,
    hub: &Hub,
    (headers, arrived_ns): (&HeaderMap, Option<u64>),
    claims: &mut Vec<Claim>,
) -> Option<OpenSpan> {
    // Reserved for nodes.
    claims.retain(|(name, _)| name != TRACE_CLAIM);
    let shown = context_in(headers);
    let tracer = endpoint.shared.tracer.as_ref().filter(|tracer| tracer.samples(shown.as_ref()));
    let mut span = tracer.and_then(|tracer| tracer.begin("negotiate", shown, arrived_ns.unwrap_or_else(unix_ns)));
    if let Some(span) = &mut span {
        span.set("signalr.hub", hub.name());
    }
    let sampled = span.as_ref().and_then(OpenSpan::context);
    let sampled =
        sampled.map(|context| SealedTrace::Sampled(ConnectionTrace { context, is_of_client: shown.is_some() }));
    claims.extend(sampled.or(shown.map(SealedTrace::OfClient)).map(SealedTrace::claim));
    span
}

/// Traces a connect request: adds the trace to its open frame, and returns it if the connection is sampled.
pub(crate) fn connect(
    endpoint: &Endpoint,
    hub: &Hub,
    (headers, arrived_ns): (&HeaderMap, Option<u64>),
    client: &ConnectingClient,
    (open, transport): (&mut OpenConnection, Transport),
) -> Option<ConnectionTrace> {
    let shown = context_in(headers);
    let sealed = client.token.as_ref().and_then(|token| SealedTrace::from_claims(&token.claims));
    let trace = sample_connect(endpoint, arrived_ns, client, shown, sealed).map(|(mut span, trace)| {
        span.set("signalr.hub", hub.name());
        span.set("signalr.transport", transport.name());
        span.set("signalr.connection.id", short(&open.connection_id));
        trace
    });
    // The client's own header is already in the frame.
    let named = trace.map(|trace| trace.context).or(sealed.map(SealedTrace::context).filter(|_| shown.is_none()));
    if let Some(context) = named {
        name_in(open, context);
    }
    trace
}

/// Begins the span of a connect request, if its negotiation or the request itself is sampled.
fn sample_connect(
    endpoint: &Endpoint,
    arrived_ns: Option<u64>,
    client: &ConnectingClient,
    shown: Option<TraceContext>,
    sealed: Option<SealedTrace>,
) -> Option<(OpenSpan, ConnectionTrace)> {
    let tracer = endpoint.shared.tracer.as_ref()?;
    let is_of_client = match sealed {
        Some(SealedTrace::Sampled(trace)) => shown.is_some() || trace.is_of_client,
        Some(SealedTrace::OfClient(_)) | None => {
            // The decision was made at negotiation.
            let is_decided = client.token.is_some() && !(tracer.trusts_clients() && shown.is_some());
            if is_decided || !tracer.samples(shown.as_ref()) {
                return None;
            }
            shown.is_some()
        }
    };
    let parent = shown.or(sealed.map(SealedTrace::context));
    let span = tracer.begin("connect", parent, arrived_ns.unwrap_or_else(unix_ns))?;
    let context = span.context()?;
    Some((span, ConnectionTrace { context, is_of_client }))
}

fn context_in(headers: &HeaderMap) -> Option<TraceContext> {
    headers.get(TRACEPARENT_HEADER)?.to_str().ok()?.parse().ok()
}

fn name_in(open: &mut OpenConnection, context: TraceContext) {
    open.headers.retain(|(name, _)| !name.eq_ignore_ascii_case(TRACEPARENT_HEADER));
    let value = ByteString::from(context.to_string());
    open.headers.push((ByteString::from_static(TRACEPARENT_HEADER), vec![value]));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_trace_comes_back_as_it_was() {
        let context = TraceContext::root();
        let sampled = |is_of_client| SealedTrace::Sampled(ConnectionTrace { context, is_of_client });
        for sealed in [SealedTrace::OfClient(context), sampled(true), sampled(false)] {
            assert_eq!(SealedTrace::from_claims(&[("role".into(), "cook".into()), sealed.claim()]), Some(sealed));
        }
        for value in ["", "client", "client x", &format!("other {context}")] {
            assert_eq!(SealedTrace::from_claims(&[(TRACE_CLAIM.into(), value.into())]), None, "{value}");
        }
    }

    #[test]
    fn an_opening_frame_names_one_context() {
        let header = |value: &str| ("TraceParent".into(), vec![value.into()]);
        let mut open = OpenConnection { headers: vec![header("x"), header("y")], ..OpenConnection::default() };
        let context = TraceContext::root();
        name_in(&mut open, context);
        assert_eq!(open.headers, [(TRACEPARENT_HEADER.into(), vec![context.to_string().into()])]);
    }
}
