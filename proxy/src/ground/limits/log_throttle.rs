//! Throttle of a log line that untrusted clients can cause: one line per interval, with the number of suppressed lines.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

const INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct LogThrottle {
    interval: Duration,
    state: Mutex<(Option<Instant>, u64)>,
}

impl Default for LogThrottle {
    fn default() -> Self {
        Self::every(INTERVAL)
    }
}

impl LogThrottle {
    /// Creates a throttle that passes one line per interval.
    pub(crate) fn every(interval: Duration) -> Self {
        Self { interval, state: Mutex::default() }
    }

    /// Returns the number of lines suppressed before this one; `None` if this one is suppressed too.
    pub(crate) fn pass(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, suppressed) = &mut *state;
        if last.is_some_and(|last| now - last < self.interval) {
            *suppressed += 1;
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_warnings_are_one_line_and_their_number() {
        let (throttle, start) = (LogThrottle::default(), Instant::now());
        let passed: Vec<_> = (0..1000).filter_map(|_| throttle.pass(start)).collect();
        assert_eq!(passed, [0]);
        assert_eq!(throttle.pass(start + INTERVAL), Some(999));
    }
}
