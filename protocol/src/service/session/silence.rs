//! Silence of the peer, counted in ticks.
//!
//! A late tick counts as one: after a process was frozen for a minute, its clock shows a minute of silence, but its
//! sockets contain the peer's bytes. Those must be read before the peer is declared dead.

#[derive(Debug, Clone)]
pub(super) struct Silence {
    tick_ms: u64,
    ticks: u64,
    next_ms: u64,
}

impl Silence {
    /// Starts counting when the peer has just sent bytes.
    pub(super) fn new(tick_ms: u64, now_ms: u64) -> Self {
        Self { tick_ms, ticks: 0, next_ms: now_ms.saturating_add(tick_ms) }
    }

    /// Restarts after bytes from the peer.
    pub(super) fn note_received(&mut self, now_ms: u64) {
        *self = Self::new(self.tick_ms, now_ms);
    }

    pub(super) fn handle_timeout(&mut self, now_ms: u64) {
        if now_ms >= self.next_ms {
            self.ticks += 1;
            self.next_ms = now_ms.saturating_add(self.tick_ms);
        }
    }

    pub(super) fn poll_timeout(&self) -> u64 {
        self.next_ms
    }

    pub(super) fn lasted_ms(&self) -> u64 {
        self.ticks.saturating_mul(self.tick_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_tick_counts_as_one() {
        let mut silence = Silence::new(500, 0);
        silence.handle_timeout(499);
        assert_eq!(silence.lasted_ms(), 0);
        silence.handle_timeout(60_000);
        assert_eq!((silence.lasted_ms(), silence.poll_timeout()), (500, 60_500));
        silence.handle_timeout(60_500);
        assert_eq!(silence.lasted_ms(), 1_000);
        silence.note_received(60_501);
        assert_eq!((silence.lasted_ms(), silence.poll_timeout()), (0, 61_001));
    }
}
