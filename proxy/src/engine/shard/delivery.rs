//! Delivery of frames to clients: members of a set → outbox → socket.
//!
//! The hot path of the proxy. Nothing here waits, locks, or allocates per recipient: a payload is encoded once by the
//! app server, framed once when its link is read, and shared by all receivers. It is written directly to a recipient
//! with an empty outbox, otherwise queued within a budget.

pub(super) mod framed;
pub(super) mod gathering;
pub(super) mod message_counter;
pub(super) mod outbox;
pub(super) mod outbox_budget;
pub(super) mod send_run;
pub(super) mod slow_client;
pub(super) mod vectored_sends;

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::vec::Drain;
use std::{io, mem};

use bytes::Bytes;
use slab::Slab;
use tokio::time::Instant;
use trunkline_protocol::fleet::Placement;

use super::command::audience::SendOrigin;
use super::command::{Audience, Receivers};
use super::connection::{Client, Connections, PauseReason, SetName};
use super::shard_context::FIRST_TICK;
use super::slot::{Serial, Slot};
use super::tap::{Recipients, Tap, Taps};
use crate::engine::transport::websocket;
use crate::engine::upstream::HubIndex;
use crate::ground::config::OutboxLimits;
use crate::ground::metrics::Counters;
use framed::{Compression, WireFrame};
use gathering::{Gathering, WINDOW};
use message_counter::{MessageCounter, is_close};
use outbox::Need;
use outbox_budget::OutboxBudget;
use send_run::{ReceiverTally, SendRun};
use slow_client::{PAUSED_ABOVE_BYTES, SlowClients};
use vectored_sends::VectoredSends;

/// When the frames of a batch are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flush {
    /// Immediately: the batch has a single frame.
    Now,
    /// In one system call per recipient, at the end of the batch or once a few hundred clients have frames.
    Deferred,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchMode {
    pub flush: Flush,
    pub now: u32,
}

/// Effects of deliveries, handled at the end of a batch. The lists are reused.
#[derive(Debug, Default)]
struct Effects {
    /// Clients with deferred frames.
    dirty: Vec<Slot>,
    /// Clients with full sockets.
    blocked: Vec<Slot>,
    /// Clients to be closed: too many early messages, or no socket and over the limit.
    slow: Vec<Slot>,
    /// Clients with an outbox that a new task has to flush.
    flush_tasks: Vec<(Slot, Serial)>,
    /// Clients with a hold that a task has to end.
    holds: Vec<(Slot, Serial)>,
}

/// Keeps messages that have overtaken the hub handshake response. Returns the number of messages without room.
#[cold]
fn keep_early(client: &mut Client, run: &SendRun) -> u64 {
    let content = client.content();
    let frames = run.messages().filter_map(|(message, _)| message.get(content));
    let backlog = client.cold_mut().backlog_mut();
    frames.map(|frame| u64::from(!backlog.add_frame(frame))).sum()
}

/// Whether sends reach a client: it is open, or its app server may send before answering the hub handshake.
#[inline]
pub(super) fn may_receive(client: &Client) -> bool {
    let is_early = || client.home().capabilities.may_send_early && !client.is_unassigned();
    client.life().is_open() || (client.life().is_opening() && is_early())
}

/// Run of sends to sets of clients.
#[derive(Debug, Clone, Copy)]
struct SetSend<'a> {
    hub: HubIndex,
    /// Epoch of the send's exclusions.
    epoch: u64,
    run: &'a SendRun,
    mode: BatchMode,
}

#[derive(Debug)]
pub(crate) struct Delivery {
    counters: Arc<Counters>,
    pub(super) budget: OutboxBudget,
    messages: MessageCounter,
    gathering: Gathering,
    vectored: VectoredSends,
    compression: Compression,
    /// Origin of the send being delivered.
    origin: Option<SendOrigin>,
    effects: Effects,
    pub(super) slow: SlowClients,
    /// Tasks waiting for writable sockets.
    flushing: HashMap<Slot, Waker>,
    /// Read time of the current batch, if a tap is active.
    pub(super) read_at: Option<Instant>,
    pub(super) taps: Taps,
}

