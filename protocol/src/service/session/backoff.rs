//! Backoff between dial attempts of a link: doubles up to a limit, never gives up, and is randomised.

use crate::limits::LINK_BACKOFF_MS;

/// Waits between dial attempts.
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
