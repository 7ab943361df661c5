//! The one clock of a run: microseconds since it began. All times in reports are of it.

use std::time::Duration;

use tokio::time::Instant;
use trunkline_generator::histogram::micros;

/// Microseconds of a second.
pub(crate) const SECOND_US: u64 = 1_000_000;

/// Precision of a timer: tokio's have milliseconds, and round up.
pub(crate) const TIMER_US: u64 = 2_000;

/// The clock; copies tell the same time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Microseconds since the start.
    pub(crate) fn now_us(self) -> u64 {
        micros(self.0.elapsed())
    }

    /// Waits until so many microseconds have passed since the start.
    pub(crate) async fn wait_until(self, due_us: u64) {
        tokio::time::sleep_until(self.0 + Duration::from_micros(due_us)).await;
    }
}

/// Time from which a send counts that was due at one time and left at another.
///
/// What the timer could not tell apart is no delay of anybody. Beyond that the send counts from when it was due: a
/// generator or a server that holds up the schedule does not hide the wait (coordinated omission).
pub(crate) fn counts_from(due_us: u64, sent_us: u64) -> u64 {
    if sent_us.saturating_sub(due_us) <= TIMER_US { sent_us } else { due_us }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_send_counts_from_when_it_was_due() {
        assert_eq!(counts_from(1_000, 1_000 + TIMER_US), 1_000 + TIMER_US);
        assert_eq!(counts_from(1_000, 1_001 + TIMER_US), 1_000);
        assert_eq!(counts_from(1_000, 900), 900);
    }
}
