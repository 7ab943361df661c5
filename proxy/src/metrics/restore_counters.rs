//! Counters of clients that begin anew and ask for what their lost connection had.

use super::Counter;

/// Outcome of such a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RestoreOutcome {
    /// An app server keeps it, and has got the client.
    Found,
    /// No app server keeps anything.
    Nothing,
    /// The proof is not good.
    Refused,
}

impl RestoreOutcome {
    /// All outcomes with their labels.
    pub(crate) const ALL: [(Self, &'static str); 3] =
        [(Self::Found, "found"), (Self::Nothing, "nothing"), (Self::Refused, "refused")];
}

/// One counter for each outcome.
#[derive(Debug, Default)]
pub(crate) struct RestoreCounters([Counter; RestoreOutcome::ALL.len()]);

impl RestoreCounters {
    /// Returns the counter of one outcome.
    #[must_use]
    pub(crate) fn of(&self, outcome: RestoreOutcome) -> &Counter {
        let [found, nothing, refused] = &self.0;
        match outcome {
            RestoreOutcome::Found => found,
            RestoreOutcome::Nothing => nothing,
            RestoreOutcome::Refused => refused,
        }
    }
}
