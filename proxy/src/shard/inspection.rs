//! What somebody who looks is told of a shard: in steps that are short, because meanwhile nobody is served.

use std::collections::BTreeMap;
use std::ops::Range;

use trunkline_protocol::id::ID_CHARS;
use trunkline_protocol::manifest::REMOTE_HEADER;
use trunkline_protocol::service::OpenConnection;

use super::close_reason::CloseReason;
use super::connection::{Census, Client, ClientKind, Connections, PauseReason, SetName, Slot, Status};
use super::state::ShardState;
use super::tap::{TapError, TapReport};
use crate::upstream::{AppServerId, HubIndex};

const MICROS_PER_SECOND: u64 = 1_000_000;

/// Places that are looked at before others get their turn: some tens of microseconds.
const STEP: usize = 1024;

/// Clients that are told of at a time: each one's opening has to be read.
const ROWS_STEP: usize = 64;

/// Groups of one client that are named.
const GROUPS_MAX: usize = 200;

/// Characters of a header's value that are shown.
const HEADER_MAX_CHARS: usize = 300;

/// Which clients are asked for.
#[derive(Debug, Clone)]
pub(crate) enum ClientFilter {
    Everyone,
    /// Those of a hub.
    Hub(HubIndex),
    /// The members of a group.
    Group(HubIndex, String),
    /// The connections of a user, at these hubs.
    User(Vec<HubIndex>, String),
}

/// What is told of a client in a list.
#[derive(Debug, Clone)]
pub(crate) struct ClientRow {
    /// As much of its id as is no secret: a whole one may be a token.
    pub id: String,
    pub hub: HubIndex,
    pub app: AppServerId,
    pub user: Option<String>,
    /// What it travels by.
    pub transport: &'static str,
    pub protocol: &'static str,
    /// Where it is in its life.
    pub state: &'static str,
    /// How long it is here, in seconds.
    pub age_s: u32,
    pub address: Option<String>,
}

/// What is told of one client.
#[derive(Debug, Clone)]
pub(crate) struct ClientDetails {
    /// As in a list.
    pub row: ClientRow,
    /// As what it shows itself.
    pub user_agent: Option<String>,
    /// The groups that it is in; of very many only some.
    pub groups: Vec<String>,
    /// How many these are.
    pub group_count: usize,
    /// What waits for it, in bytes.
    pub outbox_bytes: usize,
    /// Its calls that are not answered.
    pub pending_calls: usize,
    /// How long ago something came from it, in seconds.
    pub heard_s: u32,
    /// How long ago something was sent to it.
    pub sent_s: u32,
}

/// The first names of sets after one, in their order, with the numbers of their members.
#[derive(Debug)]
pub(crate) struct NameSearch {
    /// The names found so far.
    pub found: BTreeMap<String, u64>,
    hub: HubIndex,
    are_users: bool,
    after: Option<String>,
    most: usize,
    from: usize,
}

impl NameSearch {
    /// The first `most` groups of a hub after one.
    #[must_use]
    pub(crate) fn groups(hub: HubIndex, after: Option<String>, most: usize) -> Self {
        Self { found: BTreeMap::new(), hub, are_users: false, after, most, from: 0 }
    }

    /// The first `most` users of a hub after one.
    #[must_use]
    pub(crate) fn users(hub: HubIndex, after: Option<String>, most: usize) -> Self {
        Self { are_users: true, ..Self::groups(hub, after, most) }
    }

    fn take(&mut self, hub: HubIndex, name: SetName<'_>, members: usize) {
        let name = match name {
            SetName::Group(name) if !self.are_users => name,
            SetName::User(name) if self.are_users => name,
            _ => return,
        };
        let is_late = || {
            self.found.len() >= self.most && self.found.last_key_value().is_some_and(|(last, _)| name > last.as_str())
        };
        if hub != self.hub || self.after.as_deref().is_some_and(|after| name <= after) || is_late() {
            return;
        }
        self.found.insert(name.to_owned(), members as u64);
        if self.found.len() > self.most {
            self.found.pop_last();
        }
    }
}

