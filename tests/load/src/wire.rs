//! Wire formats: hub messages, in WebSocket frames or in events. Pure: bytes in, bytes out.

pub(crate) mod event_parser;
pub(crate) mod inbound;
pub(crate) mod messages;
