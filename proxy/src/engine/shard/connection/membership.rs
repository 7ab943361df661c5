//! Memberships of client connections in sets: a whole hub, the members of a group, a user's connections.
//!
//! Member lists are dense, so a send walks memory sequentially. List entries and memberships refer to each other, so
//! joining and leaving take constant time.

use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use slab::Slab;
use trunkline_protocol::fleet::Wanted;

use super::Client;
use super::record::MembershipEntry;
use super::set_changes::{Presence, SetChanges, SharedName};
use crate::engine::shard::shared::seams::SetInterest;
use crate::engine::shard::slot::Slot;
use crate::engine::upstream::HubIndex;
use crate::ground::auth::Signer;
use crate::ground::bounded::Permits;
use crate::ground::metrics::Limit;

/// Bytes that a group takes in addition to its name: its entries in tables.
const GROUP_BYTES: usize = 192;

/// Fraction of the limit of names up to which any client may join new groups.
const FREE_NAMES_PART: usize = 4;

/// Name of a set within its hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SetName<'a> {
    Hub,
    Group(&'a str),
    User(&'a str),
}

impl<'a> SetName<'a> {
    /// Fleet messages that its members subscribe to.
    fn wanted(self) -> Wanted<'a> {
        match self {
            SetName::Hub => Wanted::Everyone,
            SetName::Group(name) => Wanted::Group(name),
            SetName::User(name) => Wanted::User(name),
        }
    }

    /// Bytes that count for the limit of names of groups; 0 for other sets.
    pub(super) fn name_bytes(self) -> usize {
        match self {
            SetName::Group(name) => name.len() + GROUP_BYTES,
            SetName::Hub | SetName::User(_) => 0,
        }
    }
}

/// Entry of a member list.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member {
    pub slot: Slot,
    /// Index of this membership in the client's own list.
    membership: u32,
}

/// Sets of one shard. Empty sets are removed.
#[derive(Debug, Default)]
pub(crate) struct MembershipSets {
    all: Slab<MemberSet>,
    hubs: Vec<HubSets>,
    /// Subscriptions reported to other nodes, if there are any.
    interest: Option<Arc<dyn SetInterest>>,
    /// Bytes of names of groups of all shards, by the index of their hub.
    names: Option<Permits<usize>>,
}

#[derive(Debug)]
struct MemberSet {
    hub: HubIndex,
    key: SetKey,
    members: Vec<Member>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum SetKey {
    Hub,
    Group(SharedName),
    User(SharedName),
}

impl SetKey {
    fn name(&self) -> SetName<'_> {
        match self {
            Self::Hub => SetName::Hub,
            Self::Group(name) => SetName::Group(name),
            Self::User(name) => SetName::User(name),
        }
    }
}

#[derive(Debug, Default)]
struct HubSets {
    everyone: Option<u32>,
    groups: HashMap<SharedName, u32>,
    users: HashMap<SharedName, u32>,
    /// Changes for subscribed app servers; `None` without subscribers.
    changes: Option<Box<SetChanges>>,
}

impl HubSets {
    /// Records that a connection has joined or left a set. For users only the first and the last connection
    /// count.
    fn note_member(&mut self, key: &SetKey, id: &Rc<str>, slot: Slot, presence: Presence) {
        if let (Some(changes), SetKey::Group(group)) = (&mut self.changes, key) {
            changes.member(group, id, slot, presence);
        }
    }

    fn note_set(&mut self, key: &SetKey, presence: Presence) {
        if let (Some(changes), SetKey::User(user)) = (&mut self.changes, key) {
            changes.user(user, presence);
        }
    }
}

impl MembershipSets {
    /// Creates the sets of a shard. Other nodes receive their subscriptions, and names of groups count towards the
    /// node's limit.
    pub(crate) fn counted(interest: Option<Arc<dyn SetInterest>>, names: Permits<usize>) -> Self {
        Self { interest, names: Some(names), ..Self::default() }
    }

    /// Bytes that the name of a group takes if it has no member yet, else 0.
    pub(super) fn new_name_bytes(&self, hub: HubIndex, group: &str) -> usize {
        let name = SetName::Group(group);
        if self.find(hub, name).is_none() { name.name_bytes() } else { 0 }
    }

    /// Whether the names of all groups are far below their limit.
    pub(super) fn has_names_left(&self, more: usize) -> bool {
        self.names.as_ref().is_none_or(|names| names.len() + more <= names.limit() / FREE_NAMES_PART)
    }

