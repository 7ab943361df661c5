//! Home of a connection: the link that brings what its client sends, and the way of frames to the client.
//!
//! The home changes where a service gives a server connection up in order: it pauses the client there, and resumes it over
//! another one. Nothing that is for the client alone leaves in between, so that nothing is lost and the order stays.
//!
//! ```text
//!  flowing ──pause──► paused ──what was on its way has been queued──► acknowledged ──resume──► flowing, over the new link
//!                       └── frames wait here ──────────────────────────────────────────────────► leave first
//! ```

use std::fmt;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::Notify;

use super::LinkId;
use crate::node::Node;
use crate::sync::lock;

/// Home of one connection. At a proxy it stays what it is, and costs no lock.
#[derive(Debug)]
pub(crate) enum Home {
    Fixed { link: LinkId, node: Arc<Node> },
    Movable(Box<MovableHome>),
}

/// Home of a connection that a service has opened.
#[derive(Debug)]
pub(crate) struct MovableHome(Mutex<HomeState>);

#[derive(Debug)]
struct HomeState {
    link: LinkId,
    node: Arc<Node>,
    /// Number of frames that have the way and are not queued yet, because their link is full.
    passing: u32,
    pause: Option<Pause>,
}

/// Pause of a connection.
#[derive(Debug, Default)]
struct Pause {
    /// Frames that wait for the end of the pause.
    frames: Vec<Bytes>,
    /// Acknowledgement that is owed when nothing passes any more.
    acknowledgement: Option<Bytes>,
    resumed: Arc<Notify>,
}

/// Permission to queue a frame for the client at its node, until it is dropped.
pub(crate) struct Passage<'a> {
    home: Option<&'a MovableHome>,
    node: Arc<Node>,
}

impl Home {
    pub(super) fn new(link: LinkId, node: Arc<Node>) -> Self {
        if node.is_of_service() {
            Self::Movable(Box::new(MovableHome(Mutex::new(HomeState { link, node, passing: 0, pause: None }))))
        } else {
            Self::Fixed { link, node }
        }
    }

    pub(crate) fn link(&self) -> LinkId {
        match self {
            Self::Fixed { link, .. } => *link,
            Self::Movable(home) => lock(&home.0).link,
        }
    }

    pub(super) fn node(&self) -> Arc<Node> {
        match self {
            Self::Fixed { node, .. } => Arc::clone(node),
            Self::Movable(home) => Arc::clone(&lock(&home.0).node),
        }
    }

    /// Waits until the client is not paused.
    pub(crate) async fn pass(&self) -> Passage<'_> {
        match self {
            Self::Fixed { node, .. } => Passage { home: None, node: Arc::clone(node) },
            Self::Movable(home) => home.pass().await,
        }
    }

    /// Queues a control frame for the client, or keeps it while the client is paused. Returns whether a link took it.
    pub(crate) fn control(&self, frame: Bytes) -> bool {
        match self {
            Self::Fixed { node, .. } => node.control(&frame),
            Self::Movable(home) => home.control(frame),
        }
    }

    /// Pauses the client; the acknowledgement leaves once nothing else does.
    pub(crate) fn pause(&self, acknowledgement: Bytes) {
        if let Self::Movable(home) = self {
            home.pause(acknowledgement);
        }
    }

    /// Resumes the client over this link. Returns `false` if it was not paused, and stays where it is.
    pub(crate) fn resume(&self, link: LinkId, node: &Arc<Node>) -> bool {
        matches!(self, Self::Movable(home) if home.resume(link, node))
    }

    /// Ends the pause of a connection that ends: what waited leaves before its close.
    pub(crate) fn end_pause(&self) {
        if let Self::Movable(home) = self {
            let node = Arc::clone(&lock(&home.0).node);
            home.resume(self.link(), &node);
        }
    }
}

