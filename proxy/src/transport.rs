//! Client transports: WebSockets, and the two that are carried by HTTP requests. No transport knows a hub message.

pub(crate) mod events;
pub(crate) mod http;
pub mod websocket;
