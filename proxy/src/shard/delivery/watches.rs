//! Clients whose messages somebody looks at: what went to and fro, the last of it kept, for as long as it is looked at.
//!
//! A shard without a watch pays one look at a flag for a send, however many get it, and one for a message of a client.
//! Clients carry nothing for it. Texts are kept only where they were asked for, without what looks like a secret.

mod content;
mod redact;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::clock::unix_ms;
use crate::shard::directory::{Content, Slot};
use crate::transport::websocket::{Unframed, unframe_whole};

/// Watches that one shard has at a time.
pub(crate) const WATCHES_MAX: usize = 16;

/// A watch that nobody has asked about for so many ticks is forgotten: whoever began it is gone without a word.
const IDLE_TICKS: u32 = 10;

/// Messages of a watch that are kept until they are asked for.
const NOTED_MAX: usize = 200;

/// Which way a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Way {
    /// Client → app server.
    Up,
    /// App server → client.
    Down,
}

/// One message of a client that is watched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Noted {
    /// Its number in the watch, from 1.
    pub number: u64,
    /// When it passed, in milliseconds since 1970.
    pub at_ms: u64,
    pub way: Way,
    /// What kind of hub message it is, or of a raw endpoint's.
    pub kind: String,
    /// The method, where it names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The id of its invocation or stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invocation_id: Option<String>,
    /// How large it is.
    pub bytes: u64,
    /// What it says, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
}

/// How much went one way since the watch began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Amount {
    pub messages: u64,
    pub bytes: u64,
}

/// What a watch has seen since it was asked last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    /// What the client sent since the watch began.
    pub up: Amount,
    /// What it was sent.
    pub down: Amount,
    /// The newest messages, oldest first.
    pub messages: Vec<Noted>,
    /// Messages before these that were not kept.
    pub missed: u64,
    /// The client connection is over.
    pub is_over: bool,
}

/// The watches of one shard.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    are_any: Cell<bool>,
    next: Cell<u64>,
    all: RefCell<Vec<Watch>>,
}

#[derive(Debug)]
struct Watch {
    number: u64,
    slot: Slot,
    content: Content,
    with_payloads: bool,
    idle_ticks: u32,
    noted: u64,
    kept: VecDeque<Noted>,
    report: Report,
}

impl Watches {
    /// Whether there is any.
    #[must_use]
    pub(crate) fn are_any(&self) -> bool {
        self.are_any.get()
    }

    /// Begins to watch; `None` when there are too many.
    #[must_use]
    pub(crate) fn begin(&self, slot: Slot, content: Content, with_payloads: bool) -> Option<u64> {
        let mut all = self.all.borrow_mut();
        if all.len() >= WATCHES_MAX {
            return None;
        }
        let number = self.next.replace(self.next.get() + 1);
        let (kept, report) = (VecDeque::new(), Report::default());
        all.push(Watch { number, slot, content, with_payloads, idle_ticks: 0, noted: 0, kept, report });
        self.are_any.set(true);
        Some(number)
    }

    /// What was seen since it was asked last; `None` for a watch that has ended.
    #[must_use]
    pub(crate) fn report(&self, number: u64) -> Option<Report> {
        let mut all = self.all.borrow_mut();
        Some(all.iter_mut().find(|watch| watch.number == number)?.report())
    }

    pub(crate) fn end(&self, number: u64) {
        let mut all = self.all.borrow_mut();
        all.retain(|watch| watch.number != number);
        self.are_any.set(!all.is_empty());
    }

    /// A second has passed.
    pub(crate) fn tick(&self) {
        if !self.are_any() {
            return;
        }
        let mut all = self.all.borrow_mut();
        all.iter_mut().for_each(|watch| watch.idle_ticks += 1);
        all.retain(|watch| watch.idle_ticks <= IDLE_TICKS);
        self.are_any.set(!all.is_empty());
    }

    /// A client connection is over: what comes at its place is another one's.
    pub(crate) fn gone(&self, slot: Slot) {
        if !self.are_any() {
            return;
        }
        for watch in self.all.borrow_mut().iter_mut().filter(|watch| watch.slot == slot) {
            watch.report.is_over = true;
        }
    }

    /// The places of those that are watched, each once.
    #[must_use]
    pub(crate) fn slots(&self) -> Vec<Slot> {
        let all = self.all.borrow();
        let mut slots: Vec<_> = all.iter().filter(|watch| !watch.report.is_over).map(|watch| watch.slot).collect();
        slots.sort_unstable();
        slots.dedup();
        slots
    }

    /// Notes whole messages of a client, if it is watched.
    #[cold]
    pub(crate) fn note_up(&self, slot: Slot, messages: &[u8]) {
        self.note(slot, Way::Up, &Bytes::copy_from_slice(messages));
    }

