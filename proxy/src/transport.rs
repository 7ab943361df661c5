//! Client transports: WebSocket frames, event streams, and the HTTP transports. None of them reads hub messages.

pub(crate) mod event_stream;
pub(crate) mod http_transport;
pub mod websocket;
