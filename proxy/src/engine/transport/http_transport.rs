//! HTTP transports: client connections made of requests, with Server-Sent Events or long polling.
//!
//! ```text
//!  POST ──► send ──────────┐
//!                 OuterHalf ══ pipe ══ InnerHalf ── the client module, on the owning shard
//!  GET  ◄── next_messages ─┘
//! ```
//!
//! The client module uses the inner half like any socket. Requests on any thread find the outer half in the
//! [registry](HttpTransports). The pipe carries hub messages upward. Downward it carries WebSocket frames, for their
//! message boundaries; the waiting request removes them.

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
