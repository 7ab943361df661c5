//! Tracer of a shard: the messages of chosen connections, or of one method, with the time at each hop.
//!
//! ```text
//!  client ─read─► shard ─link_us─► link ─► app server: waited, queued, ran, answered (its own clock, by a report)
//!  client ◄─written_us─ shard ◄─link_us─ link ◄─ …
//! ```
//!
//! It stands behind the flag that tells of [taps](super::tap). What a message is, and how long it took on its way in, is told
//! at once; later hops follow by its number. Everything has a bound, and what is left out is counted.

mod marked_message;
mod running_trace;
mod trace_filter;
mod traced_message;
mod unwritten_frame;

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::service::TraceReport;

use super::connection::Client;
use super::content::Content;
use super::slot::{Serial, Slot};
use super::tap::tapped_message::{TapDirection, TapSummary, read};
use crate::transport::websocket::{Unframed, unframe_whole};
use crate::upstream::AppServerId;
use marked_message::MarkedMessages;
use running_trace::RunningTrace;
use traced_message::micros;
use unwritten_frame::UnwrittenFrames;

pub(crate) use trace_filter::{TraceFilter, TraceSubject};
pub(crate) use traced_message::{
    ConnectionChange, HubTimes, TraceBatch, TraceEvent, TraceHop, TracePiece, TracedConnection, TracedMessage,
};
pub(super) use unwritten_frame::Wait;

/// Reason why a trace does not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{TRACES_MAX} traces run already, and no more can: end one of them")]
pub(crate) struct TraceRefused;

/// Maximum number of traces of one shard.
pub(crate) const TRACES_MAX: usize = 4;

/// Ticks after which a trace that is not read is forgotten: its reader is gone without a word.
const IDLE_TICKS: u32 = 10;

/// Maximum number of recipients of one send that a trace of a method tells one by one.
const RECIPIENTS_MAX: usize = 50;

/// Messages of a client on their way to an app server, as traces see them.
#[derive(Debug)]
pub(crate) struct UpwardTrace {
    /// Mark of the first of them; `None` at a raw endpoint, whose messages no app server reports on.
    pub mark: Option<i64>,
    slot: Slot,
    read_at: Instant,
    taken: Vec<TakenMessage>,
}

/// Message that one trace takes.
#[derive(Debug)]
struct TakenMessage {
    trace: u64,
    mark: i64,
    connection: Arc<TracedConnection>,
    summary: TapSummary,
}

/// Fate of a client's messages at the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UpwardEnd {
    /// They are in the link to this app server.
    Sent(AppServerId),
    /// As before, and the app server reports on them.
    SentMarked(AppServerId),
    /// Rules about methods have refused them.
    Refused,
}

/// Traces of one shard.
#[derive(Debug, Default)]
pub(crate) struct Tracer {
    next: u64,
    next_mark: i64,
    traces: Vec<RunningTrace>,
    marked: MarkedMessages,
    unwritten: UnwrittenFrames,
}

impl Tracer {
    #[must_use]
    pub(super) fn is_running(&self) -> bool {
        !self.traces.is_empty()
    }

    /// Begins a trace whose times count from `started`; the number names it.
    ///
    /// # Errors
    /// When too many run.
    pub(super) fn begin(&mut self, filter: TraceFilter, started: Instant) -> Result<u64, TraceRefused> {
        if self.traces.len() >= TRACES_MAX {
            return Err(TraceRefused);
        }
        let number = self.next;
        self.next += 1;
        self.traces.push(RunningTrace::new(number, filter, started));
        Ok(number)
    }

    /// Pieces since the last batch; `None` for a trace that has ended.
    #[must_use]
    pub(super) fn read(&mut self, number: u64) -> Option<TraceBatch> {
        Some(self.traces.iter_mut().find(|trace| trace.number == number)?.read())
    }

    pub(super) fn end(&mut self, number: u64) {
        self.traces.retain(|trace| trace.number != number);
        self.forget_unless_running();
    }

    /// Advances by one second: forgets traces that are not read.
    pub(super) fn tick(&mut self) {
        self.traces.iter_mut().for_each(RunningTrace::tick);
        self.traces.retain(|trace| trace.idle_ticks <= IDLE_TICKS);
        self.forget_unless_running();
    }

    fn forget_unless_running(&mut self) {
        if self.traces.is_empty() {
            (self.marked, self.unwritten) = (MarkedMessages::default(), UnwrittenFrames::default());
        }
    }

    /// Slots of the clients that are followed.
    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> {
        self.traces.iter().flat_map(RunningTrace::slots)
    }

