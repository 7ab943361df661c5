//! Hub protocol between a SignalR client and a hub, in JSON or MessagePack.
//!
//! ```text
//!  bytes ──framing::next_frame──► frame ──scan──► kind, invocation id        (all that a proxy reads)
//!                                   └────decode──► HubMessage ──value──► T   (what an app server reads)
//!  T ──payload──► Payload ──► HubMessage ──encode──► frame
//! ```
//!
//! Source: the SignalR hub protocol specification, and the bytes of the official packages where they differ.

mod call_scan;
mod encoding;
mod followed_item;
mod framing;
mod handshake;
mod hub_message;
mod json_encoding;
mod members;
mod message_pack_encoding;
mod protocol;
mod replay;
mod scan;

pub use call_scan::CallScan;
pub use framing::{Frame, FramingError, RECORD_SEPARATOR, WholeMessage, next_frame, next_frame_behind, whole_messages};
pub use handshake::{
    CLOSED_WITH_ERROR, HUB_PROTOCOL_VERSION, HUB_PROTOCOL_VERSION_STATEFUL, HandshakeError, HandshakeRequest,
    HandshakeResponse,
};
pub use hub_message::{
    CancelInvocation, Close, Completion, Headers, HubMessage, HubMessageError, Invocation, Outcome, StreamItem,
};
pub use protocol::{HubProtocol, Payload, PayloadError};
pub use replay::{ReceivedSequence, ReplayBuffer, ReplayQueue, SequenceError};
pub use scan::{MessageKind, Scan, ScanError};
