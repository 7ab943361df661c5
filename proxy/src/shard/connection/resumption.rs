//! Resumption of a client connection whose socket has ended: its sequence state, and what the client has not acknowledged.
//!
//! ```text
//!  frame ──► room in the replay buffer? ─ yes ──► numbered, kept, written ──► acknowledged ──► forgotten
//!                   └─ no ──► held, not written ─────────────────── room ────────┘
//! ```
//!
//! What is held counts like an outbox: a client that neither acknowledges nor reads is slow, and nobody waits for it.

use std::collections::VecDeque;

use bytes::Bytes;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::fleet::{CountedFrame, MovedState};
use trunkline_protocol::hub::{ReceivedSequence, ReplayBuffer};

use super::transit::Transit;
use crate::limits::AddressPermit;
use crate::metrics::MoveCause;
use crate::shard::send_origin::SendOrigin;
use crate::upstream::AppServerId;

/// State with which a client connection goes on over another socket.
#[derive(Debug)]
pub(crate) struct Resumption {
    /// Frames that were written, or wait for a socket, and are not acknowledged.
    sent: ReplayBuffer<Bytes>,
    /// Limit of those in bytes: while they are over it nothing more is written.
    limit_bytes: usize,
    /// Frames that wait for acknowledgements, with the number of their messages.
    held: VecDeque<(Bytes, u32)>,
    held_bytes: usize,
    /// Messages that have come from the client.
    pub received: ReceivedSequence,
    /// An acknowledgement for the client is due at the next tick.
    pub owes_acknowledgement: bool,
    /// `None` while the client has a socket.
    pub absence: Option<Absence>,
    /// Permit of its address, with a socket and without.
    pub permit: Option<Box<AddressPermit>>,
    /// Cause for which it moves to another node, if it does.
    pub move_cause: MoveCause,
    /// Frames that are sent to it while it moves to another node, or has not arrived yet.
    pub transit: Option<Box<Transit>>,
    /// Epochs of app servers from which on this node delivers what they send.
    pub epochs: Vec<(AppServerId, i64)>,
}

/// Absence of a client whose socket has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Absence {
    /// Tick at which its connection is given up.
    pub until: u32,
    /// Cause of the end of its socket.
    pub cause: Cause,
}

impl Resumption {
    /// State of a connection that begins, with this limit of unacknowledged bytes.
    #[must_use]
    pub(crate) fn new(limit_bytes: usize) -> Self {
        Self {
            sent: ReplayBuffer::default(),
            limit_bytes,
            held: VecDeque::new(),
            held_bytes: 0,
            received: ReceivedSequence::default(),
            owes_acknowledgement: false,
            absence: None,
            permit: None,
            move_cause: MoveCause::default(),
            transit: None,
            epochs: Vec::new(),
        }
    }

    /// Whether a frame may be numbered and written now.
    #[must_use]
    pub(crate) fn has_room(&self) -> bool {
        self.held.is_empty() && self.is_below_limit()
    }

    fn is_below_limit(&self) -> bool {
        self.sent.bytes() < self.limit_bytes.max(1)
    }

    /// Keeps a frame of so many messages until it is acknowledged.
    pub(crate) fn keep(&mut self, frame: Bytes, messages: u32) {
        self.sent.push(frame, messages);
    }

    /// Holds a frame back until there is room.
    pub(crate) fn hold(&mut self, frame: Bytes, messages: u32) {
        self.held_bytes += frame.len();
        self.held.push_back((frame, messages));
    }

    /// Next held frame for which there is room; it is kept from now on.
    pub(crate) fn release(&mut self) -> Option<Bytes> {
        if !self.is_below_limit() {
            return None;
        }
        let (frame, messages) = self.held.pop_front()?;
        self.held_bytes -= frame.len();
        self.sent.push(frame.clone(), messages);
        Some(frame)
    }

    /// Forgets what the client has taken.
    pub(crate) fn acknowledge(&mut self, sequence_id: u64) {
        self.sent.acknowledge(sequence_id);
    }

    /// Number of the first message that a new socket brings.
    #[must_use]
    pub(crate) fn sequence(&self) -> u64 {
        self.sent.sequence()
    }

    /// Frames that a new socket brings first.
    pub(crate) fn unacknowledged(&self) -> impl ExactSizeIterator<Item = &Bytes> {
        self.sent.frames()
    }

    /// Bytes that are kept and held for the client.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        self.sent.bytes() + self.held_bytes + self.transit.as_ref().map_or(0, |transit| transit.bytes())
    }

    /// Bytes that count like those of an outbox.
    #[must_use]
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.bytes() - self.sent.bytes()
    }

    /// Whether a send is delivered by the owner that the connection had before.
    #[must_use]
    pub(crate) fn is_of_old_owner(&self, origin: SendOrigin) -> bool {
        self.epochs.iter().any(|(app, epoch)| *app == origin.app && origin.epoch < *epoch)
    }

    /// State for another node, with these frames behind what waits here.
    #[must_use]
    pub(crate) fn state(&self, behind: Vec<CountedFrame>) -> MovedState {
        let sent = self.sent.counted_frames().map(|(frame, messages)| (frame.clone(), messages));
        MovedState {
            sequence: self.sent.sequence(),
            sent: sent.collect(),
            held: self.held.iter().cloned().chain(behind).collect(),
            received: self.received.latest(),
            ..MovedState::default()
        }
    }

    /// Takes the state over that another node had.
    pub(crate) fn restore(&mut self, state: MovedState) {
        self.sent = ReplayBuffer::starting_at(state.sequence);
        state.sent.into_iter().for_each(|(frame, messages)| self.sent.push(frame, messages));
        self.received = ReceivedSequence::after(state.received);
        state.held.into_iter().for_each(|(frame, messages)| self.add(frame, messages));
    }

    /// Keeps a frame, or holds it back where there is no room.
    pub(crate) fn add(&mut self, frame: Bytes, messages: u32) {
        if self.has_room() { self.keep(frame, messages) } else { self.hold(frame, messages) }
    }

    /// Whether the client has no socket.
    #[must_use]
    pub(crate) fn is_away(&self) -> bool {
        self.absence.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(length: usize) -> Bytes {
        Bytes::from(vec![b'x'; length])
    }

    #[test]
    fn beyond_the_limit_frames_are_held_until_there_is_room_and_keep_their_order() {
        let mut resumption = Resumption::new(100);
        resumption.keep(frame(100), 1);
        assert!(!resumption.has_room());
        resumption.hold(frame(1), 1);
        resumption.hold(frame(2), 1);
        assert_eq!((resumption.release(), resumption.waiting_bytes(), resumption.bytes()), (None, 3, 103));
        resumption.acknowledge(1);
        assert!(!resumption.has_room(), "what is held goes first");
        assert_eq!(resumption.release().map(|frame| frame.len()), Some(1));
        assert_eq!(resumption.release().map(|frame| frame.len()), Some(2));
        assert_eq!((resumption.release(), resumption.sequence(), resumption.bytes()), (None, 2, 3));
    }

    #[test]
    fn a_large_frame_passes_while_there_is_any_room() {
        let mut resumption = Resumption::new(100);
        assert!(resumption.has_room());
        resumption.keep(frame(1_000), 1);
        assert!(!resumption.has_room());
        assert_eq!(Resumption::new(0).release(), None);
        assert!(Resumption::new(0).has_room(), "one at a time, at least");
    }
}
