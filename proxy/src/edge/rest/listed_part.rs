//! Part of a list or count that one node answers: from its own shards, in short steps.
//!
//! ```text
//!  question ─► shard 0 ─► shard 1 ─► … ─► part of this node ─┐
//!  GET PART_PATH ─────────────────────► parts of others ─────┴─► merged: one page, or one number
//! ```
//!
//! Names are listed in alphabetical order. A part with more names than fit is cut, and a merged page ends where the
//! first cut part ends.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use trunkline_protocol::service::presence_weight;

use crate::engine::shard::{ShardSender, Shared, Slot};
use crate::engine::upstream::HubIndex;
use crate::features::inspection::{ClientSelection, Inspector, ListedNames};
use crate::fleet::PeerRequest;
use crate::ground::bounded::FirstNames;

/// Path at which nodes answer other nodes.
pub(crate) const PART_PATH: &str = "/api/rest/part";

/// Maximum bytes of names of a part. Escaped in JSON, they fit into the answer of a node.
const PART_MAX_BYTES: usize = 128 * 1024;

/// Maximum number of connections between two checks of the bytes.
const STEP_MAX: usize = 64;

/// Number of names from which counts are estimates, from the lowest hashes of names.
const EXACT_MAX: usize = 16_384;

/// Connections of a hub, of all clients or of some.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ConnectionSet {
    Hub,
    Group(String),
    User(String),
}

/// Shard and slot from which connections are listed.
pub(super) type ListPosition = (u16, Slot);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ListQuestion {
    /// Names after this one, in order.
    Names {
        names: ListedNames,
        after: Option<String>,
        most: usize,
    },
    Connections {
        set: ConnectionSet,
        from: ListPosition,
        most: usize,
    },
    CountNames(ListedNames),
    CountConnections(ConnectionSet),
}

/// Question for the part of another node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PartQuestion {
    /// Fleet-wide key of the hub.
    pub(super) hub: String,
    pub(super) question: ListQuestion,
}

/// Answer of one node. Only the members of its question are set.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ListedPart {
    pub(super) names: NamePart,
    pub(super) connections: Vec<(String, Option<String>)>,
    /// Start of the next part of connections.
    pub(super) next: Option<ListPosition>,
    pub(super) counted: DistinctNames,
    pub(super) count: u64,
}

/// Names in order, with their numbers of connections.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NamePart {
    pub(super) names: BTreeMap<String, u64>,
    /// Whether further names follow.
    pub(super) is_cut: bool,
}

/// Names seen so far, as the lowest of their hashes. Merged over shards and nodes, each name counts once.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct DistinctNames(BTreeSet<u64>);

impl PartQuestion {
    pub(super) fn request(&self) -> PeerRequest {
        let mut query = form_urlencoded::Serializer::new(String::new());
        // These values always have a JSON form.
        query.append_pair("question", &serde_json::to_string(self).unwrap_or_default());
        PeerRequest::get(format!("{PART_PATH}?{}", query.finish()))
    }

    /// Parses the query of a request. Fails if it is not a question of this version.
    pub(crate) fn from_query(query: &str) -> Result<Self, String> {
        let given = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "question");
        serde_json::from_str(&given.map(|(_, value)| value).unwrap_or_default()).map_err(|error| error.to_string())
    }

    /// Answers from the shards of this node; `None` during shutdown.
    pub(crate) async fn answer_part(self, shared: &Shared) -> Option<ListedPart> {
        let Self { hub, question } = self;
        let index = shared.hubs.keyed(&hub).map(|hub| hub.index());
        let mut part = ListedPart::default();
        match question {
            ListQuestion::Names { names, after, most } => {
                let first = || FirstNames::new(after.clone(), most, PART_MAX_BYTES);
                let mut stored = first();
                memberships(shared, &hub, &names).iter().for_each(|group| stored.take(group, 0));
                let mut parts = vec![NamePart::from(stored)];
                for shard in shards_with(shared, index) {
                    parts.push(shard.walk_names((&names, index?), first(), FirstNames::take).await?.into());
                }
                part.names = NamePart::merged(parts, most);
            }
            ListQuestion::CountNames(names) => {
                memberships(shared, &hub, &names).iter().for_each(|group| part.counted.add_name(group, 0));
                for shard in shards_with(shared, index) {
                    let counted = shard.walk_names((&names, index?), DistinctNames::default(), DistinctNames::add_name);
                    part.counted.merge(counted.await?);
                }
            }
            ListQuestion::Connections { set, from, most } => {
                if let Some(index) = index {
                    (part.connections, part.next) = connections(shared, set.selection(index), from, most).await?;
                }
            }
            ListQuestion::CountConnections(set) => {
                for shard in shards_with(shared, index) {
                    let which = set.selection(index?);
                    part.count +=
                        shard.inspect(move |state| Inspector::at_shard(state).set_size(&which) as u64).await?;
                }
            }
        }
        Some(part)
    }
}

