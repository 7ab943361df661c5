//! Outbox of one client: complete frames in order. Delivery limits its bytes.
//!
//! Usually it is empty or holds one frame, and then allocates no memory.

mod frame_queue;

use std::io::{self, IoSlice};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};

use crate::net::socket::Socket;

use frame_queue::Need;
pub(crate) use frame_queue::{Dropped, FrameQueue};

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

    /// Appends a mandatory frame.
    pub(crate) fn push(&mut self, frame: Bytes) {
        self.append(frame, Need::Must);
    }

    pub(crate) fn push_droppable(&mut self, frame: Bytes) {
        self.append(frame, Need::May);
    }

    fn append(&mut self, frame: Bytes, need: Need) {
        match self {
            // The first frame counts as partly written.
            Outbox::Empty => *self = Outbox::One(frame),
            Outbox::One(first) => {
                *self = Outbox::Many(Box::new(FrameQueue::of_two(std::mem::take(first), frame, need)))
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox(frames: &[&'static str]) -> Outbox {
        let mut outbox = Outbox::default();
        frames.iter().for_each(|frame| outbox.push(Bytes::from_static(frame.as_bytes())));
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
}
