//! One proxy as one hub sees it: its links, and the lane among them.

mod lanes;

use std::sync::{Arc, RwLock};

use bytes::Bytes;
use trunkline_link::{LinkOutbox, TrySendError};

use crate::sync::{read, write};

use lanes::Lanes;
#[cfg(test)]
pub(crate) use tests::{next_piece, open_outbox};

/// A proxy, told apart by its name and its start.
#[derive(Debug)]
pub(crate) struct Node {
    name: Box<str>,
    boot: Box<str>,
    knows_causes: bool,
    lanes: RwLock<Lanes<Arc<LinkOutbox>>>,
}

/// What the end of a link's session came to.
#[derive(Debug)]
pub(crate) struct Ended {
    /// No other link of the node lives.
    pub(crate) was_last: bool,
    /// Frames that waited and had nowhere to go, and those that the proxy may have or not.
    pub(crate) lost_frames: u64,
}

impl Node {
    pub(crate) fn new(name: &str, boot: &str, knows_causes: bool) -> Self {
        Self { name: name.into(), boot: boot.into(), knows_causes, lanes: RwLock::default() }
    }

    pub(crate) fn is(&self, name: &str, boot: &str) -> bool {
        &*self.name == name && &*self.boot == boot
    }

    /// Its name, for logs.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it reads the causes of closes.
    pub(crate) fn knows_causes(&self) -> bool {
        self.knows_causes
    }

    /// Whether the other is the same start of the same proxy.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.is(&other.name, &other.boot)
    }

    pub(crate) fn open(&self, slot: u32, outbox: Arc<LinkOutbox>) {
        write(&self.lanes).open(slot, outbox);
    }

    /// Ends the slot's session and moves what it never sent to the next lane, before anything newer gets there:
    /// all under one lock, because [`lane`](Self::lane) is asked again by whoever finds an outbox closed.
    pub(crate) fn end(&self, slot: u32) -> Ended {
        let mut lanes = write(&self.lanes);
        let ended = lanes.end(slot, |outbox| outbox.is_open());
        let rest = ended.map(|outbox| outbox.close()).unwrap_or_default();
        let mut lost_frames = rest.uncertain.count;
        match lanes.lane() {
            Some(lane) if !rest.unsent.is_empty() => lane.inherit(rest.unsent),
            Some(_) => {}
            None => lost_frames += rest.unsent.count,
        }
        Ended { was_last: lanes.is_empty(), lost_frames }
    }

    /// Queues a send at once. `Some(false)`: no link lives; `None`: the lane is full.
    pub(crate) fn try_send(&self, frame: &Bytes) -> Option<bool> {
        loop {
            let Some(lane) = self.lane() else { return Some(false) };
            match lane.try_send(frame) {
                Ok(()) => return Some(true),
                Err(TrySendError::Full) => return None,
                Err(TrySendError::Closed) => {}
            }
        }
    }

    /// Queues a send; a wait at a lane that ends goes on at the next one. `false`: no link lives.
    pub(crate) async fn send(&self, frame: &Bytes) -> bool {
        while let Some(lane) = self.lane() {
            if lane.send(frame).await.is_ok() {
                return true;
            }
        }
        false
    }

    pub(crate) async fn complete(&self, frame: &Bytes) -> bool {
        while let Some(lane) = self.lane() {
            if lane.complete(frame).await.is_ok() {
                return true;
            }
        }
        false
    }

    pub(crate) fn control(&self, frame: &[u8]) -> bool {
        while let Some(lane) = self.lane() {
            if lane.control(frame).is_ok() {
                return true;
            }
        }
        false
    }

    fn lane(&self) -> Option<Arc<LinkOutbox>> {
        read(&self.lanes).lane().map(Arc::clone)
    }
}

#[cfg(test)]
mod tests {
    use trunkline_link::{OutboxPolicy, Outgoing};
    use trunkline_protocol::service::{
        Attachment, Capabilities, Offer, Role, Session, SessionId, SessionSettings, Transmit,
    };

    use super::*;

    /// An outbox with a ring of this size, and its socket to a proxy that does not resume.
    pub(crate) fn open_outbox(ring_max_bytes: usize) -> (LinkOutbox, Attachment) {
        let settings = SessionSettings::new(ring_max_bytes, 1_000);
        let session = Session::new(SessionId::FIRST, Role::AppServer, settings, 0);
        let outbox = LinkOutbox::new(OutboxPolicy::waiting(), Some(session));
        let offer = Offer { session: SessionId::FIRST, received: None, capabilities: Capabilities::default() };
        let (attachment, _) = outbox.attach_offer(&offer, 0).unwrap().unwrap();
        (outbox, attachment)
    }

    /// The next piece that is written.
    pub(crate) fn next_piece(outbox: &LinkOutbox, attachment: Attachment) -> Option<Transmit> {
        match outbox.poll(attachment, 0) {
            Outgoing::Piece(piece) => Some(piece),
            Outgoing::Idle(_) | Outgoing::Over => None,
        }
    }

    #[test]
    fn what_waits_for_a_lost_lane_leaves_first_on_the_next() {
        let node = Node::new("proxy", "boot", true);
        let ((first, _), (second, socket)) = (open_outbox(100), open_outbox(100));
        let second = Arc::new(second);
        node.open(0, Arc::new(first));
        node.open(1, Arc::clone(&second));
        assert_eq!(node.try_send(&Bytes::from_static(b"\x01a")), Some(true));
        let ended = node.end(0);
        assert!(!ended.was_last);
        assert_eq!(ended.lost_frames, 0);
        assert!(node.control(b"\x01b"));
        let written: Vec<_> = std::iter::from_fn(|| next_piece(&second, socket)).map(|piece| piece.bytes).collect();
        assert_eq!(written.concat(), b"\x01a\x01b");
    }

    #[test]
    fn with_the_last_link_its_queue_is_lost_and_sends_go_nowhere() {
        let node = Node::new("proxy", "boot", true);
        node.open(4, Arc::new(open_outbox(100).0));
        node.control(b"\x01a");
        let ended = node.end(4);
        assert!(ended.was_last);
        assert_eq!(ended.lost_frames, 1);
        assert_eq!(node.try_send(&Bytes::from_static(b"a")), Some(false));
    }
}
