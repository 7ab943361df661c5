//! Watches of a shard: live copies of some clients' traffic, in bounded buffers until the observer reads them.
//!
//! ```text
//!  client ─read─► shard ─link_us─► link ─► app server: waited, queued, ran, answered (its own clock, by a report)
//!  client ◄─written_us─ shard ◄─link_us─ link ◄─ …
//! ```
//!
//! A watch has a subject (a connection, a user, a group, a method or a whole hub) and a detail: a *tap* has the
//! summaries of one connection, a *trace* the time at each hop. The watches of a shard are a [`Tap`]. Summaries contain
//! payloads on request only, without apparent secrets.

mod message_summary;
pub(crate) mod redaction;
mod running_watch;
mod unwritten_frame;
mod watch_order;
mod watch_piece;

use std::collections::BTreeMap;

use bytes::Bytes;
use tokio::time::Instant;
use trunkline_protocol::service::TraceReport;

use crate::engine::shard::{
    Client, Connections, Content, Recipients, Serial, ShardSender, Slot, Tap, TapEvent, TapView, UpwardMessages,
};
use crate::engine::transport::websocket::{Unframed, unframe_whole};
use crate::engine::upstream::LinkHandle;
use message_summary::summaries;
use running_watch::RunningWatch;
use unwritten_frame::{UnwrittenFrames, Wait};
use watch_piece::micros;

pub(crate) use message_summary::{MessageDirection, MessageSummary};
pub(crate) use watch_order::{WatchDetail, WatchOrder, WatchRefused, WatchSubject};
pub use watch_piece::HubTimes;
pub(crate) use watch_piece::{
    ConnectionChange, TraceHop, WatchBatch, WatchEvent, WatchLoss, WatchPiece, WatchVolume, WatchedConnection,
    WatchedMessage,
};

/// Maximum number of recipients of one send that a watch of a method shows individually.
const RECIPIENTS_MAX: usize = 50;

/// Maximum number of clients searched per step. Each may require decoding an opening frame.
const CLIENTS_STEP: usize = 64;

/// Watches of a shard.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    next: u64,
    next_mark: i64,
    all: Vec<RunningWatch>,
    marked: MarkedMessages,
    unwritten: UnwrittenFrames,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    One,
    /// Several; watches of methods receive it with all recipients.
    Many,
}

impl Tap for Watches {
    fn is_active(&self) -> bool {
        !self.all.is_empty()
    }

    fn up(&mut self, shard: &TapView<'_>, slot: Slot, messages: &UpwardMessages<'_>) -> Option<i64> {
        let client = shard.connections.get(slot)?;
        if !self.all.iter().any(|watch| watch.may_take(slot, client)) {
            return None;
        }
        let bytes = Bytes::copy_from_slice(messages.bytes);
        let summaries = self.summaries(slot, client, &bytes, |_| true);
        self.add_up(slot, (client, shard.connections.user_of(client)), &summaries, messages)
    }

    fn down(&mut self, slot: Slot, client: &Client, frame: &Bytes, read_at: Option<Instant>) {
        self.add_frame(slot, client, (frame, Reach::One), read_at);
    }

    fn down_to_set(&mut self, recipients: &Recipients<'_>, read_at: Option<Instant>) {
        for slot in self.slots() {
            if let Some((client, frame)) = recipients.at(slot) {
                self.add_frame(slot, client, (frame, Reach::Many), read_at);
            }
        }
        if self.all.iter().any(RunningWatch::follows_a_method) {
            self.add_send(recipients, read_at);
        }
    }

    fn event(&mut self, shard: &TapView<'_>, slot: Slot, event: &TapEvent<'_>) {
        let connections = shard.connections;
        match event {
            TapEvent::Reported(report) => return self.reported(slot, report),
            TapEvent::Closed(..) | TapEvent::Moved => self.marked.forget(slot),
            _ => {}
        }
        for watch in &mut self.all {
            match *event {
                TapEvent::Opened => watch.follow(connections, slot, ConnectionChange::Opened),
                TapEvent::Arrived => watch.follow(connections, slot, ConnectionChange::Arrived),
                TapEvent::GroupsChanged => watch.regroup(connections, slot),
                TapEvent::Closed(cause, detail) => {
                    watch.stop_following(slot, ConnectionChange::Closed(cause, detail.map(Into::into)));
                }
                TapEvent::Moved => watch.stop_following(slot, ConnectionChange::Moved),
                TapEvent::RulesChanged | TapEvent::Copied(..) | TapEvent::Reported(_) => {}
            }
        }
    }

