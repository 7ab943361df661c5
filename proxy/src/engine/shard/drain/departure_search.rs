//! Search for clients to move away, in short steps, for a rebalance or a shed: a shard sheds some of its clients
//! because its node has more than others.
//!
//! ```text
//!  slots  ├──────────────────────────────────────┤
//!             ▲ cursor ──► steps of 1024 slots, once around at most
//! ```
//!
//! Each search for a shed continues after the previous one, so that a client sent back by a load balancer is not
//! disconnected every second.

use std::time::Duration;

use crate::engine::shard::connection::{Client, Connections, LifeStage};
use crate::engine::shard::slot::{Serial, Slot, SlotWalk};

/// Suitability of a client for moving away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fit {
    /// Chosen first. The search ends when there are enough.
    Preferred,
    /// Chosen if there are too few preferred clients.
    Fair,
}

#[derive(Debug)]
pub(crate) struct DepartureSearch {
    wanted: usize,
    walk: SlotWalk,
    preferred: Vec<(Slot, Serial)>,
    fair: Vec<(Slot, Serial)>,
}

impl DepartureSearch {
    pub(crate) fn new(wanted: usize, from: usize) -> Self {
        Self { wanted, walk: SlotWalk::around(from), preferred: Vec::new(), fair: Vec::new() }
    }

    /// Runs one step. Returns `true` after the last one.
    pub(crate) fn step(&mut self, connections: &Connections, fit: impl Fn(&Client) -> Option<Fit>) -> bool {
        let slots = connections.slot_count();
        for (slot, client) in connections.range(self.walk.step(slots)) {
            if self.preferred.len() >= self.wanted {
                break;
            }
            match fit(client) {
                Some(Fit::Preferred) => self.preferred.push((slot, client.serial())),
                Some(Fit::Fair) if self.fair.len() < self.wanted => self.fair.push((slot, client.serial())),
                Some(Fit::Fair) | None => {}
            }
        }
        self.preferred.len() >= self.wanted || self.walk.is_over(slots)
    }

    /// Found clients, preferred ones first.
    pub(crate) fn chosen(self) -> Vec<(Slot, Serial)> {
        self.preferred.into_iter().chain(self.fair).take(self.wanted).collect()
    }

    /// Start slot of the next search, after the last chosen client.
    pub(crate) fn next_from(&self) -> usize {
        let missing = self.wanted.saturating_sub(self.preferred.len());
        let last = match missing.min(self.fair.len()).checked_sub(1) {
            Some(last_fair) => self.fair.get(last_fair),
            None if missing == 0 => self.preferred.last(),
            None => None,
        };
        last.map_or(self.walk.at(), |(slot, _)| *slot as usize + 1)
    }
}

/// Duration of one shed. It ends before the next client counts are read, a second later.
pub(crate) const SHED_SPREAD: Duration = Duration::from_millis(700);

/// Whether a client may be shed; prefers clients that move unnoticed.
pub(crate) fn fit_for_shed(client: &Client) -> Option<Fit> {
    if client.life().stage() != LifeStage::Open || client.is_away() {
        return None;
    }
    Some(if client.moves_unnoticed() { Fit::Preferred } else { Fit::Fair })
}
