//! How a client's bytes travel. Payload in, payload out, close: no transport knows a hub message.

pub mod events;
pub mod websocket;
