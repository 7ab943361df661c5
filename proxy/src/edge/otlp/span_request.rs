//! Converts spans to an OTLP message.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::span::{Link, SpanKind as OtlpSpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use trunkline_protocol::trace_context::TraceContext;

use super::{resource, scope, text};
use crate::ground::telemetry::{SpanKind, SpanRecord};

pub(super) fn span_request(node: &str, spans: impl IntoIterator<Item = Box<SpanRecord>>) -> ExportTraceServiceRequest {
    let spans = spans.into_iter().map(|span| span_of(*span)).collect();
    let scope_spans = vec![ScopeSpans { scope: Some(scope()), spans, ..ScopeSpans::default() }];
    let resource_spans = ResourceSpans { resource: Some(resource(node)), scope_spans, ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }
}

fn span_of(span: SpanRecord) -> Span {
    let kind = match span.kind {
        SpanKind::Server => OtlpSpanKind::Server,
        SpanKind::Client => OtlpSpanKind::Client,
    };
    let status = span.error.map(|message| Status { code: StatusCode::Error.into(), message: message.into_owned() });
    Span {
        trace_id: span.context.trace_id.to_vec(),
        span_id: span.context.span_id.to_vec(),
        parent_span_id: span.parent.map(Vec::from).unwrap_or_default(),
        flags: flags(&span.context),
        name: span.name,
        kind: kind.into(),
        start_time_unix_nano: span.begun_ns,
        end_time_unix_nano: span.ended_ns,
        attributes: span.attributes.iter().map(|(key, value)| text(key, value)).collect(),
        links: span.link.iter().map(link_of).collect(),
        status,
        ..Span::default()
    }
}

fn link_of(context: &TraceContext) -> Link {
    let (trace_id, span_id) = (context.trace_id.to_vec(), context.span_id.to_vec());
    Link { trace_id, span_id, flags: flags(context), ..Link::default() }
}

fn flags(context: &TraceContext) -> u32 {
    u32::from(context.is_sampled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_keeps_its_place_its_times_and_its_error() {
        let (context, link) = (TraceContext::root(), TraceContext::root());
        let mut record = SpanRecord {
            context,
            parent: Some([7; 8]),
            link: Some(link),
            name: "/chat/Echo".into(),
            kind: SpanKind::Client,
            begun_ns: 5,
            ended_ns: 9,
            attributes: Vec::new(),
            error: Some("gone".into()),
        };
        record.set("rpc.method", "Echo");
        let request = span_request("node-1", [Box::new(record)]);
        let of_node = &request.resource_spans[0];
        assert!(of_node.resource.as_ref().unwrap().attributes.contains(&text("service.instance.id", "node-1")));
        let span = &of_node.scope_spans[0].spans[0];
        assert_eq!((&*span.trace_id, &*span.parent_span_id), (&context.trace_id[..], &[7; 8][..]));
        assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano, span.flags), (5, 9, 1));
        assert_eq!(span.attributes, [text("rpc.method", "Echo")]);
        assert_eq!(span.links[0].span_id, link.span_id);
        assert_eq!(span.status.as_ref().unwrap().message, "gone");
        assert_eq!(span.kind(), OtlpSpanKind::Client);
    }
}
