//! One proxy from the view of one hub: its links, including the send link.
//!
//! A dialled service has a node per server connection: messages for a client go through the server connection that
//! carries it, because the service may host its connections at different places.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use tokio::time::Instant;
use trunkline_link::LinkOutbox;
use trunkline_protocol::service::Capabilities;

use crate::sync::{lock, read_lock, write_lock};

#[cfg(test)]
pub(crate) use tests::{next_piece, open_outbox};

tokio::task_local! {
    /// Node of the calling client. Broadcasts of the call take the same path, which preserves their
    /// order.
    static CALLER: Arc<Node>;
}

/// Number of link sessions of this process that ended with possibly lost frames.
static LOSSES: AtomicU64 = AtomicU64::new(0);

/// Point in time; earlier losses of frames are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LossMark(u64);

/// Reason why delivery of frames to a node is uncertain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeliveryError {
    /// A link ended with frames that the proxy may not have received.
    Lost,
    /// It is a service, which does not acknowledge frames.
    Unsupported,
}

/// Name of a node: a proxy process, or a server connection to a service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NodeName<'a> {
    pub(crate) name: &'a str,
    /// Random ID of a process start.
    pub(crate) boot: &'a str,
    /// Name of the service; `None` for a proxy that has dialled this app server.
    pub(crate) service: Option<&'a str>,
}

impl<'a> NodeName<'a> {
    #[cfg(test)]
    pub(crate) fn proxy(name: &'a str, boot: &'a str) -> Self {
        Self { name, boot, service: None }
    }

    /// Name and boot ID for replays. All connections of a service share them, so that it gets each frame once.
    pub(crate) fn replay_key(self) -> (&'a str, &'a str) {
        self.service.map_or((self.name, self.boot), |service| (service, ""))
    }
}

/// A proxy process, identified by name and boot ID, or a server connection to a service.
#[derive(Debug)]
pub(crate) struct Node {
    name: Box<str>,
    boot: Box<str>,
    pub(crate) service: Option<Box<str>>,
    pub(crate) capabilities: Capabilities,
    received_at: Mutex<Instant>,
    /// Latest value of [`LOSSES`] caused by this node.
    last_loss: AtomicU64,
    pool: RwLock<LinkPool<Arc<LinkOutbox>>>,
}

impl LossMark {
    /// The present: earlier losses are ignored.
    pub(crate) fn now() -> Self {
        Self(LOSSES.load(Ordering::Acquire))
    }
}

/// Nodes are compared by identity.
impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

#[derive(Debug)]
pub(crate) struct LinkSessionEnd {
    pub(crate) was_last: bool,
    /// Frames without a link to take over, and frames that the proxy may not have received.
    pub(crate) lost_frames: u64,
}

impl Node {
    pub(crate) fn new(name: NodeName<'_>, capabilities: Capabilities) -> Self {
        let NodeName { name, boot, service } = name;
        let pool = RwLock::default();
        let (received_at, last_loss) = (Mutex::new(Instant::now()), AtomicU64::new(0));
        let (name, boot, service) = (name.into(), boot.into(), service.map(Into::into));
        Self { name, boot, service, capabilities, received_at, last_loss, pool }
    }

    /// A node without links, which accepts no frames.
    pub(crate) fn unlinked() -> Self {
        Self::new(NodeName { name: "", boot: "", service: None }, Capabilities::default())
    }

    pub(crate) fn is(&self, name: &str, boot: &str) -> bool {
        &*self.name == name && &*self.boot == boot
    }

    /// Name and boot ID of the proxy, or the name of the service for all its server connections.
    pub(crate) fn peer_name(&self) -> (&str, &str) {
        self.service.as_deref().map_or((&self.name, &self.boot), |service| (service, ""))
    }

    pub(crate) fn is_of_service(&self) -> bool {
        self.service.is_some()
    }

    pub(crate) fn shares_service(&self, other: &Self) -> bool {
        self.is_of_service() && self.service == other.service
    }

    pub(crate) async fn run_call<F: Future>(self: Arc<Self>, call: F) -> F::Output {
        CALLER.scope(self, call).await
    }

    /// Node of the calling client in this task, if any.
    pub(crate) fn of_caller() -> Option<Arc<Self>> {
        CALLER.try_with(Arc::clone).ok()
    }

    /// Records that data was received from it.
    pub(crate) fn note_received(&self) {
        *lock(&self.received_at) = Instant::now();
    }

    /// Time of the last data received on any of its links for this hub.
    pub(crate) fn received_at(&self) -> Instant {
        *lock(&self.received_at)
    }

    pub(crate) fn is_linked(&self) -> bool {
        self.links().iter().any(|link| link.is_open())
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether both are the same process or lead to the same service.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.is(&other.name, &other.boot) || self.shares_service(other)
    }

