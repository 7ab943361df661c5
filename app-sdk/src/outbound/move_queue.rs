//! Moves of client connections between nodes, as the sends to many of one hub see them: each waits until all sends that
//! began before it are queued, and no send waits for a move.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use bytestring::ByteString;
use tokio::sync::Notify;
use trunkline_protocol::fleet::SendEpoch;
use trunkline_protocol::service::{ServiceMessage, Stamped};

use crate::node::Node;
use crate::sync::lock;

/// Maximum number of moves that wait in one hub. A node whose request is dropped gives the move up after a while.
const WAITING_MAX: usize = 64 * 1024;

/// Moves that wait for earlier sends, and the epochs of sends.
#[derive(Debug, Default)]
pub(super) struct MoveQueue {
    epoch: SendEpoch,
    /// Wakes the one that answers moves when an epoch may be over.
    epoch_ended: Notify,
    state: Mutex<QueueState>,
}

#[derive(Debug, Default)]
struct QueueState {
    waiting: Vec<RequestedMove>,
    /// Somebody answers the moves that wait.
    is_answered: bool,
}

/// Move of a client connection away from a node.
#[derive(Debug)]
pub(super) struct RequestedMove {
    pub(super) node: Arc<Node>,
    pub(super) connection_id: ByteString,
}

/// A send to many that is under way; over when dropped.
#[derive(Debug)]
pub(crate) struct ManySend<'a> {
    queue: &'a MoveQueue,
    epoch: i64,
}

/// Frame of a send to many, in the form that each node reads.
#[derive(Debug)]
pub(crate) struct ManyFrame {
    plain: Bytes,
    /// Frame for nodes that let connections move; `None` before the first move.
    stamped: Option<Bytes>,
}

impl MoveQueue {
    /// Begins a send to many, before its nodes are looked up.
    pub(super) fn begin_send(&self) -> ManySend<'_> {
        loop {
            let epoch = self.epoch.current();
            self.epoch.enter(epoch);
            let send = ManySend { queue: self, epoch };
            if self.epoch.current() == epoch {
                return send;
            }
        }
    }

    /// Adds a move. Returns whether its caller must [answer](Self::next_moves) it and those that follow.
    pub(super) fn push(&self, requested: RequestedMove) -> bool {
        let mut state = lock(&self.state);
        if state.waiting.len() >= WAITING_MAX {
            tracing::debug!(node = requested.node.name(), "too many connections move at once");
            return false;
        }
        state.waiting.push(requested);
        !std::mem::replace(&mut state.is_answered, true)
    }

    /// Waits until all sends are queued that began before the moves that wait now. Returns these with the epoch of the sends
    /// that have begun since; `None` when no move waits any more. For one caller alone, until the `None`.
    pub(super) async fn next_moves(&self) -> Option<(i64, Vec<RequestedMove>)> {
        let moves = {
            let mut state = lock(&self.state);
            state.is_answered = !state.waiting.is_empty();
            std::mem::take(&mut state.waiting)
        };
        if moves.is_empty() {
            return None;
        }
        let epoch = self.epoch.advance();
        while !self.epoch.is_last_over() {
            self.epoch_ended.notified().await;
        }
        Some((epoch, moves))
    }
}

impl ManySend<'_> {
    /// The epoch in which the send began; zero before the first move.
    pub(crate) fn epoch(&self) -> i64 {
        self.epoch
    }

    /// Prepares a frame of this send for all nodes.
    pub(crate) fn frame(&self, plain: Bytes) -> ManyFrame {
        let stamp = || ServiceMessage::Stamped(Stamped { epoch: self.epoch, body: body_of(&plain) }).to_frame();
        let stamped = (self.epoch > 0).then(stamp);
        ManyFrame { plain, stamped }
    }
}

impl Drop for ManySend<'_> {
    fn drop(&mut self) {
        if self.queue.epoch.leave(self.epoch) {
            self.queue.epoch_ended.notify_one();
        }
    }
}

