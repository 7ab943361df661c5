//! Home of a connection: the link that delivers the client's messages, and the path of frames to the client.
//!
//! Most homes are fixed. A movable one is a [`ClientHome`] behind a lock, which keeps queued frames in order.

use std::fmt;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use trunkline_protocol::fleet::{ClientHome, HomeLoss, ResumeOutcome, Route};

use crate::node::Node;
use crate::sync::lock;

/// Home of one connection. A fixed one needs no lock.
#[derive(Debug)]
pub(crate) enum Home {
    Fixed { link: LinkId, node: Arc<Node> },
    Movable(Box<Mutex<MovableHome>>),
}

#[derive(Debug)]
pub(crate) struct MovableHome {
    state: ClientHome<LinkId, Arc<Node>>,
    resumed: Option<Arc<Notify>>,
}

/// Permission to queue a frame for the client at its node. Released on drop.
pub(crate) struct SendPermit<'a> {
    home: Option<&'a Mutex<MovableHome>>,
    pub(crate) node: Arc<Node>,
}

#[derive(Debug)]
pub(crate) enum HomeEnd {
    /// The link was not, or is no longer, its home.
    Elsewhere,
    Over,
    /// It may have moved to another node, which is about to report this.
    Moving(OwnedNotified),
}

impl Home {
    /// Creates the home of a connection that stays at its proxy. Services can always move connections.
    pub(crate) fn new(link: LinkId, node: Arc<Node>) -> Self {
        if node.is_of_service() { Self::movable(link, node) } else { Self::Fixed { link, node } }
    }

    /// Creates the home of a connection that can move, if its proxy supports moves.
    pub(crate) fn of_stateful(link: LinkId, node: Arc<Node>) -> Self {
        if node.capabilities.supports_moves { Self::movable(link, node) } else { Self::new(link, node) }
    }

    fn movable(link: LinkId, node: Arc<Node>) -> Self {
        let is_at_proxy = !node.is_of_service();
        let state = ClientHome::new(link, node, is_at_proxy);
        Self::Movable(Box::new(Mutex::new(MovableHome { state, resumed: None })))
    }

    /// Whether it is at a proxy, and another proxy may take it over.
    pub(crate) fn moves_between_nodes(&self) -> bool {
        matches!(self, Self::Movable(home) if lock(home).state.is_at_proxy())
    }

    pub(crate) fn link(&self) -> LinkId {
        match self {
            Self::Fixed { link, .. } => *link,
            Self::Movable(home) => lock(home).state.link(),
        }
    }

    pub(super) fn node(&self) -> Arc<Node> {
        match self {
            Self::Fixed { node, .. } => Arc::clone(node),
            Self::Movable(home) => Arc::clone(lock(home).state.node()),
        }
    }

    /// Maximum message size for the client, if its node reports marks.
    pub(crate) fn client_message_max_bytes(&self) -> Option<usize> {
        match self {
            Self::Fixed { node, .. } => node.capabilities.client_message_max_bytes,
            Self::Movable(home) => lock(home).state.node().capabilities.client_message_max_bytes,
        }
    }

    pub(crate) fn is_paused(&self) -> bool {
        matches!(self, Self::Movable(home) if lock(home).state.is_paused())
    }

    /// Whether another proxy may have taken it over and is about to report this.
    pub(crate) fn may_have_moved(&self) -> bool {
        self.moves_between_nodes() && self.is_paused()
    }

