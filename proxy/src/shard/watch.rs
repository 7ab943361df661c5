//! Watches of a shard: live copies of some clients' traffic, in bounded buffers until the observer reads them.
//!
//! ```text
//!  client ─read─► shard ─link_us─► link ─► app server: waited, queued, ran, answered (its own clock, by a report)
//!  client ◄─written_us─ shard ◄─link_us─ link ◄─ …
//! ```
//!
//! A watch has a subject (a connection, a user, a group, a method or a whole hub) and a detail: a *tap* has the
//! summaries of one connection, a *recording* the bytes of a hub, a *trace* the time at each hop. Without a watch, a
//! shard checks one flag per send and one per client message; clients have no extra state. Bytes are copied unchanged.
//! Summaries contain payloads on request only, without apparent secrets.

mod marked_message;
mod message_summary;
pub(crate) mod redaction;
mod running_watch;
mod unwritten_frame;
mod watch_order;
mod watch_piece;

use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use indexmap::IndexSet;
use tokio::time::Instant;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::service::{OpenConnection, RawKind, TraceReport};

use super::connection::{Client, Connections};
use super::content::Content;
use super::shard_context::ShardContext;
use super::slot::{Serial, Slot};
use crate::transport::websocket::{Unframed, is_text, unframe_whole};
use crate::upstream::AppServerId;
use marked_message::MarkedMessages;
use message_summary::read;
use running_watch::RunningWatch;
use unwritten_frame::{UnwrittenFrames, Wait};
use watch_piece::micros;

pub(crate) use message_summary::{MessageDirection, MessageSummary, kind_name};
pub(crate) use watch_order::{WatchDetail, WatchOrder, WatchRefused, WatchSubject};
pub use watch_piece::HubTimes;
pub(crate) use watch_piece::{
    ConnectionChange, TraceHop, WatchBatch, WatchEvent, WatchLoss, WatchPiece, WatchVolume, WatchedBytes,
    WatchedConnection, WatchedMessage, WatchedOpening,
};

/// Maximum number of recipients of one send that a watch of a method shows individually.
const RECIPIENTS_MAX: usize = 50;

/// Maximum number of clients of one shard with mirrored downstream data. Each broadcast checks all of them.
const COPIED_MAX: usize = 1024;

#[derive(Debug, Default)]
pub(crate) struct Watches {
    /// Set if there is a watch, or a client with mirrored data. Without any, no other field is read.
    is_active: bool,
    are_timed: bool,
    next: u64,
    next_mark: i64,
    all: Vec<RunningWatch>,
    marked: MarkedMessages,
    unwritten: UnwrittenFrames,
    /// Clients with mirrored downstream data.
    copied: IndexSet<Slot>,
    /// Messages to these clients since the last batch.
    copies: Vec<(Slot, Bytes)>,
}

/// Client messages in flight to an app server, for watches with times.
#[derive(Debug)]
pub(crate) struct UpwardTrace {
    /// Mark of the first message; `None` at a raw endpoint, because app servers don't report on raw messages.
    pub mark: Option<i64>,
    slot: Slot,
    read_at: Instant,
    taken: Vec<TakenMessage>,
}

#[derive(Debug)]
struct TakenMessage {
    watch: u64,
    mark: i64,
    connection: Arc<WatchedConnection>,
    summary: MessageSummary,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UpwardEnd {
    /// Forwarded to the link of this app server.
    Sent(AppServerId),
    /// Forwarded; the app server will report on the messages.
    SentMarked(AppServerId),
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    One,
    /// Several; watches of methods receive it with all recipients.
    Many,
}

impl Watches {
    pub(super) fn is_active(&self) -> bool {
        self.is_active
    }

    /// Whether a watch records times, so that read times of batches are needed.
    pub(super) fn are_timed(&self) -> bool {
        self.are_timed
    }

    /// Starts a watch with times relative to `started`, and returns its number. Fails if too many watches with its
    /// detail are running.
    pub(super) fn begin(&mut self, order: WatchOrder, started: Instant) -> Result<u64, WatchRefused> {
        let detail = order.detail;
        if self.all.iter().filter(|watch| watch.detail() == detail).count() >= detail.bounds().watches {
            return Err(WatchRefused::TooMany(detail));
        }
        let number = self.next;
        self.next += 1;
        self.all.push(RunningWatch::new(number, order, started));
        self.note_whether_any();
        Ok(number)
    }

