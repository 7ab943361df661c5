//! Groups of app servers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::Caller;
use crate::ground::net::address::Address;
use crate::ground::net::connector::Connector;
use crate::ground::routing::DEFAULT_GROUP;

#[derive(Debug)]
pub(crate) struct ServerGroup {
    pub(crate) name: Arc<str>,
    /// The app servers receive copies, and their messages are dropped.
    is_mirror: AtomicBool,
    terms: ArcSwap<GroupTerms>,
}

/// Terms of a group. They may change while the app servers are linked.
#[derive(Debug, Clone, Default)]
pub(crate) struct GroupTerms {
    /// Number of links per hub and app server.
    pub pool_size: usize,
    /// Number of successive clients that get the same link.
    pub pool_turn: usize,
    /// Connector with channels, which authenticates with the group's key.
    pub channels: Connector,
    /// Connector for requests that are passed through.
    pub plain: Connector,
    /// Weights of app servers by `host:port`; 1 for others.
    pub weights: HashMap<Box<str>, u32>,
}

/// All groups of app servers, present and former.
#[derive(Debug, Default)]
pub(crate) struct ServerGroups {
    all: ArcSwap<Vec<Arc<ServerGroup>>>,
    // Locked while the list changes.
    changing: Mutex<()>,
}

impl Default for ServerGroup {
    fn default() -> Self {
        Self::new(DEFAULT_GROUP.into(), GroupTerms::default())
    }
}

impl ServerGroup {
    pub(crate) fn new(name: Arc<str>, terms: GroupTerms) -> Self {
        Self { name, is_mirror: AtomicBool::new(false), terms: ArcSwap::from_pointee(terms) }
    }

    /// Whether this is the default group, used without a matching rule.
    pub(crate) fn is_default(&self) -> bool {
        *self.name == *DEFAULT_GROUP
    }

    pub(crate) fn is_mirror(&self) -> bool {
        self.is_mirror.load(Ordering::Relaxed)
    }

    pub(crate) fn terms(&self) -> Arc<GroupTerms> {
        self.terms.load_full()
    }

    /// Changes the terms. Weights apply immediately, other terms to later dials.
    pub(crate) fn change(&self, terms: GroupTerms, is_mirror: bool) {
        self.is_mirror.store(is_mirror, Ordering::Relaxed);
        self.terms.store(Arc::new(terms));
    }

    pub(crate) fn weight_of(&self, address: &Address) -> u32 {
        self.terms.load().weights.get(address.authority()).copied().unwrap_or(1)
    }
}

impl GroupTerms {
    /// Identity and connector with which this node calls the app servers.
    pub(crate) fn caller<'a>(&'a self, node: &'a str) -> Caller<'a> {
        Caller { node, connector: &self.channels }
    }
}

impl ServerGroups {
    /// Whether there is any group other than the default group, present or former.
    pub(crate) fn has_named_groups(&self) -> bool {
        self.all.load().iter().any(|group| !group.is_default())
    }

    /// Group of this name; `None` for the default group.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<ServerGroup>> {
        self.all.load().iter().find(|group| *group.name == *name && !group.is_default()).cloned()
    }

    pub(crate) fn default_one(&self) -> Arc<ServerGroup> {
        self.all.load().iter().find(|group| group.is_default()).cloned().unwrap_or_default()
    }

    /// Adds a group, or changes the terms of a known group.
    pub(crate) fn set(&self, name: &Arc<str>, terms: GroupTerms, is_mirror: bool) -> Arc<ServerGroup> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.all.load().iter().find(|group| group.name == *name).cloned();
        let group = known.unwrap_or_else(|| {
            let group = Arc::new(ServerGroup::new(name.clone(), GroupTerms::default()));
            self.all.rcu(|groups| groups.iter().chain([&group]).cloned().collect::<Vec<_>>());
            group
        });
        group.change(terms, is_mirror);
        group
    }
}
