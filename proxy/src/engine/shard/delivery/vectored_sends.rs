//! Vectored sends: frames of many clients in one system call, instead of one call per socket.
//!
//! An optimisation only: other data (sockets that are full or closed, too few sockets, no io_uring) is written from the
//! outboxes as usual.

use std::ops::Range;

use slab::Slab;
use trunkline_vectored::SendRing;

use crate::engine::shard::connection::Client;
use crate::engine::shard::delivery::outbox::Outbox;
use crate::engine::shard::delivery::outbox_budget::OutboxBudget;
use crate::engine::shard::slot::Slot;

/// Minimum number of sockets for which a ring pays off.
const SOCKETS_MIN: usize = 8;

/// Maximum bytes of TLS records per call. Further clients are written individually.
const SEALED_MAX_BYTES: usize = 1024 * 1024;

/// Capacity for records that is kept for the next call.
const SEALED_KEPT_BYTES: usize = 256 * 1024;

/// Location of the bytes of one send.
#[derive(Debug)]
pub(crate) enum OneSend {
    /// In the client's outbox, unchanged.
    Outbox,
    /// In the TLS records of the call.
    Sealed(Range<usize>),
}

#[derive(Debug)]
pub(crate) enum VectoredSends {
    /// Disabled, or refused by the system.
    Off,
    /// Enabled but not needed yet.
    Wanted,
    On {
        ring: Box<SendRing>,
        /// Clients of one call; the list is reused.
        sends: Vec<(Slot, OneSend)>,
        /// TLS records of the call, client after client.
        sealed: Vec<u8>,
    },
}

impl VectoredSends {
    pub(crate) fn new(is_wanted: bool) -> Self {
        if is_wanted { Self::Wanted } else { Self::Off }
    }

    /// Whether vectored sends pay off for this number of clients.
    pub(crate) fn are_worth(&mut self, clients: usize) -> bool {
        if clients < SOCKETS_MIN {
            return false;
        }
        if let Self::Wanted = self {
            // Support was tested and logged when the node started.
            *self = SendRing::new().map_or(Self::Off, |ring| Self::On {
                ring: Box::new(ring),
                sends: Vec::new(),
                sealed: Vec::new(),
            });
        }
        matches!(self, Self::On { .. })
    }

    /// Writes deferred frames of clients with writable system sockets.
    pub(crate) fn write(&mut self, clients: &mut Slab<Client>, dirty: &[Slot], budget: &OutboxBudget) {
        if !self.are_worth(dirty.len()) {
            return;
        }
        let Self::On { ring, sends, sealed } = self else { return };
        sends.clear();
        sealed.clear();
        for &slot in dirty {
            // Skips duplicates, which would send the frames twice.
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

/// Prepares a client's bytes for sending; `None` if the client has to be written individually.
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

/// Records the number of bytes written; the rest stays queued.
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
