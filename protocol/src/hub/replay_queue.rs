//! Send queue for one end of a connection with stateful reconnect: frames are numbered and kept while there is room,
//! and held beyond that.
//!
//! ```text
//!  frame ──► room in the replay buffer? ─ yes ──► numbered, kept, written ──► acknowledged ──► dropped
//!                   └─ no ──► held, not written ─────────────────── room ────────┘
//! ```
//!
//! While the queue is on hold, there is no room, because the peer does not count messages yet.

use std::collections::VecDeque;
use std::mem;

use super::ReplayBuffer;

/// Frames for a client: unacknowledged ones, followed by those waiting for room.
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
    pub fn add(&mut self, frame: F, messages: u32) {
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
        held.into_iter().for_each(|(frame, messages)| self.add(frame, messages));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(limit_bytes: usize, lengths: &[usize]) -> ReplayQueue<Vec<u8>> {
        let mut queue = ReplayQueue::new(limit_bytes);
        lengths.iter().for_each(|length| queue.add(vec![b'x'; *length], 1));
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
        [2, 3].iter().for_each(|length| queue.add(vec![b'x'; *length], 1));
        assert_eq!((queue.has_room(), queue.release(), queue.held_bytes(), queue.sent_bytes()), (false, None, 5, 1));
        assert_eq!((queue.end_hold(), queue.end_hold()), (true, false));
        queue.add(vec![b'x'; 4], 1);
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