    /// Reports the frames written since the last call.
    fn settle(&mut self, connections: &Connections) {
        if self.unwritten.is_empty() {
            return;
        }
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

    /// Advances by one second and drops watches that are not read.
    fn tick(&mut self, _: &TapView<'_>) {
        self.retain(RunningWatch::tick);
    }
}

/// Runs `act` on the watches of a shard; `None` if the shard is gone.
pub(crate) async fn inspect_watches<R: Send + 'static>(
    shard: &ShardSender,
    act: impl FnOnce(&mut Watches, &TapView<'_>) -> R + Send + 'static,
) -> Option<R> {
    shard.inspect(|state| state.core.run_tap(act)).await?
}

impl Watches {
    /// Starts a watch of a method or of clients that open in future, with times relative to `started`. Returns its
    /// number. Fails if too many watches with its detail are running.
    pub(crate) fn begin_watch(&mut self, order: WatchOrder, started: Instant) -> Result<u64, WatchRefused> {
        let detail = order.detail;
        if self.all.iter().filter(|watch| watch.detail() == detail).count() >= detail.bounds().watches {
            return Err(WatchRefused::TooMany(detail));
        }
        let number = self.next;
        self.next += 1;
        self.all.push(RunningWatch::new(number, order, started));
        Ok(number)
    }

    /// Starts a watch of one client on this shard. Fails if the client is not here, or too many watches are running.
    pub(crate) fn begin_at(
        &mut self,
        connections: &Connections,
        (slot, id): (Slot, &str),
        order: WatchOrder,
        started: Instant,
    ) -> Result<u64, WatchRefused> {
        let client = connections.find_shown(slot, id).ok_or(WatchRefused::Unknown)?;
        let subjects = vec![WatchSubject::Connection(client.id.to_string())];
        let number = self.begin_watch(WatchOrder { subjects, ..order }, started)?;
        self.find(connections, number, [slot]);
        Ok(number)
    }

    /// Adds clients that were already open to a watch, one range of slots at a time. Returns the start of the
    /// next range.
    pub(crate) fn find_present(&mut self, connections: &Connections, number: u64, from: usize) -> Option<usize> {
        let end = connections.slot_count().min(from.saturating_add(CLIENTS_STEP));
        let open = connections.range(from..end).filter(|(_, client)| !client.life().is_closed());
        self.find(connections, number, open.map(|(slot, _)| slot));
        (end < connections.slot_count()).then_some(end)
    }

    /// Events since the last read; `None` for an ended watch.
    #[must_use]
    pub(crate) fn read_batch(&mut self, shard: &TapView<'_>, number: u64) -> Option<WatchBatch> {
        self.settle(shard.connections);
        let watch = self.watch(number)?;
        let is_timed = watch.detail() == WatchDetail::Times;
        let mut batch = watch.read_batch();
        if is_timed {
            shard.context.counters.traced_messages.add(batch.messages);
            shard.context.counters.untraced_messages.add(batch.loss.messages);
        }
        batch.pieces.iter_mut().for_each(|piece| piece.name_user(|slot, id| user_at(shard.connections, slot, id)));
        Some(batch)
    }

    pub(crate) fn end_watch(&mut self, number: u64) {
        self.retain(|watch| watch.number() != number);
    }

    fn retain(&mut self, is_kept: impl FnMut(&mut RunningWatch) -> bool) {
        self.all.retain_mut(is_kept);
        if self.all.iter().all(|watch| watch.detail() != WatchDetail::Times) {
            (self.marked, self.unwritten) = (MarkedMessages::default(), UnwrittenFrames::default());
        }
    }

    fn find(&mut self, connections: &Connections, number: u64, slots: impl IntoIterator<Item = Slot>) {
        if let Some(watch) = self.watch(number) {
            slots.into_iter().for_each(|slot| watch.follow(connections, slot, ConnectionChange::Present));
        }
    }

    /// Slots of the followed clients, without duplicates.
    fn slots(&self) -> Vec<Slot> {
        let mut slots: Vec<_> = self.all.iter().flat_map(RunningWatch::slots).collect();
        slots.sort_unstable();
        slots.dedup();
        slots
    }

    fn watch(&mut self, number: u64) -> Option<&mut RunningWatch> {
        self.all.iter_mut().find(|watch| watch.number() == number)
    }

    fn summaries(
        &self,
        slot: Slot,
        client: &Client,
        messages: &Bytes,
        is_meant: impl Fn(&RunningWatch) -> bool,
    ) -> Vec<MessageSummary> {
        match self.all.iter().any(|watch| is_meant(watch) && watch.may_take(slot, client)) {
            true => summaries(client.content(), messages, self.show_payloads()),
            false => Vec::new(),
        }
    }

