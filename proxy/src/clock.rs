//! The system's clock as Unix time. The arithmetic is the protocol's; only here is the clock read for it.

use std::time::SystemTime;

use trunkline_protocol::unix_time;

/// Returns the whole seconds since 1970, for tokens that other machines read.
#[must_use]
pub(crate) fn unix_seconds() -> u64 {
    unix_time::unix_seconds(SystemTime::now())
}

/// Returns the whole milliseconds since 1970, for times that people read.
#[must_use]
pub(crate) fn unix_ms() -> u64 {
    unix_time::unix_ms(SystemTime::now())
}
