//! Sheds: a shard sends some of its clients elsewhere, because its node has more than others.
//!
//! ```text
//!  slots  ├──────────────────────────────────────┤
//!             ▲ cursor ──► steps of 1024 slots, once around at most
//! ```
//!
//! Clients that can move unnoticed come first. The next search goes on behind the last one, so a load balancer that
//! sends a client back does not have it cut each second.

use std::time::Duration;

use crate::shard::connection::{Client, LifeStage};
use crate::shard::drain::departure_search::Fit;

/// Time over which one shed is spread: it is over when the next numbers of clients are read, a second later.
pub(crate) const SHED_SPREAD: Duration = Duration::from_millis(700);

/// Whether a client may be shed. Clients that move unnoticed are preferred.
pub(crate) fn fit(client: &Client) -> Option<Fit> {
    if client.life().stage() != LifeStage::Open || client.is_away() {
        return None;
    }
    Some(if client.moves_unnoticed() { Fit::Preferred } else { Fit::Fair })
}

#[cfg(test)]
mod tests;
