//! Budget of all outboxes of a shard: beyond it, the clients with the largest ones are closed.
//!
//! Only the bytes of clients whose sockets take no more count, and only changes of them cost something; a client that
//! keeps up costs nothing. Each shard has an equal share of the node's budget, so none has to know of the others.

use std::sync::Arc;

use crate::bounded::ByteBudget;
use crate::config::OutboxLimits;
use crate::metrics::Counters;
use crate::shard::connection::Client;

/// Fraction of a slow client's limit that is made free in one go.
const DROPPED_PART: usize = 8;

/// Budget of the outboxes of one shard, with the limit of each.
#[derive(Debug)]
pub(crate) struct OutboxBudget {
    /// Limit of one client's outbox.
    limit_bytes: usize,
    budget: ByteBudget,
    counters: Arc<Counters>,
}

impl OutboxBudget {
    /// Share of one shard in the node's budget.
    pub(crate) fn new(limits: &OutboxLimits, shards: usize, counters: Arc<Counters>) -> Self {
        let budget = ByteBudget::share_of(limits.total_bytes, shards);
        Self { limit_bytes: limits.client_bytes, budget, counters }
    }

    /// Limit of one client's outbox.
    #[must_use]
    #[inline]
    pub(crate) fn limit_bytes(&self) -> usize {
        self.limit_bytes
    }

    /// Whether a frame of so many bytes may wait for a client; makes room for it if need be.
    #[inline]
    pub(crate) fn has_room(&self, client: &mut Client, bytes: usize) -> bool {
        self.fits(client.wire().bytes(), bytes) || self.make_room(client, bytes)
    }

    /// Whether a frame fits. A frame of any size fits into an empty outbox: the limit is for clients that do not read,
    /// and an empty outbox has offered its client nothing yet.
    #[inline]
    pub(crate) fn fits(&self, waiting: usize, bytes: usize) -> bool {
        waiting == 0 || waiting + bytes <= self.limit_bytes
    }

    /// Drops droppable frames, some more than is needed, so that not every frame has to do it again.
    #[cold]
    fn make_room(&self, client: &mut Client, bytes: usize) -> bool {
        let before = client.wire().bytes();
        if client.traits().may_miss {
            let missing = (before + bytes).saturating_sub(self.limit_bytes);
            let dropped = client.wire_mut().drop_oldest(missing.max(self.limit_bytes / DROPPED_PART));
            self.counters.dropped.add(dropped.frames);
        }
        self.outbox_changed(client, before);
        self.fits(client.wire().bytes(), bytes)
    }

    /// Discards the outbox of a client.
    pub(crate) fn discard(&self, client: &mut Client) {
        let before = client.wire().bytes();
        client.wire_mut().discard();
        self.outbox_changed(client, before);
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
