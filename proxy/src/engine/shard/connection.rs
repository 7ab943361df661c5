//! Client connections of one shard, and their sets (hub, user, groups).
//!
//! Owned by one thread, so lock-free. Memberships belong to the shard and outlive app servers.

mod assignment;
mod census;
mod cold_state;
mod handshake_backlog;
mod interner;
mod life_cycle;
mod liveness;
mod membership;
mod pauses;
mod pending_call;
mod record;
mod refused_call;
mod resumption;
mod secondary_assignment;
mod set_changes;
mod wire;

use std::collections::{BinaryHeap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use slab::Slab;
use trunkline_protocol::id::ID_CHARS;
use trunkline_protocol::service::FilterSubject;

use super::command::audience::{Audience, FilterResults, MembershipChange, Receivers, SteppedFilter};
use super::shared::route_table::{Location, RouteTable};
use super::slot::{Serial, Slot};
use crate::engine::upstream::{AppServerId, HomeLink, HubIndex, LinkId};
use crate::ground::auth::Signer;
use crate::ground::bounded::shrink_slab;
use crate::ground::config::GroupLimits;

pub(crate) use assignment::{Assignment, AssignmentStage, ReleaseReason, Role, flow, moved_to, open_over};
pub(crate) use census::{Census, ClientKind};
pub(crate) use cold_state::{ClientOrigin, ColdState};
pub(crate) use handshake_backlog::HandshakeBacklog;
pub(crate) use interner::{Opening, OpeningInterner};
pub(crate) use life_cycle::{HomeStay, LeaveStage, LifeCycle, LifeStage};
pub(crate) use liveness::Liveness;
pub(crate) use membership::{GroupRefusal, Member, MembershipSets, SetName};
pub(crate) use pauses::{PauseReason, Pauses};
pub(crate) use pending_call::PendingCalls;
pub(crate) use record::{Client, ClientTraits};
pub(crate) use refused_call::{REFUSED_UPLOADS_MAX, RefusedCalls};
pub(crate) use resumption::{DepartingState, Resumption};
pub(crate) use secondary_assignment::{
    ClientAssignments, SECONDARY_UPLOADS_MAX, SecondaryAssignment, SecondaryAssignments,
};
pub(crate) use set_changes::{Presence, SetChanges};
pub(crate) use wire::Wire;

#[derive(Debug, Default)]
pub(crate) struct Connections {
    clients: Slab<Client>,
    sets: MembershipSets,
    census: Census,
    exclusion_epoch: u64,
    next_serial: Serial,
    shard: u16,
    routes: Arc<RouteTable>,
}

/// Client as seen by a filter.
struct FilteredClient<'a> {
    connections: &'a Connections,
    client: &'a Client,
}

impl FilterSubject for FilteredClient<'_> {
    fn user_id(&self) -> Option<&str> {
        self.connections.user_of(self.client)
    }

    fn connection_id(&self) -> &str {
        &self.client.id
    }

    fn is_in_group(&self, group: &str) -> bool {
        self.connections.sets.has(self.client, self.client.home().hub(), SetName::Group(group))
    }
}

impl Connections {
    pub(super) fn new(shard: u16, routes: Arc<RouteTable>, sets: MembershipSets) -> Self {
        Self { shard, routes, sets, ..Self::default() }
    }

    pub(crate) fn next_serial(&mut self) -> Serial {
        let serial = self.next_serial;
        self.next_serial = serial.wrapping_add(1);
        serial
    }

    /// Shrinks the table after clients have left.
    pub(super) fn give_back_room(&mut self) {
        shrink_slab(&mut self.clients);
    }

    /// Adds a client connection to its hub and user, and makes it routable.
    pub(crate) fn insert(&mut self, client: Client, user: Option<&str>) -> Slot {
        let (hub, id) = (client.home().hub(), client.id.clone());
        self.census.count_in(ClientKind::kind_of(&client));
        let is_compressed = client.form().is_compressed();
        let slot = Slot::try_from(self.clients.insert(client)).unwrap_or(Slot::MAX);
        self.join(slot, hub, SetName::Hub);
        if let Some(user) = user {
            self.join(slot, hub, SetName::User(user));
        }
        self.routes.open_route(&id, Location { shard: self.shard, is_compressed, slot });
        slot
    }

    /// Closes a client connection and returns it, unless it was closed before. Its socket may still drain, but
    /// sends no longer reach it.
    pub(crate) fn close_client(&mut self, slot: Slot) -> Option<&mut Client> {
        let client = self.live_mut(slot)?;
        client.life_mut().set_closed();
        client.pauses_mut().clear();
        let kind = ClientKind::kind_of(client);
        self.census.count_out(kind);
        self.sets.leave_all(&mut self.clients, slot);
        self.get_mut(slot)
    }