impl Delivery {
    pub(super) fn new(
        limits: &OutboxLimits,
        budget: OutboxBudget,
        counters: Arc<Counters>,
        taps: Vec<Box<dyn Tap>>,
    ) -> Self {
        Self {
            counters,
            budget,
            messages: MessageCounter::default(),
            gathering: Gathering::default(),
            vectored: VectoredSends::new(limits.vectored_sends),
            compression: Compression::new(limits),
            origin: None,
            effects: Effects::default(),
            slow: SlowClients::new(FIRST_TICK),
            flushing: HashMap::new(),
            read_at: None,
            taps: Taps::new(taps),
        }
    }

    pub(super) fn send(
        &mut self,
        connections: &mut Connections,
        hub: HubIndex,
        to: &Receivers,
        run: &SendRun,
        mode: BatchMode,
    ) {
        self.send_beside(connections, hub, (to, &[]), run, mode);
    }

    /// Sends to clients, except for the clients in `others`.
    pub(super) fn send_beside(
        &mut self,
        connections: &mut Connections,
        hub: HubIndex,
        (to, others): (&Receivers, &[Slot]),
        run: &SendRun,
        mode: BatchMode,
    ) {
        let epoch = connections.exclude(hub, to, others);
        let mut tally = ReceiverTally::default();
        let send = SetSend { hub, epoch, run, mode };
        match &to.who {
            Audience::Everyone => self.send_to_set(connections, SetName::Hub, send, &mut tally),
            Audience::Groups(names) => {
                names.iter().for_each(|name| self.send_to_set(connections, SetName::Group(name), send, &mut tally))
            }
            Audience::Users(names) => {
                names.iter().for_each(|name| self.send_to_set(connections, SetName::User(name), send, &mut tally))
            }
            Audience::Connections(ids) => ids.iter().for_each(|id| self.send_to_one(connections, id, send, &mut tally)),
        }
        self.origin = None;
        let receivers = tally.receivers();
        run.messages().for_each(|_| self.counters.send_receivers.observe(receivers));
        self.count(hub, receivers * run.len() as u64, tally.bytes(run));
        let compressed = tally.compressed_bytes(run, &mut self.compression);
        self.count_compressed(hub, compressed);
    }

    fn send_to_set(
        &mut self,
        connections: &mut Connections,
        name: SetName<'_>,
        send: SetSend<'_>,
        tally: &mut ReceiverTally,
    ) {
        // Checked once for all recipients.
        if self.taps.is_active() {
            self.tap_set(connections, name, send);
        }
        let SetSend { hub, epoch, run, mut mode } = send;
        let (members, clients) = connections.members_and_clients(hub, name);
        let leaves_in_windows = mode.flush == Flush::Now && self.vectored.are_worth(members.len());
        if leaves_in_windows {
            mode.flush = Flush::Deferred;
        }
        self.origin = run.messages().next().map(|(_, origin)| origin);
        for member in members {
            if leaves_in_windows && self.effects.dirty.len() >= WINDOW {
                self.flush_dirty(clients);
            }
            if let Some(client) = clients.get_mut(member.slot as usize)
                && may_receive(client)
                && !client.is_excluded(epoch)
                && let Some(frames) = run.frames(client.form(), &mut self.compression)
            {
                tally.add_receiver(client.form());
                if client.life().is_opening() {
                    self.counters.dropped.add(keep_early(client, run));
                } else if run.is_single() || self.takes_joined(client, frames.wire) {
                    self.put_droppable(member.slot, client, frames, mode);
                } else {
                    self.put_each(member.slot, client, run, mode);
                }
            }
        }
    }

    /// Whether a client may get the frames of a run as one. This requires an empty outbox within the limits,
    /// and no message counting.
    fn takes_joined(&self, client: &Client, frames: &Bytes) -> bool {
        client.wire().is_idle() && !client.is_resumable() && frames.len() <= self.budget.limit_bytes
    }

    /// Queues the frames of a run individually, to be flushed at the end of the batch.
    #[inline(never)]
    fn put_each(&mut self, slot: Slot, client: &mut Client, run: &SendRun, mode: BatchMode) {
        let mode = BatchMode { flush: Flush::Deferred, ..mode };
        for (frame, origin) in run.each(client.form(), &mut self.compression) {
            self.origin = Some(origin);
            self.put_droppable(slot, client, frame, mode);
        }
    }

