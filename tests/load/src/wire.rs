//! What travels: WebSocket frames, and the hub messages in them. Pure: bytes in, bytes out.

pub(crate) mod frame;
pub(crate) mod inbound;