/// Shards that may have clients of the hub; none if this node does not have the hub.
fn shards_with(shared: &Shared, hub: Option<HubIndex>) -> &[ShardSender] {
    if hub.is_some() { shared.shards() } else { &[] }
}

/// Stored memberships of a user, who may have no connection.
fn memberships(shared: &Shared, hub: &str, names: &ListedNames) -> Vec<String> {
    match names {
        ListedNames::GroupsOf(user) => {
            shared.user_groups.groups_of(hub, user).iter().map(ToString::to_string).collect()
        }
        ListedNames::Users | ListedNames::Groups => Vec::new(),
    }
}

/// Connections from this position on, and the next position.
async fn connections(
    shared: &Shared,
    which: ClientSelection,
    from: ListPosition,
    most: usize,
) -> Option<(Vec<(String, Option<String>)>, Option<ListPosition>)> {
    let ((mut at, mut slot), mut listed, mut bytes) = (from, Vec::new(), 0);
    while let Some(shard) = shared.shards().get(usize::from(at)) {
        if listed.len() >= most || bytes >= PART_MAX_BYTES {
            return Some((listed, Some((at, slot))));
        }
        let (which, room) = (which.clone(), (most - listed.len()).min(STEP_MAX));
        let (rows, next) = shard.inspect(move |state| Inspector::at_shard(state).ids(&which, slot, room)).await?;
        bytes += rows.iter().map(|(id, user)| id.len() + user.as_deref().map_or(0, str::len)).sum::<usize>();
        listed.extend(rows);
        (at, slot) = next.map_or((at.saturating_add(1), 0), |next| (at, next));
    }
    Some((listed, None))
}

impl ConnectionSet {
    fn selection(&self, hub: HubIndex) -> ClientSelection {
        match self {
            Self::Hub => ClientSelection::Hub(hub),
            Self::Group(name) => ClientSelection::Group(hub, name.clone()),
            Self::User(user) => ClientSelection::User(vec![hub], user.clone()),
        }
    }
}

impl From<FirstNames> for NamePart {
    fn from(first: FirstNames) -> Self {
        let (names, is_cut) = first.into_names();
        Self { names, is_cut }
    }
}

impl NamePart {
    /// Merges parts into a part with at most this many names. A name behind the end of a cut part may be incomplete.
    pub(super) fn merged(parts: impl IntoIterator<Item = Self>, most: usize) -> Self {
        let (mut merged, mut end): (BTreeMap<String, u64>, Option<String>) = (BTreeMap::new(), None);
        for Self { names, is_cut } in parts {
            if is_cut && let Some((last, _)) = names.last_key_value() {
                end = Some(end.map_or_else(|| last.clone(), |end| end.min(last.clone())));
            }
            names.into_iter().for_each(|(name, count)| *merged.entry(name).or_default() += count);
        }
        if let Some(end) = &end {
            merged.retain(|name, _| name <= end);
        }
        let (mut names, mut bytes, whole) = (BTreeMap::new(), 0, merged.len());
        for (name, count) in merged {
            bytes += name.len();
            if names.len() >= most || (bytes > PART_MAX_BYTES && !names.is_empty()) {
                break;
            }
            names.insert(name, count);
        }
        Self { is_cut: end.is_some() || names.len() < whole, names }
    }
}

