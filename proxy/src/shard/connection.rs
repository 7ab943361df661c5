//! Client connections of one shard, and the sets (hub, user, groups) that they belong to.
//!
//! Owned by one thread, so there is no lock; membership lives here and not with an app server, so it outlives one.

mod assignment;
mod census;
mod client_assignments;
mod cold_state;
mod handshake_backlog;
mod interner;
mod life_cycle;
mod liveness;
mod membership;
mod mirror_copy;
mod pauses;
mod pending_call;
mod record;
mod refused_call;
mod resumption;
mod set_changes;
mod side_home;
mod wire;

use std::collections::BinaryHeap;
use std::ops::Range;
use std::sync::Arc;

use slab::Slab;
use trunkline_protocol::id::ID_CHARS;
use trunkline_protocol::service::{ClientFilter, FilterSubject};

use super::command::audience::{Audience, MembershipChange, Receivers};
use super::shared::own_interest::OwnInterest;
use super::shared::route_table::{Location, RouteTable};
use super::slot::{Serial, Slot};
use crate::bounded::shrink_slab;
use crate::config::GroupLimits;
use crate::upstream::{AppServerId, HomeLink, HubIndex, LinkId};

pub(crate) use assignment::{Assignment, AssignmentStage, ReleaseReason, Role, flow, moved_to, open_over};
pub(crate) use census::{Census, ClientKind};
pub(crate) use client_assignments::ClientAssignments;
pub(crate) use cold_state::{ClientOrigin, ColdState};
pub(crate) use handshake_backlog::HandshakeBacklog;
pub(crate) use interner::{Opening, OpeningInterner};
pub(crate) use life_cycle::{HomeStay, LeaveStage, LifeCycle, LifeStage};
pub(crate) use liveness::Liveness;
pub(crate) use membership::{GroupRefusal, Member, MembershipSets, SetName};
pub(crate) use mirror_copy::{MirrorCopies, MirrorCopy, MirrorOrder};
pub(crate) use pauses::{PauseReason, Pauses};
pub(crate) use pending_call::PendingCalls;
pub(crate) use record::{Client, ClientTraits};
pub(crate) use refused_call::{REFUSED_UPLOADS_MAX, RefusedCalls};
pub(crate) use resumption::{DepartingState, Resumption};
pub(crate) use set_changes::{Presence, SetChanges};
pub(crate) use side_home::{SIDE_UPLOADS_MAX, SideHome, SideHomes};
pub(crate) use wire::Wire;

/// Client connections of one shard, their sets, and their entries in the node's table of routes.
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

/// Client as a filter evaluates it.
struct FilteredClient<'a> {
    connections: &'a Connections,
    client: &'a Client,
}

impl FilterSubject for FilteredClient<'_> {
    fn user_id(&self) -> Option<&str> {
        self.connections.user_of(self.client)
    }

    fn connection_id(&self) -> &str {
        self.client.id()
    }

    fn is_in_group(&self, group: &str) -> bool {
        self.connections.sets.has(self.client, self.client.home().hub(), SetName::Group(group))
    }
}

impl Connections {
    /// No connections yet, on the shard of this index.
    pub(super) fn new(shard: u16, routes: Arc<RouteTable>, interest: Option<Arc<OwnInterest>>) -> Self {
        Self { shard, routes, sets: MembershipSets::told_to(interest), ..Self::default() }
    }

    /// Serial for the next client connection.
    pub(crate) fn next_serial(&mut self) -> Serial {
        let serial = self.next_serial;
        self.next_serial = serial.wrapping_add(1);
        serial
    }

    /// Gives back the room that clients who have left needed.
    pub(super) fn give_back_room(&mut self) {
        shrink_slab(&mut self.clients);
    }