    /// Events since the last read; `None` for an ended watch.
    #[must_use]
    pub(super) fn read(
        &mut self,
        connections: &Connections,
        number: u64,
        context: &ShardContext,
    ) -> Option<WatchBatch> {
        self.note_written(connections);
        let watch = self.watch(number)?;
        let is_timed = watch.detail() == WatchDetail::Times;
        let mut batch = watch.read();
        if is_timed {
            context.counters.traced_messages.add(batch.messages);
            context.counters.untraced_messages.add(batch.loss.messages);
        }
        batch.pieces.iter_mut().for_each(|piece| piece.name_user(|slot, id| user_at(connections, slot, id)));
        Some(batch)
    }

    pub(super) fn end(&mut self, number: u64) {
        self.all.retain(|watch| watch.number() != number);
        self.note_whether_any();
    }

    /// Advances by one second and drops watches that are not read.
    pub(super) fn tick(&mut self) {
        if self.is_active {
            self.all.retain_mut(RunningWatch::tick);
            self.note_whether_any();
        }
    }

    fn note_whether_any(&mut self) {
        self.are_timed = self.all.iter().any(|watch| watch.detail() == WatchDetail::Times);
        self.is_active = !self.all.is_empty() || !self.copied.is_empty();
        if !self.are_timed {
            (self.marked, self.unwritten) = (MarkedMessages::default(), UnwrittenFrames::default());
        }
    }

    fn watch(&mut self, number: u64) -> Option<&mut RunningWatch> {
        self.all.iter_mut().find(|watch| watch.number() == number)
    }

    /// Starts or stops copying a client's downstream data for its mirrors.
    pub(super) fn set_copied(&mut self, slot: Slot, is_copied: bool) {
        match is_copied {
            true if self.copied.len() >= COPIED_MAX => {}
            true => drop(self.copied.insert(slot)),
            false => drop(self.copied.swap_remove(&slot)),
        }
        self.note_whether_any();
    }

    /// Takes the copied data for mirrors, in order.
    pub(super) fn take_copies(&mut self) -> Vec<(Slot, Bytes)> {
        mem::take(&mut self.copies)
    }

    /// Whether copies have to be sent, or written frames reported.
    pub(super) fn has_unsettled(&self) -> bool {
        self.has_copies() || !self.unwritten.is_empty()
    }

    /// Whether data was copied since the last batch.
    pub(super) fn has_copies(&self) -> bool {
        !self.copies.is_empty()
    }

    /// Adds already open clients to a watch if they match.
    pub(super) fn find(&mut self, connections: &Connections, number: u64, slots: &[Slot]) {
        if let Some(watch) = self.watch(number) {
            slots.iter().for_each(|&slot| watch.follow(connections, slot, ConnectionChange::Present, None));
        }
    }

    /// Follows a client that opens, given its opening frame for the app server and its hub handshake.
    pub(super) fn opened(&mut self, connections: &Connections, slot: Slot, open: &OpenConnection, handshake: &[u8]) {
        for watch in &mut self.all {
            watch.follow(connections, slot, ConnectionChange::Opened, Some(open));
            if !handshake.is_empty() {
                let bytes = || WatchedBytes::Handshake(Bytes::copy_from_slice(handshake));
                watch.copy(slot, MessageDirection::Up, |_| bytes());
            }
        }
    }

    /// Follows a client that arrived from another node.
    pub(super) fn arrived(&mut self, connections: &Connections, slot: Slot) {
        self.all.iter_mut().for_each(|watch| watch.follow(connections, slot, ConnectionChange::Arrived, None));
    }

    /// Follows or drops a client after its groups changed, for watches of groups.
    pub(super) fn regrouped(&mut self, connections: &Connections, slot: Slot) {
        self.all.iter_mut().for_each(|watch| watch.regroup(connections, slot));
    }

    /// Stops following a client connection that closes for this cause or moves to another node. Its slot may be
    /// reused.
    pub(super) fn closed(&mut self, slot: Slot, cause: Option<Cause>, detail: Option<&str>) {
        if self.is_active {
            self.all.iter_mut().for_each(|watch| watch.close(slot, cause, detail));
            self.marked.forget(slot);
        }
    }

    /// Slots of the followed clients, without duplicates.
    pub(super) fn slots(&self) -> Vec<Slot> {
        let mut slots: Vec<_> =
            self.all.iter().flat_map(RunningWatch::slots).chain(self.copied.iter().copied()).collect();
        slots.sort_unstable();
        slots.dedup();
        slots
    }

    /// Whether sends to all clients are inspected, for a watch of a method.
    pub(super) fn follow_methods(&self) -> bool {
        self.all.iter().any(RunningWatch::follows_a_method)
    }

