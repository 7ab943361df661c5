//! Proxies and services linked with one hub or raw endpoint, and the replay buffer for proxies that connect late.
//! Pure logic: the caller does locking and waiting.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use trunkline_link::{LinkOutbox, ManySend};
use trunkline_protocol::limits::LINK_BACKOFF_MS;
use trunkline_protocol::service::{Capabilities, ServiceMessage, Stamped};

use crate::node::{Node, NodeName};

#[derive(Debug, Default)]
pub(super) struct Proxies {
    /// The proxies, and one server connection per service. Replaced as a whole, so that sends only clone a reference.
    linked: Arc<[Arc<Node>]>,
    /// Other server connections of services, oldest first.
    spare: Vec<Arc<Node>>,
    replay: ReplayBuffer,
}

#[derive(Debug)]
pub(super) struct SessionBegin {
    pub(super) node: Arc<Node>,
    pub(super) replayed_frames: usize,
    pub(super) replayed_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SessionEnd {
    pub(super) node_is_lost: bool,
    pub(super) lost_frames: u64,
}

impl Proxies {
    /// Adds a link session, and its node if this is the node's first session.
    pub(super) fn begin_session(
        &mut self,
        name: NodeName<'_>,
        capabilities: Capabilities,
        link: u64,
        outbox: Arc<LinkOutbox>,
        now: Instant,
    ) -> SessionBegin {
        if let Some(node) = self.linked.iter().chain(&self.spare).find(|node| node.is(name.name, name.boot)) {
            node.open_link(link, outbox);
            return SessionBegin { node: Arc::clone(node), replayed_frames: 0, replayed_bytes: 0 };
        }
        let node = Arc::new(Node::new(name, capabilities));
        node.open_link(link, outbox);
        if self.linked.iter().any(|linked| linked.shares_service(&node)) {
            self.spare.push(Arc::clone(&node));
            return SessionBegin { node, replayed_frames: 0, replayed_bytes: 0 };
        }
        if self.linked.is_empty() {
            self.replay.open_window(now);
        }
        // Ahead of newer frames: no sender has the node yet.
        let (late, boot) = name.replay_key();
        let replayed = self.replay.replay(late, boot, now).iter().filter(|frame| node.control(frame));
        let (replayed_frames, replayed_bytes) =
            replayed.fold((0, 0), |(frames, bytes), frame| (frames + 1, bytes + frame.len()));
        self.linked = self.linked.iter().cloned().chain([Arc::clone(&node)]).collect();
        SessionBegin { node, replayed_frames, replayed_bytes }
    }

    /// Removes a link session and moves its unsent frames to the node's next send link. A node without links is
    /// removed; another server connection of the same service takes its place.
    pub(super) fn end_session(&mut self, node: &Arc<Node>, link: u64) -> SessionEnd {
        let is_other = |other: &&Arc<Node>| !Arc::ptr_eq(other, node) && other.shares_service(node);
        let successor = self.linked.iter().chain(&self.spare).find(is_other).cloned();
        let ended = node.end_link(link, successor.as_deref());
        if ended.was_last {
            let was_linked = self.linked.iter().any(|other| Arc::ptr_eq(other, node));
            let next = successor.filter(|_| was_linked);
            self.spare.retain(|other| {
                !Arc::ptr_eq(other, node) && next.as_ref().is_none_or(|next| !Arc::ptr_eq(other, next))
            });
            let others = self.linked.iter().filter(|other| !Arc::ptr_eq(other, node)).cloned();
            self.linked = others.chain(next).collect();
        }
        SessionEnd { node_is_lost: ended.was_last, lost_frames: ended.lost_frames }
    }

