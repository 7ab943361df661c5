//! Sequence state at one end of a connection with stateful reconnect: messages lost with a socket are sent again, and
//! none is processed twice.
//!
//! Pure: each end counts sent and received messages without numbers on the wire. A new socket starts with a `Sequence`
//! in each direction, which gives the number of the first message after it.
//!
//! ```text
//!  sent ──► ReplayBuffer ──► socket          Ack(n): messages up to n have arrived and are dropped
//!                └─ Sequence(k), k, k+1, … ──► new socket
//!  socket ──► ReceivedSequence ──► accepted once, duplicates are dropped
//! ```
//!
//! Source: the hub protocol, *stateful reconnect*. Where shipped clients deviate from the specification, they take
//! precedence.

use std::collections::VecDeque;
use std::mem;

use super::MessageKind;

impl MessageKind {
    /// Whether messages of this kind are numbered.
    #[must_use]
    pub fn is_sequenced(self) -> bool {
        self.has_invocation_id()
    }
}

/// Unacknowledged messages, in frames of type `F`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayBuffer<F> {
    frames: VecDeque<ReplayFrame<F>>,
    bytes: usize,
    /// Number of the next message to send.
    next: u64,
}

/// Frame of one or more contiguous messages.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ReplayFrame<F> {
    frame: F,
    last: u64,
    messages: u32,
}

impl<F> Default for ReplayBuffer<F> {
    fn default() -> Self {
        Self { frames: VecDeque::new(), bytes: 0, next: 1 }
    }
}

impl<F: AsRef<[u8]>> ReplayBuffer<F> {
    /// Keeps a frame with this number of counted messages, unless it is zero.
    pub fn push(&mut self, frame: F, messages: u32) {
        if messages > 0 {
            self.next += u64::from(messages);
            self.bytes += frame.as_ref().len();
            self.frames.push_back(ReplayFrame { frame, last: self.next - 1, messages });
        }
    }

    /// Drops acknowledged messages. A number that was never sent acknowledges all.
    pub fn acknowledge(&mut self, sequence_id: u64) {
        while let Some(arrived) = self.frames.pop_front_if(|kept| kept.last <= sequence_id) {
            self.bytes -= arrived.frame.as_ref().len();
        }
    }

    /// Number of the first message after a `Sequence` sent now.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.frames.front().map_or(self.next, |kept| kept.last + 1 - u64::from(kept.messages))
    }

    /// Unacknowledged frames in order.
    pub fn frames(&self) -> impl ExactSizeIterator<Item = &F> {
        self.frames.iter().map(|kept| &kept.frame)
    }

    /// Unacknowledged frames, each with its number of messages.
    pub fn counted_frames(&self) -> impl ExactSizeIterator<Item = (&F, u32)> {
        self.frames.iter().map(|kept| (&kept.frame, kept.messages))
    }

    /// Total bytes of unacknowledged frames.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether all messages are acknowledged.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Creates an empty buffer that continues at this number, to take over another buffer's state.
    #[must_use]
    pub fn starting_at(next: u64) -> Self {
        Self { next, ..Self::default() }
    }
}

/// Count of the messages received from the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceivedSequence {
    /// Number of the next message on this socket.
    next: u64,
    /// Highest number that was accepted.
    latest: u64,
    acknowledged: u64,
}

/// Reason for rejecting a `Sequence`. The connection has to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SequenceError {
    /// Earlier messages never arrived.
    #[error("Sequence ID greater than amount of messages we've received.")]
    Gap,
    /// Numbers start at 1.
    #[error("Sequence ID 0 is not allowed: the first message is number 1.")]
    Zero,
}

impl Default for ReceivedSequence {
    fn default() -> Self {
        Self::after(0)
    }
}

impl ReceivedSequence {
    /// Creates the count after this message.
    #[must_use]
    pub fn after(latest: u64) -> Self {
        Self { next: latest + 1, latest, acknowledged: latest }
    }

    /// Counts a message. Returns whether it is new; duplicates have to be dropped.
    pub fn take_message(&mut self) -> bool {
        let number = self.next;
        self.next = self.next.saturating_add(1);
        let is_new = number > self.latest;
        if is_new {
            self.latest = number;
        }
        is_new
    }

    /// Sets the number of the next message on this socket. Fails if the number is 0, or earlier messages never arrived.
    pub fn begin_at(&mut self, sequence_id: u64) -> Result<(), SequenceError> {
        if sequence_id == 0 {
            return Err(SequenceError::Zero);
        }
        // The official server compares with the next number on the old socket, and fails if that socket broke during a
        // replay of messages that were already acknowledged.
        if sequence_id > self.latest.saturating_add(1) {
            return Err(SequenceError::Gap);
        }
        self.next = sequence_id;
        // The peer replays unacknowledged messages, and may send no new ones before.
        self.acknowledged = self.acknowledged.min(sequence_id - 1);
        Ok(())
    }

    /// Highest number that was accepted.
    #[must_use]
    pub fn latest(&self) -> u64 {
        self.latest
    }

    /// Whether an acknowledgement is due.
    #[must_use]
    pub fn is_owed(&self) -> bool {
        self.latest > self.acknowledged
    }

