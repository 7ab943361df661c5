//! Slow clients: clients with an outbox over its limit, and clients for which an app server waits or is paused.
//!
//! ```text
//!  socket full ──► listed ──outbox empty──► not listed
//!  frame ──over --outbox-max-bytes──► listed ──reads enough──► not listed
//!  mark  ──more than a little queued──►  │
//!                                        └──reads nothing for --slow-client-timeout──► closed
//! ```
//!
//! A client that keeps reading may exceed its outbox limit within the total budget, so that a large reply or a burst
//! does not close a healthy connection. Its calls are not read meanwhile: their answers would be queued, too.
//!
//! An app server sends marks ([`DownMark`]) in its data for one client and waits for their confirmation: when little
//! data is queued for that client. A client that is not listed costs nothing here. REST requests that send stream items
//! wait for their client in the same way.
//!
//! Microsoft's SDK lacks marks, but can pause the output of a client's own calls: results and stream items.
//!
//! ```text
//!  flowing ──256 KiB queued──► asked ──acknowledged──► paused ──less than 128 KiB queued──► flowing
//!                                └───a move starts, which needs the pause────┴──► the move resumes the client
//! ```
//!
//! Only one pause per client is in flight, so each acknowledgement belongs to one pause.

use std::collections::HashMap;
use std::sync::Arc;

use trunkline_protocol::service::{DownMark, FlowOperation, ServiceMessage};

use crate::engine::shard::connection::{Client, Connections, PauseReason, flow};
use crate::engine::shard::slot::Slot;
use crate::engine::upstream::{AppServerId, LinkId, ReplyTo};

/// Queued bytes below which marks are confirmed. An SDK sends up to 256 KiB beyond its confirmed bytes, so the
/// client has data to read while the confirmation and new data are in flight.
const CONFIRMED_BELOW_BYTES: usize = 128 * 1024;

/// Queued bytes above which an app server without marks is asked to pause the client.
pub(super) const PAUSED_ABOVE_BYTES: usize = 256 * 1024;

/// Maximum number of REST requests that wait for one client. A further one ends the longest wait.
const REST_MARKS_MAX: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct SlowClients {
    clients: HashMap<Slot, SlowClient>,
    /// Clients with new marks since the last [`settle_marked`](Self::settle_marked).
    marked: Vec<Slot>,
    /// Tick of the last check.
    now: u32,
}

#[derive(Debug)]
struct SlowClient {
    /// Tick of the last progress, or of the listing.
    since: u32,
    has_taken: bool,
    /// Last mark from each app server of the client, and the mark of each waiting REST request.
    marks: Vec<(Arc<dyn ReplyTo>, i64)>,
    /// Pause at the client's primary.
    pause: Option<Pause>,
}

/// Pause requested from an app server over this link.
#[derive(Debug, Clone, Copy)]
struct Pause {
    link: LinkId,
    is_acknowledged: bool,
}

impl SlowClients {
    pub(super) fn new(now: u32) -> Self {
        Self { now, ..Self::default() }
    }

    #[inline]
    pub(crate) fn has_marked(&self) -> bool {
        !self.marked.is_empty()
    }

    /// Lists a client with a full socket.
    pub(super) fn block(&mut self, slot: Slot, client: &mut Client) {
        self.exceed(slot, client, self.now);
    }

    /// Lists a client with an outbox over its limit.
    pub(crate) fn exceed(&mut self, slot: Slot, client: &mut Client, now: u32) {
        if !client.wire().is_slow() {
            self.list(slot, client, now);
        }
    }

    /// Asks a client's primary to pause it if much data is queued.
    #[cold]
    #[inline(never)]
    pub(super) fn pause(&mut self, slot: Slot, client: &mut Client, now: u32) {
        let is_settled = !client.cold().stay().is_moving()
            && !client.cold().stay().is_fixed()
            && !client.cold().stay().is_uncertain(now)
            && !client.assignments().home().is_leaving()
            && !client.is_in_transit();
        if !client.home().capabilities.pauses_output || !is_settled || !client.life().is_open() {
            return;
        }
        let pause = &mut self.list(slot, client, now).pause;
        let home = client.home();
        if pause.is_none_or(|pause| pause.link != home.id) {
            home.send(&flow(&client.id, FlowOperation::Pause));
            *pause = Some(Pause { link: home.id, is_acknowledged: false });
        }
    }

    /// Handles the acknowledgement of a pause. Returns `false` if it belongs to a move.
    pub(crate) fn pause_acknowledged(
        &mut self,
        slot: Slot,
        client: &mut Client,
        by: LinkId,
        limit_bytes: usize,
    ) -> bool {
        let entry = self.entry(slot, client);
        let Some(pause) = entry.and_then(|entry| entry.pause.as_mut()).filter(|pause| pause.link == by) else {
            return false;
        };
        pause.is_acknowledged = true;
        self.settle(slot, client, limit_bytes);
        true
    }

    /// Transfers a client's pause to a move, which resumes the client. Returns whether the pause is
    /// acknowledged; `None` if none was requested.
    pub(crate) fn take_pause(&mut self, slot: Slot, client: &Client) -> Option<bool> {
        let pause = self.entry(slot, client)?.pause.take().filter(|pause| pause.link == client.home().id);
        pause.map(|pause| pause.is_acknowledged)
    }