    /// Whether sends to anybody are looked at, because a trace follows a method.
    #[must_use]
    pub(super) fn follows_methods(&self) -> bool {
        self.traces.iter().any(RunningTrace::follows_a_method)
    }

    /// Follows a client that is here, where it matches; in one trace or in all.
    pub(super) fn found(
        &mut self,
        number: Option<u64>,
        slot: Slot,
        (client, user): (&Client, Option<&str>),
        is_member: impl Fn(&str) -> bool,
        change: ConnectionChange,
    ) {
        for trace in self.traces.iter_mut().filter(|trace| number.is_none_or(|number| trace.number == number)) {
            trace.found(slot, (client, user), &is_member, change.clone());
        }
    }

    /// Follows a client whose groups have changed, or follows it no longer.
    pub(super) fn regrouped(&mut self, slot: Slot, client: (&Client, Option<&str>), is_member: impl Fn(&str) -> bool) {
        self.traces.iter_mut().for_each(|trace| trace.regrouped(slot, client, &is_member));
    }

    /// Tells the close of a client connection: its slot may be used again.
    pub(super) fn closed(&mut self, slot: Slot, cause: Option<Cause>, detail: Option<&str>) {
        self.traces.iter_mut().for_each(|trace| trace.closed(slot, cause, detail));
        self.marked.forget(slot);
    }

    /// Looks at messages of a client that are about to go up; `None` if no trace takes any of them.
    #[cold]
    pub(super) fn upward(
        &mut self,
        slot: Slot,
        (client, user): (&Client, Option<&str>),
        messages: &[u8],
        read_at: Instant,
    ) -> Option<Box<UpwardTrace>> {
        if !self.traces.iter().any(|trace| trace.may_take(slot, client)) {
            return None;
        }
        let summaries = read(client.content, &Bytes::copy_from_slice(messages), self.shows_payloads());
        let mark = self.next_mark;
        let count = i64::try_from(summaries.len()).unwrap_or(i64::MAX);
        let mut taken = Vec::new();
        for trace in &mut self.traces {
            for (summary, mark) in summaries.iter().zip(mark..) {
                if let Some(connection) = trace.take(slot, (client, user), summary) {
                    let (trace, summary) = (trace.number, trace.shown(summary));
                    taken.push(TakenMessage { trace, mark, connection, summary });
                }
            }
        }
        if taken.is_empty() {
            return None;
        }
        self.next_mark = self.next_mark.wrapping_add(count);
        let mark = matches!(client.content, Content::Hub(_)).then_some(mark);
        Some(Box::new(UpwardTrace { mark, slot, read_at, taken }))
    }

    /// Tells messages of a client, once it is known where they went.
    #[cold]
    pub(super) fn went_up(&mut self, upward: UpwardTrace, end: UpwardEnd) {
        let UpwardTrace { slot, read_at, taken, .. } = upward;
        let link_us = micros(read_at.elapsed());
        let is_marked = matches!(end, UpwardEnd::SentMarked(_));
        for TakenMessage { trace, mark, connection, summary } in taken {
            let Some(trace) = self.traces.iter_mut().find(|running| running.number == trace) else { continue };
            let is_refused = end == UpwardEnd::Refused;
            let awaits_answer = !is_refused && summary.is_answered_call();
            let message = TracedMessage {
                app: match end {
                    UpwardEnd::Sent(app) | UpwardEnd::SentMarked(app) => Some(app),
                    UpwardEnd::Refused => None,
                },
                is_refused,
                is_open: is_marked || awaits_answer,
                is_marked,
                link_us: Some(link_us),
                ..TracedMessage::new(connection, TapDirection::Up, summary)
            };
            if awaits_answer {
                trace.await_answer(slot, &message, read_at);
            }
            let number = trace.tell(message, read_at);
            if is_marked {
                self.marked.add(mark, slot, (trace.number, number));
            }
        }
    }

    /// Tells what an app server reports on a message.
    #[cold]
    pub(super) fn reported(&mut self, slot: Slot, report: &TraceReport) {
        let is_last = report.queued_us.is_none() || report.ran_us.is_some();
        let hub = HubTimes::of(report);
        for (trace, number) in self.marked.find(report.mark, slot, is_last) {
            if let Some(trace) = self.traces.iter_mut().find(|running| running.number == trace) {
                trace.tell_hop(number, TraceHop::Hub(hub));
            }
        }
    }

    /// Tells messages that a client is about to get.
    #[cold]
    pub(super) fn downward(&mut self, slot: Slot, client: &Client, frame: &Bytes, read_at: Option<Instant>) {
        self.tell_read(slot, client, (frame, read_at), |_| true);
    }

