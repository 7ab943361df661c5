//! Counters of messages between nodes.

use crate::metrics::{Counter, label, metered};

label! {
    /// Cause for which a message does not reach another node.
    pub(crate) enum DropCause as "cause", in DropCounters {
        /// Too much waits for that node.
        Full = "full",
        /// There is no link to that node, though it is of the fleet.
        Unlinked = "unlinked",
        /// The link was lost for longer than its window, with what was under way.
        Lost = "lost",
        /// It is larger than a link carries.
        TooLarge = "too_large",
        /// It came, and could not be read.
        Malformed = "malformed",
    }
}

metered! {
    /// Counters of node links.
    pub(crate) struct FleetCounters {
        #[metric("trunkline_fleet_frames_total", "Messages between nodes.", direction = "sent")]
        pub(crate) sent: Counter,
        #[metric("trunkline_fleet_frames_total", direction = "received")]
        pub(crate) received: Counter,
        #[metric("trunkline_fleet_bytes_total", "Bytes between nodes.", direction = "sent")]
        pub(crate) sent_bytes: Counter,
        #[metric("trunkline_fleet_bytes_total", direction = "received")]
        pub(crate) received_bytes: Counter,
        #[metric("trunkline_fleet_dropped_total", "Messages between nodes that were dropped, by cause.")]
        dropped: DropCounters,
    }
}

impl FleetCounters {
    pub(super) fn drop_messages(&self, cause: DropCause, count: u64) {
        self.dropped.of(cause).add(count);
    }

    /// Number of messages that were dropped for this cause.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn dropped(&self, cause: DropCause) -> u64 {
        self.dropped.of(cause).get()
    }
}
