//! Upstreams to watch: those of the node's flags and of the active groups.
//!
//! Level-triggered: watchers are reconciled with the wanted upstreams. The clients of a removed upstream are reassigned
//! before it can be watched again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::info;

use super::upstream_discovery::UpstreamDiscovery;
use super::upstream_watcher::Listing;
use crate::edge::observer::UpstreamProblems;
use crate::engine::shard::Shared;
use crate::engine::upstream::ServerGroup;
use crate::ground::net::address::Address;
use crate::ground::net::resolver::Resolver;

type UpstreamKey = (Arc<str>, Address);

#[derive(Debug)]
pub(super) struct UpstreamSet {
    pub(super) shared: Arc<Shared>,
    pub(super) problems: Arc<UpstreamProblems>,
    pub(super) resolver: Resolver,
    /// DNS query interval; zero for never.
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

    /// Sets the wanted upstreams: starts watching new ones and leaves removed ones.
    pub(super) fn want(&mut self, wanted: Vec<(Arc<ServerGroup>, Address)>) {
        self.wanted = wanted;
        self.reconcile();
    }

    /// Waits until a removed upstream has no clients left.
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
                info!(group = %key.0, upstream = %key.1, "upstream removed: reassigning its clients");
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