    /// Takes a new client connection in: makes it a member of its hub and of its user's connections, and routable.
    pub(crate) fn insert(&mut self, client: Client, user: Option<&str>) -> Slot {
        let (hub, id) = (client.home().hub(), client.id().clone());
        self.census.add(ClientKind::of(&client));
        let slot = Slot::try_from(self.clients.insert(client)).unwrap_or(Slot::MAX);
        self.join(slot, hub, SetName::Hub);
        if let Some(user) = user {
            self.join(slot, hub, SetName::User(user));
        }
        self.routes.open(&id, Location { shard: self.shard, slot });
        slot
    }

    /// Closes a client connection and returns it, unless it was closed before. Its socket may take what waits, but no
    /// send finds it any more.
    pub(crate) fn close(&mut self, slot: Slot) -> Option<&mut Client> {
        let client = self.live_mut(slot)?;
        client.life_mut().close();
        client.pauses_mut().clear();
        let kind = ClientKind::of(client);
        self.census.take(kind);
        self.sets.leave_all(&mut self.clients, slot);
        self.get_mut(slot)
    }

    /// Frees the slot of a client connection.
    pub(crate) fn remove(&mut self, slot: Slot) -> Option<Client> {
        self.close(slot);
        self.clients.try_remove(slot as usize)
    }

    /// Gives a client connection another home.
    pub(crate) fn set_home(&mut self, slot: Slot, home: &HomeLink) {
        let Some(client) = self.live_mut(slot) else { return };
        let before = ClientKind::of(client);
        client.set_home(home);
        let after = ClientKind::of(client);
        self.census.take(before);
        self.census.add(after);
    }

    /// Number of client connections of each kind.
    #[must_use]
    pub(crate) fn census(&self) -> &Census {
        &self.census
    }

    #[must_use]
    pub(crate) fn get(&self, slot: Slot) -> Option<&Client> {
        self.clients.get(slot as usize)
    }

    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut Client> {
        self.clients.get_mut(slot as usize)
    }

    /// All client connections, by their slots.
    pub(crate) fn clients_mut(&mut self) -> &mut Slab<Client> {
        &mut self.clients
    }

    /// The client connection in this slot, unless another one has the slot by now.
    pub(crate) fn get_current(&mut self, slot: Slot, serial: Serial) -> Option<&mut Client> {
        self.get_mut(slot).filter(|client| client.serial() == serial)
    }

    /// The client connection in this slot, unless it is closing.
    #[must_use]
    pub(crate) fn live(&self, slot: Slot) -> Option<&Client> {
        self.get(slot).filter(|client| !client.life().is_closed())
    }

    /// The client connection in this slot to be changed, unless it is closing.
    pub(crate) fn live_mut(&mut self, slot: Slot) -> Option<&mut Client> {
        self.get_mut(slot).filter(|client| !client.life().is_closed())
    }

    /// Slot of a connection of this hub, if this shard has it.
    #[must_use]
    pub(crate) fn find(&self, hub: HubIndex, id: &str) -> Option<Slot> {
        let Location { shard, slot } = self.routes.find(id)?;
        (shard == self.shard && self.is_in(slot, hub, id)).then_some(slot)
    }

    /// Whether this connection of this hub has this slot.
    #[must_use]
    pub(crate) fn is_in(&self, slot: Slot, hub: HubIndex, id: &str) -> bool {
        self.get(slot).is_some_and(|client| **client.id() == *id && client.home().hub() == hub)
    }

    /// The live client connection in this slot, if its id begins with this one: people see only the first part of an
    /// id.
    #[must_use]
    pub(crate) fn find_shown(&self, slot: Slot, shown_id: &str) -> Option<&Client> {
        let client = self.live(slot)?;
        (shown_id.len() >= ID_CHARS && client.id().starts_with(shown_id)).then_some(client)
    }

