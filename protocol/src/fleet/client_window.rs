//! Window of one client: bytes sent to that client alone and not confirmed yet. No I/O.
//!
//! ```text
//!  send ──space, no waiting sender──► reserved ──queued──► unmarked ──64 KiB──► marked ──confirmed──► free
//!    │                                   ▲   └─cancelled─► free └─sender waits────▲
//!    └─else──► in line ──first, and space┘
//! ```
//!
//! A mark is a number sent in order with the data; its confirmation frees all bytes before it. A message of any size
//! fits when nothing is unconfirmed. Marks are sent again on the next link after a lost link, and to the new node of a
//! moved client. Numbers are unique in the process, so a late confirmation never confirms newer data, and a client
//! without open marks needs no state.
//!
//! **Invariant: waits form no cycle.** A sender waits for the window of its client first, then for the end of a move,
//! then for space on the link. While waiting for the window it holds no lock, no permit to queue a frame (so no move
//! waits for it), no position in the queue of a link, and no worker of another connection. A window is freed by the
//! reader of a link, the end of a connection, or a dropped sender; none of these waits. `tests/simulation` checks this.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// Maximum number of unconfirmed bytes for one client. A single message may be larger.
pub const CLIENT_WINDOW_MAX_BYTES: u32 = 256 * 1024;

/// Bytes to one client before a mark is sent. Three times as many can be in flight while a mark is confirmed.
const MARK_INTERVAL_BYTES: u32 = 64 * 1024;

/// Queue of senders waiting for a window: the first waits for free space, the others for their turn.
pub trait SenderLine: Default {
    /// Makes the first sender try again. The wake-up is kept if that sender does not wait yet.
    fn wake(&self);
}

/// Window of one client, with a line of waiting senders.
#[derive(Debug, Default)]
pub struct ClientWindow<L> {
    /// Bytes of admitted messages that are not queued for a link yet.
    reserved: u32,
    /// Bytes queued since the last mark.
    unmarked: u32,
    open: Option<Box<OpenWindow<L>>>,
}

#[derive(Debug, Default)]
struct OpenWindow<L> {
    marks: VecDeque<OpenMark>,
    waiting: usize,
    line: Arc<L>,
}

/// Unconfirmed mark, with the number of bytes since the previous mark.
#[derive(Debug)]
struct OpenMark {
    number: i64,
    bytes: u32,
}

impl<L: SenderLine> ClientWindow<L> {
    /// Reserves space for a message if it fits and no sender is waiting.
    pub fn reserve(&mut self, bytes: u32) -> bool {
        self.open.as_ref().is_none_or(|open| open.waiting == 0) && self.reserve_first(bytes)
    }

    /// Reserves space for the first waiting sender's message, if it fits.
    pub fn reserve_first(&mut self, bytes: u32) -> bool {
        let unconfirmed = self.unconfirmed();
        let has_room = unconfirmed == 0 || unconfirmed.saturating_add(bytes) <= CLIENT_WINDOW_MAX_BYTES;
        if has_room {
            self.reserved = self.reserved.saturating_add(bytes);
        }
        has_room
    }

    /// Adds a waiting sender; `None` at the limit.
    pub fn begin_wait(&mut self, waiting_max: usize) -> Option<Arc<L>> {
        let open = self.open.get_or_insert_default();
        let has_place = open.waiting < waiting_max;
        open.waiting += usize::from(has_place);
        let line = has_place.then(|| Arc::clone(&open.line));
        self.shrink();
        line
    }

    /// Removes a waiting sender.
    pub fn end_wait(&mut self) {
        if let Some(open) = &mut self.open {
            open.waiting = open.waiting.saturating_sub(1);
        }
        self.shrink();
    }

    /// Records that an admitted message was queued. Returns the number of the mark to send, if one is due.
    pub fn note_queued(&mut self, bytes: u32) -> Option<i64> {
        self.reserved = self.reserved.saturating_sub(bytes);
        self.unmarked = self.unmarked.saturating_add(bytes);
        if self.unmarked >= MARK_INTERVAL_BYTES {
            return Some(self.mark());
        }
        if self.last_mark().is_none() {
            // The first waiting sender may have waited only for this message to be queued.
            self.wake();
        }
        None
    }

    /// Frees the space of an admitted message that was dropped.
    pub fn give_up(&mut self, bytes: u32) {
        self.reserved = self.reserved.saturating_sub(bytes);
        self.wake();
    }

    /// Marks the bytes before the first waiting sender, unless a mark is open. Returns the number of the mark.
    pub fn mark_rest(&mut self) -> Option<i64> {
        (self.unmarked > 0 && self.last_mark().is_none()).then(|| self.mark())
    }

    /// Confirms a mark and all earlier ones.
    pub fn confirm(&mut self, number: i64) {
        let Some(open) = &mut self.open else { return };
        while open.marks.pop_front_if(|mark| mark.number <= number).is_some() {}
        self.wake();
        self.shrink();
    }

