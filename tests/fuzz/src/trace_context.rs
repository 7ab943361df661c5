//! Trace contexts in headers of requests and messages.

use trunkline_protocol::trace_context::TraceContext;

/// Reads a `traceparent`; an accepted value must survive a round trip, and must not be longer than in version 0.
pub fn trace_contexts(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(context) = text.parse::<TraceContext>() else { return };
    let written = context.to_string();
    assert_eq!(written.parse(), Ok(context), "what was written is read as itself");
    assert!(context.trace_id != [0; 16] && context.span_id != [0; 8], "an id of zeros names nothing");
    assert_eq!(written.get(3..52), text.get(3..52), "the ids are those of the text");
    assert!(context.child().trace_id == context.trace_id, "a child stays in its trace");
}