    /// Slots of all receivers that are here.
    #[must_use]
    pub(crate) fn slots_of(&self, hub: HubIndex, to: &Receivers) -> Vec<Slot> {
        let set = |name| self.members(hub, name).iter().map(|member| member.slot);
        let mut slots: Vec<Slot> = match &to.who {
            Audience::Everyone => set(SetName::Hub).collect(),
            Audience::Connections(ids) => ids.iter().filter_map(|id| self.find(hub, id)).collect(),
            Audience::Groups(names) => names.iter().flat_map(|name| set(SetName::Group(name))).collect(),
            Audience::Users(names) => names.iter().flat_map(|name| set(SetName::User(name))).collect(),
        };
        let excluded: Vec<Slot> = to.excluded.iter().filter_map(|id| self.find(hub, id)).collect();
        slots.retain(|slot| !excluded.contains(slot));
        if let Some(filter) = &to.filter {
            slots.retain(|slot| matches(self, *slot, filter));
        }
        slots
    }

    /// Number of the client connections that something is for.
    #[must_use]
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

    /// Changes the groups of a live client connection.
    ///
    /// # Errors
    /// When the limits allow no such group, or no further one.
    pub(crate) fn change_groups(
        &mut self,
        slot: Slot,
        change: &MembershipChange,
        limits: &GroupLimits,
    ) -> Result<(), GroupRefusal> {
        let Some(client) = self.live(slot) else { return Ok(()) };
        let hub = client.home().hub();
        match change {
            MembershipChange::Join(group) => {
                self.check_join(client, group, limits)?;
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
        // Its hub and its user are among the memberships, too. They are told apart only by one that is near the limit.
        if client.memberships().len() <= limit || self.sets.has(client, client.home().hub(), SetName::Group(group)) {
            return Ok(());
        }
        let groups = self.sets.of(client).filter(|set| matches!(set, SetName::Group(_))).count();
        if groups < limit { Ok(()) } else { Err(GroupRefusal::TooMany { limit }) }
    }

    /// Makes a client connection a member of a set; joining twice is fine.
    pub(crate) fn join(&mut self, slot: Slot, hub: HubIndex, name: SetName<'_>) {
        self.sets.join(&mut self.clients, slot, hub, name);
    }

    /// Ends a membership, if there is one.
    pub(crate) fn leave(&mut self, slot: Slot, hub: HubIndex, name: SetName<'_>) {
        self.sets.leave(&mut self.clients, slot, hub, name);
    }

    /// Ends a client connection's memberships in groups, but not in its hub and user.
    pub(crate) fn leave_groups(&mut self, slot: Slot) {
        self.sets.leave_groups(&mut self.clients, slot);
    }

    /// Sets that client connections are members of.
    #[must_use]
    pub(crate) fn sets(&self) -> &MembershipSets {
        &self.sets
    }

    pub(crate) fn sets_mut(&mut self) -> &mut MembershipSets {
        &mut self.sets
    }

    /// Members of a set; empty for a set that doesn't exist.
    #[must_use]
    pub(crate) fn members(&self, hub: HubIndex, name: SetName<'_>) -> &[Member] {
        self.sets.members(hub, name)
    }

    /// The lowest slots of a set's members from this one on, at most `max`, in order.
    #[must_use]
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

    /// User of a client, if it is authenticated.
    #[must_use]
    pub(crate) fn user_of<'a>(&'a self, client: &'a Client) -> Option<&'a str> {
        self.sets.of(client).find_map(|set| match set {
            SetName::User(user) => Some(user),
            SetName::Hub | SetName::Group(_) => None,
        })
    }

    /// Members of a set, and the slab in which to change them.
    pub(crate) fn members_and_clients(&mut self, hub: HubIndex, name: SetName<'_>) -> (&[Member], &mut Slab<Client>) {
        (self.sets.members(hub, name), &mut self.clients)
    }

    /// Excludes connections and users from a send, and returns its epoch: a fresh one, so that no client has it by
    /// chance.
    pub(crate) fn exclude(&mut self, hub: HubIndex, to: &Receivers) -> u64 {
        // 64 bits never come around: a client that was excluded once is not excluded again by chance.
        self.exclusion_epoch += 1;
        let epoch = self.exclusion_epoch;
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
            self.exclude_unmatched(hub, filter, epoch);
        }
        epoch
    }

    /// Excludes all clients from a send that a filter does not include.
    #[cold]
    fn exclude_unmatched(&mut self, hub: HubIndex, filter: &ClientFilter, epoch: u64) {
        let members = self.members(hub, SetName::Hub).iter().map(|member| member.slot);
        let unmatched: Vec<Slot> = members.filter(|slot| !matches(self, *slot, filter)).collect();
        for slot in unmatched {
            if let Some(client) = self.get_mut(slot) {
                client.exclude(epoch);
            }
        }
    }

    /// Number of slots, empty ones included.
    #[must_use]
    pub(crate) fn slot_count(&self) -> usize {
        self.clients.capacity()
    }

    /// Client connections of a range of slots: all can be inspected in short steps.
    pub(crate) fn range(&self, slots: Range<usize>) -> impl Iterator<Item = (Slot, &Client)> {
        let clients = slots.filter_map(|slot| Some((slot, self.clients.get(slot)?)));
        clients.map(|(slot, client)| (Slot::try_from(slot).unwrap_or(Slot::MAX), client))
    }

    /// Slots of all clients whose home is this link.
    #[must_use]
    pub(crate) fn at_home(&self, link: LinkId) -> Vec<Slot> {
        self.slots(|client| client.home().id() == link)
    }

    /// Slots of all clients whose home is at this app server, at this hub.
    #[must_use]
    pub(crate) fn at_app(&self, hub: HubIndex, app: AppServerId) -> Vec<Slot> {
        self.slots(|client| client.home().app() == app && client.home().hub() == hub)
    }

    /// Number of clients that an app server has at a hub, as their home or beside it. Those that wait for another home
    /// are not there any more.
    #[must_use]
    pub(crate) fn count_at(&self, hub: HubIndex, app: AppServerId) -> usize {
        let is_there = |client: &Client| match client.role_of(app) {
            Some(Role::Home) => !client.is_unassigned(),
            Some(Role::Side(_)) => true,
            None => false,
        };
        self.slots(|client| client.home().hub() == hub && is_there(client)).len()
    }

    /// Slots and serials of all client connections.
    #[must_use]
    pub(crate) fn everyone(&self) -> Vec<(Slot, Serial)> {
        let all = self.clients.iter();
        all.map(|(slot, client)| (Slot::try_from(slot).unwrap_or(Slot::MAX), client.serial())).collect()
    }

    /// Bytes that wait because sockets take no more, or clients acknowledge nothing, with the slots of these clients.
    #[must_use]
    pub(crate) fn waiting(&self) -> Vec<(usize, Slot)> {
        let waiting = self.clients.iter().filter(|(_, client)| client.wire().is_flushing() || client.is_resumable());
        waiting.map(|(slot, client)| (waiting_bytes(client), Slot::try_from(slot).unwrap_or(Slot::MAX))).collect()
    }

    fn slots(&self, wanted: impl Fn(&Client) -> bool) -> Vec<Slot> {
        let chosen = self.clients.iter().filter(|(_, client)| wanted(client));
        chosen.map(|(slot, _)| Slot::try_from(slot).unwrap_or(Slot::MAX)).collect()
    }
}

/// Whether a filter includes a client.
fn matches(connections: &Connections, slot: Slot, filter: &ClientFilter) -> bool {
    connections.live(slot).is_some_and(|client| filter.matches(&FilteredClient { connections, client }))
}

/// Bytes that wait for a client because its socket takes no more, or because it does not acknowledge them.
fn waiting_bytes(client: &Client) -> usize {
    let unwritten = if client.wire().is_flushing() { client.wire().bytes() } else { 0 };
    unwritten + client.cold().resumption().map_or(0, |resumption| resumption.ownership().bytes())
}

#[cfg(test)]
mod tests;
