//! Inspection of shards by the observer, REST and conditions, in short steps because a shard serves no clients
//! meanwhile.

mod lost_app_server;
mod straggler;

use std::collections::HashMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use trunkline_protocol::id::ID_CHARS;
use trunkline_protocol::manifest::REMOTE_HEADER;
use trunkline_protocol::service::{OpenConnection, header};

use crate::engine::shard::{
    Census, Client, ClientKind, Connections, LifeStage, SetName, ShardSender, ShardState, Slot, SlotWalk,
};
use crate::engine::upstream::{AppServerId, HubIndex};

pub(crate) use lost_app_server::{count_clients, hub_names, warn_of_lost_app_server};
pub(crate) use straggler::Stragglers;

const MICROS_PER_SECOND: u64 = 1_000_000;

/// Maximum number of rows per step. Each requires decoding an opening frame.
const ROWS_STEP: usize = 64;

/// Maximum number of groups listed for one client.
const GROUPS_MAX: usize = 200;

/// Maximum number of characters of a header value.
const HEADER_MAX_CHARS: usize = 300;

#[derive(Debug, Clone)]
pub(crate) enum ClientSelection {
    Everyone,
    Hub(HubIndex),
    Group(HubIndex, String),
    /// Connections of a user at these hubs.
    User(Vec<HubIndex>, String),
}

#[derive(Debug, Clone)]
pub(crate) struct ClientRow {
    /// First part of the id; the whole id may serve as a token.
    pub id: String,
    pub hub: HubIndex,
    pub app: AppServerId,
    pub user: Option<String>,
    pub transport: &'static str,
    pub protocol: &'static str,
    pub is_compressed: bool,
    pub state: &'static str,
    pub age_s: u32,
    pub address: Option<String>,
}

#[derive(Debug, Clone)]
pub(crate) struct ClientInspection {
    pub row: ClientRow,
    pub user_agent: Option<String>,
    /// Groups of the client, up to a limit.
    pub groups: Vec<String>,
    pub group_count: usize,
    pub outbox_bytes: usize,
    pub pending_calls: usize,
    /// Seconds since data was last received.
    pub heard_s: u32,
    /// Seconds since data was last sent.
    pub sent_s: u32,
    /// Close time with the token, in seconds since 1970.
    pub token_ends_s: Option<u64>,
}

/// Names listed by the observer and the data plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ListedNames {
    Users,
    Groups,
    /// Groups of a user's connections.
    GroupsOf(String),
}

/// Read-only view of a shard for the observer and the data plane.
#[derive(Debug)]
pub(crate) struct Inspector<'a> {
    shard: &'a ShardState,
    connections: &'a Connections,
}

impl<'a> Inspector<'a> {
    pub(crate) fn at_shard(shard: &'a ShardState) -> Self {
        Self { shard, connections: &shard.core.connections }
    }

    pub(crate) fn census(&self) -> Census {
        self.connections.census().clone()
    }

    /// Passes the names of one step, with their numbers of connections, to `take`. A name may be passed several times.
    /// Returns the start of the next step.
    fn walk_names(
        &self,
        hub: HubIndex,
        names: &ListedNames,
        from: usize,
        mut take: impl FnMut(&str, usize),
    ) -> Option<usize> {
        let connections = self.connections;
        if let ListedNames::GroupsOf(user) = names {
            let from = Slot::try_from(from).unwrap_or(Slot::MAX);
            let slots = members(connections, hub, SetName::User(user), from).collect();
            let (slots, next) = first(slots, ROWS_STEP);
            for set in
                slots.into_iter().filter_map(|slot| connections.get(slot)).flat_map(|of| connections.sets().sets_of(of))
            {
                if let SetName::Group(name) = set {
                    take(name, 1);
                }
            }
            return next.map(|slot| slot as usize);
        }
        let (step, is_last) = step(from, connections.sets().entries());
        let next = (!is_last).then_some(step.end);
        for (_, set, members) in connections.sets().range(step).filter(|(of, ..)| *of == hub) {
            match (set, names) {
                (SetName::User(name), ListedNames::Users) | (SetName::Group(name), ListedNames::Groups) => {
                    take(name, members);
                }
                _ => {}
            }
        }
        next
    }

