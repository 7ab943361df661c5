//! Carries node messages over one socket of a node link, at either end.

use std::time::Duration;

use trunkline_link::{SocketStop, WrittenPiece};
use trunkline_protocol::limits::LINK_TIMEOUT_MS;
use trunkline_protocol::service::Attachment;

use super::fleet_counters::FleetCounters;
use super::node_link::NodeLink;
use crate::engine::link::{SocketCarrier, SocketMeter};

pub(super) fn node_carrier<'a>(
    link: &'a NodeLink,
    counters: &'a FleetCounters,
    attachment: Attachment,
    stop: SocketStop,
) -> SocketCarrier<'a, &'a FleetCounters> {
    let (outbox, clock) = (link.outbox(), link.clock());
    let piece_timeout = Some(Duration::from_millis(LINK_TIMEOUT_MS));
    SocketCarrier { outbox, clock, attachment, piece_timeout, stop, meter: counters }
}

impl SocketMeter for &FleetCounters {
    fn count_written(&self, piece: WrittenPiece) {
        self.sent.add(piece.frames);
        self.sent_bytes.add(piece.bytes as u64);
    }
}
