//! Reach of an app server's dial-in link: the nodes whose clients get its messages.
//!
//! An app server dials one or more addresses (*endpoints*). A broadcast uses one link per endpoint, and must reach each
//! node through exactly one:
//!
//! ```text
//!  the server has links to the node ─► the first endpoint, by name, of these links
//!  it has none                      ─► the first of all its endpoints
//! ```
//!
//! The app server itself sends to each endpoint; behind it, the receiving node relays to all others.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use bytestring::ByteString;
use trunkline_protocol::fleet::{PeerPresence, PresentAppServer};

use super::fleet_member::FleetMember;
use crate::engine::shard::Shared;
use crate::engine::upstream::{LinkHandle, LinkId};

#[derive(Debug, Default)]
pub(super) struct LinkReach {
    /// Whether this node is included.
    pub(super) is_for_us: bool,
    pub(super) members: Vec<Arc<FleetMember>>,
}

/// Cache of link reaches, invalidated when a dial-in link opens or closes at any node.
#[derive(Debug, Default)]
pub(super) struct LinkReaches {
    generation: AtomicU64,
    cached: ArcSwap<CachedReaches>,
}

#[derive(Debug, Default)]
struct CachedReaches {
    generation: u64,
    links: HashMap<LinkId, Arc<LinkReach>>,
}

impl LinkReaches {
    /// Clears the cache. Call after each change.
    pub(super) fn invalidate(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn find(
        &self,
        shared: &Shared,
        members: impl Fn() -> Arc<Vec<Arc<FleetMember>>>,
        link: &LinkHandle,
    ) -> Arc<LinkReach> {
        // Read first, so that a concurrent change makes the result stale.
        let generation = self.generation.load(Ordering::Acquire);
        let cached = self.cached.load();
        let known = cached.links.get(&link.id).filter(|_| cached.generation == generation);
        if let Some(known) = known {
            return known.clone();
        }
        let reach = Arc::new(reach_of(shared, &members(), link));
        self.cached.rcu(|cached| {
            let is_valid = cached.generation == generation;
            let mut links = if is_valid { cached.links.clone() } else { HashMap::new() };
            links.insert(link.id, reach.clone());
            CachedReaches { generation, links }
        });
        reach
    }
}

fn reach_of(shared: &Shared, members: &[Arc<FleetMember>], link: &LinkHandle) -> LinkReach {
    let Some(endpoint) = link.endpoint() else {
        return LinkReach { is_for_us: true, members: Vec::new() };
    };
    let instance = shared.hubs.instance(link.app);
    let own = shared.hubs.pool_of(link).map(|pool| pool.links()).unwrap_or_default();
    let own = own.iter().filter_map(|link| link.endpoint()).min();
    let told: Vec<_> = members.iter().map(|member| member.presence()).collect();
    let first_at = |presence: &PeerPresence| first_endpoint(presence.servers(link.hub_identity().key()), &instance);
    let others: Vec<_> = told.iter().map(|presence| first_at(presence)).collect();
    let others: Vec<_> = others.iter().map(Option::as_deref).collect();
    let (is_for_us, reached) = nodes_reached(endpoint, own, &others);
    let members = members.iter().zip(reached).filter(|(_, is_reached)| *is_reached);
    LinkReach { is_for_us, members: members.map(|(member, _)| member.clone()).collect() }
}

/// First endpoint, by name, through which an app server has links to a node.
fn first_endpoint(servers: &[PresentAppServer], instance: &str) -> Option<ByteString> {
    servers.iter().filter(|server| server.instance == instance).map(|server| &server.endpoint).min().cloned()
}

/// Nodes reached through an endpoint: this one, and each of the others. Arguments are the first endpoints of the links
/// to each node.
fn nodes_reached(endpoint: &str, own: Option<&str>, others: &[Option<&str>]) -> (bool, Vec<bool>) {
    // The pool may not have the link yet.
    let own = own.map_or(endpoint, |own| own.min(endpoint));
    let first = others.iter().flatten().fold(own, |first, other| first.min(other));
    let reached = others.iter().map(|other| other.unwrap_or(first) == endpoint).collect();
    (own == endpoint, reached)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Endpoints in a bit set.
    fn endpoints(set: usize) -> impl Iterator<Item = &'static str> {
        ["a", "b", "c"].into_iter().enumerate().filter(move |(bit, _)| set & (1 << bit) != 0).map(|(_, name)| name)
    }

    #[test]
    fn each_node_gets_a_message_once_whatever_links_there_are() {
        for sets in (0..8 * 8 * 8).map(|number| [number % 8, number / 8 % 8, number / 64]) {
            let first = sets.map(|set| endpoints(set).min());
            let used = sets.into_iter().fold(0, |all, set| all | set);
            let mut received = [0; 3];
            // Any link of each endpoint will do; here it ends at the last node that has one.
            for endpoint in endpoints(used) {
                let at = sets.iter().rposition(|set| endpoints(*set).any(|name| name == endpoint)).unwrap();
                let others: Vec<_> = (0..3).filter(|node| *node != at).collect();
                let told: Vec<_> = others.iter().map(|node| first[*node]).collect();
                let (is_own, reached) = nodes_reached(endpoint, first[at], &told);
                received[at] += usize::from(is_own);
                others.iter().zip(reached).for_each(|(node, is_reached)| received[*node] += usize::from(is_reached));
            }
            assert_eq!(received, [usize::from(used != 0); 3], "{sets:?}");
        }
    }

    #[test]
    fn a_link_not_yet_in_its_pool_counts() {
        assert_eq!(nodes_reached("a", None, &[None, Some("b")]), (true, vec![true, false]));
        assert_eq!(nodes_reached("b", Some("a"), &[None, Some("b")]), (false, vec![false, true]));
    }
}
