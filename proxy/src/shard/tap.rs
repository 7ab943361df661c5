//! Taps: live copies of the messages of single clients, for the observer. The newest are kept until they are read.
//!
//! A shard without a tap and without a [recording](super::recorder) pays one look at a flag for a send, however many get it, and one for a message of a client.
//! Clients carry nothing for it. Payloads are kept only where they were asked for, without what looks
//! like a secret.

pub(crate) mod redaction;
pub(super) mod tapped_message;

use std::collections::VecDeque;
use std::mem;

use bytes::Bytes;
use indexmap::IndexSet;
use serde::{Deserialize, Serialize};
use trunkline_protocol::cause::Cause;
use trunkline_protocol::service::{OpenConnection, RawKind};

use self::tapped_message::TapSummary;
pub(crate) use self::tapped_message::{TapDirection, kind_name};
use super::connection::Client;
use super::content::Content;
use super::recorder::Recorder;
use super::slot::Slot;
use super::tracer::Tracer;
use crate::clock::unix_ms;
use crate::transport::websocket::{Unframed, unframe_whole};

/// Reason why a client can't be tapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TapRefused {
    #[error("there is no such connection")]
    Unknown,
    #[error("{TAPS_MAX} clients of its shard are watched already, and no more can be: end one of these watches")]
    TooMany,
}

/// Maximum number of taps of one shard.
pub(crate) const TAPS_MAX: usize = 16;

/// Ticks after which a tap that is not read is forgotten: its reader is gone without a word.
const IDLE_TICKS: u32 = 10;

/// Maximum number of unread messages of a tap.
const UNREAD_MAX: usize = 200;

/// Maximum number of clients of one shard whose mirrors get what is sent to them.
const COPIED_MAX: usize = 1024;

/// One message of a tapped client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TappedMessage {
    /// Its number in the tap, from 1.
    pub number: u64,
    /// Time, in milliseconds since 1970.
    pub at_ms: u64,
    pub way: TapDirection,
    /// Kind of hub message, or of a raw endpoint's.
    pub kind: String,
    /// Method, where it names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Id of its invocation or stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invocation_id: Option<String>,
    pub bytes: u64,
    /// Payload as text, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
}

/// Messages and bytes in one direction since the tap began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TapVolume {
    pub messages: u64,
    pub bytes: u64,
}

/// Report of a tap: the messages since it was read last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TapReport {
    /// Sent by the client since the tap began.
    pub up: TapVolume,
    /// Sent to the client.
    pub down: TapVolume,
    /// Newest messages, oldest first.
    pub messages: Vec<TappedMessage>,
    /// Messages before these that were not kept.
    pub missed: u64,
    /// The client connection is closed.
    pub is_over: bool,
}

/// Taps of one shard, and its recordings.
#[derive(Debug, Default)]
pub(crate) struct Taps {
    /// There is a tap, a recording or a trace: the only field that is read where there is none.
    are_any: bool,
    next: u64,
    all: Vec<Tap>,
    recorder: Recorder,
    pub(super) tracer: Tracer,
    /// Clients whose mirrors get what is sent to them.
    copied: IndexSet<Slot>,
    /// Messages to them since the last batch.
    copies: Vec<(Slot, Bytes)>,
}

#[derive(Debug)]
struct Tap {
    number: u64,
    slot: Slot,
    content: Content,
    with_payloads: bool,
    idle_ticks: u32,
    noted: u64,
    unread: VecDeque<TappedMessage>,
    report: TapReport,
}

impl Taps {
    #[must_use]
    pub(crate) fn are_any(&self) -> bool {
        self.are_any
    }

    /// Begins to tap a client; `None` when there are too many.
    #[must_use]
    pub(crate) fn begin(&mut self, slot: Slot, content: Content, with_payloads: bool) -> Option<u64> {
        if self.all.len() >= TAPS_MAX {
            return None;
        }
        let number = self.next;
        self.next += 1;
        let (unread, report) = (VecDeque::new(), TapReport::default());
        self.all.push(Tap { number, slot, content, with_payloads, idle_ticks: 0, noted: 0, unread, report });
        self.are_any = true;
        Some(number)
    }

    /// Report since the last one; `None` for a tap that has ended.
    #[must_use]
    pub(crate) fn report(&mut self, number: u64) -> Option<TapReport> {
        Some(self.all.iter_mut().find(|tap| tap.number == number)?.report())
    }

    pub(crate) fn end(&mut self, number: u64) {
        self.all.retain(|tap| tap.number != number);
        self.note_whether_any();
    }