    /// Number to acknowledge, if any message arrived since the last acknowledgement, or the peer has not received that.
    pub fn acknowledgement(&mut self) -> Option<u64> {
        let is_owed = self.is_owed();
        self.acknowledged = self.latest;
        is_owed.then_some(self.latest)
    }
}

/// Send queue for one end of a connection: unacknowledged frames, followed by those waiting for room.
///
/// ```text
///  frame ──► room in the replay buffer? ─ yes ──► numbered, kept, written ──► acknowledged ──► dropped
///                  └─ no ──► held, not written ─────────────────── room ────────┘
/// ```
///
/// While the queue is on hold, there is no room, because the peer does not count messages yet.
#[derive(Debug, Clone)]
pub struct ReplayQueue<F> {
    /// Unacknowledged frames, written or waiting for a socket.
    sent: ReplayBuffer<F>,
    /// Limit of their bytes; beyond it nothing is written.
    limit_bytes: usize,
    held: VecDeque<(F, u32)>,
    held_bytes: usize,
    /// Nothing is numbered or written.
    is_on_hold: bool,
}

impl<F: AsRef<[u8]> + Clone> ReplayQueue<F> {
    /// Creates an empty queue with this limit of unacknowledged bytes.
    #[must_use]
    pub fn new(limit_bytes: usize) -> Self {
        Self { sent: ReplayBuffer::default(), limit_bytes, held: VecDeque::new(), held_bytes: 0, is_on_hold: false }
    }