    /// Adds client messages about to be forwarded. Returns the mark of the first message if the app server has to
    /// report on them.
    fn add_up(
        &mut self,
        slot: Slot,
        (client, user): (&Client, Option<&str>),
        summaries: &[MessageSummary],
        messages: &UpwardMessages<'_>,
    ) -> Option<i64> {
        let read_at = messages.read_at.unwrap_or_else(Instant::now);
        let link_us = Some(micros(read_at.elapsed()));
        // App servers don't report on raw messages.
        let may_mark =
            matches!(client.content(), Content::Hub(_)) && messages.to.is_some_and(LinkHandle::supports_traces);
        let (first, mut mark) = (self.next_mark, None);
        for watch in &mut self.all {
            for (summary, at) in summaries.iter().zip(first..) {
                let Some(connection) = watch.admit_message(slot, (client, user), summary) else { continue };
                let message = WatchedMessage::new(connection, MessageDirection::Up, watch.shown(summary));
                if watch.detail() != WatchDetail::Times {
                    watch.add_message(message, read_at);
                    continue;
                }
                let (app, is_refused) = (messages.to.map(|link| link.app), messages.to.is_none());
                let awaits_answer = !is_refused && summary.is_answered_call();
                if awaits_answer {
                    watch.await_answer(slot, summary, read_at);
                }
                let is_open = may_mark || awaits_answer;
                let message = WatchedMessage { app, is_refused, is_open, is_marked: may_mark, link_us, ..message };
                let number = watch.add_message(message, read_at);
                if may_mark {
                    self.marked.add_message(at, slot, (watch.number(), number));
                    mark = Some(first);
                }
            }
        }
        if mark.is_some() {
            self.next_mark = first.wrapping_add(i64::try_from(summaries.len()).unwrap_or(i64::MAX));
        }
        mark
    }

    /// Handles an app server's report on a message.
    fn reported(&mut self, slot: Slot, report: &TraceReport) {
        let is_last = report.queued_us.is_none() || report.ran_us.is_some();
        let hub = HubTimes::from_report(report);
        for (watch, number) in self.marked.find(report.mark, slot, is_last) {
            if let Some(watch) = self.watch(watch) {
                watch.add_hop(number, TraceHop::Hub(hub));
            }
        }
    }

    /// Captures a frame for a client, from a batch read at this time.
    fn add_frame(&mut self, slot: Slot, client: &Client, (frame, reach): (&Bytes, Reach), read_at: Option<Instant>) {
        let is_meant = |watch: &RunningWatch| reach == Reach::One || !watch.follows_a_method();
        if !self.all.iter().any(|watch| is_meant(watch) && watch.may_take(slot, client)) {
            return;
        }
        let Some(Unframed::Payload(messages)) = unframe_whole(frame) else { return };
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
                let Some(connection) = watch.admit_message(slot, (client, None), summary) else { continue };
                let message = WatchedMessage {
                    app: Some(client.home().app),
                    is_open: true,
                    link_us,
                    answers: watch.answered(slot, summary, now),
                    ..WatchedMessage::new(connection, MessageDirection::Down, watch.shown(summary))
                };
                let number = watch.add_message(message, read_at.unwrap_or(now));
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
    fn add_send(&mut self, recipients: &Recipients<'_>, read_at: Option<Instant>) {
        let mut known: Vec<(*const u8, Vec<MessageSummary>)> = Vec::new();
        let (mut added, mut left_out) = (0, 0);
        for (slot, client, frame) in recipients.iter() {
            let at = frame.as_ptr();
            if !known.iter().any(|(known, _)| *known == at) {
                let Some(Unframed::Payload(messages)) = unframe_whole(frame) else { continue };
                let mut summaries = summaries(client.content(), &messages, self.show_payloads());
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
    let client = connections.get(slot).filter(|client| client.id.starts_with(id))?;
    connections.user_of(client).map(Into::into)
}

/// Maximum number of messages with pending reports. Those never reported stay until evicted.
const MARKED_MAX: usize = 4_096;

type TraceEntry = (u64, u64);

/// Messages with pending reports of app servers, by mark.
///
/// Bounded: the oldest are evicted first.
#[derive(Debug, Default)]
struct MarkedMessages(BTreeMap<i64, (Slot, Vec<TraceEntry>)>);

impl MarkedMessages {
    fn add_message(&mut self, mark: i64, slot: Slot, entry: TraceEntry) {
        self.0.entry(mark).or_insert_with(|| (slot, Vec::new())).1.push(entry);
        if self.0.len() > MARKED_MAX {
            self.0.pop_first();
        }
    }

    /// Returns the traces with this message of the client, and removes it after the last report.
    fn find(&mut self, mark: i64, slot: Slot, is_last: bool) -> Vec<TraceEntry> {
        let known = self.0.get(&mark).filter(|(of, _)| *of == slot).map(|(_, entries)| entries.clone());
        if known.is_some() && is_last {
            self.0.remove(&mark);
        }
        known.unwrap_or_default()
    }

    /// Removes the messages of a client when its slot may be reused.
    fn forget(&mut self, slot: Slot) {
        self.0.retain(|_, (of, _)| *of != slot);
    }
}

#[cfg(test)]
mod tests;
