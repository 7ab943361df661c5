//! Traffic on links: frames and bytes, by direction and kind.

use super::Counter;

/// Direction of a frame on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From clients to app servers.
    Up,
    /// From app servers to clients.
    Down,
}

/// Kind of a frame on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameKind {
    Ping,
    Message,
}

/// Counters of the frames of one kind in one direction.
#[derive(Debug, Default)]
pub(crate) struct LinkTraffic {
    pub frames: Counter,
    /// Bytes, length prefixes included.
    pub bytes: Counter,
}

impl LinkTraffic {
    /// Counts frames with their bytes, on the thread of its shard.
    pub(crate) fn count(&self, frames: u64, bytes: usize) {
        self.frames.add_alone(frames);
        self.bytes.add_alone(bytes as u64);
    }
}