impl MovableHome {
    async fn pass(&self) -> Passage<'_> {
        loop {
            let resumed = {
                let mut state = lock(&self.0);
                match &state.pause {
                    None => {
                        state.passing += 1;
                        return Passage { home: Some(self), node: Arc::clone(&state.node) };
                    }
                    Some(pause) => Arc::clone(&pause.resumed).notified_owned(),
                }
            };
            resumed.await;
        }
    }

    fn control(&self, frame: Bytes) -> bool {
        let mut state = lock(&self.0);
        if let Some(pause) = &mut state.pause {
            pause.frames.push(frame);
            return false;
        }
        state.node.control(&frame)
    }

    fn pause(&self, acknowledgement: Bytes) {
        let mut state = lock(&self.0);
        let is_clear = state.passing == 0;
        if is_clear {
            state.node.control(&acknowledgement);
        }
        let pause = state.pause.get_or_insert_default();
        pause.acknowledgement = (!is_clear).then_some(acknowledgement);
    }

    fn resume(&self, link: LinkId, node: &Arc<Node>) -> bool {
        let mut state = lock(&self.0);
        let Some(pause) = state.pause.take() else { return false };
        (state.link, state.node) = (link, Arc::clone(node));
        for frame in &pause.frames {
            node.control(frame);
        }
        pause.resumed.notify_waiters();
        true
    }
}

impl Passage<'_> {
    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.node
    }
}

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        let Some(home) = self.home else { return };
        let mut state = lock(&home.0);
        state.passing = state.passing.saturating_sub(1);
        if state.passing == 0
            && let Some(acknowledgement) = state.pause.as_mut().and_then(|pause| pause.acknowledgement.take())
        {
            state.node.control(&acknowledgement);
        }
    }
}

impl fmt::Debug for Passage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passage").field("node", &self.node.name()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use trunkline_link::LinkOutbox;
    use trunkline_protocol::service::{Attachment, Capabilities};

    use super::*;
    use crate::node::{NodeName, next_piece, open_outbox};

    const ACKNOWLEDGEMENT: Bytes = Bytes::from_static(b"\x01!");

    fn node(name: &str) -> (Arc<Node>, Arc<LinkOutbox>, Attachment) {
        let node = Arc::new(Node::new(NodeName { name, boot: "", service: Some("service") }, Capabilities::default()));
        let (outbox, socket) = open_outbox(1_000);
        let outbox = Arc::new(outbox);
        node.open(0, Arc::clone(&outbox));
        (node, outbox, socket)
    }

    fn written(outbox: &LinkOutbox, socket: Attachment) -> Vec<u8> {
        std::iter::from_fn(|| next_piece(outbox, socket)).flat_map(|piece| piece.bytes).collect()
    }

    #[tokio::test]
    async fn what_a_pause_holds_back_leaves_over_the_new_link_in_order() {
        let ((old, old_box, old_socket), (new, new_box, new_socket)) = (node("old"), node("new"));
        let home = Home::new(LinkId(1), old);
        assert!(home.control(Bytes::from_static(b"\x01a")));
        home.pause(ACKNOWLEDGEMENT);
        assert!(!home.control(Bytes::from_static(b"\x01b")));
        let mut waiting = pin!(home.pass());
        assert!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(written(&old_box, old_socket), b"\x01a\x01!");
        assert!(home.resume(LinkId(2), &new));
        assert_eq!(waiting.await.node().name(), "new");
        assert!(home.control(Bytes::from_static(b"\x01c")));
        assert_eq!((written(&old_box, old_socket), home.link()), (Vec::new(), LinkId(2)));
        assert_eq!(written(&new_box, new_socket), b"\x01b\x01c");
    }

    #[tokio::test]
    async fn a_pause_is_acknowledged_when_what_was_on_its_way_is_queued() {
        let (old, outbox, socket) = node("old");
        let home = Home::new(LinkId(1), old);
        let passage = home.pass().await;
        home.pause(ACKNOWLEDGEMENT);
        assert!(written(&outbox, socket).is_empty());
        passage.node().control(b"\x01a");
        drop(passage);
        assert_eq!(written(&outbox, socket), b"\x01a\x01!");
    }

    #[test]
    fn a_client_that_is_not_paused_stays_where_it_is() {
        let ((old, ..), (new, ..)) = (node("old"), node("new"));
        let home = Home::new(LinkId(1), old);
        assert!(!home.resume(LinkId(2), &new));
        assert_eq!((home.link(), home.node().name()), (LinkId(1), "old"));
    }
}
