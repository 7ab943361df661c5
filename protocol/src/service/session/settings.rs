//! Settings of a session, and the backoff between dial attempts of its link.

use std::time::Duration;

use crate::id::random_bytes;
use crate::limits::{LINK_BACKOFF_MS, LINK_PING_INTERVAL_MS, LINK_RING_MAX_BYTES, LINK_TIMEOUT_MS, RESUME_WINDOW_MS};

/// End that holds a session. The proxy decides when it ends; the app server can only give it up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Dials, and ends a session that was not resumed within the window.
    Proxy,
    /// Accepts upgrades, and keeps the session for the proxy.
    AppServer,
}

/// Limits and timers of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionSettings {
    /// Maximum bytes of frames waiting to be sent or acknowledged; reserved frames get an additional quarter.
    pub ring_max_bytes: usize,
    /// How long a session outlives its socket.
    pub window_ms: u64,
    /// A ping is sent after nothing was sent for this long.
    pub ping_interval_ms: u64,
    /// A socket that receives nothing for this long is dead.
    pub dead_after_ms: u64,
    /// Value of this end's capability [`client_message_max_bytes`](super::Capabilities::client_message_max_bytes);
    /// `None` omits it.
    pub client_message_max_bytes: Option<usize>,
}

/// Number of ticks per window for counting silence.
const TICKS_PER_WINDOW: u64 = 20;

impl Default for SessionSettings {
    fn default() -> Self {
        Self::new(LINK_RING_MAX_BYTES, RESUME_WINDOW_MS)
    }
}

impl SessionSettings {
    /// Derives the intervals from the window: a dead socket is detected within one window, so both ends, which may
    /// detect it a window apart, agree within two.
    #[must_use]
    pub fn new(ring_max_bytes: usize, window_ms: u64) -> Self {
        Self {
            ring_max_bytes,
            window_ms,
            ping_interval_ms: LINK_PING_INTERVAL_MS.min(window_ms / 4).max(1),
            dead_after_ms: LINK_TIMEOUT_MS.min(window_ms).max(1),
            client_message_max_bytes: None,
        }
    }

    /// Settings for a peer that can't resume: Azure's intervals, regardless of the window.
    pub(super) fn without_resuming(self) -> Self {
        let client_message_max_bytes = self.client_message_max_bytes;
        Self { client_message_max_bytes, ..Self::new(self.ring_max_bytes, LINK_TIMEOUT_MS) }
    }

    pub(super) fn tick_ms(&self) -> u64 {
        (self.window_ms / TICKS_PER_WINDOW).max(1)
    }
}

/// Waits between dial attempts of a link: double up to a limit, never give up, and are randomised.
#[derive(Debug, Clone)]
pub struct Backoff {
    next_ms: u64,
    first_ms: u64,
    last_ms: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        let (first_ms, last_ms) = LINK_BACKOFF_MS;
        Self::new(first_ms, last_ms)
    }
}

impl Backoff {
    /// Creates waits that double from `first_ms` up to `last_ms`.
    #[must_use]
    pub fn new(first_ms: u64, last_ms: u64) -> Self {
        Self { next_ms: first_ms, first_ms, last_ms }
    }

    /// Returns the next wait: half fixed, half scaled by `chance` (any random number), so that links lost together
    /// don't reconnect simultaneously.
    pub fn next_wait_ms(&mut self, chance: u16) -> u64 {
        let whole = self.next_ms;
        self.next_ms = whole.saturating_mul(2).min(self.last_ms);
        let half = whole / 2;
        half + half.saturating_mul(u64::from(chance)) / u64::from(u16::MAX)
    }

    /// Returns the next wait, with a random chance.
    pub fn next_wait(&mut self) -> Duration {
        Duration::from_millis(self.next_wait_ms(u16::from_ne_bytes(random_bytes())))
    }

    /// Resets the backoff after the link has opened.
    pub fn reset(&mut self) {
        self.next_ms = self.first_ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_restart_after_a_success() {
        let mut backoff = Backoff::new(50, 300);
        let waits: Vec<_> = (0..5).map(|_| backoff.next_wait_ms(u16::MAX)).collect();
        assert_eq!(waits, [50, 100, 200, 300, 300]);
        backoff.reset();
        assert_eq!(backoff.next_wait_ms(u16::MAX), 50);
    }

    #[test]
    fn chance_takes_away_at_most_half() {
        assert_eq!(Backoff::new(100, 300).next_wait_ms(0), 50);
        assert_eq!(Backoff::new(100, 300).next_wait_ms(u16::MAX / 2), 74);
    }
}