    /// Captures complete client messages before forwarding; the data type gives the kind of raw messages. Returns them
    /// if a watch needs the forwarding result.
    #[cold]
    pub(super) fn up(
        &mut self,
        connections: &Connections,
        slot: Slot,
        (messages, data_type): (&[u8], i64),
        read_at: Option<Instant>,
    ) -> Option<Box<UpwardTrace>> {
        let client = connections.get(slot)?;
        if !self.all.iter().any(|watch| watch.may_take(slot, client)) {
            return None;
        }
        let messages = Bytes::copy_from_slice(messages);
        let is_binary = data_type == RawKind::Binary.data_type();
        let kind = if is_binary { RawKind::Binary } else { RawKind::Text };
        for watch in &mut self.all {
            watch.copy(slot, MessageDirection::Up, |_| WatchedBytes::Messages(messages.clone(), kind));
        }
        let summaries = self.summaries(slot, client, &messages, |_| true);
        let (user, mark) = (connections.user_of(client), self.next_mark);
        let read_at = read_at.unwrap_or_else(Instant::now);
        let mut taken = Vec::new();
        for watch in &mut self.all {
            for (summary, mark) in summaries.iter().zip(mark..) {
                let Some(connection) = watch.take(slot, (client, user), summary) else { continue };
                let summary = watch.shown(summary);
                if watch.detail() == WatchDetail::Times {
                    taken.push(TakenMessage { watch: watch.number(), mark, connection, summary });
                } else {
                    watch.add(WatchedMessage::new(connection, MessageDirection::Up, summary), read_at);
                }
            }
        }
        if taken.is_empty() {
            return None;
        }
        self.next_mark = mark.wrapping_add(i64::try_from(summaries.len()).unwrap_or(i64::MAX));
        let mark = matches!(client.content(), Content::Hub(_)).then_some(mark);
        Some(Box::new(UpwardTrace { mark, slot, read_at, taken }))
    }

    fn summaries(
        &self,
        slot: Slot,
        client: &Client,
        messages: &Bytes,
        is_meant: impl Fn(&RunningWatch) -> bool,
    ) -> Vec<MessageSummary> {
        let mut wanting = self
            .all
            .iter()
            .filter(|watch| watch.detail() != WatchDetail::Bytes && is_meant(watch) && watch.may_take(slot, client));
        match wanting.next() {
            Some(_) => read(client.content(), messages, self.show_payloads()),
            None => Vec::new(),
        }
    }

    /// Adds captured client messages after forwarding.
    #[cold]
    pub(super) fn went_up(&mut self, upward: UpwardTrace, end: UpwardEnd) {
        let UpwardTrace { slot, read_at, taken, .. } = upward;
        let link_us = micros(read_at.elapsed());
        let is_marked = matches!(end, UpwardEnd::SentMarked(_));
        for TakenMessage { watch, mark, connection, summary } in taken {
            let Some(watch) = self.all.iter_mut().find(|running| running.number() == watch) else { continue };
            let is_refused = end == UpwardEnd::Refused;
            let awaits_answer = !is_refused && summary.is_answered_call();
            if awaits_answer {
                watch.await_answer(slot, &summary, read_at);
            }
            let message = WatchedMessage {
                app: match end {
                    UpwardEnd::Sent(app) | UpwardEnd::SentMarked(app) => Some(app),
                    UpwardEnd::Refused => None,
                },
                is_refused,
                is_open: is_marked || awaits_answer,
                is_marked,
                link_us: Some(link_us),
                ..WatchedMessage::new(connection, MessageDirection::Up, summary)
            };
            let number = watch.add(message, read_at);
            if is_marked {
                self.marked.add(mark, slot, (watch.number(), number));
            }
        }
    }

    /// Handles an app server's report on a message.
    #[cold]
    pub(super) fn reported(&mut self, slot: Slot, report: &TraceReport) {
        let is_last = report.queued_us.is_none() || report.ran_us.is_some();
        let hub = HubTimes::of(report);
        for (watch, number) in self.marked.find(report.mark, slot, is_last) {
            if let Some(watch) = self.watch(watch) {
                watch.add_hop(number, TraceHop::Hub(hub));
            }
        }
    }

    /// Captures a frame for a client, from a batch read at this time.
    #[cold]
    pub(super) fn down(
        &mut self,
        slot: Slot,
        client: &Client,
        (frame, reach): (&Bytes, Reach),
        read_at: Option<Instant>,
    ) {
        let is_meant = |watch: &RunningWatch| reach == Reach::One || !watch.follows_a_method();
        let is_copied = self.copied.contains(&slot);
        if !is_copied && !self.all.iter().any(|watch| is_meant(watch) && watch.may_take(slot, client)) {
            return;
        }
        let Some(Unframed::Payload(messages)) = unframe_whole(frame) else { return };
        if is_copied {
            self.copies.push((slot, messages.clone()));
        }
        let kind = if is_text(frame) { RawKind::Text } else { RawKind::Binary };
        for watch in &mut self.all {
            watch.copy(slot, MessageDirection::Down, |is_handshake| match is_handshake {
                true => WatchedBytes::Handshake(messages.clone()),
                false => WatchedBytes::Messages(messages.clone(), kind),
            });
        }
        let summaries = self.summaries(slot, client, &messages, is_meant);
        self.add_down(slot, client, frame.len(), (&summaries, read_at), is_meant);
    }