impl ManyFrame {
    /// A frame that is the same for all nodes, because none of its receivers can move.
    pub(crate) fn plain(plain: Bytes) -> Self {
        Self { plain, stamped: None }
    }

    /// The frame for this node.
    pub(crate) fn of(&self, node: &Node) -> &Bytes {
        self.stamped.as_ref().filter(|_| node.knows_moves()).unwrap_or(&self.plain)
    }
}

/// A frame without its length prefix, whose last byte is the first without the highest bit.
fn body_of(frame: &Bytes) -> Bytes {
    let prefix = frame.iter().take_while(|byte| **byte >= 0x80).count() + 1;
    frame.slice(prefix.min(frame.len())..)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use trunkline_protocol::service::{BroadcastData, Capabilities, FrameBuffer, Payloads};

    use super::*;
    use crate::node::NodeName;

    fn node(knows_moves: bool) -> Arc<Node> {
        let capabilities = Capabilities { knows_moves, ..Capabilities::plain() };
        Arc::new(Node::new(NodeName::proxy("node", "boot"), capabilities))
    }

    fn push(queue: &MoveQueue, id: &'static str) -> bool {
        queue.push(RequestedMove { node: node(true), connection_id: id.into() })
    }

    fn ids(moves: &[RequestedMove]) -> Vec<&str> {
        moves.iter().map(|moved| &*moved.connection_id).collect()
    }

    #[test]
    fn a_move_waits_for_sends_that_began_before_it_and_for_no_other() {
        let queue = MoveQueue::default();
        let early = [queue.begin_send(), queue.begin_send()];
        assert!(push(&queue, "c1"));
        let mut answering = Box::pin(queue.next_moves());
        assert!((&mut answering).now_or_never().is_none());
        let late = queue.begin_send();
        assert_eq!((early[0].epoch(), late.epoch()), (0, 1));
        assert!(!push(&queue, "c2"), "somebody answers already");
        let [first, second] = early;
        drop(first);
        assert!((&mut answering).now_or_never().is_none());
        drop(second);
        let (epoch, moves) = answering.now_or_never().unwrap().unwrap();
        assert_eq!((epoch, ids(&moves)), (1, vec!["c1"]));
        let mut answering = Box::pin(queue.next_moves());
        assert!((&mut answering).now_or_never().is_none());
        drop(late);
        let (epoch, moves) = answering.now_or_never().unwrap().unwrap();
        assert_eq!((epoch, ids(&moves)), (2, vec!["c2"]));
        assert!(queue.next_moves().now_or_never().unwrap().is_none());
        assert!(push(&queue, "c3"), "the next one answers again");
    }

    #[test]
    fn moves_beyond_the_limit_are_dropped() {
        let queue = MoveQueue::default();
        assert!((0..=WAITING_MAX).filter(|_| push(&queue, "c1")).count() == 1);
        let (_, moves) = queue.next_moves().now_or_never().unwrap().unwrap();
        assert_eq!(moves.len(), WAITING_MAX);
    }

    #[test]
    fn sends_after_a_move_are_stamped_for_nodes_that_know_moves() {
        let queue = MoveQueue::default();
        let payloads = Payloads(vec![("json".into(), vec![7; 300].into())]);
        let message = ServiceMessage::BroadcastData(BroadcastData { excluded: Vec::new(), payloads });
        let plain = message.to_frame();
        let frame = queue.begin_send().frame(plain.clone());
        assert_eq!((frame.of(&node(true)), frame.of(&node(false))), (&plain, &plain));
        push(&queue, "c1");
        queue.next_moves().now_or_never().unwrap().unwrap();
        let frame = queue.begin_send().frame(plain.clone());
        assert_eq!(frame.of(&node(false)), &plain);
        let mut frames = FrameBuffer::default();
        frames.push(frame.of(&node(true)).clone());
        let body = frames.next_body().unwrap().unwrap();
        let stamped = Stamped { epoch: 1, body: message.to_body() };
        assert_eq!(ServiceMessage::decode(&body), Ok(Some(ServiceMessage::Stamped(stamped))));
    }
}
