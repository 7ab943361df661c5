//! Call spans, their parents from headers of clients and proxies, and trace headers on sends and replies to clients.
//!
//! Spans use [`tracing`], so any subscriber can record them. With the feature `opentelemetry` they have the
//! attributes of its RPC conventions, and W3C trace contexts are read and written.

use tracing::Span;
use trunkline_protocol::hub::Headers;
pub(crate) use trunkline_protocol::trace_context::{TRACEPARENT_HEADER, TRACESTATE_HEADER};
#[cfg(feature = "opentelemetry")]
use {
    bytestring::ByteString,
    opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState},
    tracing_opentelemetry::OpenTelemetrySpanExt,
    trunkline_protocol::trace_context::TraceContext,
};

/// Maximum length of a method name in logs and spans. Names of unknown methods come from the client.
const METHOD_MAX_BYTES: usize = 64;

/// Maximum length of a binding error in logs. It quotes the client.
const REASON_MAX_BYTES: usize = 256;

/// Maximum length of a `tracestate` according to the standard. Longer ones are dropped.
#[cfg(feature = "opentelemetry")]
const TRACESTATE_MAX_BYTES: usize = 512;

#[cfg(feature = "opentelemetry")]
struct RemoteParent {
    context: TraceContext,
    state: TraceState,
}

#[cfg(feature = "opentelemetry")]
impl RemoteParent {
    fn in_headers(headers: &Headers) -> Option<Self> {
        let find = |wanted: &str| {
            headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| &**value)
        };
        let context = find(TRACEPARENT_HEADER)?.parse().ok()?;
        let state = find(TRACESTATE_HEADER).filter(|state| state.len() <= TRACESTATE_MAX_BYTES);
        Some(Self { context, state: state.and_then(|state| state.parse().ok()).unwrap_or_default() })
    }

    fn into_span_context(self) -> SpanContext {
        let TraceContext { trace_id, span_id, is_sampled } = self.context;
        let flags = TraceFlags::default().with_sampled(is_sampled);
        SpanContext::new(TraceId::from_bytes(trace_id), SpanId::from_bytes(span_id), flags, true, self.state)
    }
}

/// Whether message headers are used.
pub(crate) const READS_HEADERS: bool = cfg!(feature = "opentelemetry");

#[cfg(not(feature = "opentelemetry"))]
pub(crate) fn call_span(hub: &str, method: &str, connection: &str, user: Option<&str>) -> Span {
    let method = clipped_method(method);
    tracing::debug_span!(target: "trunkline::call", "call", hub, method, connection, user)
}

/// Span around a call of app code, for its log lines and for OpenTelemetry. Not at level `info`, the usual level of
/// apps: that would double the cost of a call.
#[cfg(feature = "opentelemetry")]
pub(crate) fn call_span(hub: &str, method: &str, connection: &str, user: Option<&str>) -> Span {
    let method = clipped_method(method);
    tracing::debug_span!(
        target: "trunkline::call",
        "call",
        hub,
        method,
        connection,
        user,
        otel.name = %format_args!("{hub}/{method}"),
        otel.kind = "server",
        otel.status_code = tracing::field::Empty,
        otel.status_description = tracing::field::Empty,
        rpc.system = "signalr",
        rpc.service = hub,
        rpc.method = method,
        signalr.connection.id = connection,
    )
}

/// Makes the call's span a child of the parent in its message, or in its connect request. The headers are parsed
/// only if needed.
#[cfg(feature = "opentelemetry")]
pub(crate) fn adopt(span: &Span, message: &Headers, connect: impl FnOnce() -> Headers) {
    if span.is_disabled() {
        return;
    }
    if let Some(parent) = RemoteParent::in_headers(message).or_else(|| RemoteParent::in_headers(&connect())) {
        let context = opentelemetry::Context::new().with_remote_span_context(parent.into_span_context());
        // Without an OpenTelemetry layer, parents are not used.
        drop(span.set_parent(context));
    }
}

#[cfg(not(feature = "opentelemetry"))]
pub(crate) fn adopt(_span: &Span, _message: &Headers, _connect: impl FnOnce() -> Headers) {}