    pub(crate) fn open_link(&self, link: u64, outbox: Arc<LinkOutbox>) {
        write_lock(&self.pool).open_link(link, outbox);
    }

    /// Ends a link's session and moves unsent frames to the next send link, or without a link to the `successor`,
    /// ahead of newer ones. All under one lock, because a caller that finds an outbox closed looks up the [send
    /// link](Self::send_link) again.
    pub(crate) fn end_link(&self, link: u64, successor: Option<&Self>) -> LinkSessionEnd {
        let mut pool = write_lock(&self.pool);
        let ended = pool.end_link(link, |outbox| outbox.is_open());
        let rest = ended.map(|outbox| outbox.close_outbox()).unwrap_or_default();
        let mut lost_frames = rest.uncertain.count;
        match pool.send_link() {
            Some(link) if !rest.unsent.is_empty() => link.inherit(rest.unsent),
            Some(_) => {}
            None => match successor.and_then(Self::send_link) {
                Some(link) => link.inherit(rest.unsent),
                None => lost_frames += rest.unsent.count,
            },
        }
        if lost_frames > 0 {
            self.last_loss.store(LOSSES.fetch_add(1, Ordering::AcqRel) + 1, Ordering::Release);
        }
        LinkSessionEnd { was_last: pool.is_empty(), lost_frames }
    }

    /// Waits until the proxy has received everything queued for it since the mark, over any links.
    ///
    /// No frames are recorded: everything queued before this call precedes the last frame of the send link. Any loss
    /// since the mark counts, even of other frames.
    pub(crate) async fn delivered(&self, since: LossMark) -> Result<(), DeliveryError> {
        if self.is_of_service() {
            return Err(DeliveryError::Unsupported);
        }
        loop {
            let link = self.send_link().map(|link| (link.queued(), link));
            // Checked after the lookup of the link: frames that are not on this link were lost and counted before.
            if self.last_loss.load(Ordering::Acquire) > since.0 {
                return Err(DeliveryError::Lost);
            }
            // No link and no loss: the proxy has received everything.
            let Some((queued, link)) = link else { return Ok(()) };
            if let Some(queued) = queued
                && link.delivered(queued).await.is_ok()
            {
                return Ok(());
            }
        }
    }

    pub(crate) fn control(&self, frame: &[u8]) -> bool {
        while let Some(link) = self.send_link() {
            if link.control(frame).is_ok() {
                return true;
            }
        }
        false
    }

    pub(crate) fn links(&self) -> Vec<Arc<LinkOutbox>> {
        read_lock(&self.pool).iter().map(Arc::clone).collect()
    }

    /// Link for all frames to the node, if any session lives. If it ends, callers look up the next one.
    pub(crate) fn send_link(&self) -> Option<Arc<LinkOutbox>> {
        read_lock(&self.pool).send_link().map(Arc::clone)
    }
}

/// Live link sessions of one node, by number, and its send link, which carries all outgoing frames. Pure logic.
///
/// The send link is the oldest open session when selected. It stays selected while its session lives, even if its
/// socket is interrupted, because switching would reorder frames in flight.
#[derive(Debug)]
struct LinkPool<L> {
    live: BTreeMap<u64, L>,
    chosen: Option<u64>,
}

impl<L> Default for LinkPool<L> {
    fn default() -> Self {
        Self { live: BTreeMap::new(), chosen: None }
    }
}

impl<L> LinkPool<L> {
    fn open_link(&mut self, id: u64, link: L) {
        self.live.insert(id, link);
        self.chosen = self.chosen.or(Some(id));
    }

    /// Removes a session. If it was the send link, selects the next one, preferring links with a socket.
    fn end_link(&mut self, id: u64, is_open: impl Fn(&L) -> bool) -> Option<L> {
        let ended = self.live.remove(&id);
        if self.chosen == Some(id) {
            let open = self.live.iter().find(|(_, link)| is_open(link));
            self.chosen = open.or_else(|| self.live.iter().next()).map(|(id, _)| *id);
        }
        ended
    }

    /// Returns the send link; `None` if there is no live session.
    fn send_link(&self) -> Option<&L> {
        self.live.get(&self.chosen?)
    }

    fn iter(&self) -> impl Iterator<Item = &L> {
        self.live.values()
    }

