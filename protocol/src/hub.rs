//! The hub protocol between a SignalR client and a hub, in JSON or in MessagePack.
//!
//! ```text
//!  bytes ──framing::next_frame──► frame ──scan──► kind, invocation id        (all that a proxy reads)
//!                                   └────decode──► HubMessage ──value──► T   (what an app server reads)
//!  T ──payload──► Payload ──► HubMessage ──encode──► frame
//! ```
//!
//! Source: the SignalR hub protocol specification, and the bytes of the official packages where they differ.

mod framing;
mod handshake;
mod json;
mod members;
mod message;
mod message_pack;
mod payload;
mod protocol;
mod scan;

pub use framing::{Frame, FramingError, next_frame};
pub use handshake::{
    CLOSED_WITH_ERROR, HUB_PROTOCOL_VERSION, HandshakeError, HandshakeRequest, HandshakeResponse, RECORD_SEPARATOR,
};
pub use message::{CancelInvocation, Close, Completion, Headers, HubMessage, Invocation, Outcome, StreamItem};
pub use payload::{Payload, PayloadError};
pub use protocol::{HubMessageError, HubProtocol};
pub use scan::{MessageKind, Scan, ScanError};
