//! All nodes: this one, and those of `--peers` that answer.

use std::sync::Arc;

use super::desk::Desk;
use super::peers::Peers;
use super::view::{Fleet, Node};
use crate::clock::unix_ms;

/// Gathers them. A name of many addresses may resolve to this node too: it is shown once.
pub(super) async fn gather(own: &Desk<Node>, peers: &Arc<Peers>) -> Fleet {
    let (own, (others, unreachable)) = tokio::join!(own.ask(), peers.nodes());
    let mut nodes: Vec<Node> = own.iter().map(|node| Node::clone(node)).collect();
    for other in others {
        if nodes.iter().all(|known| known.instance != other.instance) {
            nodes.push(other);
        }
    }
    nodes.sort_by(|one, other| (&one.name, &one.instance).cmp(&(&other.name, &other.instance)));
    Fleet { at_ms: unix_ms(), nodes, unreachable }
}