impl ShardState {
    /// How many clients there are of each kind.
    #[must_use]
    pub(crate) fn census(&self) -> Census {
        self.connections.census().clone()
    }

    /// Looks for names; `true` when all were looked at.
    pub(crate) fn search_names(&self, names: &mut NameSearch) -> bool {
        let connections = &self.connections;
        let (step, is_last) = step(names.from, connections.set_entries());
        names.from = step.end;
        connections.set_range(step).for_each(|(hub, name, members)| names.take(hub, name, members));
        is_last
    }

    /// Some of the clients that are asked for, at most `most`, from this place on, and the place to go on from.
    #[must_use]
    pub(crate) fn list(&self, which: &ClientFilter, from: Slot, most: usize) -> (Vec<ClientRow>, Option<Slot>) {
        let connections = &self.connections;
        let most = most.min(ROWS_STEP);
        let (slots, next) = match which {
            ClientFilter::Everyone => stretch(connections, from, most, |_| true),
            ClientFilter::Hub(hub) => stretch(connections, from, most, |client| client.home.hub() == *hub),
            ClientFilter::Group(hub, name) => {
                first(members(connections, *hub, SetName::Group(name), from).collect(), most)
            }
            ClientFilter::User(hubs, name) => {
                let of = |hub: &HubIndex| members(connections, *hub, SetName::User(name), from);
                first(hubs.iter().flat_map(of).collect(), most)
            }
        };
        let rows = slots.into_iter().filter_map(|slot| {
            let client = connections.get(slot).filter(|client| !client.is_closing())?;
            Some(self.row(client, opening(client).as_ref()))
        });
        (rows.collect(), next)
    }

    /// How many members a set has here.
    #[must_use]
    pub(crate) fn set_size(&self, which: &ClientFilter) -> usize {
        let connections = &self.connections;
        match which {
            ClientFilter::Everyone => 0,
            ClientFilter::Hub(hub) => connections.members(*hub, SetName::Hub).len(),
            ClientFilter::Group(hub, name) => connections.members(*hub, SetName::Group(name)).len(),
            ClientFilter::User(hubs, name) => {
                hubs.iter().map(|hub| connections.members(*hub, SetName::User(name)).len()).sum::<usize>()
            }
        }
    }

    /// All that is told of a client.
    #[must_use]
    pub(crate) fn details(&self, slot: Slot, id: &str) -> Option<ClientDetails> {
        let connections = &self.connections;
        let client = connections.find_shown(slot, id)?;
        let open = opening(client);
        let groups = connections.sets_of(client).filter_map(|set| match set {
            SetName::Group(name) => Some(name.to_owned()),
            SetName::Hub | SetName::User(_) => None,
        });
        let mut groups: Vec<_> = groups.collect();
        let group_count = groups.len();
        groups.sort_unstable();
        groups.truncate(GROUPS_MAX);
        let ago = |tick: u32| self.tick.saturating_sub(tick);
        Some(ClientDetails {
            row: self.row(client, open.as_ref()),
            user_agent: open.as_ref().and_then(|open| header(open, "user-agent")),
            groups,
            group_count,
            outbox_bytes: client.outbox.bytes(),
            pending_calls: client.cold.calls.count(),
            heard_s: ago(client.last_heard),
            sent_s: ago(client.last_sent),
        })
    }

    /// Closes a client by hand; `false` when it is not here.
    pub(crate) fn close_by_operator(&mut self, slot: Slot, id: &str, reason: Option<&str>) -> bool {
        if self.connections.find_shown(slot, id).is_none() {
            return false;
        }
        self.close(slot, &CloseReason::by_operator(reason));
        self.finish_batch();
        true
    }

    /// Begins to tap a client; the number names the tap.
    ///
    /// # Errors
    /// When the client is not here, or too many are tapped.
    pub(crate) fn tap(&mut self, slot: Slot, id: &str, with_payloads: bool) -> Result<u64, TapError> {
        let content = self.connections.find_shown(slot, id).ok_or(TapError::Unknown)?.content;
        self.delivery.taps.begin(slot, content, with_payloads).ok_or(TapError::TooMany)
    }