    /// Shows a send to the taps.
    #[cold]
    fn tap_set(&mut self, connections: &Connections, name: SetName<'_>, send: SetSend<'_>) {
        let SetSend { hub, epoch, run, .. } = send;
        for (message, _) in run.messages() {
            self.taps.down_to_set(&Recipients { connections, hub, name, epoch, message }, self.read_at);
        }
    }

    fn send_to_one(&mut self, connections: &mut Connections, id: &str, send: SetSend<'_>, tally: &mut ReceiverTally) {
        let SetSend { hub, epoch, run, mode } = send;
        let Some(slot) = connections.find(hub, id) else { return };
        if let Some(client) = connections.get_mut(slot)
            && may_receive(client)
            && !client.is_excluded(epoch)
            && run.frames(client.form(), &mut self.compression).is_some()
        {
            tally.add_receiver(client.form());
            if client.life().is_opening() {
                if keep_early(client, run) > 0 {
                    self.effects.slow.push(slot);
                }
                return;
            }
            for (frame, origin) in run.each(client.form(), &mut self.compression) {
                self.origin = Some(origin);
                self.put(slot, client, frame, mode);
            }
        }
    }

    /// Updates the hub's counters once for all recipients.
    fn count(&self, hub: HubIndex, deliveries: u64, bytes: u64) {
        let counters = self.counters.hub(hub.get());
        counters.deliveries.add_alone(deliveries);
        counters.bytes_down.add_alone(bytes);
    }

    /// Updates the hub's counters of clients with compression.
    fn count_compressed(&self, hub: HubIndex, [plain, sent]: [u64; 2]) {
        if plain > 0 {
            let counters = self.counters.hub(hub.get());
            counters.compression_plain.add_alone(plain);
            counters.compression_sent.add_alone(sent);
        }
    }

    /// Sends and counts a frame from an app server that is not assigned to the client.
    pub(super) fn put_from(
        &mut self,
        slot: Slot,
        client: &mut Client,
        frame: &Bytes,
        (origin, mode): (SendOrigin, BatchMode),
    ) {
        if client.life().is_opening() {
            self.count(client.home().hub(), 1, websocket::payload_bytes(frame) as u64);
            if !client.cold_mut().backlog_mut().add_frame(frame) {
                self.effects.slow.push(slot);
            }
            return;
        }
        self.origin = Some(origin);
        self.put_counted(slot, client, (frame, None), mode);
        self.origin = None;
    }

    /// Sends and counts a frame from the client's app server to this client only; of a large frame, also with its
    /// payload compressed.
    pub(super) fn put_counted(
        &mut self,
        slot: Slot,
        client: &mut Client,
        (frame, packed): (&Bytes, Option<&Bytes>),
        mode: BatchMode,
    ) {
        let hub = client.home().hub();
        self.count(hub, 1, websocket::payload_bytes(frame) as u64);
        if client.form().is_compressed() {
            let twin = match packed {
                Some(packed) => websocket::deflated_frame(frame, packed),
                None => self.compression.deflate(frame),
            };
            let frame = WireFrame { plain: frame, wire: twin.as_ref().unwrap_or(frame) };
            self.count_compressed(hub, frame.bytes(1));
            return self.put(slot, client, frame, mode);
        }
        self.put(slot, client, frame.into(), mode);
    }

    /// Sends a frame to one client. Over the limit the frame waits, and the client is listed as slow: it is closed if
    /// it reads nothing for a time, or if all outboxes together are too large.
    pub(super) fn put(&mut self, slot: Slot, client: &mut Client, frame: WireFrame<'_>, mode: BatchMode) {
        if self.taps.is_active() {
            self.taps.down(slot, client, frame.plain, self.read_at);
        }
        if client.is_resumable() {
            self.put_resumable(slot, client, frame, mode, false);
        } else {
            self.put_now(slot, client, frame.wire, mode);
        }
    }

    fn put_now(&mut self, slot: Slot, client: &mut Client, frame: &Bytes, mode: BatchMode) {
        client.liveness_mut().sent(mode.now);
        if !self.write_now(slot, client, frame, mode) {
            if !self.budget.has_room(client, frame.len()) {
                self.slow.exceed(slot, client, mode.now);
            }
            client.wire_mut().queue(frame.clone(), Need::Must);
            self.queued(slot, client, frame.len(), mode.now);
        }
    }

