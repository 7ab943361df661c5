//! Pages of lists. Merged pages of names are exact: any shard or node with one of the first names returns it among its
//! own first names.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ListPage<T> {
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
    pub(super) fn add(&mut self, names: impl IntoIterator<Item = (String, u64)>) {
        names.into_iter().for_each(|(name, clients)| *self.0.entry(name).or_default() += clients);
    }

    pub(super) fn into_page(self, limit: usize) -> NamePage {
        let is_more = self.0.len() > limit;
        let items: Vec<_> = self.0.into_iter().take(limit).collect();
        let next = items.last().filter(|_| is_more).map(|(name, _)| name.clone());
        ListPage { items, next, total: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(parts: &[&[(&str, u64)]]) -> NameSum {
        let mut sum = NameSum::default();
        parts.iter().for_each(|part| sum.add(part.iter().map(|(name, clients)| ((*name).to_owned(), *clients))));
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
}
