//! Reverse proxy: forwards to app servers what is not a hub's, and to its owner what belongs to another node.
//!
//! Bodies are streamed both ways and never kept; a slow reader slows down the other end. Connections are kept for the
//! next request, per shard.

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