    /// Changes the recordings: begins, reads or ends one.
    pub(crate) fn change_recordings<T>(&mut self, change: impl FnOnce(&mut Recorder) -> T) -> T {
        let changed = change(&mut self.recorder);
        self.note_whether_any();
        changed
    }

    /// Changes the traces: begins, reads or ends one.
    pub(crate) fn change_traces<T>(&mut self, change: impl FnOnce(&mut Tracer) -> T) -> T {
        let changed = change(&mut self.tracer);
        self.note_whether_any();
        changed
    }

    fn note_whether_any(&mut self) {
        self.are_any =
            !self.all.is_empty() || self.recorder.is_running() || self.tracer.is_running() || !self.copied.is_empty();
    }

    /// Begins or ends to keep what is sent to a client for its mirrors.
    pub(super) fn set_copied(&mut self, slot: Slot, is_copied: bool) {
        match is_copied {
            // Each send to many looks at all of them.
            true if self.copied.len() >= COPIED_MAX => {}
            true => drop(self.copied.insert(slot)),
            false => drop(self.copied.swap_remove(&slot)),
        }
        self.note_whether_any();
    }

    /// Takes what was sent to clients with such mirrors, in order.
    pub(super) fn take_copies(&mut self) -> Vec<(Slot, Bytes)> {
        mem::take(&mut self.copies)
    }

    /// Whether anything was sent to them since the last batch.
    #[must_use]
    pub(super) fn has_copies(&self) -> bool {
        !self.copies.is_empty()
    }

    /// Advances by one second: forgets taps that are not read.
    pub(crate) fn tick(&mut self) {
        self.all.iter_mut().for_each(|tap| tap.idle_ticks += 1);
        self.all.retain(|tap| tap.idle_ticks <= IDLE_TICKS);
        self.recorder.tick();
        self.tracer.tick();
        self.note_whether_any();
    }

    /// Records the opening of a client.
    #[cold]
    pub(crate) fn opened(&mut self, slot: Slot, client: &Client, user: Option<&str>, open: &OpenConnection) {
        self.recorder.opened(slot, client, user, open);
    }

    /// Records a client that has come from another node.
    #[cold]
    pub(crate) fn arrived(&mut self, slot: Slot, client: &Client, user: Option<&str>) {
        self.recorder.found(None, slot, client, user);
    }

    /// Records the hub handshake of a client.
    #[cold]
    pub(crate) fn handshake(&mut self, slot: Slot, bytes: &[u8]) {
        self.recorder.handshake(slot, bytes);
    }

    /// Ends the taps of a client connection that closes for this cause, or that another node has from now on: its slot may
    /// be used again.
    pub(crate) fn closed(&mut self, slot: Slot, cause: Option<Cause>, detail: Option<&str>) {
        if !self.are_any {
            return;
        }
        self.recorder.closed(slot, cause, detail);
        self.tracer.closed(slot, cause, detail);
        for tap in self.all.iter_mut().filter(|tap| tap.slot == slot) {
            tap.report.is_over = true;
        }
    }

    /// Slots of the clients that are tapped, recorded or traced, each once.
    #[must_use]
    pub(crate) fn slots(&self) -> Vec<Slot> {
        let mut slots: Vec<_> = self
            .all
            .iter()
            .filter(|tap| !tap.report.is_over)
            .map(|tap| tap.slot)
            .chain(self.recorder.slots())
            .chain(self.tracer.slots())
            .chain(self.copied.iter().copied())
            .collect();
        slots.sort_unstable();
        slots.dedup();
        slots
    }

    /// Records whole messages of a client, if it is tapped; their data type tells the kind of a raw one.
    #[cold]
    pub(crate) fn tap_up(&mut self, slot: Slot, messages: &[u8], data_type: i64) {
        if self.all.is_empty() && !self.recorder.is_running() {
            return;
        }
        let messages = Bytes::copy_from_slice(messages);
        let is_binary = data_type == RawKind::Binary.data_type();
        self.recorder.up(slot, &messages, if is_binary { RawKind::Binary } else { RawKind::Text });
        self.record(slot, TapDirection::Up, &messages);
    }

    /// Records a frame for a client, if it is tapped.
    #[cold]
    pub(crate) fn tap_down(&mut self, slot: Slot, frame: &Bytes) {
        self.recorder.down(slot, frame);
        if let Some(Unframed::Payload(messages)) = unframe_whole(frame) {
            if self.copied.contains(&slot) {
                self.copies.push((slot, messages.clone()));
            }
            self.record(slot, TapDirection::Down, &messages);
        }
    }

