//! Brake on a warning that strangers can cause: one line in a while, with the number of those that were left out.

use std::time::Duration;

use tokio::time::Instant;

/// Least time between two lines.
const INTERVAL: Duration = Duration::from_secs(10);

/// State of one such warning.
#[derive(Debug)]
pub(crate) struct WarningBrake {
    interval: Duration,
    last: Option<Instant>,
    left_out: u64,
}

impl Default for WarningBrake {
    fn default() -> Self {
        Self::every(INTERVAL)
    }
}

impl WarningBrake {
    /// Brake that lets one line pass in this time.
    pub(crate) fn every(interval: Duration) -> Self {
        Self { interval, last: None, left_out: 0 }
    }

    /// Returns the number of lines that were left out before this one; `None` if it is left out too.
    pub(crate) fn pass(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now - last < self.interval) {
            self.left_out += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_warnings_are_one_line_and_their_number() {
        let (mut brake, start) = (WarningBrake::default(), Instant::now());
        let passed: Vec<_> = (0..1000).filter_map(|_| brake.pass(start)).collect();
        assert_eq!(passed, [0]);
        assert_eq!(brake.pass(start + INTERVAL), Some(999));
    }
}
