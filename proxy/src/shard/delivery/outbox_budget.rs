//! Budget of all outboxes of a shard: beyond it, the clients with the largest ones are closed.
//!
//! Only the bytes of clients whose sockets take no more count, and only changes of them cost something; a client that
//! keeps up costs nothing. Each shard has an equal share of the node's budget, so none has to know of the others.

use std::sync::Arc;

use crate::bounded::ByteBudget;
use crate::metrics::Counters;
use crate::shard::connection::Client;

/// Budget of the outboxes of one shard.
#[derive(Debug)]
pub(crate) struct OutboxBudget {
    budget: ByteBudget,
    counters: Arc<Counters>,
}

impl OutboxBudget {
    /// Share of one shard in the node's budget.
    pub(crate) fn new(total_bytes: usize, shards: usize, counters: Arc<Counters>) -> Self {
        Self { budget: ByteBudget::share_of(total_bytes, shards), counters }
    }

    /// Counts bytes that were queued for a blocked client.
    pub(crate) fn queued(&self, bytes: usize) {
        self.counters.outbox_bytes.follow(0, bytes);
    }

    /// Counts a change of a client's outbox, if its socket takes no more.
    pub(crate) fn outbox_changed(&self, client: &Client, before: usize) {
        if client.wire().is_flushing() {
            self.counters.outbox_bytes.follow(before, client.wire().bytes());
        }
    }

    /// Counts a change of what is kept for a client until it acknowledges it.
    pub(crate) fn replay_changed(&self, before: usize, after: usize) {
        self.counters.replay_bytes.follow(before, after);
    }

    /// Bytes that must go to get well below the share; 0 within it.
    pub(crate) fn excess_bytes(&self) -> usize {
        let waiting = self.counters.outbox_bytes.get().saturating_add(self.counters.replay_bytes.get());
        self.budget.excess(waiting)
    }
}
