//! Name resolution of other nodes for requests. A node's last working address is kept after its name disappears: Docker
//! Swarm removes a task's name as soon as it asks the task to stop, while other nodes still need it.
//!
//! ```text
//!  last reached address of this start ──► name, resolved now ──► name's earlier address, or address reported by links
//! ```
//!
//! Addresses are tried in this order. A wrong one is harmless: both ends of a channel prove membership of the fleet,
//! and each response names the answering start.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indexmap::IndexMap;
use tokio::time::timeout;
use trunkline_channel::dial_staggered;

use super::address::Address;
use super::resolver::Resolver;

/// Maximum number of nodes with known addresses, far more than a fleet has. Beyond it, the oldest are dropped.
const NODES_MAX: usize = 1024;

/// Timeout of a step while alternatives remain. An unanswered DNS lookup, or a dial to a machine that is gone, would
/// take seconds.
const STEP_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct NodeNames {
    resolver: Resolver,
    known: Mutex<IndexMap<Address, KnownAddress>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KnownAddress {
    /// A connection to this address has succeeded.
    Reached(SocketAddr),
    Resolved(SocketAddr),
    /// Reported by a link.
    Reported(SocketAddr),
}

impl NodeNames {
    pub(crate) fn new(resolver: Resolver) -> Self {
        Self { resolver, known: Mutex::default() }
    }

    /// Dials a node by name, trying its addresses in turn; returns the address that worked. Fails if no address
    /// accepts, or the name can't be resolved.
    pub(crate) async fn dial<T, F>(&self, name: &Address, dial: impl Fn(SocketAddr) -> F) -> io::Result<(T, SocketAddr)>
    where
        F: Future<Output = io::Result<T>>,
    {
        let known = self.lock().get(name).copied();
        if let Some(KnownAddress::Reached(at)) = known {
            match timeout(STEP_TIMEOUT, dial(at)).await {
                Ok(Ok(connected)) => return Ok((connected, at)),
                Ok(Err(_)) | Err(_) => self.forget(name),
            }
        }
        let told = match known {
            Some(KnownAddress::Resolved(at) | KnownAddress::Reported(at)) => Some(at),
            _ => None,
        };
        let resolved = match told {
            Some(_) => timeout(STEP_TIMEOUT, self.resolver.resolve(name)).await.unwrap_or_else(|late| Err(late.into())),
            None => self.resolver.resolve(name).await,
        };
        let resolved = match (resolved, told) {
            (Ok(all), _) => all,
            (Err(_), Some(_)) => Vec::new(),
            (Err(error), None) => return Err(error),
        };
        let others = told.filter(|at| !resolved.contains(at));
        dial_staggered(resolved.into_iter().chain(others), dial).await
    }

    pub(crate) fn note_reached(&self, name: &Address, at: SocketAddr) {
        self.insert(name, KnownAddress::Reached(at));
    }

    /// Removes the address of a node after it failed or led to another node.
    pub(crate) fn forget(&self, name: &Address) {
        self.lock().shift_remove(name);
    }

    /// Records an address reported by a link, unless a better one is known.
    pub(crate) fn note_reported(&self, name: &Address, at: SocketAddr) {
        if !self.has_address(name) {
            self.insert(name, KnownAddress::Reported(at));
        }
    }

    /// Resolves the address of a node once, while its name exists.
    pub(crate) async fn resolve_once(&self, name: &Address) {
        if self.has_address(name) {
            return;
        }
        let resolved = timeout(STEP_TIMEOUT, self.resolver.resolve(name)).await;
        if let Ok(Ok(all)) = resolved
            && let Some(&at) = all.first()
        {
            let mut all = self.lock();
            if !matches!(all.get(name), Some(KnownAddress::Reached(_))) {
                insert(&mut all, name, KnownAddress::Resolved(at));
            }
        }
    }

    /// Whether the address is resolved or reached, or needs no lookup.
    fn has_address(&self, name: &Address) -> bool {
        let known = self.lock().get(name).copied();
        name.is_one_server() || matches!(known, Some(KnownAddress::Reached(_) | KnownAddress::Resolved(_)))
    }

    fn insert(&self, name: &Address, known: KnownAddress) {
        insert(&mut self.lock(), name, known);
    }

    fn lock(&self) -> MutexGuard<'_, IndexMap<Address, KnownAddress>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn insert(all: &mut IndexMap<Address, KnownAddress>, name: &Address, known: KnownAddress) {
    if all.len() >= NODES_MAX && !all.contains_key(name) {
        all.shift_remove_index(0);
    }
    all.insert(name.clone(), known);
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::{pending, ready};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::time::Instant;

    use super::*;

    fn name(number: usize) -> Address {
        format!("http://node-{number}.invalid:8080").parse().unwrap()
    }

    fn at(last: u8) -> SocketAddr {
        ([10, 0, 0, last], 8080).into()
    }

    /// Dials with only some addresses alive; returns the address that worked, and all attempts.
    async fn dial(names: &NodeNames, name: &Address, alive: &[u8]) -> (Option<SocketAddr>, Vec<SocketAddr>) {
        let tried = RefCell::new(Vec::new());
        let dialled = names.dial(name, |to| {
            tried.borrow_mut().push(to);
            let is_there = alive.iter().any(|last| at(*last) == to);
            ready(if is_there { Ok(()) } else { Err(io::ErrorKind::ConnectionRefused.into()) })
        });
        let reached = dialled.await.ok().map(|((), at)| at);
        (reached, tried.into_inner())
    }

    /// Resolver that returns this address for every name, until switched off.
    fn resolver(last: u8) -> (Resolver, Arc<AtomicBool>) {
        let is_gone = Arc::new(AtomicBool::new(false));
        let asked = is_gone.clone();
        let resolver = Resolver::asking(move |_| match asked.load(Ordering::Relaxed) {
            true => Err(io::ErrorKind::NotFound.into()),
            false => Ok(vec![at(last)]),
        });
        (resolver, is_gone)
    }

    #[tokio::test]
    async fn a_node_that_was_reached_is_reached_when_its_name_is_gone() {
        let (resolver, is_gone) = resolver(1);
        let (names, node) = (NodeNames::new(resolver), name(1));
        assert_eq!(dial(&names, &node, &[1]).await.0, Some(at(1)));
        names.note_reached(&node, at(1));
        is_gone.store(true, Ordering::Relaxed);
        assert_eq!(dial(&names, &node, &[1]).await.0, Some(at(1)));
        assert_eq!(dial(&names, &name(2), &[1]).await.0, None, "another name is not known");
        // A failed address is removed.
        assert_eq!(dial(&names, &node, &[]).await, (None, vec![at(1)]));
        assert_eq!(dial(&names, &node, &[1]).await, (None, vec![]));
    }

    #[tokio::test]
    async fn a_reported_address_is_tried_last_and_does_not_replace_a_reached_one() {
        let (resolver, is_gone) = resolver(1);
        let (names, node) = (NodeNames::new(resolver), name(1));
        names.note_reported(&node, at(2));
        assert_eq!(dial(&names, &node, &[2]).await, (Some(at(2)), vec![at(1), at(2)]));
        names.note_reached(&node, at(3));
        names.note_reported(&node, at(2));
        assert_eq!(dial(&names, &node, &[1, 2, 3]).await, (Some(at(3)), vec![at(3)]));
        names.forget(&node);
        names.resolve_once(&node).await;
        is_gone.store(true, Ordering::Relaxed);
        assert_eq!(dial(&names, &node, &[1]).await, (Some(at(1)), vec![at(1)]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hanging_resolver_does_not_hide_a_reported_address() {
        let names = NodeNames::new(Resolver::asking_slowly(|_| Box::pin(pending())));
        names.note_reported(&name(1), at(2));
        let begun = Instant::now();
        assert_eq!(dial(&names, &name(1), &[2]).await.0, Some(at(2)));
        assert_eq!(begun.elapsed(), STEP_TIMEOUT);
    }

    #[test]
    fn the_number_of_known_nodes_is_bounded_and_each_start_is_one() {
        let names = NodeNames::default();
        names.note_reached(&name(0).of_start("one"), at(1));
        names.note_reached(&name(0).of_start("other"), at(2));
        assert_eq!(names.lock().len(), 2);
        (0..2 * NODES_MAX).for_each(|number| names.note_reached(&name(number), at(1)));
        assert_eq!(names.lock().len(), NODES_MAX);
        assert!(names.lock().contains_key(&name(2 * NODES_MAX - 1)));
    }
}
