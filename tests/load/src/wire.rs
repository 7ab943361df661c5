//! What travels: hub messages, in WebSocket frames or in events. Pure: bytes in, bytes out.

pub(crate) mod event_stream;
pub(crate) mod inbound;
pub(crate) mod messages;
