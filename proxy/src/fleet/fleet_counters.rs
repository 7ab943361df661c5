//! Counters of what nodes say to each other.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::metrics::Counter;

/// Cause for which a message does not reach another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DropCause {
    /// Too much waits for that node.
    Full,
    /// There is no link to that node, though it is of the fleet.
    Unlinked,
    /// The link was lost for longer than its window, with what was under way.
    Lost,
    /// It is larger than a link carries.
    TooLarge,
    /// It came, and could not be read.
    Malformed,
}

impl DropCause {
    pub(crate) const ALL: [Self; 5] = [Self::Full, Self::Unlinked, Self::Lost, Self::TooLarge, Self::Malformed];

    /// Label in metrics and logs.
    #[must_use]
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Unlinked => "unlinked",
            Self::Lost => "lost",
            Self::TooLarge => "too_large",
            Self::Malformed => "malformed",
        }
    }
}

/// Counters of node links.
#[derive(Debug, Default)]
pub(crate) struct FleetCounters {
    pub(crate) sent: Counter,
    pub(crate) received: Counter,
    pub(crate) sent_bytes: Counter,
    pub(crate) received_bytes: Counter,
    dropped: [AtomicU64; DropCause::ALL.len()],
}

impl FleetCounters {
    pub(super) fn drop_messages(&self, cause: DropCause, count: u64) {
        if let Some(counter) = self.dropped.get(cause as usize) {
            counter.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Number of messages that were dropped for this cause.
    #[must_use]
    pub(crate) fn dropped(&self, cause: DropCause) -> u64 {
        self.dropped.get(cause as usize).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }
}
