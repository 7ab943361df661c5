//! Proxies that one hub or raw endpoint is linked with. A pure value: its lock and the waiting are the caller's.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;
use trunkline_protocol::service::Capabilities;

use super::replay_buffer::ReplayBuffer;
use trunkline_link::LinkOutbox;

use crate::node::Node;

/// The linked proxies, and the replay buffer for late ones.
#[derive(Debug, Default)]
pub(super) struct Proxies {
    /// Replaced as a whole when a proxy comes or goes, so that a send only takes a reference.
    linked: Arc<[Arc<Node>]>,
    replay: ReplayBuffer,
}

/// Outcome of the begin of a link session.
#[derive(Debug)]
pub(super) struct SessionBegin {
    pub(super) node: Arc<Node>,
    /// Frames that were replayed to the node, and their bytes.
    pub(super) replayed_frames: usize,
    pub(super) replayed_bytes: usize,
}

/// Outcome of the end of a link session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SessionEnd {
    /// It was the last one of its node, which is forgotten.
    pub(super) node_is_lost: bool,
    /// Frames that no other link takes over, and frames that the proxy may have received or not.
    pub(super) lost_frames: u64,
}

impl Proxies {
    /// Adds a link session, and its node if this is the first one.
    pub(super) fn begin_session(
        &mut self,
        (name, boot): (&str, &str),
        capabilities: Capabilities,
        slot: u32,
        outbox: Arc<LinkOutbox>,
        now: Instant,
    ) -> SessionBegin {
        if let Some(node) = self.linked.iter().find(|node| node.is(name, boot)) {
            node.open(slot, outbox);
            return SessionBegin { node: Arc::clone(node), replayed_frames: 0, replayed_bytes: 0 };
        }
        let node = Arc::new(Node::new(name, boot, capabilities));
        node.open(slot, outbox);
        if self.linked.is_empty() {
            self.replay.open(now);
        }
        // Before anything newer: no sender has the node yet.
        let replayed = self.replay.replay(name, boot, now).iter().filter(|frame| node.control(frame));
        let (replayed_frames, replayed_bytes) =
            replayed.fold((0, 0), |(frames, bytes), frame| (frames + 1, bytes + frame.len()));
        self.linked = self.linked.iter().cloned().chain([Arc::clone(&node)]).collect();
        SessionBegin { node, replayed_frames, replayed_bytes }
    }

    /// Removes a link session: what it never sent moves to the next send link of its node. A node without links is
    /// forgotten.
    pub(super) fn end_session(&mut self, node: &Arc<Node>, slot: u32) -> SessionEnd {
        let ended = node.end(slot);
        if ended.was_last {
            self.linked = self.linked.iter().filter(|other| !Arc::ptr_eq(other, node)).cloned().collect();
        }
        SessionEnd { node_is_lost: ended.was_last, lost_frames: ended.lost_frames }
    }

    pub(super) fn linked(&self) -> Arc<[Arc<Node>]> {
        Arc::clone(&self.linked)
    }

    /// Whether frames to every proxy must be [recorded](Self::record).
    pub(super) fn is_recording(&self) -> bool {
        self.replay.is_open()
    }

    /// Keeps a frame for proxies that come late; the linked ones must be sent it now.
    pub(super) fn record(&mut self, frame: &Bytes, now: Instant) {
        self.replay.push(frame, now);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use trunkline_protocol::service::Attachment;

    use super::*;
    use crate::node::{next_piece, open_outbox};

    const FRAME: Bytes = Bytes::from_static(b"\x01a");

    fn begin(
        proxies: &mut Proxies,
        name: &str,
        slot: u32,
        now: Instant,
    ) -> (SessionBegin, Arc<LinkOutbox>, Attachment) {
        let (outbox, socket) = open_outbox(1_000);
        let outbox = Arc::new(outbox);
        (proxies.begin_session((name, "boot"), Capabilities::plain(), slot, Arc::clone(&outbox), now), outbox, socket)
    }

    #[test]
    fn links_of_one_proxy_share_its_node() {
        let (mut proxies, now) = (Proxies::default(), Instant::now());
        let (first, ..) = begin(&mut proxies, "a", 0, now);
        let (second, ..) = begin(&mut proxies, "a", 1, now);
        assert!(Arc::ptr_eq(&first.node, &second.node));
        assert_eq!(proxies.linked().len(), 1);
        assert!(!proxies.end_session(&first.node, 0).node_is_lost);
        assert!(proxies.end_session(&first.node, 1).node_is_lost);
        assert_eq!(proxies.linked().len(), 0);
    }

    #[test]
    fn frames_without_another_link_are_lost() {
        let mut proxies = Proxies::default();
        let (session, ..) = begin(&mut proxies, "a", 0, Instant::now());
        assert!(session.node.control(&FRAME));
        let end = proxies.end_session(&session.node, 0);
        assert_eq!(end, SessionEnd { node_is_lost: true, lost_frames: 1 });
    }

    #[test]
    fn a_recorded_frame_is_replayed_within_the_window_only() {
        let (mut proxies, now) = (Proxies::default(), Instant::now());
        begin(&mut proxies, "a", 0, now);
        assert!(proxies.is_recording());
        proxies.record(&FRAME, now);
        let (late, outbox, socket) = begin(&mut proxies, "b", 0, now);
        assert_eq!((late.replayed_frames, late.replayed_bytes), (1, FRAME.len()));
        assert_eq!(next_piece(&outbox, socket).unwrap().bytes, FRAME);
        let (too_late, ..) = begin(&mut proxies, "c", 0, now + Duration::from_secs(3600));
        assert_eq!(too_late.replayed_frames, 0);
        proxies.record(&FRAME, now + Duration::from_secs(3600));
        assert!(!proxies.is_recording());
    }
}
