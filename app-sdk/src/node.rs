//! One proxy, as one hub sees it: its links, and the send link among them.
//!
//! A service that was dialled has a node for each server connection: what is for a client goes over the connection that
//! carries it, because the service may hold that one at another place than its others.

mod link_pool;

use std::sync::{Arc, Mutex, RwLock};

use bytes::Bytes;
use tokio::time::Instant;
use trunkline_link::{LinkOutbox, TrySendError};
use trunkline_protocol::service::Capabilities;

use crate::sync::{lock, read, write};

use link_pool::LinkPool;
#[cfg(test)]
pub(crate) use tests::{next_piece, open_outbox};

tokio::task_local! {
    /// Node of the client whose call runs: what the call sends to many takes the same way, and so keeps its order.
    static CALLER: Arc<Node>;
}

/// Name of a node: of a proxy process, or of a server connection to a service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NodeName<'a> {
    pub(crate) name: &'a str,
    /// Random id of the start of the process.
    pub(crate) boot: &'a str,
    /// Name of the service; `None` for a proxy that has dialled.
    pub(crate) service: Option<&'a str>,
}

impl<'a> NodeName<'a> {
    /// Name of a proxy process.
    #[cfg(test)]
    pub(crate) fn proxy(name: &'a str, boot: &'a str) -> Self {
        Self { name, boot, service: None }
    }

    /// Name and boot id of what gets what was sent before it came: a service gets it once.
    pub(crate) fn late_comer(self) -> (&'a str, &'a str) {
        self.service.map_or((self.name, self.boot), |service| (service, ""))
    }
}

/// A proxy process, identified by its name and its boot id; or a server connection to a service.
#[derive(Debug)]
pub(crate) struct Node {
    name: Box<str>,
    boot: Box<str>,
    service: Option<Box<str>>,
    capabilities: Capabilities,
    heard_at: Mutex<Instant>,
    pool: RwLock<LinkPool<Arc<LinkOutbox>>>,
}

/// A node is equal to itself alone.
impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

/// Outcome of the end of a link session.
#[derive(Debug)]
pub(crate) struct LinkSessionEnd {
    /// No other link of the node lives.
    pub(crate) was_last: bool,
    /// Frames that no other link takes over, and frames that the proxy may have received or not.
    pub(crate) lost_frames: u64,
}

impl Node {
    pub(crate) fn new(name: NodeName<'_>, capabilities: Capabilities) -> Self {
        let NodeName { name, boot, service } = name;
        let pool = RwLock::default();
        let heard_at = Mutex::new(Instant::now());
        Self { name: name.into(), boot: boot.into(), service: service.map(Into::into), capabilities, heard_at, pool }
    }

    /// Node without links, which takes nothing.
    pub(crate) fn nowhere() -> Self {
        Self::new(NodeName { name: "", boot: "", service: None }, Capabilities::default())
    }

    pub(crate) fn is(&self, name: &str, boot: &str) -> bool {
        &*self.name == name && &*self.boot == boot
    }

    /// Name and boot id of the far end: those of the proxy, or the service whatever its server connection.
    pub(crate) fn far_end(&self) -> (&str, &str) {
        self.service.as_deref().map_or((&self.name, &self.boot), |service| (service, ""))
    }

    /// Whether it is a server connection to a service.
    pub(crate) fn is_of_service(&self) -> bool {
        self.service.is_some()
    }

    /// Whether it is a server connection to this service.
    pub(crate) fn is_of(&self, service: &str) -> bool {
        self.service.as_deref() == Some(service)
    }

    /// Whether both are server connections to one service.
    pub(crate) fn shares_service(&self, other: &Self) -> bool {
        self.is_of_service() && self.service == other.service
    }

    /// Runs a call of a client of this node.
    pub(crate) async fn run_call<F: Future>(self: Arc<Self>, call: F) -> F::Output {
        CALLER.scope(self, call).await
    }

    /// The node of the client whose call runs in this task, if it is a server connection to a service.
    pub(crate) fn of_caller() -> Option<Arc<Self>> {
        CALLER.try_with(Arc::clone).ok()
    }

    /// Notes that something has come from it.
    pub(crate) fn note_heard(&self) {
        *lock(&self.heard_at) = Instant::now();
    }

    /// Time at which something came from it last, by any of its links for this hub.
    pub(crate) fn heard_at(&self) -> Instant {
        *lock(&self.heard_at)
    }

    /// Whether any link of it has a socket.
    pub(crate) fn is_linked(&self) -> bool {
        self.links().iter().any(|link| link.is_open())
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether the proxy reads the causes of closes.
    pub(crate) fn knows_causes(&self) -> bool {
        self.capabilities.knows_causes
    }

    /// Whether the proxy answers queries for the members of a group. An older one would drop the link.
    pub(crate) fn lists_members(&self) -> bool {
        self.capabilities.lists_members
    }

    /// Whether the proxy tells who comes and goes, and lists the connections of a user. An older one ignores the question.
    pub(crate) fn tells_presence(&self) -> bool {
        self.capabilities.tells_presence
    }

    /// Whether the proxy reads a client on during its hand-over, when it is asked to.
    pub(crate) fn reads_on(&self) -> bool {
        self.capabilities.knows_handovers
    }

    /// Whether client connections may move from the proxy to another one, or to it.
    pub(crate) fn knows_moves(&self) -> bool {
        self.capabilities.knows_moves
    }

    /// Whether the other one is the same process, or leads to the same service.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.is(&other.name, &other.boot) || self.shares_service(other)
    }