impl DistinctNames {
    fn add_name(&mut self, name: &str, _connections: usize) {
        self.add_hash(presence_weight("", name));
    }

    fn add_hash(&mut self, hash: u64) {
        if self.0.len() < EXACT_MAX || self.0.last().is_some_and(|last| hash < *last) {
            self.0.insert(hash);
            if self.0.len() > EXACT_MAX {
                self.0.pop_last();
            }
        }
    }

    pub(super) fn merge(&mut self, other: Self) {
        other.0.into_iter().for_each(|hash| self.add_hash(hash));
    }

    /// Number of names, and whether it is an estimate.
    pub(super) fn count(&self) -> (u64, bool) {
        let exact = self.0.len() as u64;
        match self.0.last() {
            // Hashes are spread evenly, so the gaps between the lowest ones show how many there are.
            Some(&last) if self.0.len() >= EXACT_MAX => {
                let estimate = u128::from(exact - 1) * (1 << 64) / u128::from(last.max(1));
                (u64::try_from(estimate).unwrap_or(u64::MAX).max(exact), true)
            }
            _ => (exact, false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(names: &[&str], most: usize) -> NamePart {
        let mut first = FirstNames::new(None, most, PART_MAX_BYTES);
        names.iter().for_each(|name| first.take(name, 1));
        first.into()
    }

    fn names(part: &NamePart) -> Vec<(&str, u64)> {
        part.names.iter().map(|(name, count)| (name.as_str(), *count)).collect()
    }

    #[test]
    fn a_merged_page_ends_where_the_first_cut_part_ends() {
        let (one, other) = (part(&["d", "a", "b", "c", "a"], 2), part(&["e", "b", "c"], 9));
        assert_eq!((names(&one), one.is_cut), (vec![("a", 2), ("b", 1)], true));
        let merged = NamePart::merged([one, other.clone()], 9);
        assert_eq!((names(&merged), merged.is_cut), (vec![("a", 2), ("b", 2)], true), "c of the first part is missing");
        let rest = NamePart::merged([other], 2);
        assert_eq!((names(&rest), rest.is_cut), (vec![("b", 1), ("c", 1)], true));
        assert!(!NamePart::merged([part(&["a", "b"], 2)], 2).is_cut);
    }

    #[test]
    fn long_names_end_a_part_early_and_a_name_alone_is_never_too_long() {
        let long = |letter: char| letter.to_string().repeat(PART_MAX_BYTES / 2 + 1);
        let (a, b, c) = (long('a'), long('b'), long('c'));
        let cut = part(&[&b, &c, &a], 9);
        assert_eq!((cut.names.len(), cut.is_cut), (1, true));
        assert!(cut.names.contains_key(&a));
        let merged = NamePart::merged([part(&[&a], 9), part(&[&b], 9)], 9);
        assert_eq!((merged.names.len(), merged.is_cut), (1, true));
        assert_eq!(part(&[&a.repeat(3)], 9).names.len(), 1);
    }

    #[test]
    fn many_names_are_estimated_and_a_name_at_several_nodes_counts_once() {
        let counted = |range: std::ops::Range<usize>| {
            let mut counted = DistinctNames::default();
            range.for_each(|number| counted.add_name(&format!("user-{number}"), 1));
            counted
        };
        let (mut few, mut many) = (counted(0..9_000), counted(0..60_000));
        few.merge(counted(6_000..12_000));
        assert_eq!(few.count(), (12_000, false));
        many.merge(counted(40_000..100_000));
        let (count, is_estimate) = many.count();
        assert!(is_estimate && (96_000..104_000).contains(&count), "{count}");
    }

    #[test]
    fn a_question_is_read_back_by_another_node() {
        let question = ListQuestion::Names { names: ListedNames::GroupsOf("a&b\n".into()), after: None, most: 3 };
        let asked = PartQuestion { hub: "chat".into(), question: question.clone() };
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("question", &serde_json::to_string(&asked).unwrap());
        assert_eq!(PartQuestion::from_query(&query.finish()).unwrap().question, question);
        assert!(PartQuestion::from_query("question={}").is_err());
    }
}
