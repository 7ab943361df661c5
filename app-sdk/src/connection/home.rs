//! Home of a connection: the link that brings what its client sends, and the way of frames to the client.
//!
//! The home changes where a service gives a server connection up in order, and where a client with stateful reconnect comes
//! back at another node: the far end pauses the client at the old home, and resumes it over the new one. Nothing that is
//! for the client alone leaves in between, so that nothing is lost and the order stays.
//!
//! ```text
//!  flowing ──pause──► paused ──what was on its way has been queued──► acknowledged ──resume──► flowing, over the new link
//!                       └── frames wait here ──────────────────────────────────────────────────► leave first
//! ```

use std::fmt;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use super::LinkId;
use crate::node::Node;
use crate::sync::lock;

/// Home of one connection. Where it stays what it is, it costs no lock.
#[derive(Debug)]
pub(crate) enum Home {
    Fixed { link: LinkId, node: Arc<Node> },
    Movable(Box<MovableHome>),
}

/// Home of a connection that may get another one.
#[derive(Debug)]
pub(crate) struct MovableHome {
    /// It is at a proxy, and may go to another one; otherwise at a service.
    is_at_proxy: bool,
    state: Mutex<HomeState>,
}

#[derive(Debug)]
struct HomeState {
    link: LinkId,
    node: Arc<Node>,
    /// Number of frames that have the way and are not queued yet, because their link is full.
    passing: u32,
    pause: Option<Pause>,
    /// The link has ended, and the connection with it.
    is_over: bool,
}

/// Pause of a connection.
#[derive(Debug, Default)]
struct Pause {
    /// Frames that wait for the end of the pause.
    frames: Vec<Bytes>,
    /// Acknowledgement that is owed when nothing passes any more.
    acknowledgement: Option<Bytes>,
    /// The last frame waits, too: whatever comes after it goes nowhere.
    is_last: bool,
    resumed: Arc<Notify>,
}

/// Permission to queue a frame for the client at its node, until it is dropped.
pub(crate) struct Passage<'a> {
    home: Option<&'a MovableHome>,
    node: Arc<Node>,
}

/// Outcome of a resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resumption {
    /// The connection goes on where it was.
    Stayed,
    /// The connection goes on over this link, at another node.
    Moved,
    /// It was not paused, and stays where it is.
    NotPaused,
}

/// Outcome of the end of a link for a connection.
#[derive(Debug)]
pub(crate) enum HomeEnd {
    /// The link was not its home, or is no more.
    Elsewhere,
    /// The connection ends with the link.
    Over,
    /// It may be at another node by now, which is about to say so.
    Moving(OwnedNotified),
}

impl Home {
    /// Home of a connection that stays at its proxy; a service may always move it.
    pub(crate) fn new(link: LinkId, node: Arc<Node>) -> Self {
        if node.is_of_service() { Self::movable(link, node) } else { Self::Fixed { link, node } }
    }

    /// Home of a connection that may move, if its proxy knows how.
    pub(crate) fn of_stateful(link: LinkId, node: Arc<Node>) -> Self {
        if node.knows_moves() { Self::movable(link, node) } else { Self::new(link, node) }
    }

    fn movable(link: LinkId, node: Arc<Node>) -> Self {
        let is_at_proxy = !node.is_of_service();
        let state = HomeState { link, node, passing: 0, pause: None, is_over: false };
        Self::Movable(Box::new(MovableHome { is_at_proxy, state: Mutex::new(state) }))
    }

    /// Whether it is a proxy's, and another proxy may take it over.
    pub(crate) fn moves_between_nodes(&self) -> bool {
        matches!(self, Self::Movable(home) if home.is_at_proxy)
    }

    pub(crate) fn link(&self) -> LinkId {
        match self {
            Self::Fixed { link, .. } => *link,
            Self::Movable(home) => lock(&home.state).link,
        }
    }

    pub(super) fn node(&self) -> Arc<Node> {
        match self {
            Self::Fixed { node, .. } => Arc::clone(node),
            Self::Movable(home) => Arc::clone(&lock(&home.state).node),
        }
    }

    pub(crate) fn is_paused(&self) -> bool {
        matches!(self, Self::Movable(home) if lock(&home.state).pause.is_some())
    }

