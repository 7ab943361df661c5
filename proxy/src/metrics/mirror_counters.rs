//! Counters of one mirror.

use super::Counter;

/// Counters of the copies of a mirror, and of what they were compared with.
#[derive(Debug, Default)]
pub(crate) struct MirrorCounters {
    /// Messages that were copied.
    pub sent: Counter,
    /// Messages that were not copied: the mirror was full or gone.
    pub dropped: Counter,
    /// Answers that differ from those of the primary app server.
    pub differences: Counter,
}