    /// Ids and users of up to `most` clients that match the filter, starting at slot `from`, with the next start slot.
    pub(crate) fn ids(
        &self,
        which: &ClientSelection,
        from: Slot,
        most: usize,
    ) -> (Vec<(String, Option<String>)>, Option<Slot>) {
        let (slots, next) = self.select(which, from, most);
        let clients = slots.into_iter().filter_map(|slot| self.connections.live(slot));
        let row = |client: &Client| (client.id.to_string(), self.connections.user_of(client).map(str::to_owned));
        (clients.map(row).collect(), next)
    }

    fn select(&self, which: &ClientSelection, from: Slot, most: usize) -> (Vec<Slot>, Option<Slot>) {
        let connections = self.connections;
        match which {
            ClientSelection::Everyone => stretch(connections, from, most, |_| true),
            ClientSelection::Hub(hub) => stretch(connections, from, most, |client| client.home().hub() == *hub),
            ClientSelection::Group(hub, name) => {
                first(members(connections, *hub, SetName::Group(name), from).collect(), most)
            }
            ClientSelection::User(hubs, name) => {
                let of = |hub: &HubIndex| members(connections, *hub, SetName::User(name), from);
                first(hubs.iter().flat_map(of).collect(), most)
            }
        }
    }

    /// Up to `most` clients that match the filter, starting at slot `from`, with the next start slot.
    pub(crate) fn list(&self, which: &ClientSelection, from: Slot, most: usize) -> (Vec<ClientRow>, Option<Slot>) {
        let connections = self.connections;
        let (slots, next) = self.select(which, from, most.min(ROWS_STEP));
        let rows = slots.into_iter().filter_map(|slot| {
            let client = connections.get(slot).filter(|client| !client.life().is_closed())?;
            Some(self.row(client, opening(client).as_ref()))
        });
        (rows.collect(), next)
    }

    /// Number of clients in the filter's set; 0 for another filter.
    #[must_use]
    pub(crate) fn set_size(&self, which: &ClientSelection) -> usize {
        let connections = self.connections;
        match which {
            ClientSelection::Everyone => 0,
            ClientSelection::Hub(hub) => connections.members(*hub, SetName::Hub).len(),
            ClientSelection::Group(hub, name) => connections.members(*hub, SetName::Group(name)).len(),
            ClientSelection::User(hubs, name) => {
                hubs.iter().map(|hub| connections.members(*hub, SetName::User(name)).len()).sum::<usize>()
            }
        }
    }

    pub(crate) fn details(&self, slot: Slot, id: &str) -> Option<ClientInspection> {
        let connections = self.connections;
        let client = connections.find_shown(slot, id)?;
        let open = opening(client);
        let groups = connections.sets().sets_of(client).filter_map(|set| match set {
            SetName::Group(name) => Some(name.to_owned()),
            SetName::Hub | SetName::User(_) => None,
        });
        let mut groups: Vec<_> = groups.collect();
        let group_count = groups.len();
        groups.sort_unstable();
        groups.truncate(GROUPS_MAX);
        let ago = |tick: u32| self.shard.core.tick().saturating_sub(tick);
        Some(ClientInspection {
            row: self.row(client, open.as_ref()),
            user_agent: open.as_ref().and_then(|open| cut_header(open, "user-agent")),
            groups,
            group_count,
            outbox_bytes: client.wire().bytes(),
            pending_calls: client.assignments().home().calls().count(),
            heard_s: ago(client.liveness().last_received()),
            sent_s: ago(client.liveness().last_sent()),
            token_ends_s: self.shard.assignments.token_expiries.expiry_of(slot),
        })
    }

