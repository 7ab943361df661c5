//! One counter for each cause of the taxonomy.

use trunkline_protocol::cause::Cause;

use super::Counter;

/// How often each cause came.
#[derive(Debug)]
pub(crate) struct Causes([Counter; Cause::COUNT]);

impl Causes {
    /// Counts one more of this cause.
    pub(crate) fn count(&self, cause: Cause) {
        if let Some(counter) = self.0.get(cause.index()) {
            counter.increment();
        }
    }

    /// How often this one came.
    #[must_use]
    pub(crate) fn of(&self, cause: Cause) -> u64 {
        self.0.get(cause.index()).map_or(0, Counter::get)
    }
}

impl Causes {
    /// How often any of them came.
    #[must_use]
    pub(crate) fn total(&self) -> u64 {
        self.0.iter().map(Counter::get).sum()
    }
}

impl Default for Causes {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}
