//! Counters by cause of a close or a refusal.

use trunkline_protocol::cause::Cause;

use super::Counter;

/// One counter for each cause.
#[derive(Debug)]
pub(crate) struct CauseCounters([Counter; Cause::COUNT]);

impl CauseCounters {
    /// Counts one more of this cause.
    pub(crate) fn count(&self, cause: Cause) {
        if let Some(counter) = self.0.get(cause.index()) {
            counter.increment();
        }
    }

    /// Returns how often this cause came.
    #[must_use]
    pub(crate) fn of(&self, cause: Cause) -> u64 {
        self.0.get(cause.index()).map_or(0, Counter::get)
    }

    /// Returns how often any cause came.
    #[must_use]
    pub(crate) fn total(&self) -> u64 {
        self.0.iter().map(Counter::get).sum()
    }
}

impl Default for CauseCounters {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}
