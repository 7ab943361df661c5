//! Who is here: the client connections of one shard, and the sets (hub, user, groups) that they belong to.
//!
//! Owned by one thread, so there is no lock; membership lives here and not with an app server, so it outlives one.

mod calls;
mod census;
mod client;
mod kept;
mod opening;
mod routes;
mod sets;

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use slab::Slab;

use crate::upstream::{AppServerId, HomeLink, HubIndex, LinkId};

pub(crate) use calls::Calls;
pub(crate) use census::{Census, Kind};
pub(crate) use client::{Client, Content, Status};
pub(crate) use kept::{Hold, Holds, Kept};
pub(crate) use opening::{Alike, Opening};
pub(crate) use routes::{Place, ReserveError, Routes};
use sets::Sets;
pub(crate) use sets::{Member, SetName};

/// A client connection's place in its shard. Places are used again: a [`Serial`] tells whose it is.
pub(crate) type Slot = u32;

/// Counts the client connections of a shard, to tell two of the same place apart.
pub(crate) type Serial = u32;

/// The client connections of one shard.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    clients: Slab<Client>,
    sets: Sets,
    census: Census,
    mark: u64,
}

impl Directory {
    /// Takes a new client connection in, and makes it a member of its hub and of its user's connections.
    pub(crate) fn insert(&mut self, client: Client, user: Option<&str>) -> Slot {
        let hub = client.home.hub();
        self.census.add(Kind::of(&client));
        let slot = Slot::try_from(self.clients.insert(client)).unwrap_or(Slot::MAX);
        self.join(slot, hub, SetName::Hub);
        if let Some(user) = user {
            self.join(slot, hub, SetName::User(user));
        }
        slot
    }

    /// A client connection ends: until this tick its socket may take what waits, but nobody finds it any more.
    pub(crate) fn close(&mut self, slot: Slot, until: u32) {
        let Some(client) = self.clients.get_mut(slot as usize).filter(|client| !client.is_closing()) else { return };
        client.status = Status::Closing { until };
        client.release_all();
        self.census.take(Kind::of(client));
        self.sets.leave_all(&mut self.clients, slot);
    }

    /// Frees the place of a client connection.
    pub(crate) fn remove(&mut self, slot: Slot) -> Option<Client> {
        self.close(slot, 0);
        self.clients.try_remove(slot as usize)
    }

    /// A client connection has another home.
    pub(crate) fn move_to(&mut self, slot: Slot, home: &HomeLink) {
        let Some(client) = self.clients.get_mut(slot as usize).filter(|client| !client.is_closing()) else { return };
        self.census.take(Kind::of(client));
        client.home = Arc::clone(home);
        self.census.add(Kind::of(client));
    }

    /// How many there are of each kind.
    #[must_use]
    pub(crate) fn census(&self) -> &Census {
        &self.census
    }

    /// The client connection at this place.
    #[must_use]
    pub(crate) fn get(&self, slot: Slot) -> Option<&Client> {
        self.clients.get(slot as usize)
    }

    /// The client connection at this place, to change it.
    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut Client> {
        self.clients.get_mut(slot as usize)
    }

    /// The client connection at this place, if it is still the one that is meant.
    pub(crate) fn get_same(&mut self, slot: Slot, serial: Serial) -> Option<&mut Client> {
        self.get_mut(slot).filter(|client| client.serial == serial)
    }

    /// Makes a client connection a member of a set; again is fine.
    pub(crate) fn join(&mut self, slot: Slot, hub: HubIndex, name: SetName<'_>) {
        self.sets.join(&mut self.clients, slot, hub, name);
    }

    /// Ends a membership; none is fine.
    pub(crate) fn leave(&mut self, slot: Slot, hub: HubIndex, name: SetName<'_>) {
        self.sets.leave(&mut self.clients, slot, hub, name);
    }

    /// Ends a client connection's memberships in groups, but not in its hub and user.
    pub(crate) fn leave_groups(&mut self, slot: Slot) {
        self.sets.leave_groups(&mut self.clients, slot);
    }