    /// Whether another proxy may have taken it over, and is about to say so.
    pub(crate) fn may_have_moved(&self) -> bool {
        self.moves_between_nodes() && self.is_paused()
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

    /// Pauses the client as this node asks, which must be its own; the acknowledgement leaves once nothing else does.
    pub(crate) fn pause(&self, node: &Arc<Node>, acknowledgement: Bytes) {
        if let Self::Movable(home) = self {
            home.pause(node, acknowledgement);
        }
    }

    /// Resumes a paused client over this link.
    pub(crate) fn resume(&self, link: LinkId, node: &Arc<Node>) -> Resumption {
        match self {
            Self::Fixed { .. } => Resumption::NotPaused,
            Self::Movable(home) => home.resume(link, node),
        }
    }

    /// Keeps the last frames for a client that moves. Returns `false` if it does not, and they may leave.
    pub(crate) fn keep_last(&self, frames: &[Bytes]) -> bool {
        matches!(self, Self::Movable(home) if home.is_at_proxy && home.keep_last(frames))
    }

    /// Ends the pause of a connection that ends: what waited leaves before its close.
    pub(crate) fn end_pause(&self) {
        if let Self::Movable(home) = self {
            let (link, node) = (self.link(), self.node());
            home.resume(link, &node);
        }
    }

    /// Handles the end of a link.
    pub(crate) fn end_link(&self, link: LinkId) -> HomeEnd {
        match self {
            Self::Fixed { link: home, .. } if *home == link => HomeEnd::Over,
            Self::Fixed { .. } => HomeEnd::Elsewhere,
            Self::Movable(home) => home.end_link(link),
        }
    }

    /// Gives up a connection that no other node has resumed. Returns `false` if its home is not this link any more.
    pub(crate) fn give_up(&self, link: LinkId) -> bool {
        match self {
            Self::Fixed { link: home, .. } => *home == link,
            Self::Movable(home) => {
                let mut state = lock(&home.state);
                state.is_over |= state.link == link;
                state.is_over
            }
        }
    }
}

impl MovableHome {
    async fn pass(&self) -> Passage<'_> {
        loop {
            let resumed = {
                let mut state = lock(&self.state);
                match &state.pause {
                    None => {
                        state.passing += 1;
                        return Passage { home: Some(self), node: Arc::clone(&state.node) };
                    }
                    Some(pause) if pause.is_last => return Passage { home: None, node: Arc::new(Node::nowhere()) },
                    Some(pause) => Arc::clone(&pause.resumed).notified_owned(),
                }
            };
            resumed.await;
        }
    }

    fn control(&self, frame: Bytes) -> bool {
        let mut state = lock(&self.state);
        if let Some(pause) = &mut state.pause {
            if !pause.is_last {
                pause.frames.push(frame);
            }
            return false;
        }
        state.node.control(&frame)
    }

    fn keep_last(&self, frames: &[Bytes]) -> bool {
        let mut state = lock(&self.state);
        let Some(pause) = &mut state.pause else { return false };
        pause.frames.extend_from_slice(frames);
        pause.is_last = true;
        pause.resumed.notify_waiters();
        true
    }

    fn pause(&self, node: &Arc<Node>, acknowledgement: Bytes) {
        let mut state = lock(&self.state);
        // A node has no say in what has left it.
        if self.is_at_proxy && !Arc::ptr_eq(node, &state.node) {
            return;
        }
        let is_clear = state.passing == 0;
        if is_clear {
            state.node.control(&acknowledgement);
        }
        let pause = state.pause.get_or_insert_default();
        pause.acknowledgement = (!is_clear).then_some(acknowledgement);
    }

    fn resume(&self, link: LinkId, node: &Arc<Node>) -> Resumption {
        let mut state = lock(&self.state);
        if state.is_over && !Arc::ptr_eq(node, &state.node) {
            return Resumption::NotPaused;
        }
        let Some(pause) = state.pause.take() else { return Resumption::NotPaused };
        let moves = !Arc::ptr_eq(node, &state.node);
        if moves {
            (state.link, state.node) = (link, Arc::clone(node));
        }
        for frame in &pause.frames {
            node.control(frame);
        }
        pause.resumed.notify_waiters();
        if moves { Resumption::Moved } else { Resumption::Stayed }
    }

