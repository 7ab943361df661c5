//! Counters of messages between nodes.

use crate::ground::metrics::{Counter, label, metered};

label! {
    /// Cause of dropping a message for a node.
    pub(crate) enum DropCause as "cause", in DropCounters {
        /// The queue of the node is full.
        Full = "full",
        /// The member has no link.
        Unlinked = "unlinked",
        /// The link was lost for longer than its window, including messages in flight.
        Lost = "lost",
        /// Larger than the frame limit of a link.
        TooLarge = "too_large",
        /// Received, but not readable.
        Malformed = "malformed",
    }
}

metered! {
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

    #[cfg(test)]
    pub(crate) fn dropped(&self, cause: DropCause) -> u64 {
        self.dropped.of(cause).get()
    }
}
