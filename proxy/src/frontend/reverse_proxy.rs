//! Reverse proxy: forwards requests not meant for a hub to app servers, and requests of other nodes' connections to
//! their owners.
//!
//! Bodies are streamed, so a slow reader slows down the other end. Connections are pooled per shard.

pub(crate) mod carried_link;
mod expect_continue;
pub(super) mod forward_mark;
mod next_hop;
pub(super) mod owner_head;
pub(super) mod owner_hop;
pub(super) mod owner_permit;
pub(super) mod pass_through;
mod relayed_body;
mod silence_limit;
mod tunnel;
pub(super) mod x_forwarded;
