//! Upstreams that a node has to watch: those of its flags, and those of the groups in force.
//!
//! Level-triggered: what is watched follows what is wanted. An upstream that is removed gives its clients away first;
//! one that is wanted again meanwhile begins anew behind that.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::info;

use super::upstream_discovery::UpstreamDiscovery;
use super::upstream_watcher::Listing;
use crate::net::address::Address;
use crate::net::resolver::Resolver;
use crate::observer::UpstreamProblems;
use crate::shard::Shared;
use crate::upstream::ServerGroup;

/// Upstream of a group, as the set tells them apart.
type UpstreamKey = (Arc<str>, Address);

/// Upstreams that a node watches.
#[derive(Debug)]
pub(super) struct UpstreamSet {
    pub(super) shared: Arc<Shared>,
    pub(super) problems: Arc<UpstreamProblems>,
    pub(super) resolver: Resolver,
    /// Interval at which names are resolved again; zero for never.
    pub(super) interval: Duration,
    watched: HashMap<UpstreamKey, watch::Sender<Listing>>,
    wanted: Vec<(Arc<ServerGroup>, Address)>,
    watchers: JoinSet<UpstreamKey>,
}

impl UpstreamSet {
    pub(super) fn new(
        shared: Arc<Shared>,
        problems: Arc<UpstreamProblems>,
        resolver: Resolver,
        interval: Duration,
    ) -> Self {
        let (watched, wanted, watchers) = Default::default();
        Self { shared, problems, resolver, interval, watched, wanted, watchers }
    }

    /// Changes what is wanted: new upstreams are watched from now on, others are left.
    pub(super) fn want(&mut self, wanted: Vec<(Arc<ServerGroup>, Address)>) {
        self.wanted = wanted;
        self.reconcile();
    }

    /// Waits until an upstream that was left has nobody any more.
    pub(super) async fn next_end(&mut self) {
        match self.watchers.join_next().await {
            Some(Ok(key)) => drop(self.watched.remove(&key)),
            Some(Err(_)) => {}
            None => return std::future::pending().await,
        }
        self.reconcile();
    }

    fn reconcile(&mut self) {
        let is_wanted = |(name, address): &UpstreamKey| {
            self.wanted.iter().any(|(group, wanted)| group.name() == name && wanted == address)
        };
        for (key, listing) in &self.watched {
            let is_wanted = is_wanted(key);
            if !is_wanted
                && listing.send_if_modified(|was| std::mem::replace(was, Listing::Removed) != Listing::Removed)
            {
                info!(group = %key.0, upstream = %key.1, "an upstream was removed: its clients get another app server");
            }
        }
        for (group, address) in &self.wanted {
            let key = (group.name().clone(), address.clone());
            if self.watched.contains_key(&key) {
                continue;
            }
            let (sender, listing) = watch::channel(Listing::Listed);
            let discovery = UpstreamDiscovery {
                shared: self.shared.clone(),
                problems: self.problems.clone(),
                group: group.clone(),
                address: address.clone(),
                resolver: self.resolver.clone(),
                interval: self.interval,
                listing,
            };
            self.watched.insert(key.clone(), sender);
            self.watchers.spawn(async move {
                discovery.run().await;
                key
            });
        }
    }
}