    fn record(&mut self, slot: Slot, way: TapDirection, messages: &Bytes) {
        for tap in self.all.iter_mut().filter(|tap| tap.slot == slot && !tap.report.is_over) {
            for message in tapped_message::read(tap.content, messages, tap.with_payloads) {
                tap.keep(way, message);
            }
        }
    }
}

impl Tap {
    fn keep(&mut self, way: TapDirection, message: TapSummary) {
        let amount = match way {
            TapDirection::Up => &mut self.report.up,
            TapDirection::Down => &mut self.report.down,
        };
        amount.messages += 1;
        amount.bytes += message.bytes;
        self.noted += 1;
        if self.unread.len() >= UNREAD_MAX {
            self.unread.pop_front();
            self.report.missed += 1;
        }
        let TapSummary { kind, target, invocation_id, bytes, payload } = message;
        let (number, at_ms) = (self.noted, unix_ms());
        self.unread.push_back(TappedMessage {
            number,
            at_ms,
            way,
            kind: kind.into(),
            target,
            invocation_id,
            bytes,
            payload,
        });
    }

    fn report(&mut self) -> TapReport {
        let messages = self.unread.drain(..).collect();
        let report = TapReport { messages, ..self.report.clone() };
        self.idle_ticks = 0;
        self.report.missed = 0;
        report
    }
}

#[cfg(test)]
mod tests {
    use trunkline_protocol::hub::HubProtocol;

    use super::*;
    use crate::shard::framed::frame_for;

    const JSON: Content = Content::Hub(HubProtocol::Json);
    const CALL: &[u8] = b"{\"type\":1,\"target\":\"Say\",\"arguments\":[\"ann\",{\"password\":\"hush\"}]}\x1e";

    #[test]
    fn only_tapped_clients_are_recorded_and_payloads_only_on_request() {
        let mut taps = Taps::default();
        assert!(!taps.are_any());
        let (plain, full) = (taps.begin(1, JSON, false).unwrap(), taps.begin(1, JSON, true).unwrap());
        assert_eq!(taps.slots(), [1]);
        taps.tap_up(1, &[CALL, CALL].concat(), 0);
        taps.tap_up(2, CALL, 0);
        taps.tap_down(1, &frame_for(HubProtocol::Json, CALL));
        let report = taps.report(plain).unwrap();
        assert_eq!((report.up.messages, report.up.bytes), (2, 2 * CALL.len() as u64));
        assert_eq!((report.down.messages, report.messages.len()), (1, 3));
        assert!(report.messages.iter().all(|noted| noted.payload.is_none() && noted.target.as_deref() == Some("Say")));
        let report = taps.report(full).unwrap();
        assert_eq!(report.messages[2].payload.as_deref(), Some(r#"["ann",{"password":"[redacted]"}]"#));
        assert_eq!((report.messages[2].way, report.messages[2].number), (TapDirection::Down, 3));
        assert!(taps.report(full).unwrap().messages.is_empty(), "each is told once");
    }

    #[test]
    fn unread_messages_are_bounded_and_dropped_ones_are_counted() {
        let mut taps = Taps::default();
        let tap = taps.begin(1, JSON, false).unwrap();
        (0..UNREAD_MAX + 7).for_each(|_| taps.tap_up(1, CALL, 0));
        let report = taps.report(tap).unwrap();
        assert_eq!((report.messages.len(), report.missed, report.messages[0].number), (UNREAD_MAX, 7, 8));
        assert_eq!(report.up.messages, UNREAD_MAX as u64 + 7);
    }

    #[test]
    fn a_tap_that_is_not_read_any_more_is_forgotten() {
        let mut taps = Taps::default();
        let (asked, forgotten) = (taps.begin(1, JSON, false).unwrap(), taps.begin(2, JSON, false).unwrap());
        for _ in 0..=IDLE_TICKS {
            assert!(taps.report(asked).is_some());
            taps.tick();
        }
        assert!(taps.report(asked).is_some() && taps.report(forgotten).is_none());
    }

    #[test]
    fn taps_are_bounded_in_number_and_end_with_their_connection() {
        let mut taps = Taps::default();
        let all: Vec<_> = (0..TAPS_MAX).map(|_| taps.begin(1, JSON, false).unwrap()).collect();
        assert_eq!(taps.begin(1, JSON, false), None);
        taps.closed(1, None, None);
        assert!(taps.slots().is_empty());
        taps.tap_up(1, CALL, 0);
        let report = taps.report(all[0]).unwrap();
        assert!(report.is_over && report.messages.is_empty());
        all.iter().for_each(|tap| taps.end(*tap));
        assert!(!taps.are_any() && taps.report(all[0]).is_none());
    }
}
