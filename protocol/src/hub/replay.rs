//! Sequence state of one end of a connection with stateful reconnect: what a socket that breaks loses is sent again,
//! and nothing is taken twice.
//!
//! Pure: each end counts the messages that it sends and those that it gets, without a number on the wire. A new socket
//! begins with a `Sequence` in each direction, which says what the first message after it is.
//!
//! ```text
//!  sent ──► ReplayBuffer ──► socket          Ack(n): all up to n have arrived, and are forgotten
//!                └─ Sequence(k), k, k+1, … ──► new socket
//!  socket ──► ReceivedSequence ──► taken once, those that were taken before are dropped
//! ```
//!
//! Source: the hub protocol, *stateful reconnect*; where specification and shipped clients differ, as the clients do.

use std::collections::VecDeque;

use super::MessageKind;

impl MessageKind {
    /// Whether messages of this kind are counted.
    #[must_use]
    pub fn is_sequenced(self) -> bool {
        self.has_invocation_id()
    }
}

/// Messages that were sent and are not acknowledged, in frames of type `F`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayBuffer<F> {
    frames: VecDeque<ReplayFrame<F>>,
    bytes: usize,
    /// Number of the message that is sent next.
    next: u64,
}

/// Frame of one or several messages, which stand together on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ReplayFrame<F> {
    frame: F,
    /// Number of its last message.
    last: u64,
    messages: u32,
}

impl<F> Default for ReplayBuffer<F> {
    fn default() -> Self {
        Self { frames: VecDeque::new(), bytes: 0, next: 1 }
    }
}

impl<F: AsRef<[u8]>> ReplayBuffer<F> {
    /// Keeps a frame that holds so many counted messages; one without any is not kept.
    pub fn push(&mut self, frame: F, messages: u32) {
        if messages > 0 {
            self.next += u64::from(messages);
            self.bytes += frame.as_ref().len();
            self.frames.push_back(ReplayFrame { frame, last: self.next - 1, messages });
        }
    }

    /// Forgets what the other end has taken. A number that was never sent acknowledges all.
    pub fn acknowledge(&mut self, sequence_id: u64) {
        while let Some(arrived) = self.frames.pop_front_if(|kept| kept.last <= sequence_id) {
            self.bytes -= arrived.frame.as_ref().len();
        }
    }

    /// Number of the first message behind a `Sequence` that is sent now.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.frames.front().map_or(self.next, |kept| kept.last + 1 - u64::from(kept.messages))
    }

    /// Frames that were not acknowledged, in their order.
    pub fn frames(&self) -> impl ExactSizeIterator<Item = &F> {
        self.frames.iter().map(|kept| &kept.frame)
    }

    /// Frames that were not acknowledged, each with the number of its messages.
    pub fn counted_frames(&self) -> impl ExactSizeIterator<Item = (&F, u32)> {
        self.frames.iter().map(|kept| (&kept.frame, kept.messages))
    }

    /// Bytes of the frames that were not acknowledged.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether all that was sent is acknowledged.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// An empty buffer whose next message has this number, to take over what another one had.
    #[must_use]
    pub fn starting_at(next: u64) -> Self {
        Self { next, ..Self::default() }
    }
}

/// Count of the messages that have come from the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceivedSequence {
    /// Number of the next message on this socket.
    next: u64,
    /// Highest number that was taken.
    latest: u64,
    acknowledged: u64,
}

/// Reason to refuse a `Sequence`: the connection can't go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SequenceError {
    /// Messages before it have never come.
    #[error("Sequence ID greater than amount of messages we've received.")]
    Gap,
    /// Messages are numbered from 1.
    #[error("Sequence ID 0 is not allowed: the first message is number 1.")]
    Zero,
}

impl Default for ReceivedSequence {
    fn default() -> Self {
        Self::after(0)
    }
}

impl ReceivedSequence {
    /// The count behind this message.
    #[must_use]
    pub fn after(latest: u64) -> Self {
        Self { next: latest + 1, latest, acknowledged: latest }
    }

    /// Counts a message. Returns whether it is new; one that was taken before is to be dropped.
    pub fn take(&mut self) -> bool {
        let number = self.next;
        self.next = self.next.saturating_add(1);
        let is_new = number > self.latest;
        if is_new {
            self.latest = number;
        }
        is_new
    }

    /// Takes the number of the next message on this socket.
    ///
    /// # Errors
    /// When no message has this number, or messages before it have never come.
    pub fn begin_at(&mut self, sequence_id: u64) -> Result<(), SequenceError> {
        if sequence_id == 0 {
            return Err(SequenceError::Zero);
        }
        // The official server compares with the next number on the old socket, and fails where that one broke in the
        // middle of a repetition that was acknowledged before.
        if sequence_id > self.latest.saturating_add(1) {
            return Err(SequenceError::Gap);
        }
        self.next = sequence_id;
        // The other end repeats what it has not seen acknowledged, and may send nothing new before it does.
        self.acknowledged = self.acknowledged.min(sequence_id - 1);
        Ok(())
    }

    /// Highest number that was taken.
    #[must_use]
    pub fn latest(&self) -> u64 {
        self.latest
    }

    /// Whether an acknowledgement is due.
    #[must_use]
    pub fn is_owed(&self) -> bool {
        self.latest > self.acknowledged
    }

    /// Number to acknowledge, if any was taken since the last acknowledgement, or the other end has not seen that.
    pub fn acknowledgement(&mut self) -> Option<u64> {
        let is_owed = self.is_owed();
        self.acknowledged = self.latest;
        is_owed.then_some(self.latest)
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
    fn acknowledged_messages_are_forgotten_and_the_rest_is_numbered_from_the_oldest() {
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
    fn a_message_that_was_taken_is_dropped_when_it_comes_again() {
        let mut received = ReceivedSequence::default();
        assert!(received.take() && received.take() && received.take());
        assert_eq!((received.acknowledgement(), received.acknowledgement()), (Some(3), None));
        received.begin_at(2).unwrap();
        assert_eq!([received.take(), received.take(), received.take()], [false, false, true]);
        assert_eq!((received.latest(), received.acknowledgement()), (4, Some(4)));
    }

    #[test]
    fn what_is_repeated_is_acknowledged_again() {
        let mut received = ReceivedSequence::after(3);
        assert!(!received.is_owed());
        received.begin_at(2).unwrap();
        assert_eq!([received.take(), received.take()], [false, false]);
        assert_eq!((received.acknowledgement(), received.acknowledgement()), (Some(3), None), "the last one was lost");
        received.begin_at(4).unwrap();
        assert_eq!(received.acknowledgement(), None);
    }

    #[test]
    fn a_gap_and_the_number_zero_are_refused() {
        let mut received = ReceivedSequence::after(3);
        assert_eq!(received.begin_at(5), Err(SequenceError::Gap));
        assert_eq!(received.begin_at(0), Err(SequenceError::Zero));
        assert!(received.take(), "what was refused changes nothing");
        assert_eq!(received.begin_at(1), Ok(()));
        assert!(!received.take());
    }

    proptest! {
        /// A sender and a receiver whose sockets break at any moment: each message arrives once, in order.
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
                        if let Some(message) = socket.pop_front() && received.take() {
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
                if received.take() {
                    taken.extend(message);
                }
            }
            prop_assert_eq!(taken, (1..=made).collect::<Vec<u8>>());
        }
    }
}
