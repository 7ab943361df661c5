//! Clients of the fleet, which stay at their node and know in which order each sender's messages come.

use std::collections::{BTreeMap, BTreeSet};

use super::post::{Post, Recipients};
use crate::ledger::{Check, broken};

/// Client connection of a node.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) hub: usize,
    pub(crate) user: usize,
    pub(crate) groups: BTreeSet<usize>,
    /// Number of the last message from each node at which messages enter.
    seen: BTreeMap<usize, u64>,
}

impl Client {
    pub(crate) fn new(hub: usize, user: usize) -> Self {
        Self { hub, user, groups: BTreeSet::new(), seen: BTreeMap::new() }
    }

    /// Returns all that it is a member of.
    pub(crate) fn memberships(&self) -> impl Iterator<Item = Recipients> {
        let groups = self.groups.iter().map(|group| Recipients::Group(*group));
        groups.chain([Recipients::Everyone, Recipients::User(self.user)])
    }

    pub(crate) fn wants(&self, post: Post) -> bool {
        self.hub == post.hub
            && match post.to {
                Recipients::Everyone => true,
                Recipients::Group(group) => self.groups.contains(&group),
                Recipients::User(user) => self.user == user,
            }
    }

    /// Takes a message: never one twice, and those of a sender in its order.
    pub(crate) fn take(&mut self, post: Post) -> Check {
        let last = self.seen.insert(post.entry, post.number).unwrap_or_default();
        if last == post.number {
            return broken(format!("a client gets {post:?} twice"));
        }
        if last > post.number {
            return broken(format!("a client gets {post:?} after number {last}"));
        }
        Ok(())
    }
}
