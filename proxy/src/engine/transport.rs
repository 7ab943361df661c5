//! Client transports: WebSocket frames, event streams and HTTP transports. They don't parse hub messages.

pub(crate) mod event_stream;
pub(crate) mod http_transport;
pub mod websocket;
