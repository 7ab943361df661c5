//! Outbox of one client: complete frames in order. Delivery limits its bytes.
//!
//! Usually it is empty or holds one frame, and then allocates no memory.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};

use crate::ground::net::socket::Socket;

/// Maximum number of frames per system call; more slices bring no gain.
const SLICES_MAX: usize = 64;

#[derive(Debug, Default)]
pub(crate) enum Outbox {
    #[default]
    Empty,
    /// One frame or its remainder.
    One(Bytes),
    Many(Box<FrameQueue>),
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Outbox::Empty)
    }

    pub(crate) fn bytes(&self) -> usize {
        match self {
            Outbox::Empty => 0,
            Outbox::One(frame) => frame.len(),
            Outbox::Many(queue) => queue.bytes(),
        }
    }

    pub(crate) fn push(&mut self, frame: Bytes, need: Need) {
        match self {
            // The first frame counts as partly written.
            Outbox::Empty => *self = Outbox::One(frame),
            Outbox::One(first) => *self = Outbox::Many(Box::new(FrameQueue::of_two(mem::take(first), frame, need))),
            Outbox::Many(queue) => queue.push(frame, need),
        }
    }

    /// Drops at least `bytes` bytes of droppable frames, oldest first. A partly written frame is kept.
    pub(crate) fn drop_oldest(&mut self, bytes: usize) -> Dropped {
        match self {
            Outbox::Many(queue) => queue.drop_oldest(bytes),
            Outbox::Empty | Outbox::One(_) => Dropped::default(),
        }
    }

    /// Slices to write next, at most as many as one system call takes.
    pub(crate) fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let (one, many) = match self {
            Outbox::Empty => (None, None),
            Outbox::One(frame) => (Some(frame), None),
            Outbox::Many(queue) => (None, Some(queue.frames().take(SLICES_MAX))),
        };
        one.into_iter().chain(many.into_iter().flatten()).map(|frame| &frame[..])
    }

    /// Removes written bytes from the front.
    pub(crate) fn advance(&mut self, written: usize) {
        let is_empty = match self {
            Outbox::Empty => return,
            Outbox::One(frame) => {
                frame.advance(written.min(frame.len()));
                frame.is_empty()
            }
            Outbox::Many(queue) => {
                queue.advance(written);
                queue.is_empty()
            }
        };
        if is_empty {
            *self = Outbox::Empty;
        }
    }

    pub(crate) fn try_flush(&mut self, socket: &Socket) -> io::Result<()> {
        while !self.is_empty() {
            self.write_with(|slices| socket.try_write(slices))?;
        }
        if socket.has_unsent() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>, socket: &Socket) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let written = self.write_with(|slices| match socket.poll_write(cx, slices) {
                Poll::Ready(written) => written.map_err(Some),
                Poll::Pending => Err(None),
            });
            match written {
                Ok(()) => {}
                Err(Some(error)) => return Poll::Ready(Err(error)),
                Err(None) => return Poll::Pending,
            }
        }
        socket.poll_flush(cx)
    }

    /// Writes frames from the front with `write`, which returns the number of bytes written.
    ///
    /// # Errors
    /// The error of `write`; no bytes are removed then.
    pub(crate) fn write_with<E>(&mut self, write: impl FnOnce(&[IoSlice<'_>]) -> Result<usize, E>) -> Result<(), E> {
        let written = match self {
            Outbox::Empty => return Ok(()),
            Outbox::One(frame) => write(&[IoSlice::new(frame)])?,
            Outbox::Many(_) => {
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let mut count = 0;
                for (slice, frame) in slices.iter_mut().zip(self.slices()) {
                    *slice = IoSlice::new(frame);
                    count += 1;
                }
                write(slices.get(..count).unwrap_or_default())?
            }
        };
        self.advance(written);
        Ok(())
    }
}

/// Queue of several frames, some of them droppable.
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
pub(crate) enum Need {
    /// Mandatory: without it, later frames make no sense.
    Must,
    /// Droppable when the client is too slow.
    May,
    /// Control frame, or the pongs of one read. The next ones replace it.
    Control,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dropped {
    pub frames: u64,
    pub bytes: usize,
}

impl FrameQueue {
    /// Creates a queue of two frames, the first mandatory.
    fn of_two(first: Bytes, second: Bytes, need: Need) -> Self {
        let bytes = first.len() + second.len();
        let (first, second) = (QueuedFrame { frame: first, need: Need::Must }, QueuedFrame { frame: second, need });
        Self { frames: VecDeque::from([first, second]), bytes }
    }

    fn push(&mut self, frame: Bytes, need: Need) {
        self.bytes += frame.len();
        match self.frames.iter_mut().take(2).find(|queued| need == Need::Control && queued.need == Need::Control) {
            Some(last) => self.bytes -= mem::replace(&mut last.frame, frame).len(),
            // Behind the frame that may be partly written, so that it is found at once.
            None if need == Need::Control => self.frames.insert(1.min(self.frames.len()), QueuedFrame { frame, need }),
            None => self.frames.push_back(QueuedFrame { frame, need }),
        }
    }

    fn advance(&mut self, mut written: usize) {
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
    fn drop_oldest(&mut self, bytes: usize) -> Dropped {
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

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    fn frames(&self) -> impl Iterator<Item = &Bytes> {
        self.frames.iter().map(|waiting| &waiting.frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox(frames: &[&'static str]) -> Outbox {
        let mut outbox = Outbox::default();
        frames.iter().for_each(|frame| outbox.push(Bytes::from_static(frame.as_bytes()), Need::Must));
        outbox
    }

    /// Writes through a socket that accepts `step` bytes per call.
    fn drain(mut outbox: Outbox, step: usize) -> String {
        let mut out = String::new();
        while !outbox.is_empty() {
            let before = outbox.bytes();
            outbox
                .write_with(|slices| {
                    let all: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
                    let taken = &all[..step.min(all.len())];
                    out.push_str(std::str::from_utf8(taken).unwrap());
                    Ok::<_, ()>(taken.len())
                })
                .unwrap();
            assert!(outbox.bytes() < before);
        }
        out
    }

    #[test]
    fn frames_leave_in_their_order_however_little_the_socket_takes() {
        for step in 1..12 {
            assert_eq!(drain(outbox(&["a"]), step), "a");
            assert_eq!(drain(outbox(&["abc", "de", "fghi"]), step), "abcdefghi");
        }
    }

    #[test]
    fn more_frames_than_slices_leave_in_several_writes() {
        assert_eq!(drain(outbox(&["xy"; 200]), 1000), "xy".repeat(200));
    }

    #[test]
    fn a_refused_write_leaves_everything_in_place() {
        let mut outbox = outbox(&["abc", "de"]);
        assert_eq!(outbox.write_with(|_| Err("full")), Err("full"));
        assert_eq!(outbox.bytes(), 5);
    }

    fn queue(frames: &[(&'static str, Need)]) -> FrameQueue {
        let mut queue = FrameQueue::default();
        frames.iter().for_each(|(frame, need)| queue.push(Bytes::from_static(frame.as_bytes()), *need));
        queue
    }

    fn text_of(queue: &FrameQueue) -> String {
        queue.frames().map(|frame| str::from_utf8(frame).unwrap()).collect()
    }

    #[test]
    fn the_oldest_droppable_frames_go_first_and_no_more_than_needed() {
        let mut queue = queue(&[("aa", Need::May), ("B", Need::Must), ("cc", Need::May), ("dd", Need::May)]);
        assert_eq!(queue.drop_oldest(3), Dropped { frames: 2, bytes: 4 });
        assert_eq!((text_of(&queue).as_str(), queue.bytes()), ("Bdd", 3));
        assert_eq!(queue.drop_oldest(100), Dropped { frames: 1, bytes: 2 });
        assert_eq!(queue.drop_oldest(100), Dropped::default());
        assert_eq!((text_of(&queue).as_str(), queue.bytes()), ("B", 1));
    }

    #[test]
    fn the_newest_pong_replaces_one_that_was_not_begun_and_is_next() {
        let mut queue =
            queue(&[("abc", Need::Must), ("def", Need::May), ("one", Need::Control), ("two!", Need::Control)]);
        assert_eq!((text_of(&queue).as_str(), queue.bytes()), ("abctwo!def", 10));
        queue.advance(4);
        queue.push(Bytes::from_static(b"three"), Need::Control);
        queue.push(Bytes::from_static(b"four"), Need::Control);
        assert_eq!((text_of(&queue).as_str(), queue.bytes()), ("wo!fourdef", 10), "a pong that was begun is finished");
        queue.advance(7);
        assert_eq!(queue.drop_oldest(9).frames, 1);
        queue.push(Bytes::from_static(b"five"), Need::Control);
        assert_eq!(text_of(&queue), "five");
    }

    #[test]
    fn a_frame_that_was_begun_is_finished() {
        let mut queue = queue(&[("abc", Need::May), ("def", Need::May)]);
        queue.advance(0);
        queue.advance(1);
        assert_eq!(queue.drop_oldest(100), Dropped { frames: 1, bytes: 3 });
        assert_eq!((text_of(&queue).as_str(), queue.bytes()), ("bc", 2));
    }

    #[test]
    fn a_frame_of_which_nothing_was_written_may_be_dropped() {
        let mut queue = queue(&[("abc", Need::May), ("def", Need::May)]);
        queue.advance(3);
        assert_eq!(queue.drop_oldest(1), Dropped { frames: 1, bytes: 3 });
        assert!(queue.is_empty());
    }
}
