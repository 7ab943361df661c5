//! Span as a plain value.

use std::borrow::Cow;

use trunkline_protocol::trace_context::TraceContext;

/// Maximum length of a text from a client, such as a method name.
const TEXT_MAX_BYTES: usize = 128;

/// Role of this node in the traced exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpanKind {
    /// This node handles a client's request.
    Server,
    /// This node forwards a call to an app server.
    Client,
}

/// Span, with times in nanoseconds since 1970.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SpanRecord {
    pub context: TraceContext,
    pub parent: Option<[u8; 8]>,
    /// Related span of another trace.
    pub link: Option<TraceContext>,
    pub name: String,
    pub kind: SpanKind,
    pub begun_ns: u64,
    pub ended_ns: u64,
    pub attributes: Vec<(&'static str, String)>,
    /// Error text, if the span failed.
    pub error: Option<Cow<'static, str>>,
}

impl SpanRecord {
    /// Adds an attribute. Long texts, mostly from clients, are truncated.
    pub(crate) fn set(&mut self, name: &'static str, text: &str) {
        self.attributes.push((name, clipped(text).to_owned()));
    }
}

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
