//! Frames of sends to many, in the form that each node reads.

use bytes::Bytes;
use trunkline_link::ManySend;
use trunkline_protocol::service::{ServiceMessage, Stamped};

use crate::node::Node;

/// Frame of a send to many, in the form that each node reads.
#[derive(Debug)]
pub(crate) struct ManyFrame {
    plain: Bytes,
    /// Frame for nodes that let connections move; `None` before the first move.
    stamped: Option<Bytes>,
}

impl ManyFrame {
    /// A frame that is the same for all nodes, because none of its receivers can move.
    pub(crate) fn plain(plain: Bytes) -> Self {
        Self { plain, stamped: None }
    }

    /// A frame of this send for all nodes.
    pub(crate) fn of_send(send: &ManySend<'_>, plain: Bytes) -> Self {
        let epoch = send.epoch();
        let stamp = || ServiceMessage::Stamped(Stamped { epoch, body: body_of(&plain) }).to_frame();
        let stamped = (epoch > 0).then(stamp);
        Self { plain, stamped }
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
    use trunkline_link::MoveQueue;
    use trunkline_protocol::service::{BroadcastData, Capabilities, FrameBuffer, Payloads};

    use super::*;
    use crate::node::NodeName;

    fn node(knows_moves: bool) -> Node {
        Node::new(NodeName::proxy("node", "boot"), Capabilities { knows_moves, ..Capabilities::plain() })
    }

    #[test]
    fn sends_after_a_move_are_stamped_for_nodes_that_know_moves() {
        let queue = MoveQueue::default();
        let payloads = Payloads(vec![("json".into(), vec![7; 300].into())]);
        let message = ServiceMessage::BroadcastData(BroadcastData { excluded: Vec::new(), payloads });
        let plain = message.to_frame();
        let frame = ManyFrame::of_send(&queue.begin_send(), plain.clone());
        assert_eq!((frame.of(&node(true)), frame.of(&node(false))), (&plain, &plain));
        queue.push(()).unwrap();
        queue.next_moves().now_or_never().unwrap().unwrap();
        let frame = ManyFrame::of_send(&queue.begin_send(), plain.clone());
        assert_eq!(frame.of(&node(false)), &plain);
        let mut frames = FrameBuffer::default();
        frames.push(frame.of(&node(true)).clone());
        let body = frames.next_body().unwrap().unwrap();
        let stamped = Stamped { epoch: 1, body: message.to_body() };
        assert_eq!(ServiceMessage::decode(&body), Ok(Some(ServiceMessage::Stamped(stamped))));
    }
}