    /// Number of the last unconfirmed mark. Its confirmation frees all marks.
    pub fn last_mark(&self) -> Option<i64> {
        self.open.as_ref()?.marks.back().map(|mark| mark.number)
    }

    /// Frees all queued bytes, because no confirmation will arrive.
    pub fn release(&mut self) {
        self.unmarked = 0;
        self.confirm(i64::MAX);
    }

    fn mark(&mut self) -> i64 {
        static LATEST: AtomicI64 = AtomicI64::new(0);
        let number = LATEST.fetch_add(1, Ordering::Relaxed) + 1;
        let bytes = std::mem::take(&mut self.unmarked);
        self.open.get_or_insert_default().marks.push_back(OpenMark { number, bytes });
        number
    }

    fn unconfirmed(&self) -> u32 {
        let marks = self.open.iter().flat_map(|open| &open.marks);
        marks.map(|mark| mark.bytes).fold(self.reserved.saturating_add(self.unmarked), u32::saturating_add)
    }

    fn wake(&self) {
        if let Some(open) = self.open.as_ref().filter(|open| open.waiting > 0) {
            open.line.wake();
        }
    }

    fn shrink(&mut self) {
        if self.open.as_ref().is_some_and(|open| open.marks.is_empty() && open.waiting == 0) {
            self.open = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    type Window = ClientWindow<Unwoken>;

    /// Line of senders that try again by themselves.
    #[derive(Debug, Default)]
    struct Unwoken;

    impl SenderLine for Unwoken {
        fn wake(&self) {}
    }

    const HALF: u32 = CLIENT_WINDOW_MAX_BYTES / 2;

    #[test]
    fn a_small_sender_owes_no_mark_and_costs_nothing() {
        let mut window = Window::default();
        for _ in 0..3 {
            assert!(window.reserve(20_000));
            assert_eq!(window.note_queued(20_000), None);
        }
        assert!(window.open.is_none());
        assert!(window.reserve(6_000));
        let number = window.note_queued(6_000).unwrap();
        window.confirm(number - 1);
        assert_eq!(window.last_mark(), Some(number));
        window.confirm(number);
        assert!(window.open.is_none() && window.unconfirmed() == 0);
    }

    #[test]
    fn a_confirmation_frees_everything_up_to_its_mark() {
        let mut window = Window::default();
        let send = |window: &mut Window| {
            assert!(window.reserve(MARK_INTERVAL_BYTES));
            window.note_queued(MARK_INTERVAL_BYTES).unwrap()
        };
        let marks = [(); 4].map(|()| send(&mut window));
        assert!(!window.reserve(1));
        window.confirm(marks[2]);
        assert_eq!(window.unconfirmed(), MARK_INTERVAL_BYTES);
        window.confirm(marks[0]);
        assert_eq!(window.unconfirmed(), MARK_INTERVAL_BYTES, "a late confirmation frees nothing");
        window.release();
        assert!(send(&mut window) > marks[3], "no number is used again");
    }

    #[test]
    fn a_message_of_any_size_has_room_when_nothing_is_unconfirmed() {
        let mut window = Window::default();
        assert!(window.reserve(u32::MAX));
        assert!(!window.reserve(1));
        let number = window.note_queued(u32::MAX).unwrap();
        assert!(!window.reserve(0) || window.unconfirmed() == u32::MAX);
        window.confirm(number);
        assert!(window.reserve(100) && window.note_queued(100).is_none());
        assert!(!window.reserve(CLIENT_WINDOW_MAX_BYTES));
        window.begin_wait(1).unwrap();
        assert!(!window.reserve(1), "later sends wait behind earlier ones");
        let rest = window.mark_rest().unwrap();
        window.confirm(rest);
        assert!(window.reserve_first(CLIENT_WINDOW_MAX_BYTES));
    }

    #[test]
    fn as_many_wait_as_may() {
        let mut window = Window::default();
        assert!(window.reserve(CLIENT_WINDOW_MAX_BYTES));
        assert!(window.begin_wait(2).is_some() && window.begin_wait(2).is_some());
        assert!(window.begin_wait(2).is_none());
        window.end_wait();
        assert!(window.begin_wait(2).is_some());
        window.end_wait();
        window.end_wait();
        assert!(window.open.is_none());
    }

    #[derive(Debug, Clone)]
    enum Event {
        Send(u32),
        /// An admitted message is queued or dropped.
        Queue(usize),
        GiveUp(usize),
        Leave(usize),
        Confirm(usize),
        /// The link is lost or the client moves: its marks are lost, and the last one is sent again.
        LoseMarks,
        Release,
    }

    fn event() -> impl Strategy<Value = Event> {
        let bytes = prop_oneof![4 => 1..200_u32, 4 => 10_000..70_000_u32, 1 => HALF..3 * HALF];
        prop_oneof![
            6 => bytes.prop_map(Event::Send),
            5 => any::<usize>().prop_map(Event::Queue),
            1 => any::<usize>().prop_map(Event::GiveUp),
            1 => any::<usize>().prop_map(Event::Leave),
            2 => any::<usize>().prop_map(Event::Confirm),
            1 => Just(Event::LoseMarks),
            1 => Just(Event::Release),
        ]
    }

    /// Senders and node of one client, with everything in flight between them.
    #[derive(Debug, Default)]
    struct Peers {
        window: Window,
        sent: usize,
        waiting: Vec<(usize, u32)>,
        reserved: Vec<(usize, u32)>,
        /// Sizes of messages and numbers of marks that the node has not confirmed.
        line: Vec<Result<u32, i64>>,
        admitted: Vec<usize>,
        /// Mutant: lost marks are not sent again.
        forgets_marks: bool,
    }

    impl Peers {
        fn step(&mut self, event: Event) {
            match event {
                Event::Send(bytes) => {
                    self.sent += 1;
                    if self.window.reserve(bytes) {
                        self.admit(self.sent, bytes);
                    } else {
                        self.window.begin_wait(usize::MAX).unwrap();
                        self.waiting.push((self.sent, bytes));
                    }
                }
                Event::Queue(at) if !self.reserved.is_empty() => {
                    let (_, bytes) = self.reserved.remove(at % self.reserved.len());
                    self.line.push(Ok(bytes));
                    let mark = self.window.note_queued(bytes);
                    self.line.extend(mark.map(Err));
                }
                Event::GiveUp(at) if !self.reserved.is_empty() => {
                    let (_, bytes) = self.reserved.remove(at % self.reserved.len());
                    self.window.give_up(bytes);
                }
                Event::Leave(at) if !self.waiting.is_empty() => {
                    self.waiting.remove(at % self.waiting.len());
                    self.window.end_wait();
                }
                Event::Confirm(at) if !self.line.is_empty() => {
                    let rest = self.line.split_off(at % self.line.len() + 1);
                    if let Some(Err(number)) = self.line.iter().rev().find(|frame| frame.is_err()) {
                        self.window.confirm(*number);
                        let behind = self.line.iter().rposition(Result::is_err).unwrap();
                        self.line.drain(..=behind);
                    }
                    self.line.extend(rest);
                }
                Event::LoseMarks => {
                    let repeated = self.window.last_mark().filter(|_| !self.forgets_marks);
                    self.line.retain(|frame| frame.is_ok() || frame.err() == repeated);
                }
                Event::Release => {
                    self.window.release();
                    self.line.clear();
                }
                _ => {}
            }
            self.run_line();
            self.check();
        }

        fn admit(&mut self, number: usize, bytes: u32) {
            self.reserved.push((number, bytes));
            self.admitted.push(number);
        }

        /// Retries the first waiting sender, as after a wake-up.
        fn run_line(&mut self) {
            while let Some(&(number, bytes)) = self.waiting.first() {
                if !self.window.reserve_first(bytes) {
                    let mark = self.window.mark_rest();
                    self.line.extend(mark.map(Err));
                    return;
                }
                self.waiting.remove(0);
                self.window.end_wait();
                self.admit(number, bytes);
            }
        }

        fn check(&self) {
            let reserved = self.reserved.iter().map(|(_, bytes)| bytes);
            let messages: Vec<_> = reserved.chain(self.line.iter().flatten()).collect();
            let unconfirmed: u32 = messages.iter().copied().sum();
            assert_eq!(self.window.unconfirmed(), unconfirmed);
            assert!(unconfirmed <= CLIENT_WINDOW_MAX_BYTES || messages.len() == 1, "{self:?}");
            let marks: Vec<_> = self.line.iter().filter_map(|frame| frame.err()).collect();
            assert!(marks.is_sorted());
            if !self.forgets_marks {
                assert_eq!(self.window.last_mark(), marks.last().copied());
                assert!(self.window.open.is_none() == (marks.is_empty() && self.waiting.is_empty()));
            }
            assert!(self.admitted.is_sorted(), "the order of the senders is kept");
        }
    }

    /// Runs the events, then queues and confirms everything. Returns the number of senders still waiting.
    fn senders_left(mut peers: Peers, events: Vec<Event>) -> usize {
        events.into_iter().for_each(|event| peers.step(event));
        for _ in 0..=2 * peers.sent {
            while !peers.reserved.is_empty() {
                peers.step(Event::Queue(0));
            }
            peers.step(Event::Confirm(peers.line.len().saturating_sub(1)));
        }
        peers.waiting.len() + peers.reserved.len()
    }

    #[test]
    fn where_lost_marks_are_not_sent_again_a_sender_waits_for_ever() {
        let full = || [Event::Send(CLIENT_WINDOW_MAX_BYTES), Event::Queue(0), Event::Send(1), Event::LoseMarks].into();
        assert_eq!(senders_left(Peers { forgets_marks: true, ..Peers::default() }, full()), 1);
        assert_eq!(senders_left(Peers::default(), full()), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_window_holds_and_no_sender_waits_forever(events in vec(event(), 0..80)) {
            prop_assert_eq!(senders_left(Peers::default(), events), 0);
        }
    }
}
