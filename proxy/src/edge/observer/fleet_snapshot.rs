//! Snapshot of all nodes: this one and the answering peers.

use super::node_inspector::NodeInspector;
use super::peer::{PeerSnapshots, Peers};
use super::snapshot::{FleetSnapshot, NodeSnapshot};
use super::snapshot_cache::Freshness;
use crate::ground::clock::unix_ms;

pub(super) async fn gather(own: &NodeInspector, peers: &Peers, freshness: Freshness) -> FleetSnapshot {
    let others = peers.snapshots(freshness).await;
    // Last, so that its numbers are at least as recent as the others'.
    merge(own.snapshot(freshness).await, others, peers.agree())
}

/// Sorts the snapshots and removes duplicates of an instance.
fn merge(own: Option<NodeSnapshot>, others: PeerSnapshots, agree: bool) -> FleetSnapshot {
    let PeerSnapshots { nodes: others, missing, unreachable } = others;
    let mut nodes: Vec<NodeSnapshot> = own.into_iter().collect();
    for other in others {
        if nodes.iter().all(|known| known.instance != other.instance) {
            nodes.push(other);
        }
    }
    nodes.sort_by(|one, other| (&one.name, &one.instance).cmp(&(&other.name, &other.instance)));
    FleetSnapshot { at_ms: unix_ms(), nodes, agree, unreachable, missing }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::observer::snapshot::UnreachablePeer;

    #[test]
    fn nodes_are_sorted_by_name_and_an_instance_is_shown_once() {
        let node = |name: &str, instance: &str| NodeSnapshot {
            name: name.into(),
            instance: instance.into(),
            ..NodeSnapshot::default()
        };
        let others = vec![node("c", "3"), node("b", "2"), node("a", "1"), node("c", "3")];
        let others =
            PeerSnapshots { nodes: others, missing: Vec::new(), unreachable: vec![UnreachablePeer::default()] };
        let fleet = merge(Some(node("b", "2")), others, true);
        let shown: Vec<_> = fleet.nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!((shown, fleet.unreachable.len()), (vec!["a", "b", "c"], 1));
    }
}
