//! Sheds: a shard moves some of its clients away, because its node has more than others.
//!
//! ```text
//!  slots  ├──────────────────────────────────────┤
//!             ▲ cursor ──► steps of 1024 slots, once around at most
//! ```
//!
//! Clients that can move unnoticed come first. Each search continues after the previous one, so that a client sent back
//! by a load balancer is not disconnected every second.

use std::time::Duration;

use crate::engine::shard::connection::{Client, LifeStage};
use crate::engine::shard::drain::departure_search::Fit;

/// Duration of one shed. It ends before the next client counts are read, a second later.
pub(crate) const SHED_SPREAD: Duration = Duration::from_millis(700);

/// Whether a client may be shed; prefers clients that move unnoticed.
pub(crate) fn fit(client: &Client) -> Option<Fit> {
    if client.life().stage() != LifeStage::Open || client.is_away() {
        return None;
    }
    Some(if client.moves_unnoticed() { Fit::Preferred } else { Fit::Fair })
}

#[cfg(test)]
mod tests;
