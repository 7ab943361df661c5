//! Clients of the fleet, which stay at their node and check the order of each sender's messages.

use std::collections::{BTreeMap, BTreeSet};

use super::post::{Post, Recipients};
use crate::ledger::{Check, broken};

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) hub: usize,
    pub(crate) user: usize,
    pub(crate) groups: BTreeSet<usize>,
    /// Number of the last message from each entry node.
    seen: BTreeMap<usize, u64>,
}

impl Client {
    pub(crate) fn new(hub: usize, user: usize) -> Self {
        Self { hub, user, groups: BTreeSet::new(), seen: BTreeMap::new() }
    }

    /// Returns all recipient sets that include the client.
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

    /// Receives a message: never twice, and in the order of its sender.
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
