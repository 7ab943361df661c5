//! The system clock as Unix time. The protocol crate has the arithmetic; only this module reads the clock.

use std::time::SystemTime;

use trunkline_protocol::unix_time;

/// Returns whole seconds since 1970, for tokens.
#[must_use]
pub fn unix_seconds() -> u64 {
    unix_time::unix_seconds(SystemTime::now())
}

/// Returns whole milliseconds since 1970, for display.
pub(crate) fn unix_ms() -> u64 {
    unix_time::unix_ms(SystemTime::now())
}

/// Returns whole nanoseconds since 1970, for spans.
pub(crate) fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