    pub(crate) fn open(&self, slot: u32, outbox: Arc<LinkOutbox>) {
        write(&self.pool).open(slot, outbox);
    }

    /// Ends the slot's session and moves what it never sent to the next send link, before anything newer gets there:
    /// all under one lock, because a caller that finds an outbox closed asks for the [send link](Self::send_link) again.
    /// Without one, they move to the `successor`.
    pub(crate) fn end(&self, slot: u32, successor: Option<&Self>) -> LinkSessionEnd {
        let mut pool = write(&self.pool);
        let ended = pool.end(slot, |outbox| outbox.is_open());
        let rest = ended.map(|outbox| outbox.close()).unwrap_or_default();
        let mut lost_frames = rest.uncertain.count;
        match pool.send_link() {
            Some(link) if !rest.unsent.is_empty() => link.inherit(rest.unsent),
            Some(_) => {}
            None => match successor.and_then(Self::send_link) {
                Some(link) => link.inherit(rest.unsent),
                None => lost_frames += rest.unsent.count,
            },
        }
        LinkSessionEnd { was_last: pool.is_empty(), lost_frames }
    }

    /// Queues a send at once. `Some(false)`: no link lives; `None`: the send link is full.
    pub(crate) fn try_send(&self, frame: &Bytes) -> Option<bool> {
        loop {
            let Some(link) = self.send_link() else { return Some(false) };
            match link.try_send(frame) {
                Ok(()) => return Some(true),
                Err(TrySendError::Full) => return None,
                Err(TrySendError::Closed) => {}
            }
        }
    }

    /// Queues a send; a wait at a send link that ends goes on at the next one. Returns `false` if no link lives.
    pub(crate) async fn send(&self, frame: &Bytes) -> bool {
        while let Some(link) = self.send_link() {
            if link.send(frame).await.is_ok() {
                return true;
            }
        }
        false
    }

    pub(crate) async fn complete(&self, frame: &Bytes) -> bool {
        while let Some(link) = self.send_link() {
            if link.complete(frame).await.is_ok() {
                return true;
            }
        }
        false
    }

    pub(crate) fn control(&self, frame: &[u8]) -> bool {
        while let Some(link) = self.send_link() {
            if link.control(frame).is_ok() {
                return true;
            }
        }
        false
    }

    /// Send queues of all its links.
    pub(crate) fn links(&self) -> Vec<Arc<LinkOutbox>> {
        read(&self.pool).iter().map(Arc::clone).collect()
    }

    fn send_link(&self) -> Option<Arc<LinkOutbox>> {
        read(&self.pool).send_link().map(Arc::clone)
    }
}

#[cfg(test)]
mod tests {
    use trunkline_link::{OutboxPolicy, Outgoing};
    use trunkline_protocol::service::{Attachment, Offer, Role, Session, SessionId, SessionSettings, Transmit};

    use super::*;

    /// Makes an outbox with a ring of this size, and its socket to a proxy that does not resume.
    pub(crate) fn open_outbox(ring_max_bytes: usize) -> (LinkOutbox, Attachment) {
        let settings = SessionSettings::new(ring_max_bytes, 1_000);
        let session = Session::new(SessionId::FIRST, Role::AppServer, settings, 0);
        let outbox = LinkOutbox::new(OutboxPolicy::waiting(), Some(session));
        let offer = Offer { session: SessionId::FIRST, received: None, capabilities: Capabilities::default() };
        let (attachment, _) = outbox.attach_offer(&offer, 0).unwrap().unwrap();
        (outbox, attachment)
    }

    /// Takes the next piece that is written.
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
        node.open(0, Arc::new(first));
        node.open(1, Arc::clone(&second));
        assert_eq!(node.try_send(&Bytes::from_static(b"\x01a")), Some(true));
        let ended = node.end(0, None);
        assert!(!ended.was_last);
        assert_eq!(ended.lost_frames, 0);
        assert!(node.control(b"\x01b"));
        let written: Vec<_> = std::iter::from_fn(|| next_piece(&second, socket)).map(|piece| piece.bytes).collect();
        assert_eq!(written.concat(), b"\x01a\x01b");
    }

    #[test]
    fn the_last_link_takes_its_queue_with_it_and_sends_go_nowhere() {
        let node = Node::new(NodeName::proxy("proxy", "boot"), Capabilities::plain());
        node.open(4, Arc::new(open_outbox(100).0));
        node.control(b"\x01a");
        let ended = node.end(4, None);
        assert!(ended.was_last);
        assert_eq!(ended.lost_frames, 1);
        assert_eq!(node.try_send(&Bytes::from_static(b"a")), Some(false));
    }
}