    /// How many groups with members and how many users with connections there are.
    #[must_use]
    pub(crate) fn group_and_user_counts(&self) -> (usize, usize) {
        self.sets.counts()
    }

    /// The members of a set; empty for a set that doesn't exist.
    #[must_use]
    pub(crate) fn members(&self, hub: HubIndex, name: SetName<'_>) -> &[Member] {
        self.sets.members(hub, name)
    }

    /// The members of a set, and the clients to change them by.
    pub(crate) fn members_and_clients(&mut self, hub: HubIndex, name: SetName<'_>) -> (&[Member], &mut Slab<Client>) {
        (self.sets.members(hub, name), &mut self.clients)
    }

    /// How many places for clients there are, empty ones included.
    #[must_use]
    pub(crate) fn places(&self) -> usize {
        self.clients.capacity()
    }

    /// The client connections of these places: so all can be looked at in steps.
    pub(crate) fn range(&self, places: Range<usize>) -> impl Iterator<Item = (Slot, &Client)> {
        let clients = places.filter_map(|place| Some((place, self.clients.get(place)?)));
        clients.map(|(place, client)| (Slot::try_from(place).unwrap_or(Slot::MAX), client))
    }

    /// How many places for sets there are, empty ones included.
    #[must_use]
    pub(crate) fn set_places(&self) -> usize {
        self.sets.places()
    }

    /// The sets of these places, with the numbers of their members.
    pub(crate) fn set_range(&self, places: Range<usize>) -> impl Iterator<Item = (HubIndex, SetName<'_>, usize)> {
        self.sets.range(places)
    }

    /// The sets that a client is a member of.
    pub(crate) fn sets_of<'a>(&'a self, client: &'a Client) -> impl Iterator<Item = SetName<'a>> {
        self.sets.of(client)
    }

    /// Whether a client is a member of this set.
    #[must_use]
    pub(crate) fn is_member(&self, client: &Client, hub: HubIndex, name: SetName<'_>) -> bool {
        self.sets.has(client, hub, name)
    }

    /// A fresh mark: clients that are given it are told apart from all others without a list.
    pub(crate) fn next_mark(&mut self) -> u64 {
        // 64 bits never come around: a client that was left out once is not left out again by chance.
        self.mark += 1;
        self.mark
    }

    /// The places of all whose home is this link.
    #[must_use]
    pub(crate) fn at_home(&self, link: LinkId) -> Vec<Slot> {
        self.slots(|client| client.home.id() == link)
    }

    /// The places of all whose home is at this app server, at this hub.
    #[must_use]
    pub(crate) fn at_app(&self, hub: HubIndex, app: AppServerId) -> Vec<Slot> {
        self.slots(|client| client.home.app() == app && client.home.hub() == hub)
    }

    /// The places of all, and whose they are.
    #[must_use]
    pub(crate) fn everyone(&self) -> Vec<(Slot, Serial)> {
        let all = self.clients.iter();
        all.map(|(slot, client)| (Slot::try_from(slot).unwrap_or(Slot::MAX), client.serial)).collect()
    }

    /// The bytes that wait because sockets take no more, with the places of their clients.
    #[must_use]
    pub(crate) fn waiting(&self) -> Vec<(usize, Slot)> {
        let waiting = self.clients.iter().filter(|(_, client)| client.is_flushing);
        waiting.map(|(slot, client)| (client.outbox.bytes(), Slot::try_from(slot).unwrap_or(Slot::MAX))).collect()
    }

    fn slots(&self, wanted: impl Fn(&Client) -> bool) -> Vec<Slot> {
        let chosen = self.clients.iter().filter(|(_, client)| wanted(client));
        chosen.map(|(slot, _)| Slot::try_from(slot).unwrap_or(Slot::MAX)).collect()
    }
}

/// A name that several own.
type Name = Rc<str>;