    pub(super) fn members(&self, hub: HubIndex, name: SetName<'_>) -> &[Member] {
        self.find(hub, name).and_then(|set| self.all.get(set as usize)).map_or(&[], |set| &set.members)
    }

    /// Starts or stops recording changes of a hub's sets.
    pub(crate) fn note_changes(&mut self, hub: HubIndex, changes: Option<SetChanges>) {
        while self.hubs.len() <= hub.get() {
            self.hubs.push(HubSets::default());
        }
        if let Some(sets) = self.hubs.get_mut(hub.get()) {
            sets.changes = changes.map(Box::new);
        }
    }

    pub(crate) fn changes_mut(&mut self, hub: HubIndex) -> Option<&mut SetChanges> {
        self.hubs.get_mut(hub.get())?.changes.as_deref_mut()
    }

    /// Number of groups and of users over all hubs.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let both = self.hubs.iter().map(|hub| (hub.groups.len(), hub.users.len()));
        both.fold((0, 0), |(groups, users), (more_groups, more_users)| (groups + more_groups, users + more_users))
    }

    /// Number of entries in the list of sets, including empty ones.
    pub(crate) fn entries(&self) -> usize {
        self.all.capacity()
    }

    /// Sets in a range of entries, with member counts.
    pub(crate) fn range(&self, entries: Range<usize>) -> impl Iterator<Item = (HubIndex, SetName<'_>, usize)> {
        let sets = entries.filter_map(|entry| self.all.get(entry));
        sets.map(|set| (set.hub, set.key.name(), set.members.len()))
    }

    pub(crate) fn sets_of<'a>(&'a self, client: &'a Client) -> impl Iterator<Item = SetName<'a>> {
        let sets = client.memberships().iter().filter_map(|membership| self.all.get(membership.set as usize));
        sets.map(|set| set.key.name())
    }

    /// Bytes of the names of a client's groups. Members of a group have equal parts.
    pub(super) fn held_names(&self, client: &Client) -> usize {
        let sets = client.memberships().iter().filter_map(|membership| self.all.get(membership.set as usize));
        sets.map(|set| set.key.name().name_bytes() / set.members.len().max(1)).sum()
    }

    pub(crate) fn has(&self, client: &Client, hub: HubIndex, name: SetName<'_>) -> bool {
        let set = self.find(hub, name);
        set.is_some_and(|set| client.memberships().iter().any(|membership| membership.set == set))
    }

    pub(super) fn join(&mut self, clients: &mut Slab<Client>, slot: Slot, hub: HubIndex, name: SetName<'_>) {
        let key = self.find_or_make(hub, name);
        let Some(client) = clients.get_mut(slot as usize) else { return };
        let Some(set) = self.all.get_mut(key as usize) else { return };
        if client.memberships().iter().any(|membership| membership.set == key) {
            return;
        }
        set.members.push(Member { slot, membership: index(client.memberships().len()) });
        client.memberships_mut().push(MembershipEntry { set: key, place: index(set.members.len() - 1) });
        if let Some(sets) = self.hubs.get_mut(hub.get()) {
            sets.note_member(&set.key, &client.id, slot, Presence::Here);
        }
    }

    pub(super) fn leave(&mut self, clients: &mut Slab<Client>, slot: Slot, hub: HubIndex, name: SetName<'_>) {
        let Some(key) = self.find(hub, name) else { return };
        let Some(client) = clients.get(slot as usize) else { return };
        if let Some(at) = client.memberships().iter().position(|membership| membership.set == key) {
            self.end_membership(clients, slot, at);
        }
    }

    pub(super) fn leave_groups(&mut self, clients: &mut Slab<Client>, slot: Slot) {
        let mut at = 0;
        while let Some(membership) = clients.get(slot as usize).and_then(|client| client.memberships().get(at)) {
            match self.all.get(membership.set as usize).map(|set| &set.key) {
                Some(SetKey::Group(_)) => self.end_membership(clients, slot, at),
                _ => at += 1,
            }
        }
    }

    pub(super) fn leave_all(&mut self, clients: &mut Slab<Client>, slot: Slot) {
        while clients.get(slot as usize).is_some_and(|client| !client.memberships().is_empty()) {
            self.end_membership(clients, slot, 0);
        }
    }

    /// Ends the membership at index `at` of the client's list. Both lists fill the gap with their last entry.
    fn end_membership(&mut self, clients: &mut Slab<Client>, slot: Slot, at: usize) {
        let Some(client) = clients.get_mut(slot as usize) else { return };
        let ended = client.memberships_mut().swap_remove(at);
        if let Some(moved) = client.memberships().get(at)
            && let Some(member) =
                self.all.get_mut(moved.set as usize).and_then(|set| set.members.get_mut(moved.place as usize))
        {
            member.membership = index(at);
        }
        let Some(set) = self.all.get_mut(ended.set as usize) else { return };
        if let (Some(sets), Some(client)) = (self.hubs.get_mut(set.hub.get()), clients.get(slot as usize)) {
            sets.note_member(&set.key, &client.id, slot, Presence::Gone);
        }
        set.members.swap_remove(ended.place as usize);
        if let Some(&moved) = set.members.get(ended.place as usize)
            && let Some(membership) = clients
                .get_mut(moved.slot as usize)
                .and_then(|client| client.memberships_mut().get_mut(moved.membership as usize))
        {
            membership.place = ended.place;
        }
        if set.members.is_empty() {
            self.forget(ended.set);
        }
    }

    fn find(&self, hub: HubIndex, name: SetName<'_>) -> Option<u32> {
        let sets = self.hubs.get(hub.get())?;
        match name {
            SetName::Hub => sets.everyone,
            SetName::Group(name) => sets.groups.get(name).copied(),
            SetName::User(name) => sets.users.get(name).copied(),
        }
    }

    fn find_or_make(&mut self, hub: HubIndex, name: SetName<'_>) -> u32 {
        if let Some(set) = self.find(hub, name) {
            return set;
        }
        while self.hubs.len() <= hub.get() {
            self.hubs.push(HubSets::default());
        }
        if let Some(interest) = &self.interest {
            interest.enter(hub, name.wanted());
        }
        self.count_name(name, |names, bytes| names.charge(&hub.get(), bytes));
        let key = match name {
            SetName::Hub => SetKey::Hub,
            SetName::Group(name) => SetKey::Group(name.into()),
            SetName::User(name) => SetKey::User(name.into()),
        };
        let set = index(self.all.insert(MemberSet { hub, key: key.clone(), members: Vec::new() }));
        if let Some(sets) = self.hubs.get_mut(hub.get()) {
            sets.note_set(&key, Presence::Here);
            match key {
                SetKey::Hub => sets.everyone = Some(set),
                SetKey::Group(name) => drop(sets.groups.insert(name, set)),
                SetKey::User(name) => drop(sets.users.insert(name, set)),
            }
        }
        set
    }

    fn count_name(&self, name: SetName<'_>, count: impl FnOnce(&Permits<usize>, usize)) {
        if let (Some(names), bytes @ 1..) = (&self.names, name.name_bytes()) {
            count(names, bytes);
        }
    }

    fn forget(&mut self, set: u32) {
        let Some(set) = self.all.try_remove(set as usize) else { return };
        self.count_name(set.key.name(), |names, bytes| names.release(Some(&set.hub.get()), bytes));
        if let Some(interest) = &self.interest {
            interest.leave(set.hub, set.key.name().wanted());
        }
        let Some(sets) = self.hubs.get_mut(set.hub.get()) else { return };
        sets.note_set(&set.key, Presence::Gone);
        match set.key {
            SetKey::Hub => sets.everyone = None,
            SetKey::Group(name) => drop(sets.groups.remove(&name)),
            SetKey::User(name) => drop(sets.users.remove(&name)),
        }
    }
}

/// Indices have 32 bits, which suffices for any shard.
fn index(of: usize) -> u32 {
    debug_assert!(u32::try_from(of).is_ok());
    u32::try_from(of).unwrap_or(u32::MAX)
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GroupRefusal {
    #[error(
        "the group name has {length} bytes, but at most {limit} are allowed: see --group-name-max-bytes of proxies"
    )]
    NameTooLong { length: usize, limit: usize },
    #[error("the connection has reached the limit of {limit} groups: see --groups-per-client-max of proxies")]
    TooMany { limit: usize },
    #[error(
        "the names of the connection's groups would take {own} bytes, and {left} bytes are left for names of groups: see \
         --group-names-total-max-bytes of proxies"
    )]
    NamesFull { app: Signer, own: usize, left: usize },
}

impl GroupRefusal {
    /// Exceeded limit, as named in metrics.
    pub(crate) fn limit(&self) -> Limit {
        match self {
            Self::NameTooLong { .. } => Limit::GroupName,
            Self::TooMany { .. } => Limit::Groups,
            Self::NamesFull { .. } => Limit::GroupNames,
        }
    }
}
