//! Frames in outboxes with their traces, until written. Pure.
//!
//! A frame is written when its outbox has at most as many bytes as were queued after the frame. So delivery only has to
//! report the number of queued bytes.

use std::collections::{HashMap, VecDeque};

use tokio::time::Instant;

use crate::engine::shard::{Serial, Slot};

/// Maximum number of tracked frames. The write times of older frames are not reported.
const UNWRITTEN_MAX: usize = 2_048;

/// Queued data of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// Bytes in the client's outbox, and bytes held back from it.
    Bytes(usize),
    /// No socket, but may get one.
    Away,
    /// Connection closed or moved away.
    Gone,
}

/// Frame, and the traced messages in it as pairs of trace and message number.
#[derive(Debug)]
struct UnwrittenFrame {
    slot: Slot,
    serial: Serial,
    bytes: usize,
    since: Instant,
    told: Vec<(u64, u64)>,
}

/// Frame with a final state: queue time, messages, and whether it was written.
type SettledFrame = (Instant, Vec<(u64, u64)>, bool);

/// Frames not yet written, oldest first.
#[derive(Debug, Default)]
pub(super) struct UnwrittenFrames(VecDeque<UnwrittenFrame>);

impl UnwrittenFrames {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a frame about to be queued in a client's outbox.
    pub(super) fn push(&mut self, slot: Slot, serial: Serial, bytes: usize, (since, told): (Instant, Vec<(u64, u64)>)) {
        if self.0.len() >= UNWRITTEN_MAX {
            self.0.pop_front();
        }
        self.0.push_back(UnwrittenFrame { slot, serial, bytes, since, told });
    }

    /// Takes the frames that were written or lost, given each client's queued data.
    pub(super) fn settle(&mut self, wait_of: impl Fn(Slot, Serial) -> Wait) -> Vec<SettledFrame> {
        let (mut behind, mut settled, mut left) = (HashMap::<Slot, usize>::new(), Vec::new(), VecDeque::new());
        for frame in std::mem::take(&mut self.0).into_iter().rev() {
            let queued_behind = behind.entry(frame.slot).or_default();
            match wait_of(frame.slot, frame.serial) {
                Wait::Bytes(waiting) if waiting > *queued_behind => {
                    *queued_behind += frame.bytes;
                    left.push_front(frame);
                }
                Wait::Bytes(_) => settled.push((frame.since, frame.told, true)),
                Wait::Away => left.push_front(frame),
                Wait::Gone => settled.push((frame.since, frame.told, false)),
            }
        }
        self.0 = left;
        settled.reverse();
        settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(slots: &[(Slot, usize)]) -> UnwrittenFrames {
        let mut frames = UnwrittenFrames::default();
        for ((slot, bytes), number) in slots.iter().zip(0..) {
            frames.push(*slot, 1, *bytes, (Instant::now(), vec![(0, number)]));
        }
        frames
    }

    fn numbers(settled: Vec<SettledFrame>) -> Vec<(u64, bool)> {
        settled
            .into_iter()
            .flat_map(|(_, told, is_written)| told.into_iter().map(move |(_, n)| (n, is_written)))
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_was_written_when_only_what_stands_behind_it_waits() {
        let mut frames = frames(&[(1, 10), (2, 10), (1, 20), (1, 30)]);
        let waits = |first, second| move |slot, _| Wait::Bytes(if slot == 1 { first } else { second });
        assert!(frames.settle(waits(55, 1)).is_empty(), "the first one is written in part");
        assert_eq!(numbers(frames.settle(waits(45, 0))), [(0, true), (1, true)]);
        assert_eq!(numbers(frames.settle(waits(30, 0))), [(2, true)]);
        assert_eq!(numbers(frames.settle(waits(0, 0))), [(3, true)]);
        assert!(frames.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn frames_of_a_client_that_is_away_wait_and_those_of_one_that_is_gone_are_lost() {
        let mut frames = frames(&[(1, 10), (2, 10)]);
        let settled = frames.settle(|slot, _| if slot == 1 { Wait::Away } else { Wait::Gone });
        assert_eq!(numbers(settled), [(1, false)]);
        assert_eq!(numbers(frames.settle(|_, _| Wait::Bytes(0))), [(0, true)]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_frames_are_given_up_first() {
        let mut frames = frames(&vec![(1, 1); UNWRITTEN_MAX + 3]);
        assert_eq!(numbers(frames.settle(|_, _| Wait::Bytes(0))).first(), Some(&(3, true)));
    }
}
