//! Sends of many clients' frames by one system call, ahead of the one that each socket would take.
//!
//! It is there to spare, not to decide: what it does not write (a socket that is full or gone, a few sockets, a system
//! that refuses a ring) is left in the outboxes, and written or refused from there as ever.

use std::ops::Range;

use slab::Slab;
use trunkline_vectored::SendRing;

use crate::shard::connection::Client;
use crate::shard::delivery::outbox::Outbox;
use crate::shard::delivery::outbox_budget::OutboxBudget;
use crate::shard::slot::Slot;

/// Fewest sockets for which a ring is worth its own price.
const SOCKETS_MIN: usize = 8;

/// TLS records of one call, beyond which further clients are served by themselves.
const SEALED_MAX_BYTES: usize = 1024 * 1024;

/// Room for records that is kept for the next call.
const SEALED_KEPT_BYTES: usize = 256 * 1024;

/// Where the bytes of one send are.
#[derive(Debug)]
pub(crate) enum OneSend {
    /// In the client's outbox, as they leave.
    Outbox,
    /// Among the TLS records of the call.
    Sealed(Range<usize>),
}

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
        sends: Vec<(Slot, OneSend)>,
        /// TLS records of the call, one client behind the other.
        sealed: Vec<u8>,
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
            *self = SendRing::new().map_or(Self::Off, |ring| Self::On {
                ring: Box::new(ring),
                sends: Vec::new(),
                sealed: Vec::new(),
            });
        }
        matches!(self, Self::On { .. })
    }

    /// Writes deferred frames of clients, as far as they have sockets of the system that take them.
    pub(crate) fn write(&mut self, clients: &mut Slab<Client>, dirty: &[Slot], budget: &OutboxBudget) {
        if !self.are_worth(dirty.len()) {
            return;
        }
        let Self::On { ring, sends, sealed } = self else { return };
        sends.clear();
        sealed.clear();
        for &slot in dirty {
            // No client twice: its frames would leave twice.
            if let Some(client) = clients.get_mut(slot as usize)
                && client.wire_mut().take_deferred()
                && let Some(send) = prepare(client, sealed, budget)
            {
                sends.push((slot, send));
            }
        }
        let listed = sends.iter().filter_map(|(slot, send)| {
            let client = clients.get(*slot as usize)?;
            let (outbox, records) = match send {
                OneSend::Outbox => (Some(client.wire().outbox()), None),
                OneSend::Sealed(range) => (None, sealed.get(range.clone())),
            };
            Some((client.wire().socket().descriptor()?, outbox.into_iter().flat_map(Outbox::slices).chain(records)))
        });
        let sent = ring.send_many(listed);
        for ((slot, send), sent) in sends.iter().zip(sent) {
            if let Some(client) = clients.get_mut(*slot as usize) {
                settle(client, send, sealed, sent.unwrap_or(0), budget);
            }
        }
        if sealed.capacity() > SEALED_KEPT_BYTES {
            *sealed = Vec::new();
        }
    }
}

/// Makes the bytes of a client ready to be sent; `None` when it has to be served by itself.
fn prepare(client: &mut Client, sealed: &mut Vec<u8>, budget: &OutboxBudget) -> Option<OneSend> {
    client.wire().socket().descriptor()?;
    if !client.wire().socket().is_sealed() {
        return Some(OneSend::Outbox);
    }
    let begin = sealed.len();
    if begin > SEALED_MAX_BYTES {
        return None;
    }
    let before = client.wire().bytes();
    let taken = client.wire_mut().seal(sealed);
    budget.outbox_changed(client, before);
    taken.ok()?;
    Some(OneSend::Sealed(begin..sealed.len()))
}

/// Notes how many bytes a socket took; what it did not take waits there.
fn settle(client: &mut Client, send: &OneSend, sealed: &[u8], bytes: usize, budget: &OutboxBudget) {
    match send {
        OneSend::Outbox => {
            let before = client.wire().bytes();
            client.wire_mut().advance(bytes);
            budget.outbox_changed(client, before);
        }
        OneSend::Sealed(range) => {
            let records = sealed.get(range.clone()).unwrap_or_default();
            client.wire().socket().keep_unsent(records.get(bytes..).unwrap_or_default());
        }
    }
}
