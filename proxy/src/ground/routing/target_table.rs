//! Table of values by method names and patterns.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use trunkline_protocol::pattern::{Pattern, PatternError};

use super::path_reading::fold;

/// Pattern of method names, case-insensitive, as app servers match methods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TargetPattern {
    pub text: Arc<str>,
    folded: Pattern,
}

impl TargetPattern {
    pub(crate) fn new(text: &str) -> Result<Self, PatternError> {
        let text = Pattern::new(text)?.text.clone();
        let folded = Pattern::new(&fold(&text))?;
        Ok(Self { text, folded })
    }

    pub(crate) fn matches(&self, target: &str) -> bool {
        self.folded.matches(&fold(target))
    }

    pub(crate) fn covers(&self, other: &Self) -> bool {
        self.folded.covers(&other.folded)
    }

    /// Whether the pattern has no wildcards.
    pub(crate) fn is_exact(&self) -> bool {
        self.folded.exact().is_some()
    }
}

impl fmt::Display for TargetPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Values by pattern. The first added match wins.
#[derive(Debug, Clone)]
pub(crate) struct TargetTable<T> {
    /// Indexes of patterns without wildcards, the common case, found without a search.
    exact: HashMap<Box<str>, usize>,
    /// Patterns with wildcards, each with its index.
    patterns: Vec<(usize, Pattern)>,
    values: Vec<T>,
}

impl<T> Default for TargetTable<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), patterns: Vec::new(), values: Vec::new() }
    }
}

impl<T> TargetTable<T> {
    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Value of the first pattern that matches a folded name.
    pub(crate) fn find(&self, folded: &str) -> Option<&T> {
        let exact = self.exact.get(folded).copied();
        let before = self.patterns.iter().take_while(|(place, _)| exact.is_none_or(|exact| *place < exact));
        let place = before.into_iter().find(|(_, pattern)| pattern.matches(folded)).map(|(place, _)| *place);
        self.values.get(place.or(exact)?)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.values.iter()
    }
}

impl<'a, T> FromIterator<(&'a TargetPattern, T)> for TargetTable<T> {
    fn from_iter<I: IntoIterator<Item = (&'a TargetPattern, T)>>(entries: I) -> Self {
        let mut table = Self::default();
        for (pattern, value) in entries {
            let place = table.values.len();
            match pattern.folded.exact() {
                Some(name) => drop(table.exact.entry(name.into()).or_insert(place)),
                None => table.patterns.push((place, pattern.folded.clone())),
            }
            table.values.push(value);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(patterns: &[&str]) -> TargetTable<usize> {
        let patterns: Vec<_> = patterns.iter().map(|text| TargetPattern::new(text).unwrap()).collect();
        patterns.iter().enumerate().map(|(place, pattern)| (pattern, place)).collect()
    }

    #[test]
    fn of_several_that_match_the_first_is_found() {
        let table = table(&["Say", "S*", "say", "Sing", "*"]);
        for (name, place) in [("say", Some(0)), ("sing", Some(1)), ("s", Some(1)), ("move", Some(4)), ("", Some(4))] {
            assert_eq!(table.find(name).copied(), place, "{name}");
        }
        assert_eq!(self::table(&["S*", "Say"]).find("say"), Some(&0));
        assert_eq!(self::table(&["Say"]).find("sing"), None);
    }

    proptest! {
        #[test]
        fn the_table_finds_what_asking_one_after_the_other_finds(
            patterns in prop::collection::vec("[aAb*]{1,3}", 0..8),
            name in "[aAb]{0,4}",
        ) {
            let texts: Vec<_> = patterns.iter().map(String::as_str).collect();
            let one_by_one = texts.iter().position(|text| TargetPattern::new(text).unwrap().matches(&name));
            prop_assert_eq!(table(&texts).find(&fold(&name)).copied(), one_by_one);
        }
    }
}
