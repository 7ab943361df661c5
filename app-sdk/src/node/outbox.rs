//! The byte-bounded queue of what waits for one link.
//!
//! ```text
//!  try_send, send ── waits for room ────┐
//!  complete ──────── room, else reserve ┼──► chunks of whole frames ──take──► one WebSocket message each
//!  control ───────── never waits ───────┘
//! ```
//!
//! Frames are gathered in chunks as they come, so that the writer puts many of them into one message.
//! Completions have a reserve of their own, because a connection whose sends are stuck must still answer;
//! control frames (closes, flow control, handshakes) are a few small ones per connection and never wait.

use std::collections::VecDeque;
use std::sync::Mutex;

use bytes::{Bytes, BytesMut};
use tokio::sync::{Notify, Semaphore};

use crate::sync::lock;

/// Frames are gathered up to this size: large enough to save system calls, small enough to start early.
const CHUNK_BYTES: usize = 64 * 1024;
/// What completions may take when sends have taken everything else, as a share of the limit.
const RESERVE_SHARE: usize = 4;

/// The link is gone, or going; whoever has a frame for its proxy asks for the next lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed;

/// Why a frame was not taken at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TrySendError {
    Full,
    Closed,
}

/// Some frames, ready to be written as one WebSocket message.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    /// The frames.
    pub(crate) bytes: BytesMut,
    /// How many of them the session counts.
    pub(crate) frames: u64,
    room: usize,
    reserve: usize,
}

/// The queue of one link.
#[derive(Debug)]
pub(crate) struct Outbox {
    queue: Mutex<Queue>,
    room: Semaphore,
    reserve: Semaphore,
    limit_bytes: usize,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    chunks: VecDeque<Chunk>,
    is_closed: bool,
}

/// Where a frame's bytes are accounted.
#[derive(Debug, Clone, Copy, Default)]
struct Fare {
    room: usize,
    reserve: usize,
}

impl Outbox {
    pub(crate) fn new(limit_bytes: usize) -> Self {
        // Permits are taken as u32; more than 2 GiB of waiting frames is no limit anyway.
        let limit_bytes = limit_bytes.clamp(1, i32::MAX as usize);
        Self {
            queue: Mutex::default(),
            room: Semaphore::new(limit_bytes),
            reserve: Semaphore::new((limit_bytes / RESERVE_SHARE).max(1)),
            limit_bytes,
            filled: Notify::new(),
        }
    }

    /// Queues a send if there is room.
    pub(crate) fn try_send(&self, frame: &Bytes) -> Result<(), TrySendError> {
        let fare = self.fare(frame, self.limit_bytes);
        match self.room.try_acquire_many(fare) {
            Ok(permit) => permit.forget(),
            Err(tokio::sync::TryAcquireError::NoPermits) => return Err(TrySendError::Full),
            Err(tokio::sync::TryAcquireError::Closed) => return Err(TrySendError::Closed),
        }
        let fare = Fare { room: fare as usize, reserve: 0 };
        self.push(frame, 1, fare).map_err(|Closed| TrySendError::Closed)
    }

    /// Queues a send; waits for room, first come, first served.
    pub(crate) async fn send(&self, frame: &Bytes) -> Result<(), Closed> {
        let fare = self.fare(frame, self.limit_bytes);
        self.room.acquire_many(fare).await.map_err(|_| Closed)?.forget();
        self.push(frame, 1, Fare { room: fare as usize, reserve: 0 })
    }

