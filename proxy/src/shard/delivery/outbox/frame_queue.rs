//! Queue of several frames, some of them droppable.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

#[derive(Debug, Default)]
pub(crate) struct FrameQueue {
    frames: VecDeque<QueuedFrame>,
    bytes: usize,
}

#[derive(Debug)]
struct QueuedFrame {
    frame: Bytes,
    need: Need,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Mandatory: without it, later frames make no sense.
    Must,
    /// Droppable when the client is too slow.
    May,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dropped {
    pub frames: u64,
    pub bytes: usize,
}

impl FrameQueue {
    /// Creates a queue of two frames, the first mandatory.
    pub(super) fn of_two(first: Bytes, second: Bytes, need: Need) -> Self {
        let bytes = first.len() + second.len();
        let (first, second) = (QueuedFrame { frame: first, need: Need::Must }, QueuedFrame { frame: second, need });
        Self { frames: VecDeque::from([first, second]), bytes }
    }

    pub(super) fn push(&mut self, frame: Bytes, need: Need) {
        self.bytes += frame.len();
        self.frames.push_back(QueuedFrame { frame, need });
    }

    pub(super) fn advance(&mut self, mut written: usize) {
        self.bytes -= written.min(self.bytes);
        while let Some(front) = self.frames.front_mut() {
            if written < front.frame.len() {
                if written > 0 {
                    front.frame.advance(written);
                    front.need = Need::Must;
                }
                return;
            }
            written -= front.frame.len();
            self.frames.pop_front();
        }
    }

    /// Drops droppable frames in one pass. There may be thousands, so request more bytes than currently needed.
    pub(super) fn drop_oldest(&mut self, bytes: usize) -> Dropped {
        let mut dropped = Dropped::default();
        self.frames.retain(|waiting| {
            let goes = waiting.need == Need::May && dropped.bytes < bytes;
            if goes {
                dropped.frames += 1;
                dropped.bytes += waiting.frame.len();
            }
            !goes
        });
        self.bytes -= dropped.bytes;
        dropped
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub(super) fn frames(&self) -> impl Iterator<Item = &Bytes> {
        self.frames.iter().map(|waiting| &waiting.frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(frames: &[(&'static str, Need)]) -> FrameQueue {
        let mut queue = FrameQueue::default();
        frames.iter().for_each(|(frame, need)| queue.push(Bytes::from_static(frame.as_bytes()), *need));
        queue
    }

    fn text(queue: &FrameQueue) -> String {
        queue.frames().map(|frame| str::from_utf8(frame).unwrap()).collect()
    }

    #[test]
    fn the_oldest_droppable_frames_go_first_and_no_more_than_needed() {
        let mut queue = queue(&[("aa", Need::May), ("B", Need::Must), ("cc", Need::May), ("dd", Need::May)]);
        assert_eq!(queue.drop_oldest(3), Dropped { frames: 2, bytes: 4 });
        assert_eq!((text(&queue).as_str(), queue.bytes()), ("Bdd", 3));
        assert_eq!(queue.drop_oldest(100), Dropped { frames: 1, bytes: 2 });
        assert_eq!(queue.drop_oldest(100), Dropped::default());
        assert_eq!((text(&queue).as_str(), queue.bytes()), ("B", 1));
    }

    #[test]
    fn a_frame_that_was_begun_is_finished() {
        let mut queue = queue(&[("abc", Need::May), ("def", Need::May)]);
        queue.advance(0);
        queue.advance(1);
        assert_eq!(queue.drop_oldest(100), Dropped { frames: 1, bytes: 3 });
        assert_eq!((text(&queue).as_str(), queue.bytes()), ("bc", 2));
    }

    #[test]
    fn a_frame_of_which_nothing_was_written_may_be_dropped() {
        let mut queue = queue(&[("abc", Need::May), ("def", Need::May)]);
        queue.advance(3);
        assert_eq!(queue.drop_oldest(1), Dropped { frames: 1, bytes: 3 });
        assert!(queue.is_empty());
    }
}
