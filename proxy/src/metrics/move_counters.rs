//! Counters of client connections that move between nodes.

use super::Counter;

/// Cause for which a client connection moves to another node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum MoveCause {
    /// Its socket broke, and the next one is at another node.
    #[default]
    Reconnect,
    /// Its node is about to stop.
    Drain,
    /// Its node has more clients than others.
    Rebalance,
}

impl MoveCause {
    pub(crate) const ALL: [Self; 3] = [Self::Reconnect, Self::Drain, Self::Rebalance];

    /// Its name in metrics, and between nodes.
    #[must_use]
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Reconnect => "reconnect",
            Self::Drain => "drain",
            Self::Rebalance => "rebalance",
        }
    }

    /// The cause of this name; one of a later version counts as a reconnect.
    #[must_use]
    pub(crate) fn from_label(label: &str) -> Self {
        Self::ALL.into_iter().find(|cause| cause.label() == label).unwrap_or_default()
    }
}

/// Counters of moves, by cause.
#[derive(Debug, Default)]
pub(crate) struct MoveCounters([Counter; MoveCause::ALL.len()]);

impl MoveCounters {
    /// Returns the counter of a cause.
    #[must_use]
    pub(crate) fn of(&self, cause: MoveCause) -> &Counter {
        let [reconnect, drain, rebalance] = &self.0;
        match cause {
            MoveCause::Reconnect => reconnect,
            MoveCause::Drain => drain,
            MoveCause::Rebalance => rebalance,
        }
    }
}
