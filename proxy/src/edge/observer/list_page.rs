//! Filters, cursors and pages of lists. Merged pages of names are exact: any shard or node with one of the first names
//! returns it among its own first names.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::engine::shard::Slot;

/// Page of a list.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListPage<T> {
    /// Rows of the page.
    pub items: Vec<T>,
    /// `after` value of the next page; `None` on the last one.
    pub next: Option<String>,
    /// Length of the whole list, if available without counting.
    pub total: Option<u64>,
}

/// Page of names with their numbers of client connections.
pub(crate) type NamePage = ListPage<(String, u64)>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NameKind {
    Groups,
    Users,
}

impl NameKind {
    /// Last path segment of the list in the API.
    #[must_use]
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Groups => "groups",
            Self::Users => "users",
        }
    }
}

/// Merged names of several shards or nodes.
#[derive(Debug, Default)]
pub(super) struct NameSum(BTreeMap<String, u64>);

impl NameSum {
    pub(super) fn add_names(&mut self, names: impl IntoIterator<Item = (String, u64)>) {
        names.into_iter().for_each(|(name, clients)| *self.0.entry(name).or_default() += clients);
    }

    pub(super) fn into_page(self, limit: usize) -> NamePage {
        let is_more = self.0.len() > limit;
        let items: Vec<_> = self.0.into_iter().take(limit).collect();
        let next = items.last().filter(|_| is_more).map(|(name, _)| name.clone());
        ListPage { items, next, total: None }
    }
}

/// Selection of client connections: filters, and cursors into the list across all nodes.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClientFilter {
    pub hub: Option<String>,
    /// Group within the `hub`.
    pub group: Option<String>,
    pub user: Option<String>,
    pub node: Option<String>,
    pub after: Option<ClientCursor>,
    pub limit: usize,
}

/// Position in the list of all client connections, ordered by node, instance, shard and slot.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ClientCursor {
    pub(super) node: String,
    pub(super) instance: String,
    pub(super) shard: u16,
    pub(super) slot: Slot,
}

impl ClientCursor {
    /// Position of the first connection of a node.
    pub(super) fn start_of(node: &str, instance: &str) -> Self {
        Self { node: node.into(), instance: instance.into(), shard: 0, slot: 0 }
    }

    /// Position of a slot at the same node.
    pub(super) fn at(&self, shard: u16, slot: Slot) -> Self {
        Self { shard, slot, ..self.clone() }
    }
}

impl fmt::Display for ClientCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}~{}~{}~{}", self.node, self.instance, self.shard, self.slot)
    }
}

impl FromStr for ClientCursor {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let problem = "is not the `next` of a page";
        let mut parts = text.split('~');
        let mut part = || parts.next().ok_or(problem);
        let (node, instance) = (part()?.into(), part()?.into());
        let (shard, slot) = (part()?.parse().map_err(|_| problem)?, part()?.parse().map_err(|_| problem)?);
        if parts.next().is_some() { Err(problem) } else { Ok(Self { node, instance, shard, slot }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(parts: &[&[(&str, u64)]]) -> NameSum {
        let mut sum = NameSum::default();
        parts.iter().for_each(|part| sum.add_names(part.iter().map(|(name, clients)| ((*name).to_owned(), *clients))));
        sum
    }

    #[test]
    fn a_page_of_names_shows_whether_another_page_follows() {
        let all: &[(&str, u64)] = &[("a", 1), ("b", 2), ("c", 3)];
        let page = sum(&[all]).into_page(2);
        assert_eq!((page.items.len(), page.next.as_deref()), (2, Some("b")));
        assert_eq!(sum(&[all]).into_page(3).next, None);
    }

    #[test]
    fn clients_of_a_name_are_summed_over_all_parts() {
        let page = sum(&[&[("b", 1), ("a", 1)], &[("b", 2)]]).into_page(9);
        assert_eq!(page.items, [("a".to_owned(), 1), ("b".to_owned(), 3)]);
    }

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_cursors_are_in_order() {
        let at = |node: &str, shard, slot| ClientCursor { node: node.into(), instance: "i".into(), shard, slot };
        assert_eq!(at("a-1", 2, 30).to_string().parse(), Ok(at("a-1", 2, 30)));
        assert!(at("a", 2, 30) < at("a", 3, 0) && at("a", 9, 9) < at("b", 0, 0));
        for wrong in ["", "a~b~c~d", "a~b~1", "a~b~1~2~3", "a~b~70000~1"] {
            assert!(wrong.parse::<ClientCursor>().is_err(), "{wrong}");
        }
    }
}
