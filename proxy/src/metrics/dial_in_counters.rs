//! Counters of dial-in, where app servers dial in.

use super::Counter;

/// Counters of the links and tokens of dial-in.
#[derive(Debug, Default)]
pub(crate) struct DialInCounters {
    /// Links whose handshake was refused, or did not come.
    pub handshakes_refused: Counter,
    /// Frames that were skipped because they make no sense.
    pub malformed: Counter,
    /// Client connections handed over between two links of one app server.
    pub moved: Counter,
}
