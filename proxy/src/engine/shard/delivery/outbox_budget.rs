//! Budget of all outboxes of a shard. Above it, the clients with the largest outboxes are closed.
//!
//! Only bytes for full sockets count, and only their changes are tracked, so a client that keeps up costs nothing. Each
//! shard has an equal share of the node's budget.

use std::sync::Arc;

use crate::engine::shard::connection::Client;
use crate::ground::bounded::ByteBudget;
use crate::ground::config::OutboxLimits;
use crate::ground::metrics::Counters;

/// Fraction of a slow client's limit to free in one pass.
const DROPPED_PART: usize = 8;

#[derive(Debug)]
pub(crate) struct OutboxBudget {
    /// Maximum bytes of one client's outbox.
    pub(crate) limit_bytes: usize,
    budget: ByteBudget,
    counters: Arc<Counters>,
}

impl OutboxBudget {
    pub(crate) fn new(limits: &OutboxLimits, shards: usize, counters: Arc<Counters>) -> Self {
        let budget = ByteBudget::share_of(limits.total_bytes, shards);
        Self { limit_bytes: limits.client_bytes, budget, counters }
    }

    /// Whether a frame of this size may be queued, after making room if necessary.
    #[inline]
    pub(crate) fn has_room(&self, client: &mut Client, bytes: usize) -> bool {
        self.fits(client.wire().bytes(), bytes) || self.make_room(client, bytes)
    }

    /// Whether a frame fits. A frame of any size fits into an empty outbox: the limit is for clients that don't read,
    /// and an empty outbox has offered nothing yet.
    #[inline]
    pub(crate) fn fits(&self, waiting: usize, bytes: usize) -> bool {
        waiting == 0 || waiting + bytes <= self.limit_bytes
    }

    /// Drops droppable frames, more than required, so that not every frame repeats this.
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

    pub(crate) fn discard(&self, client: &mut Client) {
        let before = client.wire().bytes();
        client.wire_mut().discard();
        self.outbox_changed(client, before);
    }

    /// Counts bytes queued for a full socket.
    pub(crate) fn queued(&self, bytes: usize) {
        self.counters.outbox_bytes.follow(0, bytes);
    }

    /// Counts a change of a client's outbox if its socket is full.
    pub(crate) fn outbox_changed(&self, client: &Client, before: usize) {
        if client.wire().is_flushing() {
            self.counters.outbox_bytes.follow(before, client.wire().bytes());
        }
    }

    /// Counts a change of the data kept for a client until it acknowledges.
    pub(crate) fn replay_changed(&self, before: usize, after: usize) {
        self.counters.replay_bytes.follow(before, after);
    }

    /// Bytes to free to get well below the share; 0 within it.
    pub(crate) fn excess_bytes(&self) -> usize {
        let waiting = self.counters.outbox_bytes.get().saturating_add(self.counters.replay_bytes.get());
        self.budget.excess(waiting)
    }
}