    /// Tells messages of a send to many that a client is about to get which is followed itself.
    #[cold]
    pub(super) fn downward_as_one_of_many(
        &mut self,
        slot: Slot,
        client: &Client,
        frame: &Bytes,
        read_at: Option<Instant>,
    ) {
        self.tell_read(slot, client, (frame, read_at), |trace| !trace.follows_a_method());
    }

    fn tell_read(
        &mut self,
        slot: Slot,
        client: &Client,
        (frame, read_at): (&Bytes, Option<Instant>),
        is_meant: impl Fn(&RunningTrace) -> bool,
    ) {
        if !self.traces.iter().any(|trace| is_meant(trace) && trace.may_take(slot, client)) {
            return;
        }
        let Some(Unframed::Payload(messages)) = unframe_whole(frame) else { return };
        let summaries = read(client.content, &messages, self.shows_payloads());
        self.tell_down(slot, client, frame.len(), (&summaries, read_at), is_meant);
    }

    fn tell_down(
        &mut self,
        slot: Slot,
        client: &Client,
        bytes: usize,
        (summaries, read_at): (&[TapSummary], Option<Instant>),
        is_meant: impl Fn(&RunningTrace) -> bool,
    ) {
        let now = Instant::now();
        let link_us = read_at.map(|read_at| micros(now.saturating_duration_since(read_at)));
        let mut told = Vec::new();
        for trace in self.traces.iter_mut().filter(|trace| is_meant(trace)) {
            for summary in summaries {
                let Some(connection) = trace.take(slot, (client, None), summary) else { continue };
                let answers = trace.answered(slot, summary, now);
                let message = TracedMessage {
                    app: Some(client.home.app()),
                    is_open: true,
                    link_us,
                    answers,
                    ..TracedMessage::new(connection, TapDirection::Down, trace.shown(summary))
                };
                told.push((trace.number, trace.tell(message, read_at.unwrap_or(now))));
            }
        }
        if !told.is_empty() {
            self.unwritten.push(slot, client.serial, bytes, (now, told));
        }
    }

    /// Tells a send to many where a trace follows its method: the first recipients one by one, the others by their number.
    #[cold]
    pub(super) fn downward_to_many<'a>(
        &mut self,
        recipients: impl Iterator<Item = (Slot, &'a Client, &'a Bytes)>,
        read_at: Option<Instant>,
    ) {
        let mut known: Vec<(*const u8, Vec<TapSummary>)> = Vec::new();
        let (mut told, mut left_out) = (0, 0);
        for (slot, client, frame) in recipients {
            let at = frame.as_ptr();
            if !known.iter().any(|(known, _)| *known == at) {
                let Some(Unframed::Payload(messages)) = unframe_whole(frame) else { continue };
                let mut summaries = read(client.content, &messages, self.shows_payloads());
                summaries.retain(|summary| self.traces.iter().any(|trace| trace.follows_method_of(summary)));
                known.push((at, summaries));
            }
            let summaries = known.iter().find(|(known, _)| *known == at).map(|(_, summaries)| summaries.as_slice());
            let Some(summaries) = summaries.filter(|summaries| !summaries.is_empty()) else { continue };
            if told < RECIPIENTS_MAX {
                told += 1;
                self.tell_down(slot, client, frame.len(), (summaries, read_at), RunningTrace::follows_a_method);
            } else {
                left_out += 1;
            }
        }
        if left_out > 0 {
            self.traces.iter_mut().filter(|trace| trace.follows_a_method()).for_each(|trace| trace.leave_out(left_out));
        }
    }

    /// Whether frames wait to be seen written.
    #[must_use]
    pub(super) fn has_unwritten(&self) -> bool {
        !self.unwritten.is_empty()
    }

    /// Tells which frames were written since the last time, given what waits for each client.
    #[cold]
    pub(super) fn note_written(&mut self, wait_of: impl Fn(Slot, Serial) -> Wait) {
        let now = Instant::now();
        for (since, told, is_written) in self.unwritten.settle(wait_of) {
            let took_us = micros(now.saturating_duration_since(since));
            let hop = if is_written { TraceHop::Written { us: took_us } } else { TraceHop::Lost };
            for (trace, number) in told {
                if let Some(trace) = self.traces.iter_mut().find(|running| running.number == trace) {
                    trace.tell_hop(number, hop.clone());
                }
            }
        }
    }

    fn shows_payloads(&self) -> bool {
        self.traces.iter().any(|trace| trace.filter.with_payloads)
    }
}

#[cfg(test)]
mod tests;