    fn is_empty(&self) -> bool {
        self.live.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;
    use trunkline_link::{OutboxPolicy, Outgoing};
    use trunkline_protocol::service::{
        ACKNOWLEDGE_KEY, Attachment, Offer, Ping, Role, Session, SessionId, SessionSettings, Transmit,
    };

    use super::*;

    /// Creates an outbox with a ring of this size, attached to a socket of a proxy without resumption.
    pub(crate) fn open_outbox(ring_max_bytes: usize) -> (LinkOutbox, Attachment) {
        let settings = SessionSettings::new(ring_max_bytes, 1_000);
        let session = Session::new(SessionId::FIRST, Role::AppServer, settings, 0);
        let outbox = LinkOutbox::new(OutboxPolicy::waiting(), Some(session));
        let offer = Offer { session: SessionId::FIRST, received: None, capabilities: Capabilities::default() };
        let (attachment, _) = outbox.attach_offer(&offer, 0).unwrap().unwrap();
        (outbox, attachment)
    }

    pub(crate) fn next_piece(outbox: &LinkOutbox, attachment: Attachment) -> Option<Transmit> {
        match outbox.poll(attachment, 0) {
            Outgoing::Piece(piece) => Some(piece),
            Outgoing::Idle(_) | Outgoing::Over => None,
        }
    }

    #[test]
    fn frames_of_a_lost_send_link_leave_first_on_the_next() {
        let node = Node::new(NodeName::proxy("proxy", "boot"), Capabilities::plain());
        let ((first, _), (second, socket)) = (open_outbox(100), open_outbox(100));
        let second = Arc::new(second);
        node.open_link(0, Arc::new(first));
        node.open_link(1, Arc::clone(&second));
        assert!(node.control(b"\x01a"));
        let ended = node.end_link(0, None);
        assert!(!ended.was_last);
        assert_eq!(ended.lost_frames, 0);
        assert!(node.control(b"\x01b"));
        let written: Vec<_> = std::iter::from_fn(|| next_piece(&second, socket)).map(|piece| piece.bytes).collect();
        assert_eq!(written.concat(), b"\x01a\x01b");
    }

    /// Opens a link of a proxy that resumes and acknowledges.
    fn open_acknowledging(node: &Node, link: u64) -> (Arc<LinkOutbox>, Attachment) {
        let session = Session::new(SessionId::FIRST, Role::AppServer, SessionSettings::new(1_000, 1_000), 0);
        let outbox = Arc::new(LinkOutbox::new(OutboxPolicy::waiting(), Some(session)));
        let capabilities = Capabilities { resume_ring_bytes: Some(1_000), ..Capabilities::plain() };
        let offer = Offer { session: SessionId::FIRST, received: None, capabilities };
        let (attachment, _) = outbox.attach_offer(&offer, 0).unwrap().unwrap();
        node.open_link(link, Arc::clone(&outbox));
        (outbox, attachment)
    }

    fn acknowledge(outbox: &LinkOutbox, frames: u64) {
        let pairs = vec![(ACKNOWLEDGE_KEY.into(), frames.to_string().into())];
        outbox.handle_ping(&Ping { pairs }).unwrap();
    }

    fn proxy() -> Node {
        Node::new(NodeName::proxy("proxy", "boot"), Capabilities::plain())
    }

    #[test]
    fn a_frame_is_delivered_when_its_proxy_acknowledges_it_and_not_an_earlier_one() {
        let node = proxy();
        let (outbox, socket) = open_acknowledging(&node, 0);
        let since = LossMark::now();
        assert!(node.control(b"\x01a"));
        next_piece(&outbox, socket).unwrap();
        assert!(node.control(b"\x01b"));
        let mut waiting = pin!(node.delivered(since));
        assert_eq!(waiting.as_mut().now_or_never(), None);
        acknowledge(&outbox, 1);
        assert_eq!(waiting.as_mut().now_or_never(), None, "the second one is queued");
        next_piece(&outbox, socket).unwrap();
        assert_eq!(waiting.as_mut().now_or_never(), None, "it is written");
        acknowledge(&outbox, 2);
        assert_eq!(waiting.now_or_never(), Some(Ok(())));
    }

    #[test]
    fn a_frame_that_was_never_written_is_delivered_over_the_next_link() {
        let node = proxy();
        let [(first, _), (second, socket)] = [0, 1].map(|link| open_acknowledging(&node, link));
        let since = LossMark::now();
        assert!(node.control(b"\x01a"));
        let mut waiting = pin!(node.delivered(since));
        assert_eq!(waiting.as_mut().now_or_never(), None);
        node.end_link(0, None);
        assert!(first.is_closed());
        assert_eq!(waiting.as_mut().now_or_never(), None);
        next_piece(&second, socket).unwrap();
        acknowledge(&second, 1);
        assert_eq!(waiting.now_or_never(), Some(Ok(())));
    }

    #[test]
    fn a_frame_written_to_a_lost_link_stays_lost() {
        let (node, other) = (proxy(), proxy());
        let [(first, socket), (_second, _)] = [0, 1].map(|link| open_acknowledging(&node, link));
        let (theirs, their_socket) = open_acknowledging(&other, 0);
        let before = LossMark::now();
        assert!(node.control(b"\x01a") && other.control(b"\x01a"));
        next_piece(&first, socket).unwrap();
        next_piece(&theirs, their_socket).unwrap();
        acknowledge(&theirs, 1);
        let mut waiting = pin!(node.delivered(before));
        assert_eq!(waiting.as_mut().now_or_never(), None);
        node.end_link(0, None);
        assert_eq!(waiting.now_or_never(), Some(Err(DeliveryError::Lost)));
        assert_eq!(node.delivered(before).now_or_never(), Some(Err(DeliveryError::Lost)));
        assert_eq!(node.delivered(LossMark::now()).now_or_never(), Some(Ok(())), "what is sent now has another link");
        assert_eq!(other.delivered(before).now_or_never(), Some(Ok(())), "the other proxy has lost nothing");
    }

    #[test]
    fn frames_acknowledged_before_the_end_of_the_link_are_delivered() {
        let node = proxy();
        let (outbox, socket) = open_acknowledging(&node, 0);
        let since = LossMark::now();
        assert!(node.control(b"\x01a"));
        let mut waiting = pin!(node.delivered(since));
        assert_eq!(waiting.as_mut().now_or_never(), None);
        assert!(node.control(b"\x01b"));
        next_piece(&outbox, socket).unwrap();
        acknowledge(&outbox, 1);
        node.end_link(0, None);
        assert_eq!(waiting.now_or_never(), Some(Ok(())));
    }

    #[test]
    fn a_peer_in_memory_has_written_frames_and_a_service_never_acknowledges() {
        let node = proxy();
        let (outbox, socket) = open_outbox(100);
        let outbox = Arc::new(outbox);
        node.open_link(0, Arc::clone(&outbox));
        let since = LossMark::now();
        assert!(node.control(b"\x01a"));
        let mut waiting = pin!(node.delivered(since));
        assert_eq!(waiting.as_mut().now_or_never(), None);
        next_piece(&outbox, socket).unwrap();
        assert_eq!(waiting.now_or_never(), Some(Ok(())));
        let service = Node::new(NodeName { name: "s", boot: "", service: Some("s") }, Capabilities::default());
        assert_eq!(service.delivered(since).now_or_never(), Some(Err(DeliveryError::Unsupported)));
    }

    #[test]
    fn the_last_link_takes_its_queue_with_it_and_sends_go_nowhere() {
        let node = Node::new(NodeName::proxy("proxy", "boot"), Capabilities::plain());
        node.open_link(4, Arc::new(open_outbox(100).0));
        node.control(b"\x01a");
        let ended = node.end_link(4, None);
        assert!(ended.was_last);
        assert_eq!(ended.lost_frames, 1);
        assert!(!node.control(b"\x01a") && node.send_link().is_none());
    }

    fn pool(links: &[u64]) -> LinkPool<u64> {
        let mut pool = LinkPool::default();
        for &link in links {
            pool.open_link(link, link);
        }
        pool
    }

    #[test]
    fn the_first_link_to_open_is_the_send_link_and_stays_it() {
        let pool = pool(&[3, 0, 1]);
        assert_eq!(pool.send_link(), Some(&3));
    }

    #[test]
    fn when_the_send_link_ends_the_oldest_open_one_is_next() {
        let mut pool = pool(&[3, 4, 1, 2]);
        assert_eq!(pool.end_link(3, |_| true), Some(3));
        assert_eq!(pool.send_link(), Some(&1));
        pool.open_link(0, 0);
        assert_eq!(pool.send_link(), Some(&1), "a link that opens later changes nothing");
    }

    #[test]
    fn a_link_without_a_socket_is_chosen_only_when_all_are() {
        let mut some = pool(&[0, 1, 2]);
        some.end_link(0, |&link| link == 2);
        assert_eq!(some.send_link(), Some(&2));
        let mut none = pool(&[0, 1, 2]);
        none.end_link(0, |_| false);
        assert_eq!(none.send_link(), Some(&1));
    }

    #[test]
    fn the_end_of_another_link_changes_nothing() {
        let mut pool = pool(&[0, 1]);
        pool.end_link(1, |_| true);
        assert_eq!(pool.send_link(), Some(&0));
    }

    #[test]
    fn without_links_there_is_no_send_link() {
        let mut pool = pool(&[0]);
        pool.end_link(0, |_| true);
        assert!(pool.is_empty());
        assert_eq!(pool.send_link(), None);
        pool.open_link(2, 2);
        assert_eq!(pool.send_link(), Some(&2));
    }
}
