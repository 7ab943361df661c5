//! Outbox of one client: whole frames in their order; delivery bounds its bytes.
//!
//! Nearly all of the time it is empty or holds one frame, and then it owns no memory of its own.

mod frame_queue;

use std::io::{self, IoSlice};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};

use crate::net::socket::Socket;

use frame_queue::Need;
pub(crate) use frame_queue::{Dropped, FrameQueue};

/// Maximum number of frames in one system call; more slices gain nothing.
const SLICES_MAX: usize = 64;

/// Frames that wait for one client.
#[derive(Debug, Default)]
pub(crate) enum Outbox {
    #[default]
    Empty,
    /// One frame, or the rest of it.
    One(Bytes),
    Many(Box<FrameQueue>),
}

impl Outbox {
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Outbox::Empty)
    }

    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Outbox::Empty => 0,
            Outbox::One(frame) => frame.len(),
            Outbox::Many(queue) => queue.bytes(),
        }
    }

    /// Appends a frame that the client must get.
    pub(crate) fn push(&mut self, frame: Bytes) {
        self.append(frame, Need::Must);
    }

    /// Appends a frame that the client can do without: it was sent to many.
    pub(crate) fn push_droppable(&mut self, frame: Bytes) {
        self.append(frame, Need::May);
    }

    fn append(&mut self, frame: Bytes, need: Need) {
        match self {
            // A first frame is as good as begun.
            Outbox::Empty => *self = Outbox::One(frame),
            Outbox::One(first) => {
                *self = Outbox::Many(Box::new(FrameQueue::of_two(std::mem::take(first), frame, need)))
            }
            Outbox::Many(queue) => queue.push(frame, need),
        }
    }

    /// Drops droppable frames, the oldest first, until `bytes` of them are gone. The frame that was begun is finished.
    pub(crate) fn drop_oldest(&mut self, bytes: usize) -> Dropped {
        match self {
            Outbox::Many(queue) => queue.drop_oldest(bytes),
            Outbox::Empty | Outbox::One(_) => Dropped::default(),
        }
    }

    /// Slices to write next, no more than one system call takes.
    pub(crate) fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let (one, many) = match self {
            Outbox::Empty => (None, None),
            Outbox::One(frame) => (Some(frame), None),
            Outbox::Many(queue) => (None, Some(queue.frames().take(SLICES_MAX))),
        };
        one.into_iter().chain(many.into_iter().flatten()).map(|frame| &frame[..])
    }

    /// Removes bytes that were written.
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

    /// Writes as much as the socket takes right now.
    ///
    /// # Errors
    /// `WouldBlock` when something still waits; else the socket failed.
    pub(crate) fn try_flush(&mut self, socket: &Socket) -> io::Result<()> {
        while !self.is_empty() {
            self.write_with(|slices| socket.try_write(slices))?;
        }
        if socket.has_unsent() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    }

    /// Writes as the socket takes it, until nothing waits.
    ///
    /// # Errors
    /// When the socket failed.
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

    /// Writes frames from the front by `write`, which returns how many bytes it took.
    ///
    /// # Errors
    /// The error of `write`; nothing has left then.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox(frames: &[&'static str]) -> Outbox {
        let mut outbox = Outbox::default();
        frames.iter().for_each(|frame| outbox.push(Bytes::from_static(frame.as_bytes())));
        outbox
    }

    /// Writes through a socket that takes `step` bytes at a time.
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
}