    /// Switches sends to another server connection of the service, if there is one.
    pub(super) fn retire(&mut self, node: &Arc<Node>) {
        let is_other = |other: &&Arc<Node>| !Arc::ptr_eq(other, node) && other.shares_service(node);
        let Some(next) = self.spare.iter().find(is_other).cloned() else { return };
        if self.linked.iter().any(|linked| Arc::ptr_eq(linked, node)) {
            let others = self.linked.iter().filter(|other| !Arc::ptr_eq(other, node)).cloned();
            self.linked = others.chain([Arc::clone(&next)]).collect();
            self.spare.retain(|spare| !Arc::ptr_eq(spare, &next));
        } else {
            self.spare.retain(|spare| !Arc::ptr_eq(spare, node));
        }
        // Last in the queue: it may become the only one.
        self.spare.push(Arc::clone(node));
    }

    /// Linked proxies, and one server connection per service: for a client of the service, the caller's own.
    pub(super) fn linked(&self, caller: Option<&Arc<Node>>) -> Arc<[Arc<Node>]> {
        let Some(caller) = caller.filter(|caller| self.spare.iter().any(|spare| Arc::ptr_eq(spare, caller))) else {
            return Arc::clone(&self.linked);
        };
        let by_caller = |node: &Arc<Node>| Arc::clone(if node.shares_service(caller) { caller } else { node });
        self.linked.iter().map(by_caller).collect()
    }

    pub(super) fn is_recording(&self) -> bool {
        self.replay.is_open()
    }

    /// Records a frame for proxies that connect late. The caller sends it to the linked proxies.
    pub(super) fn record(&mut self, frame: &Bytes, now: Instant) {
        self.replay.push(frame, now);
    }
}

/// Frame of a send to many clients, in the encodings for different nodes.
#[derive(Debug)]
pub(crate) struct ManyFrame {
    plain: Bytes,
    /// Frame for nodes that support moves; `None` before the first move.
    stamped: Option<Bytes>,
}

impl ManyFrame {
    /// A frame that is identical for all nodes, because its receivers cannot move.
    pub(crate) fn plain(plain: Bytes) -> Self {
        Self { plain, stamped: None }
    }

    pub(crate) fn of_send(send: &ManySend<'_>, plain: Bytes) -> Self {
        let epoch = send.epoch();
        let stamp = || ServiceMessage::Stamped(Stamped { epoch, body: body_of(&plain) }).to_frame();
        let stamped = (epoch > 0).then(stamp);
        Self { plain, stamped }
    }

    pub(crate) fn for_node(&self, node: &Node) -> &Bytes {
        self.stamped.as_ref().filter(|_| node.capabilities.supports_moves).unwrap_or(&self.plain)
    }
}

/// Strips the length prefix of a frame. Its last byte is the first one without the highest bit.
fn body_of(frame: &Bytes) -> Bytes {
    let prefix = frame.iter().take_while(|byte| **byte >= 0x80).count() + 1;
    frame.slice(prefix.min(frame.len())..)
}

/// Time limit for other proxies to connect: twice the longest pause between dial attempts.
const REPLAY_WINDOW: Duration = Duration::from_millis(2 * LINK_BACKOFF_MS.1);

/// Maximum size of the buffer. If it is exceeded, nothing is replayed.
const REPLAY_MAX_BYTES: usize = 1024 * 1024;

/// Recent frames for every proxy. After the first proxy is linked, others are still dialling. Their clients already
/// exist, on another app server or waiting for this one, so new proxies first receive these frames. Pure logic.
#[derive(Debug, Default)]
pub(super) struct ReplayBuffer {
    until: Option<Instant>,
    frames: Vec<Bytes>,
    bytes: usize,
    /// Name and boot ID of each proxy that was linked. A proxy that links again already has these frames.
    served: Vec<(Box<str>, Box<str>)>,
}

impl ReplayBuffer {
    pub(super) fn open_window(&mut self, now: Instant) {
        *self = Self { until: Some(now + REPLAY_WINDOW), ..Self::default() };
    }

    /// Whether frames must be recorded. [`push`](Self::push) detects the end of the window.
    pub(super) fn is_open(&self) -> bool {
        self.until.is_some()
    }