    pub(crate) fn mark(
        &mut self,
        slot: Slot,
        client: &mut Client,
        (reply_to, mut number): (Arc<dyn ReplyTo>, i64),
        now: u32,
    ) {
        let (marks, app) = (&mut self.list(slot, client, now).marks, reply_to.app());
        let kept_max = if app == AppServerId::OTHER_NODE { REST_MARKS_MAX } else { 1 };
        let is_of_same = |(other, _): &(Arc<dyn ReplyTo>, i64)| other.app() == app;
        if marks.iter().filter(|mark| is_of_same(mark)).count() >= kept_max
            && let Some(first) = marks.iter().position(is_of_same)
        {
            number = number.max(marks.remove(first).1);
        }
        marks.push((reply_to, number));
        self.marked.push(slot);
    }

    fn list(&mut self, slot: Slot, client: &mut Client, now: u32) -> &mut SlowClient {
        if !client.wire().is_slow() {
            // The entry of an earlier client in this slot is of no use.
            self.clients.remove(&slot);
            client.wire_mut().set_slow(true);
        }
        let listed = || SlowClient { since: now, has_taken: false, marks: Vec::new(), pause: None };
        self.clients.entry(slot).or_insert_with(listed)
    }

    /// Entry of a slow client; the flag in its wire excludes an entry of an earlier client in this slot.
    fn entry(&mut self, slot: Slot, client: &Client) -> Option<&mut SlowClient> {
        self.clients.get_mut(&slot).filter(|_| client.wire().is_slow())
    }

    /// Confirms the marks of a batch after its data was written as far as possible.
    pub(crate) fn settle_marked(&mut self, connections: &mut Connections, limit_bytes: usize) {
        for slot in std::mem::take(&mut self.marked) {
            if let Some(client) = connections.get_mut(slot) {
                self.settle(slot, client, limit_bytes);
            }
        }
    }

    /// Records that a slow client has read data.
    pub(crate) fn progressed(&mut self, slot: Slot, client: &mut Client, limit_bytes: usize) {
        if let Some(entry) = self.entry(slot, client) {
            entry.has_taken = true;
        }
        self.settle(slot, client, limit_bytes);
    }

    /// Confirms a client's marks if little data is queued. Removes the client from the list if it is no longer
    /// slow.
    fn settle(&mut self, slot: Slot, client: &mut Client, limit_bytes: usize) {
        let now = self.now;
        let Some(entry) = self.entry(slot, client) else { return };
        let waiting = waiting_bytes(client);
        // A pause over an earlier link has ended with that link.
        entry.pause = entry.pause.filter(|pause| pause.link == client.home().id);
        if waiting < CONFIRMED_BELOW_BYTES {
            for (reply_to, number) in entry.marks.drain(..) {
                let connection_id = (&*client.id).into();
                reply_to.answer(&ServiceMessage::DownDone(DownMark { connection_id, number }));
            }
            if entry.pause.take_if(|pause| pause.is_acknowledged).is_some() {
                client.home().send(&flow(&client.id, FlowOperation::Resume));
            }
        }
        if client.wire().bytes() <= limit_bytes {
            client.resume(PauseReason::UnreadAnswers, now);
        }
        let is_blocked = client.wire().is_flushing() || waiting > limit_bytes;
        if entry.marks.is_empty() && entry.pause.is_none() && !is_blocked {
            self.clients.remove(&slot);
            client.wire_mut().set_slow(false);
        }
    }

    /// Removes clients from the list that are no longer slow. Returns those without progress for `timeout`
    /// ticks.
    pub(crate) fn stalled(
        &mut self,
        connections: &mut Connections,
        limit_bytes: usize,
        (now, timeout): (u32, u32),
    ) -> Vec<Slot> {
        self.now = now;
        let listed: Vec<_> = self.clients.keys().copied().collect();
        let mut stalled = Vec::new();
        for slot in listed {
            let Some(client) = connections.live_mut(slot).filter(|client| client.wire().is_slow()) else {
                self.clients.remove(&slot);
                continue;
            };
            self.settle(slot, client, limit_bytes);
            // Clients without a socket, and clients between two polls, have other deadlines. Clients that may miss
            // messages are closed only over the limit.
            let waiting = waiting_bytes(client);
            let has_nothing = waiting == 0 && !client.wire().is_flushing();
            let is_lossy = client.traits().may_miss && waiting <= limit_bytes;
            let may_wait = client.is_away() || client.liveness().is_inherent || has_nothing || is_lossy;
            let Some(entry) = self.clients.get_mut(&slot) else { continue };
            if std::mem::take(&mut entry.has_taken) || may_wait {
                entry.since = now;
            } else if now.saturating_sub(entry.since) >= timeout {
                stalled.push(slot);
            }
        }
        stalled
    }
}

/// Bytes queued for a client. Unacknowledged data counts only while the client is read: the acknowledgement may be
/// behind messages that its app server does not accept while it waits for this client.
fn waiting_bytes(client: &Client) -> usize {
    let is_read = client.pauses().is_empty() || client.is_away();
    let resumption = client.cold().resumption().filter(|_| is_read);
    client.wire().bytes() + resumption.map_or(0, |resumption| resumption.ownership().bytes())
}