    /// Queues a completion; waits only when the reserve is used up too.
    pub(crate) async fn complete(&self, frame: &Bytes) -> Result<(), Closed> {
        match self.try_send(frame) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Closed) => return Err(Closed),
            Err(TrySendError::Full) => {}
        }
        let fare = self.fare(frame, (self.limit_bytes / RESERVE_SHARE).max(1));
        self.reserve.acquire_many(fare).await.map_err(|_| Closed)?.forget();
        self.push(frame, 1, Fare { room: 0, reserve: fare as usize })
    }

    /// Queues a small frame that must not wait.
    pub(crate) fn control(&self, frame: &[u8]) -> Result<(), Closed> {
        self.push(frame, 1, Fare::default())
    }

    /// Queues a frame that the session does not count: a ping.
    pub(crate) fn uncounted(&self, frame: &[u8]) -> Result<(), Closed> {
        self.push(frame, 0, Fare::default())
    }

    /// Takes the oldest chunk out, and makes its room free.
    pub(crate) fn take(&self) -> Option<Chunk> {
        let chunk = lock(&self.queue).chunks.pop_front()?;
        self.room.add_permits(chunk.room);
        self.reserve.add_permits(chunk.reserve);
        Some(chunk)
    }

    /// Waits until something was queued, or [`wake`](Self::wake) was called, since the last wait.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Ends a wait of the writer, who has to look at something else.
    pub(crate) fn wake(&self) {
        self.filled.notify_one();
    }

    /// Takes no more; whoever waits is sent away. Returns what was never written.
    pub(crate) fn close(&self) -> VecDeque<Chunk> {
        self.room.close();
        self.reserve.close();
        let mut queue = lock(&self.queue);
        queue.is_closed = true;
        std::mem::take(&mut queue.chunks)
    }

    /// Takes over what another link never wrote. It is let in without room: it had been paid for there.
    pub(crate) fn inherit(&self, chunks: VecDeque<Chunk>) {
        let mut queue = lock(&self.queue);
        queue.chunks.extend(chunks.into_iter().map(|chunk| Chunk { room: 0, reserve: 0, ..chunk }));
        drop(queue);
        self.filled.notify_one();
    }

    fn push(&self, frame: &[u8], counted: u64, fare: Fare) -> Result<(), Closed> {
        let mut queue = lock(&self.queue);
        if queue.is_closed {
            return Err(Closed);
        }
        match queue.chunks.back_mut() {
            Some(last) if last.bytes.len() + frame.len() <= CHUNK_BYTES => last.add(frame, counted, fare),
            _ => {
                let mut chunk = Chunk::default();
                chunk.add(frame, counted, fare);
                queue.chunks.push_back(chunk);
            }
        }
        drop(queue);
        self.filled.notify_one();
        Ok(())
    }

    /// What a frame takes of `whole`: a frame larger than that waits until all of it is free.
    fn fare(&self, frame: &Bytes, whole: usize) -> u32 {
        debug_assert!(whole <= self.limit_bytes);
        u32::try_from(frame.len().min(whole)).unwrap_or(u32::MAX)
    }
}

impl Chunk {
    fn add(&mut self, frame: &[u8], counted: u64, fare: Fare) {
        self.bytes.extend_from_slice(frame);
        self.frames += counted;
        self.room += fare.room;
        self.reserve += fare.reserve;
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn frame(length: usize, fill: u8) -> Bytes {
        Bytes::from(vec![fill; length])
    }

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn frames_leave_in_one_order_and_many_at_once() {
        let outbox = Outbox::new(1024);
        outbox.try_send(&frame(2, 1)).unwrap();
        outbox.control(&frame(2, 2)).unwrap();
        outbox.uncounted(&frame(1, 3)).unwrap();
        let chunk = outbox.take().unwrap();
        assert_eq!(&chunk.bytes[..], [1, 1, 2, 2, 3]);
        assert_eq!(chunk.frames, 2, "a ping is not counted");
        assert!(outbox.take().is_none());
    }

    #[test]
    fn a_message_stays_small() {
        let outbox = Outbox::new(usize::MAX);
        for _ in 0..3 {
            outbox.try_send(&frame(CHUNK_BYTES / 2, 0)).unwrap();
        }
        assert_eq!(outbox.take().unwrap().bytes.len(), CHUNK_BYTES);
        assert_eq!(outbox.take().unwrap().bytes.len(), CHUNK_BYTES / 2);
    }

    #[test]
    fn a_send_waits_for_room_while_completions_and_control_go_on() {
        let outbox = Outbox::new(100);
        outbox.try_send(&frame(90, 0)).unwrap();
        let next = frame(20, 1);
        assert_eq!(outbox.try_send(&next), Err(TrySendError::Full));
        let mut waiting = pin!(outbox.send(&next));
        assert!(poll(waiting.as_mut()).is_pending());
        let completion = frame(25, 2);
        assert!(poll(pin!(outbox.complete(&completion))).is_ready());
        assert!(poll(pin!(outbox.complete(&completion))).is_pending(), "the reserve has an end too");
        outbox.control(&frame(1, 3)).unwrap();
        outbox.take().unwrap();
        assert_eq!(poll(waiting.as_mut()), Poll::Ready(Ok(())));
    }

    #[test]
    fn a_frame_larger_than_the_limit_passes_alone() {
        let outbox = Outbox::new(10);
        outbox.try_send(&frame(1000, 0)).unwrap();
        assert_eq!(outbox.try_send(&frame(1, 0)), Err(TrySendError::Full));
        outbox.take().unwrap();
        outbox.try_send(&frame(1, 0)).unwrap();
    }

    #[test]
    fn closing_sends_waiters_away_and_hands_over_the_rest() {
        let (old, new) = (Outbox::new(10), Outbox::new(10));
        old.try_send(&frame(10, 7)).unwrap();
        let next = frame(10, 8);
        let mut waiting = pin!(old.send(&next));
        assert!(poll(waiting.as_mut()).is_pending());
        new.inherit(old.close());
        assert_eq!(poll(waiting.as_mut()), Poll::Ready(Err(Closed)));
        assert_eq!(old.control(&next), Err(Closed));
        new.try_send(&next).unwrap();
        assert_eq!(new.take().unwrap().bytes[..], [[7; 10], [8; 10]].concat());
        new.try_send(&next).unwrap();
    }
}