    fn add_down(
        &mut self,
        slot: Slot,
        client: &Client,
        bytes: usize,
        (summaries, read_at): (&[MessageSummary], Option<Instant>),
        is_meant: impl Fn(&RunningWatch) -> bool,
    ) {
        if summaries.is_empty() {
            return;
        }
        let now = Instant::now();
        let link_us = read_at.map(|read_at| micros(now.saturating_duration_since(read_at)));
        let mut awaited = Vec::new();
        for watch in self.all.iter_mut().filter(|watch| is_meant(watch)) {
            for summary in summaries {
                let Some(connection) = watch.take(slot, (client, None), summary) else { continue };
                let message = WatchedMessage {
                    app: Some(client.home().app()),
                    is_open: true,
                    link_us,
                    answers: watch.answered(slot, summary, now),
                    ..WatchedMessage::new(connection, MessageDirection::Down, watch.shown(summary))
                };
                let number = watch.add(message, read_at.unwrap_or(now));
                if watch.detail() == WatchDetail::Times {
                    awaited.push((watch.number(), number));
                }
            }
        }
        if !awaited.is_empty() {
            self.unwritten.push(slot, client.serial(), bytes, (now, awaited));
        }
    }

    /// Captures a broadcast of a watched method: the first recipients individually, the rest as a number.
    #[cold]
    pub(super) fn down_to_many<'a>(
        &mut self,
        recipients: impl Iterator<Item = (Slot, &'a Client, &'a Bytes)>,
        read_at: Option<Instant>,
    ) {
        let mut known: Vec<(*const u8, Vec<MessageSummary>)> = Vec::new();
        let (mut added, mut left_out) = (0, 0);
        for (slot, client, frame) in recipients {
            let at = frame.as_ptr();
            if !known.iter().any(|(known, _)| *known == at) {
                let Some(Unframed::Payload(messages)) = unframe_whole(frame) else { continue };
                let mut summaries = read(client.content(), &messages, self.show_payloads());
                summaries.retain(|summary| self.all.iter().any(|watch| watch.follows_method_of(summary)));
                known.push((at, summaries));
            }
            let summaries = known.iter().find(|(known, _)| *known == at).map(|(_, summaries)| summaries.as_slice());
            let Some(summaries) = summaries.filter(|summaries| !summaries.is_empty()) else { continue };
            if added < RECIPIENTS_MAX {
                added += 1;
                self.add_down(slot, client, frame.len(), (summaries, read_at), RunningWatch::follows_a_method);
            } else {
                left_out += 1;
            }
        }
        if left_out > 0 {
            self.all.iter_mut().filter(|watch| watch.follows_a_method()).for_each(|watch| watch.leave_out(left_out));
        }
    }

    /// Reports the frames written since the last call.
    #[inline]
    pub(super) fn note_written(&mut self, connections: &Connections) {
        if !self.unwritten.is_empty() {
            self.settle_written(connections);
        }
    }

    #[cold]
    fn settle_written(&mut self, connections: &Connections) {
        let now = Instant::now();
        for (since, awaited, is_written) in self.unwritten.settle(|slot, serial| wait_of(connections, slot, serial)) {
            let us = micros(now.saturating_duration_since(since));
            let hop = if is_written { TraceHop::Written { us } } else { TraceHop::Lost };
            for (watch, number) in awaited {
                if let Some(watch) = self.watch(watch) {
                    watch.add_hop(number, hop.clone());
                }
            }
        }
    }

    fn show_payloads(&self) -> bool {
        self.all.iter().any(RunningWatch::with_payloads)
    }
}

fn wait_of(connections: &Connections, slot: Slot, serial: Serial) -> Wait {
    let Some(client) = connections.get(slot).filter(|client| client.serial() == serial) else { return Wait::Gone };
    let held = client.cold().resumption().map_or(0, |resumption| resumption.ownership().waiting_bytes());
    if client.is_away() { Wait::Away } else { Wait::Bytes(client.wire().bytes() + held) }
}

/// User of the connection with this id, if the connection is still open.
fn user_at(connections: &Connections, slot: Slot, id: &str) -> Option<String> {
    let client = connections.get(slot).filter(|client| client.id().starts_with(id))?;
    connections.user_of(client).map(Into::into)
}

#[cfg(test)]
mod tests;
