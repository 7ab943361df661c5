//! Waits between attempts to reach a service: they double from a second to a minute, as in Azure's SDK. A pure value.

use std::time::Duration;

/// Longest exponent of a wait: 32 s. After that it is a minute.
const DOUBLINGS_MAX: u32 = 5;

/// Wait after many failures.
const LONGEST: Duration = Duration::from_secs(60);

/// Longest time that chance adds to each wait, so that app servers which lost a service together don't come back
/// together.
const CHANCE: Duration = Duration::from_secs(1);

/// Waits of one hub.
#[derive(Debug, Default)]
pub(super) struct BackOff {
    failures: u32,
}

impl BackOff {
    /// Returns the next wait; `chance` is any random number.
    pub(super) fn next_wait(&mut self, chance: u16) -> Duration {
        let wait = if self.failures > DOUBLINGS_MAX { LONGEST } else { Duration::from_secs(1 << self.failures) };
        self.failures = self.failures.saturating_add(1);
        wait + share(CHANCE, chance)
    }

    /// The service was reached: the next wait is short again.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Returns the share of a time that a random number stands for.
pub(super) fn share(time: Duration, chance: u16) -> Duration {
    time.mul_f64(f64::from(chance) / f64::from(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute_and_begin_anew() {
        let mut back_off = BackOff::default();
        let waits: Vec<_> = (0..8).map(|_| back_off.next_wait(0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        back_off.reset();
        assert_eq!(back_off.next_wait(u16::MAX), Duration::from_secs(2), "chance adds a second at most");
    }
}
