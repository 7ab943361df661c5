//! Unfinished messages of a shard's clients: each has its time to end, and all together have a budget.
//!
//! Only clients with an unfinished message are listed, so an idle client and one whose messages come whole cost
//! nothing. A message may take [`MESSAGE_TIMEOUT_S`], and longer as long as it comes fast enough for a slow uplink;
//! time in which its client is not read does not count. Beyond the budget the clients with the most are closed, as slow
//! readers are. Each shard has an equal share of the node's budget.

use std::collections::HashMap;
use std::sync::Arc;

use super::connection::Connections;
use super::slot::{Serial, Slot};
use crate::metrics::Counters;

/// Time for a message to end, in seconds.
pub(super) const MESSAGE_TIMEOUT_S: u32 = 30;

/// Bytes of a message that pay for a further second: the pace of a poor mobile uplink.
const BYTES_PER_SECOND: usize = 16 * 1024;

/// Fraction of the share that is made free at once: finding the largest messages is a pass over all unfinished ones.
const FREED_PART: usize = 8;

/// State of the message that a client has begun, after a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MessageRest {
    /// Memory that it takes; 0 if no message is unfinished.
    pub bytes: usize,
    /// Number of the message among those of the client that took several reads.
    pub number: u32,
    /// Whether whole messages are among the bytes, which wait for an app server.
    pub is_held: bool,
}

/// Unfinished messages of a shard's clients.
#[derive(Debug)]
pub(crate) struct UnfinishedMessages {
    share_bytes: usize,
    counters: Arc<Counters>,
    of_clients: HashMap<Slot, Unfinished>,
}

#[derive(Debug)]
struct Unfinished {
    serial: Serial,
    rest: MessageRest,
    /// Tick at which it began, later by each tick in which its client was not read.
    since: u32,
}

impl Unfinished {
    fn is_overdue(&self, now: u32) -> bool {
        let earned = u32::try_from(self.rest.bytes / BYTES_PER_SECOND).unwrap_or(u32::MAX);
        now.saturating_sub(self.since) >= MESSAGE_TIMEOUT_S.saturating_add(earned)
    }
}

impl UnfinishedMessages {
    /// Share of one shard in the node's budget.
    pub(super) fn new(total_bytes: usize, shards: usize, counters: Arc<Counters>) -> Self {
        Self { share_bytes: total_bytes / shards.max(1), counters, of_clients: HashMap::new() }
    }

    /// Notes what a read has left of the client in this slot.
    pub(crate) fn note(&mut self, (slot, serial): (Slot, Serial), rest: MessageRest, now: u32) {
        if rest.bytes == 0 {
            return self.forget(slot, serial);
        }
        let kept = self.of_clients.entry(slot).or_insert(Unfinished { serial, rest: MessageRest::NONE, since: now });
        if (kept.serial, kept.rest.number) != (serial, rest.number) {
            (kept.serial, kept.since) = (serial, now);
        }
        self.counters.unfinished_bytes.follow(kept.rest.bytes, rest.bytes);
        kept.rest = rest;
    }

    /// Forgets the client in this slot, whose messages are whole or gone.
    pub(crate) fn forget(&mut self, slot: Slot, serial: Serial) {
        if self.of_clients.get(&slot).is_some_and(|kept| kept.serial == serial)
            && let Some(gone) = self.of_clients.remove(&slot)
        {
            self.counters.unfinished_bytes.follow(gone.rest.bytes, 0);
        }
    }

    /// Lets a second pass; returns the clients whose messages have not ended in time.
    pub(super) fn advance(&mut self, connections: &Connections, now: u32) -> Vec<Slot> {
        let mut overdue = Vec::new();
        for (slot, kept) in &mut self.of_clients {
            let Some(client) = connections.live(*slot).filter(|client| client.serial == kept.serial) else { continue };
            if kept.rest.is_held || !client.pause_reasons().are_none() {
                kept.since = kept.since.saturating_add(1);
            } else if kept.is_overdue(now) {
                overdue.push(*slot);
            }
        }
        if self.of_clients.is_empty() && self.of_clients.capacity() > 0 {
            self.of_clients = HashMap::new();
        }
        overdue
    }

    /// Bytes that must go to get well below the share; 0 within it.
    pub(crate) fn excess_bytes(&self) -> usize {
        let kept = usize::try_from(self.counters.unfinished_bytes.get()).unwrap_or(usize::MAX);
        if kept > self.share_bytes { kept - (self.share_bytes - self.share_bytes / FREED_PART) } else { 0 }
    }

    /// Sizes of all unfinished messages.
    pub(super) fn sizes(&self) -> Vec<(usize, Slot)> {
        self.of_clients.iter().map(|(slot, kept)| (kept.rest.bytes, *slot)).collect()
    }
}

impl MessageRest {
    const NONE: Self = Self { bytes: 0, number: 0, is_held: false };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rest(bytes: usize, number: u32) -> MessageRest {
        MessageRest { bytes, number, is_held: false }
    }

    #[test]
    fn all_unfinished_messages_together_have_a_budget_that_is_undercut_by_an_eighth() {
        let mut messages = UnfinishedMessages::new(1600, 2, Arc::default());
        messages.note((1, 1), rest(500, 0), 1);
        messages.note((2, 2), rest(300, 0), 1);
        assert_eq!(messages.excess_bytes(), 0);
        messages.note((2, 2), rest(301, 0), 2);
        assert_eq!(messages.excess_bytes(), 101);
        messages.forget(1, 9);
        assert_eq!(messages.excess_bytes(), 101, "another connection has the slot by now");
        messages.note((1, 1), rest(0, 1), 2);
        assert_eq!((messages.excess_bytes(), messages.sizes()), (0, vec![(301, 2)]));
    }

    #[test]
    fn a_message_has_thirty_seconds_and_longer_while_it_comes() {
        let began = |bytes| Unfinished { serial: 1, rest: rest(bytes, 0), since: 100 };
        assert!(!began(1).is_overdue(129) && began(1).is_overdue(130));
        assert!(!began(10 * BYTES_PER_SECOND).is_overdue(139) && began(10 * BYTES_PER_SECOND).is_overdue(140));
        let mut messages = UnfinishedMessages::new(1600, 1, Arc::default());
        messages.note((1, 1), rest(5, 0), 100);
        messages.note((1, 1), rest(9, 0), 110);
        assert_eq!(messages.of_clients[&1].since, 100);
        messages.note((1, 1), rest(9, 1), 120);
        assert_eq!(messages.of_clients[&1].since, 120, "the next message has its own time");
    }
}
