//! Unix time in whole seconds or milliseconds since 1970.
//!
//! The time is an argument, because no module here reads a clock: `unix_ms(SystemTime::now())`. Times before 1970, as
//! from a clock that was never set, become 0.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Whole seconds since 1970, for tokens that other machines read.
#[must_use]
pub fn unix_seconds(time: SystemTime) -> u64 {
    since_epoch(time).as_secs()
}

/// Whole milliseconds since 1970.
#[must_use]
pub fn unix_ms(time: SystemTime) -> u64 {
    u64::try_from(since_epoch(time).as_millis()).unwrap_or(u64::MAX)
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_unit_are_dropped() {
        let moment = UNIX_EPOCH + Duration::from_micros(1_999_999);
        assert_eq!((unix_seconds(moment), unix_ms(moment)), (1, 1_999));
    }

    #[test]
    fn a_moment_before_1970_is_0() {
        let moment = UNIX_EPOCH - Duration::from_secs(5);
        assert_eq!((unix_seconds(moment), unix_ms(moment)), (0, 0));
    }
}
