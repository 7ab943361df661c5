//! Trace of a client connection: what its calls belong to.

use trunkline_protocol::trace_context::TraceContext;

/// Trace of a sampled client connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectionTrace {
    /// Span of the negotiation or of the connect request.
    pub context: TraceContext,
    /// The client has begun the trace: its calls belong to it, too. In a trace that this node began they would make it
    /// endless, so each has one of its own, with a link.
    pub is_of_client: bool,
}