    fn end_link(&self, link: LinkId) -> HomeEnd {
        let mut state = lock(&self.state);
        if state.link != link {
            return HomeEnd::Elsewhere;
        }
        match &state.pause {
            Some(pause) if self.is_at_proxy && pause.acknowledgement.is_none() => {
                HomeEnd::Moving(Arc::clone(&pause.resumed).notified_owned())
            }
            _ => {
                state.is_over = true;
                HomeEnd::Over
            }
        }
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
        let mut state = lock(&home.state);
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

    fn open(name: NodeName<'_>, capabilities: Capabilities) -> (Arc<Node>, Arc<LinkOutbox>, Attachment) {
        let node = Arc::new(Node::new(name, capabilities));
        let (outbox, socket) = open_outbox(1_000);
        let outbox = Arc::new(outbox);
        node.open(0, Arc::clone(&outbox));
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
    async fn what_a_pause_holds_back_leaves_over_the_new_link_in_order() {
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
            assert_eq!(home.resume(LinkId(2), &new), Resumption::Moved);
            assert_eq!(waiting.await.node().name(), "new");
            assert!(home.control(Bytes::from_static(b"\x01c")));
            assert_eq!((written(&old_box, old_socket), home.link()), (Vec::new(), LinkId(2)));
            assert_eq!(written(&new_box, new_socket), b"\x01b\x01c");
        }
    }

    #[tokio::test]
    async fn a_pause_is_acknowledged_when_what_was_on_its_way_is_queued() {
        let (old, outbox, socket) = service("old");
        let home = Home::new(LinkId(1), Arc::clone(&old));
        let passage = home.pass().await;
        home.pause(&old, ACKNOWLEDGEMENT);
        assert!(written(&outbox, socket).is_empty());
        passage.node().control(b"\x01a");
        drop(passage);
        assert_eq!(written(&outbox, socket), b"\x01a\x01!");
    }

    #[test]
    fn a_client_that_is_not_paused_stays_where_it_is() {
        let ((old, ..), (new, ..)) = (service("old"), service("new"));
        let home = Home::new(LinkId(1), old);
        assert_eq!(home.resume(LinkId(2), &new), Resumption::NotPaused);
        assert_eq!((home.link(), home.node().name()), (LinkId(1), "old"));
    }

    #[test]
    fn only_stateful_connections_at_nodes_that_know_moves_are_movable() {
        let old_node = open(NodeName::proxy("old", "boot"), Capabilities::default()).0;
        let (known, served) = (proxy("known").0, service("service").0);
        let is_movable = |home: &Home| (matches!(home, Home::Movable(_)), home.moves_between_nodes());
        assert_eq!(is_movable(&Home::new(LinkId(1), Arc::clone(&known))), (false, false));
        assert_eq!(is_movable(&Home::of_stateful(LinkId(1), known)), (true, true));
        assert_eq!(is_movable(&Home::of_stateful(LinkId(1), old_node)), (false, false));
        assert_eq!(is_movable(&Home::of_stateful(LinkId(1), served)), (true, false));
    }

    #[test]
    fn a_move_that_fails_leaves_the_home_as_it_was() {
        let ((old, outbox, socket), (new, ..)) = (proxy("old"), proxy("new"));
        let home = Home::of_stateful(LinkId(1), Arc::clone(&old));
        home.pause(&new, ACKNOWLEDGEMENT);
        assert!(home.control(Bytes::from_static(b"\x01a")), "only its own node pauses it");
        home.pause(&old, ACKNOWLEDGEMENT);
        home.control(Bytes::from_static(b"\x01b"));
        // Over whichever of its links.
        assert_eq!(home.resume(LinkId(7), &old), Resumption::Stayed);
        assert_eq!(home.link(), LinkId(1));
        assert_eq!(written(&outbox, socket), b"\x01a\x01!\x01b");
        assert_eq!(home.resume(LinkId(2), &new), Resumption::NotPaused);
    }

    #[test]
    fn a_link_takes_its_connections_along_but_for_those_that_have_moved_or_are_about_to() {
        let ((old, ..), (new, ..)) = (proxy("old"), proxy("new"));
        let home = Home::of_stateful(LinkId(1), Arc::clone(&old));
        assert!(matches!(home.end_link(LinkId(2)), HomeEnd::Elsewhere));
        home.pause(&old, ACKNOWLEDGEMENT);
        assert!(matches!(home.end_link(LinkId(1)), HomeEnd::Moving(_)));
        assert_eq!(home.resume(LinkId(2), &new), Resumption::Moved);
        assert!(!home.give_up(LinkId(1)));
        assert!(matches!(home.end_link(LinkId(1)), HomeEnd::Elsewhere));
        assert!(matches!(home.end_link(LinkId(2)), HomeEnd::Over));
        let home = Home::of_stateful(LinkId(1), Arc::clone(&old));
        home.pause(&old, ACKNOWLEDGEMENT);
        assert!(home.give_up(LinkId(1)));
        assert_eq!(home.resume(LinkId(2), &new), Resumption::NotPaused, "it comes too late");
    }
}
