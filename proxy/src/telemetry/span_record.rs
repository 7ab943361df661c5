//! Span as a plain value.

use std::borrow::Cow;

use trunkline_protocol::trace_context::TraceContext;

/// Limit of the length of a text that a client has chosen, such as the name of a method.
const TEXT_MAX_BYTES: usize = 128;

/// Side of an exchange that a span is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpanKind {
    /// A request of a client is answered.
    Server,
    /// A call is passed on to an app server.
    Client,
}

/// Span with its times in nanoseconds since 1970.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SpanRecord {
    /// Its own place in its trace.
    pub context: TraceContext,
    pub parent: Option<[u8; 8]>,
    /// Span of another trace that it has to do with.
    pub link: Option<TraceContext>,
    pub name: String,
    pub kind: SpanKind,
    pub begun_ns: u64,
    pub ended_ns: u64,
    pub attributes: Vec<(&'static str, String)>,
    /// Text of its error, if it failed.
    pub error: Option<Cow<'static, str>>,
}

impl SpanRecord {
    /// Adds an attribute. A text that is too long is cut: most come from clients.
    pub(crate) fn set(&mut self, name: &'static str, text: &str) {
        self.attributes.push((name, clipped(text).to_owned()));
    }
}

/// Beginning of a text, as much as a span may hold.
pub(crate) fn clipped(text: &str) -> &str {
    text.get(..text.floor_char_boundary(TEXT_MAX_BYTES)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(clipped("Echo"), "Echo");
        assert_eq!(clipped(&"é".repeat(1000)).len(), TEXT_MAX_BYTES);
        assert_eq!(clipped(&format!("x{}", "é".repeat(1000))).len(), TEXT_MAX_BYTES - 1);
    }
}
