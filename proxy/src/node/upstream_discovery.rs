//! Discovery of one upstream by DNS: each address that its name resolves to is watched as a separate app server.
//!
//! A new address gets a watcher. An address that is no longer listed keeps it while links are open, so that an app
//! server that is about to stop can hand its clients over; then it is not dialled any more. A name that can't be
//! resolved for a while changes nothing.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{info, warn};

use super::upstream_watcher::{self, Listing};
use crate::net::address::Address;
use crate::net::resolver::{Resolver, of_one_family};
use crate::observer::UpstreamProblems;
use crate::shard::Shared;
use crate::upstream::ServerGroup;

/// Interval at which the name is resolved while one of its app servers does not answer.
const DOUBTED_INTERVAL: Duration = Duration::from_millis(500);

/// Addresses of a name, each with a channel that tells its watcher whether it is still listed.
#[derive(Debug, Default)]
struct ListedAddresses(HashMap<SocketAddr, watch::Sender<Listing>>);

/// Discovery of one upstream.
pub(super) struct UpstreamDiscovery {
    pub(super) shared: Arc<Shared>,
    pub(super) problems: Arc<UpstreamProblems>,
    /// Group that its app servers are of.
    pub(super) group: Arc<ServerGroup>,
    pub(super) address: Address,
    pub(super) resolver: Resolver,
    /// Interval at which the name is resolved again; zero for never.
    pub(super) interval: Duration,
    /// Whether the upstream is in the configuration still.
    pub(super) listing: watch::Receiver<Listing>,
}

impl UpstreamDiscovery {
    /// Watches the upstream until it is removed, and its app servers have no client left.
    pub(super) async fn run(self) {
        if self.is_one_server() {
            return self.watch(self.address.clone(), (self.listing.clone(), Arc::default())).await;
        }
        let (mut listed, mut watchers) = (ListedAddresses::default(), JoinSet::new());
        let name = self.address.to_string();
        let (mut is_resolved, mut listing, doubted) = (true, self.listing.clone(), Arc::new(Notify::new()));
        loop {
            match self.resolver.resolve(&self.address).await.map(|all| of_one_family(&all)) {
                Ok(found) => {
                    is_resolved = true;
                    if listed.0.is_empty() {
                        self.problems.set(&name, None);
                    }
                    for (at, is_listed) in listed.update(&found) {
                        info!(upstream = %self.address, %at, "an address has appeared");
                        watchers.spawn(self.watch(self.address.at(at), (is_listed, doubted.clone())));
                    }
                }
                Err(error) => {
                    if std::mem::take(&mut is_resolved) {
                        warn!(upstream = %self.address, %error, "the name can't be resolved");
                    }
                    if listed.0.is_empty() {
                        self.problems.set(&name, Some(format!("the name can't be resolved: {error}")));
                    }
                }
            }
            tokio::select! {
                () = sleep(self.interval) => {}
                () = doubted.notified() => sleep(DOUBTED_INTERVAL.min(self.interval)).await,
                () = Listing::removed(&mut listing) => {
                    listed.remove_all();
                    while watchers.join_next().await.is_some() {}
                    return self.problems.set(&name, None);
                }
            }
            // Joins the watchers of addresses that are no longer listed.
            while watchers.try_join_next().is_some() {}
        }
    }

    /// Tells whether the upstream is one app server, whatever it resolves to: always for a number, and on this machine.
    fn is_one_server(&self) -> bool {
        self.interval.is_zero() || self.address.is_one_server()
    }

    fn watch(
        &self,
        address: Address,
        listing: (watch::Receiver<Listing>, Arc<Notify>),
    ) -> impl Future<Output = ()> + use<> {
        let (shared, problems, group) = (self.shared.clone(), self.problems.clone(), self.group.clone());
        upstream_watcher::watch(shared, problems, (group, address), listing)
    }
}

impl ListedAddresses {
    /// Removes all addresses: the upstream is in the configuration no more.
    fn remove_all(&self) {
        for listing in self.0.values() {
            listing.send_replace(Listing::Removed);
        }
    }

    /// Updates the list; returns new addresses, which need a watcher. An empty list changes nothing.
    fn update(&mut self, found: &[SocketAddr]) -> Vec<(SocketAddr, watch::Receiver<Listing>)> {
        // Drops addresses whose watcher has ended.
        self.0.retain(|_, is_listed| !is_listed.is_closed());
        if found.is_empty() {
            return Vec::new();
        }
        for (at, listing) in &self.0 {
            let now = if found.contains(at) { Listing::Listed } else { Listing::Vanished };
            listing.send_if_modified(|was| std::mem::replace(was, now) != now);
        }
        let mut new = Vec::new();
        for at in found {
            if !self.0.contains_key(at) {
                let (sender, is_listed) = watch::channel(Listing::Listed);
                self.0.insert(*at, sender);
                new.push((*at, is_listed));
            }
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_new_address_is_returned_and_a_missing_one_is_marked_as_not_listed() {
        let mut listed = ListedAddresses::default();
        let (a, b) = (at("10.0.0.1:80"), at("10.0.0.2:80"));
        let [(first, of_a)] = listed.update(&[a]).try_into().unwrap();
        assert!(first == a && *of_a.borrow() == Listing::Listed);
        let [(second, of_b)] = listed.update(&[a, b]).try_into().unwrap();
        assert_eq!(second, b);
        assert!(listed.update(&[b]).is_empty());
        assert_eq!((*of_a.borrow(), *of_b.borrow()), (Listing::Vanished, Listing::Listed));
        assert!(listed.update(&[a, b]).is_empty(), "it is watched still");
        assert_eq!(*of_a.borrow(), Listing::Listed);
    }

    #[test]
    fn an_address_without_a_watcher_is_new_again_and_an_empty_answer_changes_nothing() {
        let mut listed = ListedAddresses::default();
        let a = at("10.0.0.1:80");
        let of_a = listed.update(&[a]);
        assert!(listed.update(&[]).is_empty());
        assert_eq!(*of_a[0].1.borrow(), Listing::Listed);
        drop(of_a);
        assert_eq!(listed.update(&[a]).len(), 1);
    }
}
