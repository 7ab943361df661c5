//! Sockets that lose their last bytes, and dials that arrive late or never.

use trunkline_protocol::service::{Answer, Offer, UpgradeRefusal};

use crate::random::Random;

/// Buffer size of one direction of a socket.
const PIPE_BYTES: usize = 500;

/// Virtual time that is never reached.
pub(crate) const NEVER: u64 = u64::MAX;

/// Socket with the unread bytes of each end.
#[derive(Debug, Default)]
pub(crate) struct Socket {
    /// Bytes written by end 0 and end 1.
    pipes: [Vec<u8>; 2],
    /// Whether newly written bytes are lost.
    is_cut: bool,
    /// Time at which each end notices that the other is gone.
    told_at_ms: [Option<u64>; 2],
    /// Until this time no bytes move, and neither end notices.
    stalled_until_ms: u64,
}

impl Socket {
    pub(crate) fn can_write(&self, end: usize) -> bool {
        self.pipes[end].len() < PIPE_BYTES
    }

    pub(crate) fn write(&mut self, end: usize, bytes: &[u8]) {
        if !self.is_cut {
            self.pipes[end].extend_from_slice(bytes);
        }
    }

    /// Reads a random number of bytes at this end.
    pub(crate) fn read(&mut self, end: usize, now_ms: u64, random: &mut Random) -> Vec<u8> {
        let pipe = &mut self.pipes[1 - end];
        if pipe.is_empty() || now_ms < self.stalled_until_ms {
            return Vec::new();
        }
        let length = if random.percent(60) { pipe.len() } else { 1 + random.index(pipe.len()) };
        pipe.drain(..length).collect()
    }

    /// Whether there is something to read: bytes, or the end of the socket.
    pub(crate) fn is_ready(&self, end: usize, now_ms: u64) -> bool {
        let has_bytes = !self.pipes[1 - end].is_empty() && now_ms >= self.stalled_until_ms;
        has_bytes || self.told_at_ms[end].is_some_and(|at_ms| at_ms <= now_ms)
    }

    /// Whether this end has read everything and noticed the end.
    pub(crate) fn is_at_end(&self, end: usize, now_ms: u64) -> bool {
        self.pipes[1 - end].is_empty() && self.told_at_ms[end].is_some_and(|at_ms| at_ms <= now_ms)
    }

    /// Cuts the socket, losing the last bytes in flight.
    pub(crate) fn cut(&mut self, now_ms: u64, random: &mut Random) {
        self.is_cut = true;
        for end in [0, 1] {
            let kept = random.index(self.pipes[end].len() + 1);
            self.pipes[end].truncate(kept);
            let told_ms = match random.below(10) {
                0..6 => now_ms + random.below(40),
                6..8 => now_ms + random.below(1_500),
                // Half-open: neither end notices.
                _ => NEVER,
            };
            self.told_at_ms[end].get_or_insert(told_ms);
        }
    }

    /// Closes the socket at this end. Written bytes may still arrive.
    pub(crate) fn close(&mut self, end: usize, now_ms: u64, random: &mut Random) {
        if random.percent(50) {
            let kept = random.index(self.pipes[end].len() + 1);
            self.pipes[end].truncate(kept);
        }
        self.is_cut = true;
        self.told_at_ms[1 - end].get_or_insert(now_ms + random.below(40));
    }

    pub(crate) fn stall(&mut self, until_ms: u64) {
        self.stalled_until_ms = until_ms;
    }
}

/// Upgrade in flight, and its answer.
#[derive(Debug)]
pub(crate) struct Dial {
    pub(crate) offer: Offer,
    pub(crate) ledger: usize,
    pub(crate) boot: u64,
    pub(crate) instance: u64,
    pub(crate) socket: usize,
    pub(crate) arrives_ms: u64,
    pub(crate) reply: Option<Reply>,
    pub(crate) is_done: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Accepted(Answer),
    Refused(UpgradeRefusal),
    OtherInstance,
}