    pub(crate) async fn pass(&self) -> SendPermit<'_> {
        loop {
            match self.try_pass() {
                Ok(permit) => return permit,
                Err(resumed) => resumed.await,
            }
        }
    }

    /// Permission to send to the client, or the end of its pause to wait for.
    pub(crate) fn try_pass(&self) -> Result<SendPermit<'_>, OwnedNotified> {
        let home = match self {
            Self::Fixed { node, .. } => return Ok(SendPermit { home: None, node: Arc::clone(node) }),
            Self::Movable(home) => home,
        };
        let mut home_now = lock(home);
        match home_now.state.pass() {
            Route::To(node) => Ok(SendPermit { home: Some(home), node }),
            Route::Nowhere => Ok(SendPermit { home: None, node: Arc::new(Node::unlinked()) }),
            Route::Paused => Err(home_now.resumed()),
        }
    }

    /// Queues a control frame, or holds it while the client is paused. Returns whether a link accepted it.
    pub(crate) fn control(&self, frame: Bytes) -> bool {
        match self {
            Self::Fixed { node, .. } => node.control(&frame),
            Self::Movable(home) => {
                let mut home = lock(home);
                home.state.control(frame).is_some_and(|frame| home.state.node().control(&frame))
            }
        }
    }

    /// Pauses the client at the request of its own node. The acknowledgement is sent once no other frame is in flight.
    /// Returns the pause if a node must end it.
    pub(crate) fn pause(&self, node: &Arc<Node>, acknowledgement: Bytes) -> Option<(u32, OwnedNotified)> {
        let Self::Movable(home) = self else { return None };
        let mut home = lock(home);
        if let Some(acknowledgement) = home.state.pause(node, acknowledgement) {
            home.state.node().control(&acknowledgement);
        }
        Some((home.state.present_pause()?, home.resumed()))
    }

    pub(crate) fn give_up_pause(&self, pause: u32) -> bool {
        matches!(self, Self::Movable(home) if lock(home).state.give_up_pause(pause))
    }

    pub(crate) fn resume(&self, link: LinkId, node: &Arc<Node>) -> ResumeOutcome {
        match self {
            Self::Fixed { .. } => ResumeOutcome::NotPaused,
            Self::Movable(home) => lock(home).resume(link, node),
        }
    }

    pub(crate) fn keep_last(&self, frames: &[Bytes]) -> bool {
        let Self::Movable(home) = self else { return false };
        let mut home = lock(home);
        let is_kept = home.state.keep_last(frames);
        if is_kept {
            home.wake();
        }
        is_kept
    }

    /// Ends the pause of a connection that closes, so that held frames are sent before its close.
    pub(crate) fn end_pause(&self) {
        if let Self::Movable(home) = self {
            let (link, node) = (self.link(), self.node());
            lock(home).resume(link, &node);
        }
    }

    pub(crate) fn end_link(&self, link: LinkId) -> HomeEnd {
        match self {
            Self::Fixed { link: home, .. } if *home == link => HomeEnd::Over,
            Self::Fixed { .. } => HomeEnd::Elsewhere,
            Self::Movable(home) => {
                let mut home = lock(home);
                match home.state.end_link(link) {
                    HomeLoss::Elsewhere => HomeEnd::Elsewhere,
                    HomeLoss::Over => HomeEnd::Over,
                    HomeLoss::Moving => HomeEnd::Moving(home.resumed()),
                }
            }
        }
    }

    pub(crate) fn give_up(&self, link: LinkId) -> bool {
        match self {
            Self::Fixed { link: home, .. } => *home == link,
            Self::Movable(home) => lock(home).state.give_up(link),
        }
    }
}

impl MovableHome {
    fn resume(&mut self, link: LinkId, node: &Arc<Node>) -> ResumeOutcome {
        let (outcome, frames) = self.state.resume(link, node);
        for frame in frames {
            node.control(&frame);
        }
        if outcome != ResumeOutcome::NotPaused {
            self.wake();
        }
        outcome
    }

    fn resumed(&mut self) -> OwnedNotified {
        Arc::clone(self.resumed.get_or_insert_default()).notified_owned()
    }

    fn wake(&mut self) {
        if let Some(resumed) = self.resumed.take() {
            resumed.notify_waiters();
        }
    }
}

impl Drop for SendPermit<'_> {
    fn drop(&mut self) {
        let Some(home) = self.home else { return };
        let mut home = lock(home);
        if let Some(acknowledgement) = home.state.passed() {
            home.state.node().control(&acknowledgement);
        }
    }
}

