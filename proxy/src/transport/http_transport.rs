//! HTTP transports: client connections that consist of requests, by Server-Sent Events or long polling.
//!
//! ```text
//!  POST ──► send ──────────┐
//!                 OuterHalf ══ pipe ══ InnerHalf ── the client module, on the shard that owns the connection
//!  GET  ◄── next_messages ─┘
//! ```
//!
//! The client module reads and writes the inner half as it does any socket. The outer half lies in the
//! [registry](HttpTransports), where a request finds it on whatever thread it is served. Upward go the bytes of hub
//! messages as they are; downward come the frames of the WebSocket transport, because they mark where messages end, and
//! are unframed for the request that waits.

mod carried_get;
#[cfg(test)]
mod half_test;
mod inner_half;
mod message_reader;
mod outer_half;
mod registry;

pub(crate) use carried_get::{CarriedGet, CarriedGets, GetKind};
pub(crate) use inner_half::InnerHalf;
pub(crate) use outer_half::{ActiveGet, OuterHalf, PollOutcome, SendError, TransportPermits};
pub(crate) use registry::HttpTransports;
