//! Budget of all outboxes of a shard: beyond it, the clients with the largest ones are closed.
//!
//! Only the bytes of clients whose sockets take no more count, and only changes of them cost something; a client that
//! keeps up costs nothing. Each shard has an equal share of the node's budget, so none has to know of the others.

use std::sync::Arc;

use crate::metrics::Counters;
use crate::shard::connection::Client;
use crate::shard::slot::Slot;

/// Fraction of the share that is made free at once: finding the largest outboxes is a pass over all clients.
const FREED_PART: usize = 8;

/// Budget of the outboxes of one shard.
#[derive(Debug)]
pub(crate) struct OutboxBudget {
    share_bytes: usize,
    counters: Arc<Counters>,
}

impl OutboxBudget {
    /// Share of one shard in the node's budget.
    pub(crate) fn new(total_bytes: usize, shards: usize, counters: Arc<Counters>) -> Self {
        Self { share_bytes: total_bytes / shards.max(1), counters }
    }

    /// Counts bytes that were queued for a blocked client.
    pub(crate) fn queued(&self, bytes: usize) {
        self.counters.outbox_bytes.follow(0, bytes);
    }

    /// Counts a change of a client's outbox, if its socket takes no more.
    pub(crate) fn outbox_changed(&self, client: &Client, before: usize) {
        if client.is_flushing {
            self.counters.outbox_bytes.follow(before, client.outbox.bytes());
        }
    }

    /// Counts a change of what is kept for a client until it acknowledges it.
    pub(crate) fn replay_changed(&self, before: usize, after: usize) {
        self.counters.replay_bytes.follow(before, after);
    }

    /// Bytes that must go to get well below the share; 0 within it.
    pub(crate) fn excess_bytes(&self) -> usize {
        let waiting = self.counters.outbox_bytes.get().saturating_add(self.counters.replay_bytes.get());
        let waiting = usize::try_from(waiting).unwrap_or(usize::MAX);
        if waiting > self.share_bytes { waiting - (self.share_bytes - self.share_bytes / FREED_PART) } else { 0 }
    }
}

/// Smallest number of clients whose outboxes hold these bytes together: the largest first.
pub(crate) fn largest(mut waiting: Vec<(usize, Slot)>, mut excess: usize) -> Vec<Slot> {
    waiting.sort_unstable_by(|one, other| other.cmp(one));
    let chosen = waiting.into_iter().take_while(|(bytes, _)| {
        let is_needed = excess > 0;
        excess = excess.saturating_sub(*bytes);
        is_needed
    });
    chosen.map(|(_, slot)| slot).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_outboxes_go_first_and_no_more_than_needed() {
        let waiting = || vec![(10, 1), (500, 2), (30, 3), (400, 4)];
        assert_eq!(largest(waiting(), 0), [0; 0]);
        assert_eq!(largest(waiting(), 1), [2]);
        assert_eq!(largest(waiting(), 900), [2, 4]);
        assert_eq!(largest(waiting(), 901), [2, 4, 3]);
        assert_eq!(largest(waiting(), usize::MAX), [2, 4, 3, 1]);
    }

    #[test]
    fn a_share_that_is_passed_is_undercut_by_an_eighth() {
        let budget = OutboxBudget::new(1600, 2, Arc::default());
        budget.queued(800);
        assert_eq!(budget.excess_bytes(), 0);
        budget.queued(1);
        assert_eq!(budget.excess_bytes(), 101);
    }
}
