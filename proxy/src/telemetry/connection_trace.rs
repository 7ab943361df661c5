//! Trace of a client connection, the parent of its calls.

use trunkline_protocol::trace_context::TraceContext;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectionTrace {
    /// Span of the negotiation or of the connect request.
    pub context: TraceContext,
    /// Set if the client began the trace, which then includes its calls. In a trace of this node they would never end,
    /// so each call gets its own linked trace.
    pub is_of_client: bool,
}