/// Headers that identify a span to the receiver of a message; empty unless the span is sampled.
#[cfg(feature = "opentelemetry")]
pub(crate) fn headers_of(span: &Span) -> Headers {
    if span.is_disabled() {
        return Headers::new();
    }
    let context = span.context();
    let context = context.span().span_context().clone();
    if !context.is_valid() || !context.is_sampled() {
        return Headers::new();
    }
    let (trace_id, span_id) = (context.trace_id().to_bytes(), context.span_id().to_bytes());
    let parent = TraceContext { trace_id, span_id, is_sampled: true };
    let mut headers = vec![(ByteString::from_static(TRACEPARENT_HEADER), ByteString::from(parent.to_string()))];
    let state = context.trace_state().header();
    if !state.is_empty() && state.len() <= TRACESTATE_MAX_BYTES {
        headers.push((ByteString::from_static(TRACESTATE_HEADER), state.into()));
    }
    headers
}

#[cfg(not(feature = "opentelemetry"))]
pub(crate) fn headers_of(_span: &Span) -> Headers {
    Headers::new()
}

/// Headers that identify the span of the running app code.
pub(crate) fn current_headers() -> Headers {
    if READS_HEADERS { headers_of(&Span::current()) } else { Headers::new() }
}

/// Marks the span of a call as failed. Without OpenTelemetry the span has no such fields.
pub(crate) fn fail(span: &Span, error: &str) {
    if READS_HEADERS {
        span.record("otel.status_code", "ERROR");
        span.record("otel.status_description", error);
    }
}

pub(crate) fn clipped_method(method: &str) -> &str {
    clipped(method, METHOD_MAX_BYTES)
}

pub(crate) fn clipped_reason(reason: &str) -> &str {
    clipped(reason, REASON_MAX_BYTES)
}

fn clipped(text: &str, max_bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(max_bytes)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    const OF_MESSAGE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const OF_CONNECT: &str = "00-11111111111111111111111111111111-2222222222222222-01";

    fn headers(pairs: &[(&'static str, &str)]) -> Headers {
        pairs.iter().map(|(name, value)| (ByteString::from_static(name), ByteString::from(*value))).collect()
    }

    /// Headers that a call sends if its message has these headers.
    fn named_by_call(sampler: Sampler, message: &Headers) -> Headers {
        let provider = SdkTracerProvider::builder().with_sampler(sampler).build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let span = call_span("chat", "Say", "c1", None);
            adopt(&span, message, || headers(&[(TRACEPARENT_HEADER, OF_CONNECT)]));
            let named = span.in_scope(current_headers);
            assert_eq!(named, headers_of(&span));
            named
        })
    }

    fn trace_of(headers: &Headers) -> TraceContext {
        assert_eq!(headers[0].0, TRACEPARENT_HEADER);
        headers[0].1.parse().unwrap()
    }

    #[test]
    fn a_call_continues_the_trace_of_its_message_else_that_of_its_connect_request() {
        for (message, parent) in [
            (headers(&[("other", "x"), ("TraceParent", OF_MESSAGE)]), OF_MESSAGE),
            (headers(&[(TRACEPARENT_HEADER, "nonsense")]), OF_CONNECT),
            (headers(&[]), OF_CONNECT),
        ] {
            let (named, parent): (_, TraceContext) =
                (trace_of(&named_by_call(Sampler::AlwaysOn, &message)), parent.parse().unwrap());
            assert_eq!(named.trace_id, parent.trace_id);
            assert!(named.span_id != parent.span_id && named.is_sampled);
        }
    }

    #[test]
    fn the_state_of_other_tracing_systems_goes_along_unless_it_is_too_long() {
        let with_state = |state: &str| headers(&[(TRACEPARENT_HEADER, OF_MESSAGE), (TRACESTATE_HEADER, state)]);
        let named = named_by_call(Sampler::AlwaysOn, &with_state("vendor=7"));
        assert_eq!(named[1..], headers(&[(TRACESTATE_HEADER, "vendor=7")])[..]);
        let long = format!("vendor={}", "7".repeat(TRACESTATE_MAX_BYTES));
        assert_eq!(named_by_call(Sampler::AlwaysOn, &with_state(&long)).len(), 1);
    }

    #[test]
    fn unsampled_and_untraced_calls_send_no_headers() {
        let message = headers(&[(TRACEPARENT_HEADER, OF_MESSAGE)]);
        assert_eq!(named_by_call(Sampler::AlwaysOff, &message), Headers::new());
        assert_eq!(current_headers(), Headers::new(), "nobody listens");
        let span = call_span("chat", "Say", "c1", None);
        adopt(&span, &message, Headers::new);
        assert_eq!(headers_of(&span), Headers::new());
    }
}
