//! Sends of many clients' frames by one system call, ahead of the one that each socket would take.
//!
//! It is there to spare, not to decide: what it does not write (a socket that is full or gone, a few sockets, a system
//! that refuses a ring) is left in the outboxes, and written or refused from there as ever.

use slab::Slab;
use trunkline_vectored::SendRing;

use crate::shard::connection::Client;
use crate::shard::delivery::outbox_budget::OutboxBudget;
use crate::shard::slot::Slot;

/// Fewest sockets for which a ring is worth its own price.
const SOCKETS_MIN: usize = 8;

/// Vectored sends of one shard.
#[derive(Debug)]
pub(crate) enum VectoredSends {
    /// Not wanted, or refused by the system.
    Off,
    /// Wanted; nobody needed them so far.
    Wanted,
    On {
        ring: Box<SendRing>,
        /// Clients of one call; the list is used again.
        slots: Vec<Slot>,
    },
}

impl VectoredSends {
    pub(crate) fn new(is_wanted: bool) -> Self {
        if is_wanted { Self::Wanted } else { Self::Off }
    }

    /// Whether frames for so many clients leave sooner if they are gathered.
    pub(crate) fn are_worth(&mut self, clients: usize) -> bool {
        if clients < SOCKETS_MIN {
            return false;
        }
        if let Self::Wanted = self {
            // Whether it can be made was found out, and logged, when the node started.
            *self = SendRing::new().map_or(Self::Off, |ring| Self::On { ring: Box::new(ring), slots: Vec::new() });
        }
        matches!(self, Self::On { .. })
    }

    /// Writes deferred frames of clients, as far as they have plain sockets that take them.
    pub(crate) fn write(&mut self, clients: &mut Slab<Client>, dirty: &[Slot], budget: &OutboxBudget) {
        if !self.are_worth(dirty.len()) {
            return;
        }
        let Self::On { ring, slots } = self else { return };
        slots.clear();
        for &slot in dirty {
            // No client twice: its frames would leave twice.
            if let Some(client) = clients.get_mut(slot as usize)
                && std::mem::take(&mut client.is_dirty)
                && !client.outbox.is_empty()
                && client.socket.plain().is_some()
            {
                slots.push(slot);
            }
        }
        let send_of = |slot: Slot| {
            let client = clients.get(slot as usize)?;
            Some((client.socket.plain()?, client.outbox.slices()))
        };
        let sent = ring.send_many(slots.iter().filter_map(|&slot| send_of(slot)));
        for (&slot, sent) in slots.iter().zip(sent) {
            if let (Some(client), Ok(bytes)) = (clients.get_mut(slot as usize), sent) {
                let before = client.outbox.bytes();
                client.outbox.advance(bytes);
                budget.outbox_changed(client, before);
            }
        }
    }
}