    /// Notes a frame for a client, if it is watched.
    #[cold]
    pub(crate) fn note_down(&self, slot: Slot, frame: &Bytes) {
        if let Some(Unframed::Payload(messages)) = unframe_whole(frame) {
            self.note(slot, Way::Down, &messages);
        }
    }

    fn note(&self, slot: Slot, way: Way, messages: &Bytes) {
        let mut all = self.all.borrow_mut();
        for watch in all.iter_mut().filter(|watch| watch.slot == slot && !watch.report.is_over) {
            for message in content::read(watch.content, messages, watch.with_payloads) {
                watch.keep(way, message);
            }
        }
    }
}

impl Watch {
    fn keep(&mut self, way: Way, message: content::Message) {
        let amount = match way {
            Way::Up => &mut self.report.up,
            Way::Down => &mut self.report.down,
        };
        amount.messages += 1;
        amount.bytes += message.bytes;
        self.noted += 1;
        if self.kept.len() >= NOTED_MAX {
            self.kept.pop_front();
            self.report.missed += 1;
        }
        let content::Message { kind, target, invocation_id, bytes, payload } = message;
        let (number, at_ms) = (self.noted, unix_ms());
        self.kept.push_back(Noted { number, at_ms, way, kind: kind.into(), target, invocation_id, bytes, payload });
    }

    fn report(&mut self) -> Report {
        let messages = self.kept.drain(..).collect();
        let report = Report { messages, ..self.report.clone() };
        self.idle_ticks = 0;
        self.report.missed = 0;
        report
    }
}

#[cfg(test)]
mod tests {
    use trunkline_protocol::hub::HubProtocol;

    use super::super::frame_for;
    use super::*;

    const JSON: Content = Content::Hub(HubProtocol::Json);
    const CALL: &[u8] = b"{\"type\":1,\"target\":\"Say\",\"arguments\":[\"ann\",{\"password\":\"hush\"}]}\x1e";

    #[test]
    fn only_who_is_watched_is_noted_and_texts_only_where_asked_for() {
        let watches = Watches::default();
        assert!(!watches.are_any());
        let (plain, full) = (watches.begin(1, JSON, false).unwrap(), watches.begin(1, JSON, true).unwrap());
        assert_eq!(watches.slots(), [1]);
        watches.note_up(1, &[CALL, CALL].concat());
        watches.note_up(2, CALL);
        watches.note_down(1, &frame_for(HubProtocol::Json, CALL));
        let report = watches.report(plain).unwrap();
        assert_eq!((report.up.messages, report.up.bytes), (2, 2 * CALL.len() as u64));
        assert_eq!((report.down.messages, report.messages.len()), (1, 3));
        assert!(report.messages.iter().all(|noted| noted.payload.is_none() && noted.target.as_deref() == Some("Say")));
        let report = watches.report(full).unwrap();
        assert_eq!(report.messages[2].payload.as_deref(), Some(r#"["ann",{"password":"[redacted]"}]"#));
        assert_eq!((report.messages[2].way, report.messages[2].number), (Way::Down, 3));
        assert!(watches.report(full).unwrap().messages.is_empty(), "each is told once");
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_was_dropped_is_counted() {
        let watches = Watches::default();
        let watch = watches.begin(1, JSON, false).unwrap();
        (0..NOTED_MAX + 7).for_each(|_| watches.note_up(1, CALL));
        let report = watches.report(watch).unwrap();
        assert_eq!((report.messages.len(), report.missed, report.messages[0].number), (NOTED_MAX, 7, 8));
        assert_eq!(report.up.messages, NOTED_MAX as u64 + 7);
    }

    #[test]
    fn who_is_not_asked_about_any_more_is_forgotten() {
        let watches = Watches::default();
        let (asked, forgotten) = (watches.begin(1, JSON, false).unwrap(), watches.begin(2, JSON, false).unwrap());
        for _ in 0..=IDLE_TICKS {
            assert!(watches.report(asked).is_some());
            watches.tick();
        }
        assert!(watches.report(asked).is_some() && watches.report(forgotten).is_none());
    }

    #[test]
    fn there_are_only_so_many_and_a_place_that_is_taken_anew_is_not_watched() {
        let watches = Watches::default();
        let all: Vec<_> = (0..WATCHES_MAX).map(|_| watches.begin(1, JSON, false).unwrap()).collect();
        assert_eq!(watches.begin(1, JSON, false), None);
        watches.gone(1);
        assert!(watches.slots().is_empty());
        watches.note_up(1, CALL);
        let report = watches.report(all[0]).unwrap();
        assert!(report.is_over && report.messages.is_empty());
        all.iter().for_each(|watch| watches.end(*watch));
        assert!(!watches.are_any() && watches.report(all[0]).is_none());
    }
}
