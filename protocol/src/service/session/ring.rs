//! Replay ring: queued frames that the peer has not acknowledged.
//!
//! ```text
//!            ┌───────── chunks of whole frames, each frozen ─────────┐┌─ open ─┐
//!            │ 1…40 │ 41…57 │ 58…90 │ 91…200 │ 201…233 │ 234…300    ││ 301…   │◄── push: appends bytes
//!            └───────────────────────┴────────────────────────────────┘└────────┘
//!      acknowledge trims ──►          ▲ next: sent next over the current socket
//!      from here, whole chunks        rewind moves it back to the front
//! ```
//!
//! Frames are appended to one buffer and leave as slices of it. So they coalesce, and the chunks kept for replay are
//! the written memory itself: a frame costs nothing extra, and a chunk about 60 bytes until it is acknowledged. Frames
//! delimit themselves, so a replay can start within a chunk without an index.

use std::collections::VecDeque;
use std::ops::{Add, AddAssign, SubAssign};

use bytes::{Buf, Bytes, BytesMut};

use crate::limits::LINK_CHUNK_BYTES;
use crate::service::frame::frame_bytes;

/// Size of the reserve, as a fraction of the room.
const RESERVE_SHARE: usize = 4;

/// Class of a queued frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Data and sends, which wait for room.
    Ordinary,
    /// Opens, closes, acks and completions, which may use a reserve.
    Reserved,
}

/// The ring has no room for a frame of this class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the ring is full")]
pub struct RingFull;

/// Bytes in the ring, by account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Bytes available to all frames.
    pub room: usize,
    /// Bytes available only to reserved frames.
    pub reserve: usize,
}

/// Sequence of whole frames.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frames {
    /// Frames with their length prefixes.
    pub chunks: Vec<Bytes>,
    /// Number of these frames.
    pub count: u64,
}

/// Next frames for the current socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) bytes: Bytes,
    pub(super) frames: u64,
    /// Number of its last frame.
    pub(super) last: u64,
}

#[derive(Debug)]
pub(super) struct Ring {
    chunks: VecDeque<Chunk>,
    /// Index of the next chunk for the current socket.
    next: usize,
    open: BytesMut,
    open_load: Load,
    /// Number of the last trimmed frame.
    trimmed: u64,
    last: u64,
    load: Load,
    /// Part of the load already written to the current socket.
    sent: Load,
    limit: Load,
    chunk_bytes: usize,
}

#[derive(Debug)]
struct Chunk {
    bytes: Bytes,
    last: u64,
    load: Load,
}

