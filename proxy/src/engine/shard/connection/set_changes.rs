//! Changes of a hub's users and groups since the last update, for subscribed app servers.
//!
//! Opposite changes cancel out, so a client that joins and leaves between two updates produces none.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::mem;
use std::rc::Rc;

use tokio::sync::Notify;
use trunkline_protocol::manifest::PresenceScope;

use crate::engine::shard::slot::Slot;

/// Set name, shared by the set and its lookup map.
pub(super) type SharedName = Rc<str>;

/// Maximum number of changes between two updates. Beyond it, a new snapshot is sent.
const CHANGES_MAX: usize = 65_536;

/// Direction of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    Here,
    Gone,
}

#[derive(Debug)]
pub(crate) struct SetChanges {
    scope: PresenceScope,
    changes: Changes,
    has_changed: Rc<Notify>,
}

#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Users with their first connection here, or without their last.
    pub users: HashMap<SharedName, Presence>,
    /// Connections that joined or left groups, by group and connection id, with the connection's slot.
    pub members: HashMap<(SharedName, Rc<str>), (Presence, Slot)>,
    /// Set if there were too many changes; all were discarded.
    pub are_lost: bool,
}

impl SetChanges {
    /// Starts without changes. Notifies on changes.
    pub(crate) fn new(scope: PresenceScope, has_changed: Rc<Notify>) -> Self {
        Self { scope, changes: Changes::default(), has_changed }
    }

    pub(crate) fn take_changes(&mut self) -> Changes {
        mem::take(&mut self.changes)
    }

    pub(crate) fn set_scope(&mut self, scope: PresenceScope) {
        self.scope = scope;
    }

    pub(super) fn user(&mut self, user: &SharedName, presence: Presence) {
        if self.scope.users && !self.changes.are_lost {
            toggle(&mut self.changes.users, user.clone(), presence);
            self.noted();
        }
    }

    pub(super) fn member(&mut self, group: &SharedName, id: &Rc<str>, slot: Slot, presence: Presence) {
        if self.scope.groups && !self.changes.are_lost {
            toggle(&mut self.changes.members, (group.clone(), id.clone()), (presence, slot));
            self.noted();
        }
    }

    fn noted(&mut self) {
        if self.changes.users.len() + self.changes.members.len() > CHANGES_MAX {
            self.changes = Changes { are_lost: true, ..Changes::default() };
        }
        self.has_changed.notify_one();
    }
}

/// Records a change, or removes its opposite. Changes of one key alternate.
fn toggle<K: Hash + Eq, V>(changes: &mut HashMap<K, V>, key: K, change: V) {
    match changes.entry(key) {
        Entry::Occupied(opposite) => drop(opposite.remove()),
        Entry::Vacant(vacant) => drop(vacant.insert(change)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: PresenceScope = PresenceScope { users: true, groups: true };

    fn changes(scope: PresenceScope) -> SetChanges {
        SetChanges::new(scope, Rc::default())
    }

    #[test]
    fn a_change_and_its_opposite_cancel_out() {
        let mut changes = changes(BOTH);
        let (ann, bob, room, id) = ("ann".into(), "bob".into(), "room".into(), "c1".into());
        changes.user(&ann, Presence::Here);
        changes.user(&ann, Presence::Gone);
        changes.user(&bob, Presence::Gone);
        changes.member(&room, &id, 3, Presence::Here);
        changes.member(&room, &id, 3, Presence::Gone);
        let told = changes.take_changes();
        assert_eq!(told.users, HashMap::from([(bob, Presence::Gone)]));
        assert!(told.members.is_empty() && !told.are_lost && changes.take_changes().users.is_empty());
    }

    #[test]
    fn only_what_is_wanted_is_noted() {
        let mut changes = changes(PresenceScope { users: false, groups: true });
        changes.user(&"ann".into(), Presence::Here);
        changes.member(&"room".into(), &"c1".into(), 0, Presence::Here);
        let told = changes.take_changes();
        assert_eq!((told.users.len(), told.members.len()), (0, 1));
    }

    #[test]
    fn too_many_changes_are_lost_together_and_counting_begins_anew() {
        let mut changes = changes(BOTH);
        for user in 0..=CHANGES_MAX {
            changes.user(&user.to_string().into(), Presence::Here);
        }
        let told = changes.take_changes();
        assert!(told.are_lost && told.users.is_empty());
        changes.user(&"ann".into(), Presence::Here);
        assert_eq!(changes.take_changes().users.len(), 1);
    }
}