    /// Whether a frame may be numbered and written now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.held.is_empty() && !self.is_on_hold && self.is_below_limit()
    }

    /// Puts the queue on hold: new frames are held.
    pub fn hold(&mut self) {
        self.is_on_hold = true;
    }

    /// Whether the queue is on hold.
    #[must_use]
    pub fn is_on_hold(&self) -> bool {
        self.is_on_hold
    }

    /// Ends the hold. Returns whether there was one; held frames may then be released.
    pub fn end_hold(&mut self) -> bool {
        mem::take(&mut self.is_on_hold)
    }

    fn is_below_limit(&self) -> bool {
        self.sent.bytes() < self.limit_bytes.max(1)
    }

    /// Keeps a frame with this number of messages, or holds it if there is no room.
    pub fn add_frame(&mut self, frame: F, messages: u32) {
        if self.has_room() {
            self.sent.push(frame, messages);
        } else {
            self.held_bytes += frame.as_ref().len();
            self.held.push_back((frame, messages));
        }
    }

    /// Next held frame with room, which is kept from now on.
    pub fn release(&mut self) -> Option<F> {
        if self.is_on_hold || !self.is_below_limit() { None } else { self.release_last() }
    }

    /// Next held frame, regardless of the limit, because a close follows.
    pub fn release_last(&mut self) -> Option<F> {
        let (frame, messages) = self.held.pop_front()?;
        self.held_bytes -= frame.as_ref().len();
        self.sent.push(frame.clone(), messages);
        Some(frame)
    }

    /// Drops frames acknowledged by the client.
    pub fn acknowledge(&mut self, sequence_id: u64) {
        self.sent.acknowledge(sequence_id);
    }

    /// Number of the first message on a new socket.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sent.sequence()
    }

    /// Frames to replay on a new socket.
    pub fn unacknowledged(&self) -> impl ExactSizeIterator<Item = (&F, u32)> {
        self.sent.counted_frames()
    }

    /// Frames waiting for room, with their number of messages.
    pub fn held(&self) -> impl ExactSizeIterator<Item = &(F, u32)> {
        self.held.iter()
    }

    /// Total bytes of unacknowledged frames.
    #[must_use]
    pub fn sent_bytes(&self) -> usize {
        self.sent.bytes()
    }

    /// Total bytes of frames waiting for room.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Takes over another queue's state: the number of its first message, and its frames.
    pub fn restore(&mut self, sequence: u64, sent: Vec<(F, u32)>, held: Vec<(F, u32)>) {
        self.sent = ReplayBuffer::starting_at(sequence);
        sent.into_iter().for_each(|(frame, messages)| self.sent.push(frame, messages));
        held.into_iter().for_each(|(frame, messages)| self.add_frame(frame, messages));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn buffer(frames: &[(&'static str, u32)]) -> ReplayBuffer<&'static str> {
        let mut buffer = ReplayBuffer::default();
        frames.iter().for_each(|(frame, messages)| buffer.push(*frame, *messages));
        buffer
    }

    fn kept(buffer: &ReplayBuffer<&'static str>) -> String {
        buffer.frames().copied().collect()
    }

    #[test]
    fn acknowledged_messages_are_dropped_and_a_replay_starts_at_the_oldest() {
        let mut buffer = buffer(&[("a", 1), ("p", 0), ("bc", 2), ("d", 1)]);
        assert_eq!((buffer.sequence(), kept(&buffer).as_str(), buffer.bytes()), (1, "abcd", 4));
        buffer.acknowledge(1);
        assert_eq!((buffer.sequence(), kept(&buffer).as_str()), (2, "bcd"));
        buffer.acknowledge(2);
        assert_eq!((buffer.sequence(), kept(&buffer).as_str()), (2, "bcd"), "half of a frame stays whole");
        buffer.acknowledge(1);
        buffer.acknowledge(99);
        assert_eq!((buffer.sequence(), buffer.bytes(), buffer.is_empty()), (5, 0, true));
        buffer.push("e", 1);
        assert_eq!(buffer.sequence(), 5);
    }

    #[test]
    fn a_repeated_message_is_dropped() {
        let mut received = ReceivedSequence::default();
        assert!(received.take_message() && received.take_message() && received.take_message());
        assert_eq!((received.acknowledgement(), received.acknowledgement()), (Some(3), None));
        received.begin_at(2).unwrap();
        assert_eq!([received.take_message(), received.take_message(), received.take_message()], [false, false, true]);
        assert_eq!((received.latest(), received.acknowledgement()), (4, Some(4)));
    }

    #[test]
    fn repeated_messages_are_acknowledged_again() {
        let mut received = ReceivedSequence::after(3);
        assert!(!received.is_owed());
        received.begin_at(2).unwrap();
        assert_eq!([received.take_message(), received.take_message()], [false, false]);
        assert_eq!((received.acknowledgement(), received.acknowledgement()), (Some(3), None), "the last one was lost");
        received.begin_at(4).unwrap();
        assert_eq!(received.acknowledgement(), None);
    }

    #[test]
    fn a_gap_and_the_number_zero_are_refused() {
        let mut received = ReceivedSequence::after(3);
        assert_eq!(received.begin_at(5), Err(SequenceError::Gap));
        assert_eq!(received.begin_at(0), Err(SequenceError::Zero));
        assert!(received.take_message(), "what was refused changes nothing");
        assert_eq!(received.begin_at(1), Ok(()));
        assert!(!received.take_message());
    }

    proptest! {
        /// Sender and receiver with sockets that break at any moment: each message arrives once, in order.
        #[test]
        fn nothing_is_lost_or_taken_twice_however_often_sockets_break(acts in prop::collection::vec(0u8..8, 1..400)) {
            let (mut sent, mut received) = (ReplayBuffer::default(), ReceivedSequence::default());
            let (mut socket, mut taken, mut made) = (VecDeque::<Vec<u8>>::new(), Vec::new(), 0u8);
            for act in acts {
                match act {
                    0..3 => {
                        made = made.wrapping_add(1);
                        sent.push(vec![made], 1);
                        socket.push_back(vec![made]);
                    }
                    3..6 => {
                        if let Some(message) = socket.pop_front() && received.take_message() {
                            taken.extend(message);
                        }
                    }
                    6 => sent.acknowledge(received.latest()),
                    _ => {
                        socket = sent.frames().cloned().collect();
                        received.begin_at(sent.sequence()).unwrap();
                    }
                }
            }
            for message in socket {
                if received.take_message() {
                    taken.extend(message);
                }
            }
            prop_assert_eq!(taken, (1..=made).collect::<Vec<u8>>());
        }
    }

    fn queue(limit_bytes: usize, lengths: &[usize]) -> ReplayQueue<Vec<u8>> {
        let mut queue = ReplayQueue::new(limit_bytes);
        lengths.iter().for_each(|length| queue.add_frame(vec![b'x'; *length], 1));
        queue
    }

    #[test]
    fn beyond_the_limit_frames_are_held_until_there_is_room_and_keep_their_order() {
        let mut queue = queue(100, &[100, 1, 2]);
        assert!(!queue.has_room());
        assert_eq!((queue.release(), queue.held_bytes(), queue.sent_bytes()), (None, 3, 100));
        queue.acknowledge(1);
        assert!(!queue.has_room(), "what is held goes first");
        assert_eq!(queue.release().map(|frame| frame.len()), Some(1));
        assert_eq!(queue.release().map(|frame| frame.len()), Some(2));
        assert_eq!((queue.release(), queue.sequence(), queue.sent_bytes()), (None, 2, 3));
    }

    #[test]
    fn a_queue_on_hold_writes_nothing_and_keeps_the_order() {
        let mut queue = queue(100, &[1]);
        queue.hold();
        [2, 3].iter().for_each(|length| queue.add_frame(vec![b'x'; *length], 1));
        assert_eq!((queue.has_room(), queue.release(), queue.held_bytes(), queue.sent_bytes()), (false, None, 5, 1));
        assert_eq!((queue.end_hold(), queue.end_hold()), (true, false));
        queue.add_frame(vec![b'x'; 4], 1);
        let released: Vec<_> = std::iter::from_fn(|| queue.release()).map(|frame| frame.len()).collect();
        assert_eq!((released, queue.has_room()), (vec![2, 3, 4], true));
    }

    #[test]
    fn a_large_frame_passes_while_there_is_any_room() {
        let queue = queue(100, &[1_000]);
        assert!(!queue.has_room());
        let mut none = ReplayQueue::<Vec<u8>>::new(0);
        assert!(none.has_room(), "one at a time, at least");
        assert_eq!(none.release(), None);
    }
}
