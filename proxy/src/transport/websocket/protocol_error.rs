//! Broken rules of the WebSocket protocol.

/// A broken rule of RFC 6455.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A client must mask its frames.
    #[error("frame is not masked")]
    Unmasked,
    /// No extension was agreed upon.
    #[error("a reserved bit is set")]
    Reserved,
    /// No such kind of frame.
    #[error("unknown opcode {0}")]
    Opcode(u8),
    /// Control frames are short and whole.
    #[error("control frame is fragmented or longer than 125 bytes")]
    Control,
    /// A continuation without a beginning, or a beginning within a message.
    #[error("fragments are out of order")]
    Fragment,
    /// A message that never gets longer.
    #[error("too many empty fragments in a row")]
    EmptyFragments,
    /// Lengths have 63 bits.
    #[error("length is out of range")]
    Length,
    /// A code has two bytes.
    #[error("close frame has one byte")]
    CloseLength,
    /// Not a code that may be sent.
    #[error("close code {0} may not be sent")]
    CloseCode(u16),
    /// A reason is text.
    #[error("the reason in a close frame is no UTF-8")]
    CloseReason,
}