    fn row(&self, client: &Client, open: Option<&OpenConnection>) -> ClientRow {
        let user = self.connections.sets().sets_of(client).find_map(|set| match set {
            SetName::User(name) => Some(name.to_owned()),
            SetName::Hub | SetName::Group(_) => None,
        });
        let ClientKind { hub, app, transport, protocol } = ClientKind::kind_of(client);
        let age_us = self.shard.core.context.now_us().saturating_sub(client.cold().origin().opened_us);
        ClientRow {
            id: client.id.get(..ID_CHARS).unwrap_or(&client.id).into(),
            hub,
            app,
            user,
            transport,
            protocol,
            is_compressed: client.form().is_compressed(),
            state: state(client),
            age_s: u32::try_from(age_us / MICROS_PER_SECOND).unwrap_or(u32::MAX),
            address: open.and_then(|open| cut_header(open, REMOTE_HEADER)),
        }
    }
}

impl ShardSender {
    /// Passes all names of a hub, with their numbers of connections, to `take` in short steps. `None` during shutdown.
    pub(crate) async fn walk_names<C: Send + 'static>(
        &self,
        (names, hub): (&ListedNames, HubIndex),
        mut collected: C,
        take: fn(&mut C, &str, usize),
    ) -> Option<C> {
        let mut from = Some(0);
        while let Some(start) = from {
            let names = names.clone();
            let step = self.inspect(move |state| {
                let next = Inspector::at_shard(state)
                    .walk_names(hub, &names, start, |name, of| take(&mut collected, name, of));
                (collected, next)
            });
            (collected, from) = step.await?;
        }
        Some(collected)
    }
}

/// Range of slots or sets for one step, and whether it is the last one.
fn step(from: usize, slots: usize) -> (Range<usize>, bool) {
    let mut walk = SlotWalk::onward(from);
    (walk.step(slots), walk.is_over(slots))
}

fn state(client: &Client) -> &'static str {
    match client.life().stage() {
        LifeStage::Opening { .. } => "opening",
        LifeStage::Closed => "closing",
        LifeStage::Open | LifeStage::Leaving(_) => match client.is_away() {
            true => "away",
            false if client.is_unassigned() => "held",
            false if !client.pauses().is_empty() => "paused",
            false => "open",
        },
    }
}

/// First `most` matching slots of a range, and the start of the next range.
fn stretch(
    connections: &Connections,
    from: Slot,
    most: usize,
    is_wanted: impl Fn(&Client) -> bool,
) -> (Vec<Slot>, Option<Slot>) {
    let (range, is_last) = step(from as usize, connections.slot_count());
    let end = Slot::try_from(range.end).unwrap_or(Slot::MAX);
    let wanted = connections.range(range).filter(|(_, client)| !client.life().is_closed() && is_wanted(client));
    let mut slots: Vec<_> = wanted.map(|(slot, _)| slot).take(most.saturating_add(1)).collect();
    if slots.len() > most {
        let next = slots.pop();
        return (slots, next);
    }
    (slots, (!is_last).then_some(end))
}

fn members<'a>(
    connections: &'a Connections,
    hub: HubIndex,
    name: SetName<'_>,
    from: Slot,
) -> impl Iterator<Item = Slot> + use<'a> {
    connections.members(hub, name).iter().map(|member| member.slot).filter(move |slot| *slot >= from)
}

/// Lowest `most` slots, sorted, and the next slot.
fn first(mut slots: Vec<Slot>, most: usize) -> (Vec<Slot>, Option<Slot>) {
    let mut next = None;
    if slots.len() > most {
        // Only the selected slots have to be sorted.
        next = Some(*slots.select_nth_unstable(most).1);
        slots.truncate(most);
    }
    slots.sort_unstable();
    (slots, next)
}

fn opening(client: &Client) -> Option<OpenConnection> {
    client.cold().read_opening()
}