impl fmt::Debug for SendPermit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendPermit").field("node", &self.node.name()).finish_non_exhaustive()
    }
}

/// ID of a link session, unique in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinkId(pub(crate) u64);

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use trunkline_link::LinkOutbox;
    use trunkline_protocol::service::{Attachment, Capabilities};

    use super::*;
    use crate::node::{NodeName, next_piece, open_outbox};

    const ACKNOWLEDGEMENT: Bytes = Bytes::from_static(b"\x01!");

    fn open(name: NodeName<'_>, capabilities: Capabilities) -> (Arc<Node>, Arc<LinkOutbox>, Attachment) {
        let node = Arc::new(Node::new(name, capabilities));
        let (outbox, socket) = open_outbox(1_000);
        let outbox = Arc::new(outbox);
        node.open_link(0, Arc::clone(&outbox));
        (node, outbox, socket)
    }

    fn service(name: &str) -> (Arc<Node>, Arc<LinkOutbox>, Attachment) {
        open(NodeName { name, boot: "", service: Some("service") }, Capabilities::default())
    }

    fn proxy(name: &str) -> (Arc<Node>, Arc<LinkOutbox>, Attachment) {
        open(NodeName::proxy(name, "boot"), Capabilities::plain())
    }

    fn written(outbox: &LinkOutbox, socket: Attachment) -> Vec<u8> {
        std::iter::from_fn(|| next_piece(outbox, socket)).flat_map(|piece| piece.bytes).collect()
    }

    #[tokio::test]
    async fn held_frames_leave_over_the_new_link_in_order() {
        let both = [
            [service("old"), service("new")].map(|home| (home, Home::new as fn(LinkId, Arc<Node>) -> Home)),
            [proxy("old"), proxy("new")].map(|home| (home, Home::of_stateful as fn(LinkId, Arc<Node>) -> Home)),
        ];
        for [((old, old_box, old_socket), home), ((new, new_box, new_socket), _)] in both {
            let home = home(LinkId(1), Arc::clone(&old));
            assert!(home.control(Bytes::from_static(b"\x01a")));
            home.pause(&old, ACKNOWLEDGEMENT);
            assert!(!home.control(Bytes::from_static(b"\x01b")));
            let mut waiting = pin!(home.pass());
            assert!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            assert_eq!(written(&old_box, old_socket), b"\x01a\x01!");
            assert_eq!(home.resume(LinkId(2), &new), ResumeOutcome::Moved);
            assert_eq!(waiting.await.node.name(), "new");
            assert!(home.control(Bytes::from_static(b"\x01c")));
            assert_eq!((written(&old_box, old_socket), home.link()), (Vec::new(), LinkId(2)));
            assert_eq!(written(&new_box, new_socket), b"\x01b\x01c");
        }
    }

    #[tokio::test]
    async fn a_pause_is_acknowledged_once_frames_in_flight_are_queued() {
        let (old, outbox, socket) = service("old");
        let home = Home::new(LinkId(1), Arc::clone(&old));
        let permit = home.pass().await;
        home.pause(&old, ACKNOWLEDGEMENT);
        assert!(written(&outbox, socket).is_empty());
        permit.node.control(b"\x01a");
        drop(permit);
        assert_eq!(written(&outbox, socket), b"\x01a\x01!");
    }

    #[test]
    fn only_stateful_connections_at_nodes_with_moves_are_movable() {
        let old_node = open(NodeName::proxy("old", "boot"), Capabilities::default()).0;
        let (known, served) = (proxy("known").0, service("service").0);
        let is_movable = |home: &Home| (matches!(home, Home::Movable(_)), home.moves_between_nodes());
        assert_eq!(is_movable(&Home::new(LinkId(1), Arc::clone(&known))), (false, false));
        assert_eq!(is_movable(&Home::of_stateful(LinkId(1), known)), (true, true));
        assert_eq!(is_movable(&Home::of_stateful(LinkId(1), old_node)), (false, false));
        assert_eq!(is_movable(&Home::of_stateful(LinkId(1), served)), (true, false));
    }
}