    /// Sends a transport frame, such as the pongs of a read. It is below the hub protocol: it postpones no hub ping,
    /// ends no hold, is not kept for replay, and is invisible to taps. Only the newest waits (RFC 6455, 5.5.3).
    pub(super) fn put_transport(&mut self, slot: Slot, client: &mut Client, frame: &Bytes, mode: BatchMode) {
        if !self.write_now(slot, client, frame, mode) {
            let before = client.wire().bytes();
            client.wire_mut().queue(frame.clone(), Need::Control);
            self.budget.outbox_changed(client, before);
            self.queued(slot, client, 0, mode.now);
        }
    }

    /// Stops reading from a client while more than its limit is queued: each of its calls queues an answer.
    pub(super) fn pause_unread(&mut self, slot: Slot, client: &mut Client, now: u32) {
        if client.wire().bytes() > self.budget.limit_bytes {
            self.slow.exceed(slot, client, now);
            client.pauses_mut().add_reason(PauseReason::UnreadAnswers);
        }
    }

    /// Sends a frame to a resumable client. The plain frame is kept until acknowledged. The frame is written if there
    /// is a socket, and waits if the replay buffer is full. Over the outbox limit the client is slow; without a socket
    /// it is closed as too slow.
    #[inline(never)]
    fn put_resumable(
        &mut self,
        slot: Slot,
        client: &mut Client,
        WireFrame { plain: frame, wire }: WireFrame<'_>,
        mode: BatchMode,
        is_for_many: bool,
    ) {
        let messages = self.messages.count(client.content(), frame);
        if messages == 0 && is_close(client.content(), frame) {
            self.release_all(slot, client, mode);
        }
        let (waiting, serial, may_miss) = (client.wire().bytes(), client.serial(), client.traits().may_miss);
        let mut is_over = false;
        let Some(resumption) = client.cold_mut().resumption_mut() else { return };
        let ownership = resumption.ownership_mut();
        let is_here = ownership.absence().is_none();
        if messages > 0 {
            let before = ownership.bytes();
            let fits = |held: usize| {
                is_over = !self.budget.fits(waiting + held, frame.len());
                !is_over || (is_here && !(is_for_many && may_miss))
            };
            let placement = ownership.place(frame.clone(), messages, self.origin, fits);
            self.budget.replay_changed(before, ownership.bytes());
            match placement {
                Placement::Kept => {}
                Placement::Waits => {
                    if ownership.has_begun_to_wait() {
                        self.effects.holds.push((slot, serial));
                    }
                    let waiting = waiting + ownership.waiting_bytes();
                    if is_over {
                        self.slow.exceed(slot, client, mode.now);
                    }
                    if is_here && waiting > PAUSED_ABOVE_BYTES {
                        self.slow.pause(slot, client, mode.now);
                    }
                    return;
                }
                Placement::Elsewhere => return,
                Placement::TooMuch if is_for_many && may_miss => return self.counters.dropped.increment(),
                Placement::TooMuch => return self.effects.slow.push(slot),
            }
        }
        if is_here {
            self.put_now(slot, client, wire, mode);
        }
    }

    /// Handles a client's acknowledgement and releases frames held back for it.
    pub(super) fn acknowledge(&mut self, slot: Slot, client: &mut Client, sequence_id: u64, mode: BatchMode) {
        let Some(resumption) = client.cold_mut().resumption_mut() else { return };
        let before = resumption.ownership().bytes();
        resumption.ownership_mut().acknowledge(sequence_id);
        self.budget.replay_changed(before, resumption.ownership().bytes());
        let has_taken = resumption.ownership().bytes() < before;
        self.release(slot, client, mode);
        if client.wire().is_slow() && has_taken {
            self.slow.progressed(slot, client, self.budget.limit_bytes);
        }
    }

    pub(super) fn end_hold(&mut self, slot: Slot, client: &mut Client, mode: BatchMode) {
        let resumption = client.cold_mut().resumption_mut();
        if resumption.is_some_and(|resumption| resumption.ownership_mut().end_hold()) {
            self.release(slot, client, mode);
        }
    }

    /// Writes held-back frames while the replay buffer has room.
    fn release(&mut self, slot: Slot, client: &mut Client, mode: BatchMode) {
        while let Some(resumption) = client.cold_mut().resumption_mut()
            && let Some(frame) = resumption.ownership_mut().release()
        {
            self.put_now(slot, client, &frame, mode);
        }
    }