    /// Messages that a tap has seen since it was read last; `None` when it has ended.
    #[must_use]
    pub(crate) fn read_tap(&mut self, number: u64) -> Option<TapReport> {
        self.delivery.taps.report(number)
    }

    pub(crate) fn end_tap(&mut self, number: u64) {
        self.delivery.taps.end(number);
    }

    fn row(&self, client: &Client, open: Option<&OpenConnection>) -> ClientRow {
        let user = self.connections.sets_of(client).find_map(|set| match set {
            SetName::User(name) => Some(name.to_owned()),
            SetName::Hub | SetName::Group(_) => None,
        });
        let ClientKind { hub, app, transport, protocol } = ClientKind::of(client);
        ClientRow {
            id: client.id.get(..ID_CHARS).unwrap_or(&client.id).into(),
            hub,
            app,
            user,
            transport,
            protocol,
            state: state(client),
            age_s: u32::try_from(self.context.now_us().saturating_sub(client.cold.opened_us) / MICROS_PER_SECOND)
                .unwrap_or(u32::MAX),
            address: open.and_then(|open| header(open, REMOTE_HEADER)),
        }
    }
}

fn step(from: usize, places: usize) -> (Range<usize>, bool) {
    let end = from.saturating_add(STEP).min(places).max(from);
    (from..end, end >= places)
}

fn state(client: &Client) -> &'static str {
    match client.status {
        Status::Opening { .. } => "opening",
        Status::Closing { .. } => "closing",
        Status::Open if client.pause_reasons().contains(PauseReason::Unassigned) => "held",
        Status::Open if !client.pause_reasons().are_none() => "paused",
        Status::Open => "open",
    }
}

/// The first `most` that are wanted, of a stretch of all places, and where the next stretch begins.
fn stretch(
    connections: &Connections,
    from: Slot,
    most: usize,
    is_wanted: impl Fn(&Client) -> bool,
) -> (Vec<Slot>, Option<Slot>) {
    let (range, is_last) = step(from as usize, connections.slot_count());
    let end = Slot::try_from(range.end).unwrap_or(Slot::MAX);
    let wanted = connections.range(range).filter(|(_, client)| !client.is_closing() && is_wanted(client));
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

/// The `most` lowest places, and the next one.
fn first(mut slots: Vec<Slot>, most: usize) -> (Vec<Slot>, Option<Slot>) {
    let mut next = None;
    if slots.len() > most {
        // Not all have to be put in order for it.
        next = Some(*slots.select_nth_unstable(most).1);
        slots.truncate(most);
    }
    slots.sort_unstable();
    (slots, next)
}

fn opening(client: &Client) -> Option<OpenConnection> {
    client.cold.opening.as_ref()?.read()
}

fn header(open: &OpenConnection, name: &str) -> Option<String> {
    let (_, values) = open.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
    Some(values.first()?.chars().take(HEADER_MAX_CHARS).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_places_come_first_and_the_next_one_is_told() {
        assert_eq!(first(vec![9, 3, 7, 1], 2), (vec![1, 3], Some(7)));
        assert_eq!(first(vec![9, 3], 2), (vec![3, 9], None));
        assert_eq!(first(Vec::new(), 2), (Vec::new(), None));
    }

    #[test]
    fn steps_cover_all_places_once_and_end() {
        let (mut from, mut seen) = (0, 0);
        loop {
            let (range, is_last) = step(from, 2 * STEP + 5);
            (from, seen) = (range.end, seen + range.len());
            if is_last {
                break;
            }
        }
        assert_eq!(seen, 2 * STEP + 5);
        assert_eq!(step(7, 0), (7..7, true), "places may have become fewer");
    }

    #[test]
    fn of_many_names_the_first_are_kept() {
        let hub = HubIndex::from(1);
        let mut names = NameSearch::groups(hub, Some("b".into()), 2);
        for name in ["f", "a", "d", "b", "c", "e"] {
            names.take(hub, SetName::Group(name), 3);
        }
        names.take(HubIndex::from(0), SetName::Group("bb"), 1);
        names.take(hub, SetName::User("bc"), 1);
        assert_eq!(names.found, BTreeMap::from([("c".into(), 3), ("d".into(), 3)]));
    }
}