    /// Frees the slot of a client connection.
    pub(crate) fn remove(&mut self, slot: Slot) -> Option<Client> {
        self.close_client(slot);
        self.clients.try_remove(slot as usize)
    }

    pub(crate) fn set_home(&mut self, slot: Slot, home: &HomeLink) {
        let Some(client) = self.live_mut(slot) else { return };
        let before = ClientKind::kind_of(client);
        client.set_home(home);
        let after = ClientKind::kind_of(client);
        self.census.count_out(before);
        self.census.count_in(after);
    }

    pub(crate) fn census(&self) -> &Census {
        &self.census
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<&Client> {
        self.clients.get(slot as usize)
    }

    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut Client> {
        self.clients.get_mut(slot as usize)
    }

    pub(crate) fn clients_mut(&mut self) -> &mut Slab<Client> {
        &mut self.clients
    }

    /// Client connection in this slot, unless the slot was reused.
    pub(crate) fn get_current(&mut self, slot: Slot, serial: Serial) -> Option<&mut Client> {
        self.get_mut(slot).filter(|client| client.serial() == serial)
    }

    /// Client connection in this slot, if it has this id. Unlike a serial, an id stays when a client with stateful
    /// reconnect loses its socket.
    pub(crate) fn get_named(&mut self, slot: Slot, id: &str) -> Option<&mut Client> {
        self.get_mut(slot).filter(|client| *client.id == *id)
    }

    /// Client connection in this slot, unless it is closing.
    pub(crate) fn live(&self, slot: Slot) -> Option<&Client> {
        self.get(slot).filter(|client| !client.life().is_closed())
    }

    pub(crate) fn live_mut(&mut self, slot: Slot) -> Option<&mut Client> {
        self.get_mut(slot).filter(|client| !client.life().is_closed())
    }

    /// Slot of a connection of this hub, if it is on this shard.
    pub(crate) fn find(&self, hub: HubIndex, id: &str) -> Option<Slot> {
        let Location { shard, slot, .. } = self.routes.find(id)?;
        (shard == self.shard && self.is_in(slot, hub, id)).then_some(slot)
    }

    pub(crate) fn is_in(&self, slot: Slot, hub: HubIndex, id: &str) -> bool {
        self.get(slot).is_some_and(|client| *client.id == *id && client.home().hub() == hub)
    }

    /// Live client connection in this slot, if its id starts with this prefix. User interfaces show only the
    /// first part of an id.
    pub(crate) fn find_shown(&self, slot: Slot, shown_id: &str) -> Option<&Client> {
        let client = self.live(slot)?;
        (shown_id.len() >= ID_CHARS && client.id.starts_with(shown_id)).then_some(client)
    }

    pub(crate) fn slots_of(&self, hub: HubIndex, to: &Receivers) -> Vec<Slot> {
        let mut slots = self.addressed(hub, to);
        if let Some(filter) = &to.filter {
            let results = filter.results();
            slots.retain(|slot| self.matches(*slot, filter, &results));
        }
        slots
    }

    /// Receivers before the filter.
    pub(super) fn addressed(&self, hub: HubIndex, to: &Receivers) -> Vec<Slot> {
        let set = |name| self.members(hub, name).iter().map(|member| member.slot);
        let mut slots: Vec<Slot> = match &to.who {
            Audience::Everyone => set(SetName::Hub).collect(),
            Audience::Connections(ids) => ids.iter().filter_map(|id| self.find(hub, id)).collect(),
            Audience::Groups(names) => names.iter().flat_map(|name| set(SetName::Group(name))).collect(),
            Audience::Users(names) => names.iter().flat_map(|name| set(SetName::User(name))).collect(),
        };
        let excluded: HashSet<Slot> = to.excluded.iter().filter_map(|id| self.find(hub, id)).collect();
        slots.retain(|slot| !excluded.contains(slot));
        slots
    }

    pub(crate) fn count_of(&self, hub: HubIndex, to: &Receivers) -> usize {
        match (&to.who, &*to.excluded) {
            _ if to.filter.is_some() => self.slots_of(hub, to).len(),
            (Audience::Everyone, []) => self.members(hub, SetName::Hub).len(),
            (Audience::Groups(names), []) => {
                names.iter().map(|name| self.members(hub, SetName::Group(name)).len()).sum()
            }
            _ => self.slots_of(hub, to).len(),
        }
    }

    /// Changes the groups of a live client connection. `left` returns the owner of a hub, and the bytes left for its
    /// names of groups. Fails if the limits forbid the group or another one.
    pub(crate) fn change_groups(
        &mut self,
        slot: Slot,
        change: &MembershipChange,
        limits: &GroupLimits,
        left: impl Fn(HubIndex) -> (Signer, usize),
    ) -> Result<(), GroupRefusal> {
        let Some(client) = self.live(slot) else { return Ok(()) };
        let hub = client.home().hub();
        match change {
            MembershipChange::Join(group) => {
                self.check_join(client, group, limits)?;
                self.check_name(client, group, left)?;
                self.join(slot, hub, SetName::Group(group));
            }
            MembershipChange::Leave(group) => self.leave(slot, hub, SetName::Group(group)),
            MembershipChange::LeaveAll => self.leave_groups(slot),
        }
        Ok(())
    }

    fn check_join(&self, client: &Client, group: &str, limits: &GroupLimits) -> Result<(), GroupRefusal> {
        let (length, limit) = (group.len(), limits.name_max_bytes);
        if length > limit {
            return Err(GroupRefusal::NameTooLong { length, limit });
        }
        let limit = limits.per_client;
        // Memberships include the hub and the user. They are counted separately only near the limit.
        if client.memberships().len() <= limit || self.sets.has(client, client.home().hub(), SetName::Group(group)) {
            return Ok(());
        }
        let groups = self.sets.sets_of(client).filter(|set| matches!(set, SetName::Group(_))).count();
        if groups < limit { Ok(()) } else { Err(GroupRefusal::TooMany { limit }) }
    }

    /// Checks that there is memory for the name of a new group: at least as much as the names of all groups of the
    /// client.
    fn check_name(
        &self,
        client: &Client,
        group: &str,
        left: impl Fn(HubIndex) -> (Signer, usize),
    ) -> Result<(), GroupRefusal> {
        let hub = client.home().hub();
        let bytes = self.sets.new_name_bytes(hub, group);
        if bytes == 0 || self.sets.has_names_left(bytes) {
            return Ok(());
        }
        let own = self.sets.sets_of(client).map(SetName::name_bytes).sum::<usize>() + bytes;
        let (app, left) = left(hub);
        if own <= left { Ok(()) } else { Err(GroupRefusal::NamesFull { app, own, left }) }
    }

    /// Client of a hub whose groups have the most bytes of names, with the bytes.
    pub(super) fn most_names(&self, hub: HubIndex) -> Option<(usize, Slot)> {
        let members = self.members(hub, SetName::Hub).iter();
        members.filter_map(|member| Some((self.sets.held_names(self.get(member.slot)?), member.slot))).max()
    }

    /// Adds a client connection to a set. Idempotent.
    pub(crate) fn join(&mut self, slot: Slot, hub: HubIndex, name: SetName<'_>) {
        self.sets.join(&mut self.clients, slot, hub, name);
    }

    /// Ends a membership, if it exists.
    pub(crate) fn leave(&mut self, slot: Slot, hub: HubIndex, name: SetName<'_>) {
        self.sets.leave(&mut self.clients, slot, hub, name);
    }

    /// Ends a client connection's group memberships, but not those in its hub and user.
    pub(crate) fn leave_groups(&mut self, slot: Slot) {
        self.sets.leave_groups(&mut self.clients, slot);
    }

    pub(crate) fn sets(&self) -> &MembershipSets {
        &self.sets
    }

    pub(crate) fn sets_mut(&mut self) -> &mut MembershipSets {
        &mut self.sets
    }

    /// Members of a set; empty if the set doesn't exist.
    pub(crate) fn members(&self, hub: HubIndex, name: SetName<'_>) -> &[Member] {
        self.sets.members(hub, name)
    }

    /// Lowest slots of a set's members from `from` on, at most `max`, sorted.
    pub(crate) fn members_from(&self, hub: HubIndex, name: SetName<'_>, from: Slot, max: usize) -> Vec<Slot> {
        let mut lowest = BinaryHeap::new();
        for member in self.members(hub, name).iter().filter(|member| member.slot >= from) {
            if lowest.len() < max {
                lowest.push(member.slot);
            } else if let Some(mut highest) = lowest.peek_mut().filter(|highest| member.slot < **highest) {
                *highest = member.slot;
            }
        }
        lowest.into_sorted_vec()
    }

    pub(crate) fn user_of<'a>(&'a self, client: &'a Client) -> Option<&'a str> {
        self.sets.sets_of(client).find_map(|set| match set {
            SetName::User(user) => Some(user),
            SetName::Hub | SetName::Group(_) => None,
        })
    }

    pub(crate) fn members_and_clients(&mut self, hub: HubIndex, name: SetName<'_>) -> (&[Member], &mut Slab<Client>) {
        (self.sets.members(hub, name), &mut self.clients)
    }

    /// Marks connections and users as excluded from a send, and returns its new, unique epoch.
    pub(crate) fn exclude(&mut self, hub: HubIndex, to: &Receivers, others: &[Slot]) -> u64 {
        // 64 bits don't wrap around, so an old exclusion never applies by accident.
        self.exclusion_epoch += 1;
        let epoch = self.exclusion_epoch;
        for slot in others {
            if let Some(client) = self.get_mut(*slot) {
                client.exclude(epoch);
            }
        }
        for id in &to.excluded {
            if let Some(client) = self.find(hub, id).and_then(|slot| self.get_mut(slot)) {
                client.exclude(epoch);
            }
        }
        for user in &to.excluded_users {
            let (members, clients) = self.members_and_clients(hub, SetName::User(user));
            for member in members {
                if let Some(client) = clients.get_mut(member.slot as usize) {
                    client.exclude(epoch);
                }
            }
        }
        if let Some(filter) = &to.filter {
            self.exclude_unmatched(hub, (to, filter), epoch);
        }
        epoch
    }

    #[cold]
    fn exclude_unmatched(&mut self, hub: HubIndex, (to, filter): (&Receivers, &SteppedFilter), epoch: u64) {
        let (mut unmatched, results) = (self.addressed(hub, to), filter.results());
        unmatched.retain(|slot| !self.matches(*slot, filter, &results));
        for slot in unmatched {
            if let Some(client) = self.get_mut(slot) {
                client.exclude(epoch);
            }
        }
    }

    /// Whether a client matches, by the result of a step unless the client is new.
    fn matches(&self, slot: Slot, filter: &SteppedFilter, results: &FilterResults) -> bool {
        let Some(client) = self.live(slot) else { return false };
        match results.get(&(self.shard, slot)) {
            Some((serial, is_match)) if *serial == client.serial() => *is_match,
            _ => filter.filter.matches(&FilteredClient { connections: self, client }),
        }
    }

    /// Evaluates the filter of receivers for a client, and keeps the result. Returns it with the cost in bytes.
    pub(super) fn evaluate(&self, slot: Slot, to: &Receivers) -> (bool, usize) {
        let Some(client) = self.live(slot) else { return (false, 0) };
        let Some(filter) = &to.filter else { return (true, 0) };
        let mut results = filter.results();
        let is_match = self.matches(slot, filter, &results);
        results.insert((self.shard, slot), (client.serial(), is_match));
        (is_match, filter.filter.cost(self.user_of(client).map_or(0, str::len).max(ID_CHARS)))
    }

    /// Number of slots, including empty ones.
    pub(crate) fn slot_count(&self) -> usize {
        self.clients.capacity()
    }

    /// Client connections in a range of slots, for inspection in short steps.
    pub(crate) fn range(&self, slots: Range<usize>) -> impl Iterator<Item = (Slot, &Client)> {
        let clients = slots.filter_map(|slot| Some((slot, self.clients.get(slot)?)));
        clients.map(|(slot, client)| (Slot::try_from(slot).unwrap_or(Slot::MAX), client))
    }

    pub(crate) fn at_home(&self, link: LinkId) -> Vec<Slot> {
        self.slots(|client| client.home().id == link)
    }

    pub(crate) fn at_app(&self, hub: HubIndex, app: AppServerId) -> Vec<Slot> {
        self.slots(|client| client.home().app == app && client.home().hub() == hub)
    }

    /// Number of clients assigned to an app server at a hub, as primary or secondary. Excludes clients that
    /// wait for another primary.
    pub(crate) fn count_at(&self, hub: HubIndex, app: AppServerId) -> usize {
        let is_there = |client: &Client| match client.role_of(app) {
            Some(Role::Home) => !client.is_unassigned(),
            Some(Role::Secondary(_)) => true,
            None => false,
        };
        self.slots(|client| client.home().hub() == hub && is_there(client)).len()
    }

    pub(crate) fn everyone(&self) -> Vec<(Slot, Serial)> {
        let all = self.clients.iter();
        all.map(|(slot, client)| (Slot::try_from(slot).unwrap_or(Slot::MAX), client.serial())).collect()
    }

    /// Bytes queued because a socket is full or a client does not acknowledge, with the clients' slots.
    pub(crate) fn waiting(&self) -> Vec<(usize, Slot)> {
        let waiting = self.clients.iter().filter(|(_, client)| client.wire().is_flushing() || client.is_resumable());
        waiting.map(|(slot, client)| (waiting_bytes(client), Slot::try_from(slot).unwrap_or(Slot::MAX))).collect()
    }

    fn slots(&self, wanted: impl Fn(&Client) -> bool) -> Vec<Slot> {
        let chosen = self.clients.iter().filter(|(_, client)| wanted(client));
        chosen.map(|(slot, _)| Slot::try_from(slot).unwrap_or(Slot::MAX)).collect()
    }
}

fn waiting_bytes(client: &Client) -> usize {
    let unwritten = if client.wire().is_flushing() { client.wire().bytes() } else { 0 };
    unwritten + client.cold().resumption().map_or(0, |resumption| resumption.ownership().bytes())
}

#[cfg(test)]
mod tests;