impl Ring {
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self {
            chunks: VecDeque::new(),
            next: 0,
            open: BytesMut::new(),
            open_load: Load::default(),
            trimmed: 0,
            last: 0,
            load: Load::default(),
            sent: Load::default(),
            limit: Load { room: limit_bytes, reserve: (limit_bytes / RESERVE_SHARE).max(1) },
            // The ring is trimmed by chunks: several must fit, or it would stall until everything is acknowledged.
            chunk_bytes: LINK_CHUNK_BYTES.min(limit_bytes / 8),
        }
    }

    /// Whether the ring has room. The last frame may exceed the limit, or a larger frame could never pass.
    pub(super) fn has_place(&self, class: Class) -> bool {
        match class {
            Class::Ordinary => self.load.room < self.limit.room,
            Class::Reserved => self.load.room < self.limit.room || self.load.reserve < self.limit.reserve,
        }
    }

    /// Appends a frame even if the ring is full. Returns its number.
    pub(super) fn push(&mut self, class: Class, encode: impl FnOnce(&mut BytesMut)) -> u64 {
        let before = self.open.len();
        encode(&mut self.open);
        let length = self.open.len() - before;
        let load = match class {
            Class::Reserved if self.load.room >= self.limit.room => Load { room: 0, reserve: length },
            _ => Load { room: length, reserve: 0 },
        };
        self.load += load;
        self.open_load += load;
        self.last += 1;
        if self.open.len() >= self.chunk_bytes {
            self.seal();
        }
        self.last
    }

    pub(super) fn inherit(&mut self, frames: Frames) {
        for chunk in frames.chunks {
            self.seal();
            self.last += count(&chunk);
            let load = Load { room: chunk.len(), reserve: 0 };
            self.load += load;
            self.put(chunk, load);
        }
    }

    pub(super) fn next(&mut self) -> Option<Sent> {
        if self.next == self.chunks.len() {
            self.seal();
        }
        let before = self.given();
        let chunk = self.chunks.get(self.next)?;
        self.next += 1;
        self.sent += chunk.load;
        Some(Sent { bytes: chunk.bytes.clone(), frames: chunk.last - before, last: chunk.last })
    }

    /// Drops acknowledged chunks, but keeps those not yet sent over the current socket, even if the peer has them from
    /// an earlier one: it numbers frames by counting, so there must be no gap.
    pub(super) fn trim(&mut self, acknowledged: u64) -> Load {
        let mut freed = Load::default();
        while self.next > 0
            && let Some(chunk) = self.chunks.pop_front_if(|chunk| chunk.last <= acknowledged)
        {
            self.next -= 1;
            self.trimmed = chunk.last;
            freed += chunk.load;
        }
        self.load -= freed;
        self.sent -= freed;
        freed
    }

    /// Rewinds for a new socket, which gets all frames after `received`; earlier ones are dropped.
    pub(super) fn rewind(&mut self, received: u64) -> Load {
        self.next = self.chunks.len();
        self.sent = self.load;
        self.sent -= self.open_load;
        let freed = self.trim(received);
        (self.next, self.sent) = (0, Load::default());
        if let Some(chunk) = self.chunks.front_mut() {
            for _ in self.trimmed..received {
                chunk.bytes.advance(frame_bytes(&chunk.bytes));
            }
            self.trimmed = self.trimmed.max(received);
        }
        freed
    }

    /// Empties the ring. Returns the frames that were sent but not trimmed, and the unsent frames.
    pub(super) fn drain(&mut self, sent: u64) -> (Frames, Frames) {
        self.seal();
        let (mut before, mut after) = (Frames::default(), Frames::default());
        let mut first = self.trimmed;
        for chunk in self.chunks.drain(..) {
            let frames = if chunk.last <= sent { &mut before } else { &mut after };
            frames.count += chunk.last - first;
            frames.chunks.push(chunk.bytes);
            first = chunk.last;
        }
        (self.next, self.trimmed) = (0, self.last);
        (self.load, self.sent) = (Load::default(), Load::default());
        (before, after)
    }

    /// Number of the last frame written to the current socket or already acknowledged.
    pub(super) fn given(&self) -> u64 {
        let chunk = self.next.checked_sub(1).and_then(|index| self.chunks.get(index));
        chunk.map_or(self.trimmed, |chunk| chunk.last)
    }

    pub(super) fn last(&self) -> u64 {
        self.last
    }

    pub(super) fn load(&self) -> Load {
        self.load
    }

    /// Part of the load not yet written to the current socket.
    pub(super) fn unsent(&self) -> Load {
        let mut unsent = self.load;
        unsent -= self.sent;
        unsent
    }

    pub(super) fn limit(&self) -> Load {
        self.limit
    }

    fn seal(&mut self) {
        if !self.open.is_empty() {
            let (bytes, load) = (self.open.split().freeze(), std::mem::take(&mut self.open_load));
            self.put(bytes, load);
        }
    }

    fn put(&mut self, bytes: Bytes, load: Load) {
        self.chunks.push_back(Chunk { bytes, last: self.last, load });
    }
}

impl Frames {
    /// Whether it has no frames.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl Load {
    /// Room and reserve together.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.room + self.reserve
    }
}

impl Add for Load {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { room: self.room + other.room, reserve: self.reserve + other.reserve }
    }
}

impl AddAssign for Load {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Load {
    fn sub_assign(&mut self, other: Self) {
        self.room -= other.room;
        self.reserve -= other.reserve;
    }
}

fn count(chunk: &Bytes) -> u64 {
    let mut left = chunk.clone();
    let mut frames = 0;
    while left.has_remaining() {
        left.advance(frame_bytes(&left));
        frames += 1;
    }
    frames
}