fn cut_header(open: &OpenConnection, name: &str) -> Option<String> {
    Some(header(&open.headers, name)?.chars().take(HEADER_MAX_CHARS).collect())
}

/// Clients of a hub that wait for an app server.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct UnassignedClients {
    pub count: usize,
    /// Longest wait, in seconds.
    pub waited_s: u32,
}

impl UnassignedClients {
    pub(crate) fn merge_others(&mut self, others: Self) {
        self.count += others.count;
        self.waited_s = self.waited_s.max(others.waited_s);
    }
}

pub(crate) fn unassigned_by_hub(state: &ShardState) -> HashMap<HubIndex, UnassignedClients> {
    let mut hubs = HashMap::<_, UnassignedClients>::new();
    for slot in state.assignments.reassignment.unassigned() {
        if let Some(client) = state.core.connections.live(slot) {
            let since = client.assignments().home().waits_since().unwrap_or(state.core.tick());
            let waited_s = state.core.tick().saturating_sub(since);
            hubs.entry(client.home().hub()).or_default().merge_others(UnassignedClients { count: 1, waited_s });
        }
    }
    hubs
}

/// Time after which a call counts as queued, and number of such calls from which a client has a queue: more than
/// clients call in parallel.
const QUEUED_AFTER_S: u32 = 8;
const QUEUED_MIN: usize = 10;

/// Clients of a hub with calls that wait.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WaitingCalls {
    /// Clients with a call that has waited for too long.
    pub hung: HungCalls,
    /// Clients with many calls that wait: each starts after the earlier ones.
    pub queued: HungCalls,
}

impl WaitingCalls {
    pub(crate) fn merge_others(&mut self, others: Self) {
        self.hung.merge_others(others.hung);
        self.queued.merge_others(others.queued);
    }
}

/// Clients of a hub with calls that have waited for too long.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct HungCalls {
    pub clients: u64,
    /// Longest wait, in seconds.
    pub longest_s: u32,
}

impl HungCalls {
    fn merge_others(&mut self, others: Self) {
        self.clients += others.clients;
        self.longest_s = self.longest_s.max(others.longest_s);
    }
}

/// Search over all clients of a shard.
#[derive(Debug)]
pub(crate) struct HungCallSearch {
    pub found: HashMap<HubIndex, WaitingCalls>,
    after_s: u32,
    walk: SlotWalk,
}

impl HungCallSearch {
    pub(crate) fn new(after_s: u32) -> Self {
        Self { found: HashMap::new(), after_s, walk: SlotWalk::onward(0) }
    }

    /// Searches the next clients. Returns `true` after the last ones.
    pub(crate) fn step(&mut self, state: &mut ShardState) -> bool {
        let (slots, now) = (state.core.connections.slot_count(), state.core.tick());
        for slot in self.walk.step(slots).filter_map(|slot| Slot::try_from(slot).ok()) {
            let Some(client) = state.core.connections.live_mut(slot) else { continue };
            let (mut longest_s, mut queued) = (0, 0);
            for wait_s in client.assignments_mut().call_waits(now) {
                longest_s = wait_s.max(longest_s);
                queued += usize::from(wait_s >= QUEUED_AFTER_S);
            }
            let client_if =
                |is_found| if is_found { HungCalls { clients: 1, longest_s } } else { HungCalls::default() };
            let (hung, queued) = (client_if(longest_s >= self.after_s), client_if(queued >= QUEUED_MIN));
            if hung.clients + queued.clients > 0 {
                self.found.entry(client.home().hub()).or_default().merge_others(WaitingCalls { hung, queued });
            }
        }
        self.walk.is_over(slots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_slots_come_first_and_the_next_one_is_returned() {
        assert_eq!(first(vec![9, 3, 7, 1], 2), (vec![1, 3], Some(7)));
        assert_eq!(first(vec![9, 3], 2), (vec![3, 9], None));
        assert_eq!(first(Vec::new(), 2), (Vec::new(), None));
    }
}
