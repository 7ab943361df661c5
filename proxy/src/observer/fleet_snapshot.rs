//! Snapshot of all nodes: this one, and those of `--peers` that answer.

use std::sync::Arc;

use super::node_inspector::NodeInspector;
use super::peer::Peers;
use super::snapshot::{FleetSnapshot, NodeSnapshot, UnreachablePeer};
use crate::clock::unix_ms;

/// Gathers the snapshots of all nodes.
pub(super) async fn gather(own: &NodeInspector, peers: &Peers) -> FleetSnapshot {
    let (own, (others, unreachable)) = tokio::join!(own.snapshot(), peers.snapshots());
    merge(own, others, unreachable, peers.agree())
}

/// Puts them in order. An instance is shown once.
fn merge(
    own: Option<Arc<NodeSnapshot>>,
    others: Vec<NodeSnapshot>,
    unreachable: Vec<UnreachablePeer>,
    agree: bool,
) -> FleetSnapshot {
    let mut nodes: Vec<NodeSnapshot> = own.iter().map(|node| NodeSnapshot::clone(node)).collect();
    for other in others {
        if nodes.iter().all(|known| known.instance != other.instance) {
            nodes.push(other);
        }
    }
    nodes.sort_by(|one, other| (&one.name, &one.instance).cmp(&(&other.name, &other.instance)));
    FleetSnapshot { at_ms: unix_ms(), nodes, agree, unreachable }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_sorted_by_name_and_an_instance_is_shown_once() {
        let node = |name: &str, instance: &str| NodeSnapshot {
            name: name.into(),
            instance: instance.into(),
            ..NodeSnapshot::default()
        };
        let others = vec![node("c", "3"), node("b", "2"), node("a", "1"), node("c", "3")];
        let fleet = merge(Some(Arc::new(node("b", "2"))), others, vec![UnreachablePeer::default()], true);
        let shown: Vec<_> = fleet.nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!((shown, fleet.unreachable.len()), (vec!["a", "b", "c"], 1));
    }
}
