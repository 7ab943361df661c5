//! The clock of a run: microseconds since its start, used for all times in reports.

use std::time::Duration;

use tokio::time::Instant;
use trunkline_generator::histogram::micros;

pub(crate) const SECOND_US: u64 = 1_000_000;

/// Timer precision: tokio's timers have milliseconds and round up.
pub(crate) const TIMER_US: u64 = 2_000;

/// Clock of a run; copies are synchronous.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now_us(self) -> u64 {
        micros(self.0.elapsed())
    }

    /// Waits until this many microseconds after the start.
    pub(crate) async fn wait_until(self, due_us: u64) {
        tokio::time::sleep_until(self.0 + Duration::from_micros(due_us)).await;
    }
}

/// Start time for the latency of a send, given its due and actual times.
///
/// Delays within the timer's precision are ignored. Otherwise the due time counts, so that a generator or server that
/// delays the schedule can't hide the wait (coordinated omission).
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
