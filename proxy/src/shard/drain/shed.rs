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

use crate::shard::connection::Connections;
use crate::shard::slot::{Serial, Slot};

/// Time over which one shed is spread: it is over when the next numbers of clients are read, a second later.
pub(crate) const SHED_SPREAD: Duration = Duration::from_millis(700);

/// Slots that one step visits: some tens of microseconds.
const STEP: usize = 1024;

/// Search for clients to send elsewhere, in short steps.
#[derive(Debug)]
pub(crate) struct ShedSearch {
    wanted: usize,
    /// Slot of the next step.
    at: usize,
    /// Slots that were visited.
    visited: usize,
    /// Clients that move unnoticed.
    stateful: Vec<(Slot, Serial)>,
    /// Clients that are told to connect again, should the others not be enough.
    plain: Vec<(Slot, Serial)>,
}

impl ShedSearch {
    /// Searches for some clients from this slot on.
    pub(crate) fn new(wanted: usize, from: usize) -> Self {
        Self { wanted, at: from, visited: 0, stateful: Vec::new(), plain: Vec::new() }
    }

    /// Takes a step; `true` when it was the last one.
    pub(crate) fn step(&mut self, connections: &Connections) -> bool {
        let slots = connections.slot_count();
        if self.at >= slots {
            self.at = 0;
        }
        let end = self.at.saturating_add(STEP.min(slots.saturating_sub(self.visited))).min(slots);
        let mut next = end;
        for (slot, client) in connections.range(self.at..end) {
            let is_leaving = client.life().leaving().is_some();
            if client.life().is_closed() || !client.life().is_open() || client.is_away() || is_leaving {
                continue;
            }
            if client.moves_unnoticed() {
                self.stateful.push((slot, client.serial()));
            } else if self.plain.len() < self.wanted {
                self.plain.push((slot, client.serial()));
            }
            if self.stateful.len() >= self.wanted {
                next = slot as usize + 1;
                break;
            }
        }
        self.visited += end - self.at;
        self.at = next;
        self.stateful.len() >= self.wanted || self.visited >= slots
    }

    /// Clients that were found, those first that move unnoticed.
    pub(crate) fn chosen(self) -> Vec<(Slot, Serial)> {
        self.stateful.into_iter().chain(self.plain).take(self.wanted).collect()
    }

    /// Slot at which the next search begins: behind the last client that was chosen.
    pub(crate) fn next_from(&self) -> usize {
        let missing = self.wanted.saturating_sub(self.stateful.len());
        let last_plain =
            missing.checked_sub(1).and_then(|last| self.plain.get(last.min(self.plain.len().saturating_sub(1))));
        last_plain.map_or(self.at, |(slot, _)| *slot as usize + 1)
    }
}

#[cfg(test)]
mod tests;