    /// Writes all held-back frames ahead of a close, regardless of limits.
    pub(super) fn release_all(&mut self, slot: Slot, client: &mut Client, mode: BatchMode) {
        while let Some(resumption) = client.cold_mut().resumption_mut()
            && let Some(frame) = resumption.ownership_mut().release_last()
        {
            self.put_now(slot, client, &frame, mode);
        }
    }

    /// Writes the replay for a new socket ahead of other frames, regardless of limits.
    pub(super) fn replay(&mut self, slot: Slot, client: &mut Client, frames: Vec<Bytes>, mode: BatchMode) {
        self.put_last(slot, client, frames);
        self.release(slot, client, mode);
    }

    pub(super) fn drop_kept(&self, client: &mut Client) {
        if let Some(resumption) = client.cold_mut().take_resumption() {
            self.budget.replay_changed(resumption.ownership().bytes(), 0);
        }
    }

    /// Sends a frame of a broadcast. If the hub allows it, slow clients miss the frame.
    fn put_droppable(&mut self, slot: Slot, client: &mut Client, frame: WireFrame<'_>, mode: BatchMode) {
        if client.is_resumable() {
            return self.put_resumable(slot, client, frame, mode, true);
        }
        let frame = frame.wire;
        client.liveness_mut().sent(mode.now);
        if !self.write_now(slot, client, frame, mode) {
            if !self.budget.has_room(client, frame.len()) {
                if client.traits().may_miss {
                    return self.counters.dropped.increment();
                }
                self.slow.exceed(slot, client, mode.now);
            }
            client.wire_mut().queue(frame.clone(), Need::May);
            self.queued(slot, client, frame.len(), mode.now);
        }
    }