    pub(super) fn push(&mut self, frame: &Bytes, now: Instant) {
        if self.until.is_none_or(|until| until <= now) {
            *self = Self::default();
            return;
        }
        self.bytes += frame.len();
        if self.bytes > REPLAY_MAX_BYTES {
            tracing::debug!("replay buffer full: proxies that connect now do not receive the buffered sends");
            *self = Self::default();
            return;
        }
        self.frames.push(frame.clone());
    }

    /// Returns the frames to replay to a newly linked proxy; none if it was linked before.
    pub(super) fn replay(&mut self, name: &str, boot: &str, now: Instant) -> &[Bytes] {
        let is_known = self.served.iter().any(|(known, start)| (&**known, &**start) == (name, boot));
        if is_known || self.until.is_none_or(|until| until <= now) {
            return &[];
        }
        self.served.push((name.into(), boot.into()));
        &self.frames
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;
    use trunkline_link::MoveQueue;
    use trunkline_protocol::service::{Attachment, BroadcastData, Capabilities, FrameBuffer, Payloads};

    use super::*;
    use crate::node::{NodeName, next_piece, open_outbox};

    const FRAME: Bytes = Bytes::from_static(b"\x01a");

    fn begin(
        proxies: &mut Proxies,
        name: &str,
        link: u64,
        now: Instant,
    ) -> (SessionBegin, Arc<LinkOutbox>, Attachment) {
        let (outbox, socket) = open_outbox(1_000);
        let outbox = Arc::new(outbox);
        (
            proxies.begin_session(NodeName::proxy(name, "boot"), Capabilities::plain(), link, Arc::clone(&outbox), now),
            outbox,
            socket,
        )
    }

    #[test]
    fn links_of_one_proxy_share_its_node() {
        let (mut proxies, now) = (Proxies::default(), Instant::now());
        let (first, ..) = begin(&mut proxies, "a", 0, now);
        let (second, ..) = begin(&mut proxies, "a", 1, now);
        assert!(Arc::ptr_eq(&first.node, &second.node));
        assert_eq!(proxies.linked(None).len(), 1);
        assert!(!proxies.end_session(&first.node, 0).node_is_lost);
        assert!(proxies.end_session(&first.node, 1).node_is_lost);
        assert_eq!(proxies.linked(None).len(), 0);
    }

    #[test]
    fn frames_without_another_link_are_lost() {
        let mut proxies = Proxies::default();
        let (session, ..) = begin(&mut proxies, "a", 0, Instant::now());
        assert!(session.node.control(&FRAME));
        let end = proxies.end_session(&session.node, 0);
        assert_eq!(end, SessionEnd { node_is_lost: true, lost_frames: 1 });
    }

    fn begin_server_connection(proxies: &mut Proxies, link: u64) -> (Arc<Node>, Arc<LinkOutbox>, Attachment) {
        let (outbox, socket) = open_outbox(1_000);
        let (outbox, name) = (Arc::new(outbox), format!("service#{link}"));
        let name = NodeName { name: &name, boot: "", service: Some("service") };
        let begun = proxies.begin_session(name, Capabilities::default(), link, Arc::clone(&outbox), Instant::now());
        (begun.node, outbox, socket)
    }

    #[test]
    fn a_service_is_sent_to_over_one_connection_or_the_callers() {
        let mut proxies = Proxies::default();
        let (proxy, ..) = begin(&mut proxies, "a", 0, Instant::now());
        let [first, second, third] = [0, 1, 2].map(|link| begin_server_connection(&mut proxies, link));
        let linked = |proxies: &Proxies, caller: Option<&Arc<Node>>| -> Vec<String> {
            proxies.linked(caller).iter().map(|node| node.name().to_owned()).collect()
        };
        assert_eq!(linked(&proxies, None), ["a", "service#0"]);
        assert_eq!(linked(&proxies, Some(&third.0)), ["a", "service#2"]);
        assert_eq!(linked(&proxies, Some(&proxy.node)), ["a", "service#0"]);
        assert!(first.0.control(&FRAME));
        assert_eq!(proxies.end_session(&first.0, 0), SessionEnd { node_is_lost: true, lost_frames: 0 });
        assert_eq!(linked(&proxies, None), ["a", "service#1"]);
        assert_eq!(next_piece(&second.1, second.2).unwrap().bytes, FRAME, "what was not sent leaves over the next one");
        proxies.retire(&second.0);
        assert_eq!(linked(&proxies, None), ["a", "service#2"]);
        proxies.end_session(&third.0, 2);
        assert_eq!(linked(&proxies, None), ["a", "service#1"]);
        proxies.retire(&second.0);
        assert_eq!(linked(&proxies, None), ["a", "service#1"], "there is no other one");
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

    fn node(supports_moves: bool) -> Node {
        Node::new(NodeName::proxy("node", "boot"), Capabilities { supports_moves, ..Capabilities::plain() })
    }

    #[test]
    fn sends_after_a_move_are_stamped_for_nodes_with_moves() {
        let queue = MoveQueue::default();
        let payloads = Payloads(vec![("json".into(), vec![7; 300].into())]);
        let message = ServiceMessage::BroadcastData(BroadcastData { excluded: Vec::new(), payloads });
        let plain = message.to_frame();
        let frame = ManyFrame::of_send(&queue.begin_send(), plain.clone());
        assert_eq!((frame.for_node(&node(true)), frame.for_node(&node(false))), (&plain, &plain));
        queue.push(()).unwrap();
        queue.next_moves().now_or_never().unwrap().unwrap();
        let frame = ManyFrame::of_send(&queue.begin_send(), plain.clone());
        assert_eq!(frame.for_node(&node(false)), &plain);
        let mut frames = FrameBuffer::default();
        frames.push(frame.for_node(&node(true)).clone());
        let body = frames.next_body().unwrap().unwrap();
        let stamped = Stamped { epoch: 1, body: message.to_body() };
        assert_eq!(ServiceMessage::decode(&body), Ok(Some(ServiceMessage::Stamped(stamped))));
    }

    const LATE_FRAME: Bytes = Bytes::from_static(b"frame");

    #[test]
    fn frames_after_the_first_proxy_are_replayed_to_the_second_and_the_third() {
        let (mut buffer, now) = (ReplayBuffer::default(), Instant::now());
        buffer.push(&LATE_FRAME, now);
        buffer.open_window(now);
        assert!(buffer.replay("first", "boot", now).is_empty(), "before the first proxy there is nothing to replay");
        buffer.push(&LATE_FRAME, now);
        assert_eq!(buffer.replay("second", "boot", now), [LATE_FRAME]);
        assert_eq!(buffer.replay("third", "boot", now), [LATE_FRAME]);
    }

    #[test]
    fn a_returning_proxy_gets_no_replay_but_a_restarted_one_does() {
        let (mut buffer, now) = (ReplayBuffer::default(), Instant::now());
        buffer.open_window(now);
        buffer.replay("first", "boot", now);
        buffer.push(&LATE_FRAME, now);
        assert!(buffer.replay("first", "boot", now).is_empty());
        assert_eq!(buffer.replay("first", "another boot", now), [LATE_FRAME]);
    }

    #[test]
    fn after_the_window_nothing_is_kept_or_replayed() {
        let (mut buffer, now) = (ReplayBuffer::default(), Instant::now());
        buffer.open_window(now);
        buffer.push(&LATE_FRAME, now);
        assert!(buffer.replay("late", "boot", now + REPLAY_WINDOW).is_empty());
        buffer.push(&LATE_FRAME, now + REPLAY_WINDOW);
        assert!(!buffer.is_open() && buffer.frames.is_empty());
    }

    #[test]
    fn a_flood_is_not_replayed() {
        let (mut buffer, now) = (ReplayBuffer::default(), Instant::now());
        buffer.open_window(now);
        for _ in 0..=REPLAY_MAX_BYTES / 1024 {
            buffer.push(&vec![0; 1024].into(), now);
        }
        assert!(buffer.replay("late", "boot", now).is_empty() && !buffer.is_open());
    }
}