    /// Writes a frame if the mode and an empty outbox permit, and queues what the socket refuses. Returns `false` if
    /// the whole frame has to be queued.
    fn write_now(&mut self, slot: Slot, client: &mut Client, frame: &Bytes, mode: BatchMode) -> bool {
        // TLS records may be pending below the outbox.
        if mode.flush == Flush::Deferred || !client.wire().is_idle() {
            return false;
        }
        let written = match client.wire().socket().try_write(&[io::IoSlice::new(frame)]) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            // The reader detects the end and cleans up.
            Err(_) => {
                client.cut();
                return true;
            }
        };
        if written < frame.len() {
            client.wire_mut().queue(frame.slice(written..), Need::Must);
            self.effects.blocked.push(slot);
        } else if client.wire().socket().has_unsent() {
            self.effects.blocked.push(slot);
        }
        true
    }

    /// Accounts for a queued frame, written at the end of the batch or when the socket is writable.
    fn queued(&mut self, slot: Slot, client: &mut Client, bytes: usize, now: u32) {
        if client.wire().is_flushing() {
            self.budget.queued(bytes);
            if client.wire().bytes() > PAUSED_ABOVE_BYTES {
                self.slow.pause(slot, client, now);
            }
        } else if let Some(written_in) = client.wire_mut().defer() {
            self.gathering.note_deferred(written_in);
            self.effects.dirty.push(slot);
        }
    }

    pub(super) fn deferred(&self) -> usize {
        self.effects.dirty.len()
    }

    /// Writes deferred frames after a command if a window is full. `before` is the number of clients with
    /// deferred frames before the command.
    pub(super) fn flush_window(&mut self, connections: &mut Connections, before: usize) {
        if self.gathering.is_window_full(before, self.deferred()) {
            self.flush_dirty(connections.clients_mut());
        }
    }

    /// Writes all deferred frames: if the platform supports it, in one system call per window, otherwise in one per
    /// recipient.
    fn flush_dirty(&mut self, clients: &mut Slab<Client>) {
        let batch = self.gathering.batch();
        let mut dirty = mem::take(&mut self.effects.dirty);
        for window in dirty.chunks(WINDOW) {
            self.vectored.write(clients, window, &self.budget);
            for &slot in window {
                if let Some(client) = clients.get_mut(slot as usize) {
                    client.wire_mut().note_batch(batch);
                    self.flush(slot, client);
                }
            }
        }
        dirty.clear();
        self.effects.dirty = dirty;
    }

    /// Ends a batch: writes deferred frames, and leaves the rest to tasks if sockets are full.
    pub(super) fn flush_deferred(&mut self, connections: &mut Connections) {
        self.messages.forget();
        let waiting = self.deferred();
        self.flush_dirty(connections.clients_mut());
        self.gathering.end_gathering(waiting);
        let mut blocked = mem::take(&mut self.effects.blocked);
        for slot in blocked.drain(..) {
            if let Some(client) = connections.get_mut(slot) {
                self.flush_by_task(slot, client);
            }
        }
        self.effects.blocked = blocked;
        if self.slow.has_marked() {
            self.slow.settle_marked(connections, self.budget.limit_bytes);
        }
    }

    /// Whether the end of a step has nothing to do.
    #[inline]
    pub(super) fn is_idle(&self) -> bool {
        let Effects { dirty, blocked, slow, flush_tasks, holds } = &self.effects;
        let are_empty = dirty.is_empty() && blocked.is_empty() && slow.is_empty() && flush_tasks.is_empty();
        let has_batch = self.gathering.has_begun() || self.messages.has_frame() || self.taps.is_active();
        are_empty && holds.is_empty() && !has_batch && !self.slow.has_marked() && self.budget.excess_bytes() == 0
    }

    /// Takes the clients over their budget, to be closed. Return the list with [`reuse`](Self::reuse).
    pub(super) fn take_slow(&mut self) -> Vec<Slot> {
        mem::take(&mut self.effects.slow)
    }

    /// Takes the list of slow clients back for reuse.
    pub(super) fn reuse(&mut self, mut slow: Vec<Slot>) {
        slow.clear();
        self.effects.slow = slow;
    }

    /// Clients that need a flush task, and clients that need a task to end their hold.
    pub(super) fn take_tasks(&mut self) -> [Drain<'_, (Slot, Serial)>; 2] {
        [self.effects.flush_tasks.drain(..), self.effects.holds.drain(..)]
    }

    fn flush(&mut self, slot: Slot, client: &mut Client) {
        let before = client.wire().bytes();
        let flushed = client.wire_mut().try_flush();
        self.budget.outbox_changed(client, before);
        match flushed {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.flush_by_task(slot, client),
            Err(_) => client.cut(),
        }
    }

    /// Starts a task that writes the outbox as the socket accepts data, until the outbox is empty.
    fn flush_by_task(&mut self, slot: Slot, client: &mut Client) {
        if client.wire_mut().begin_flush() {
            self.budget.queued(client.wire().bytes());
            self.slow.block(slot, client);
            self.effects.flush_tasks.push((slot, client.serial()));
        }
    }

    pub(super) fn poll_flush_by_task(&mut self, slot: Slot, client: &mut Client, cx: &mut Context<'_>) -> Poll<()> {
        let before = client.wire().bytes();
        let flushed = self.poll_flush(client, cx);
        if client.wire().is_slow() && client.wire().bytes() < before {
            self.slow.progressed(slot, client, self.budget.limit_bytes);
        }
        match flushed {
            Poll::Pending => drop(self.flushing.insert(slot, cx.waker().clone())),
            Poll::Ready(()) => drop(self.flushing.remove(&slot)),
        }
        flushed
    }

    /// Ends the flush task of a removed client, which its socket no longer wakes.
    pub(super) fn end_flush(&mut self, slot: Slot) {
        if let Some(task) = self.flushing.remove(&slot) {
            task.wake();
        }
    }

    pub(super) fn poll_flush(&self, client: &mut Client, cx: &mut Context<'_>) -> Poll<()> {
        let before = client.wire().bytes();
        let flushed = client.wire_mut().poll_flush(cx);
        self.budget.outbox_changed(client, before);
        if ready!(flushed).is_err() {
            self.cut(client);
        }
        client.wire_mut().end_flush();
        Poll::Ready(())
    }

    /// Writes a client's last frames after its outbox, regardless of limits.
    pub(super) fn put_last(&mut self, slot: Slot, client: &mut Client, frames: impl IntoIterator<Item = Bytes>) {
        let before = client.wire().bytes();
        frames.into_iter().for_each(|frame| client.wire_mut().queue(frame, Need::Must));
        self.budget.outbox_changed(client, before);
        self.flush(slot, client);
    }

    /// Cuts the socket of a client and discards its outbox.
    pub(super) fn cut(&self, client: &mut Client) {
        self.budget.discard(client);
        client.cut();
    }
}

#[cfg(test)]
mod tests;
