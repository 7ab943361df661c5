//! Collector of the first names of a list, in alphabetical order.

use std::collections::BTreeMap;

/// First names after another name, with their numbers of connections, within limits.
#[derive(Debug)]
pub(crate) struct FirstNames {
    after: Option<String>,
    most: usize,
    bytes_max: usize,
    bytes: usize,
    names: BTreeMap<String, u64>,
    is_cut: bool,
}

impl FirstNames {
    /// Collects up to `most` names after this one. One name may have more than `bytes_max`.
    pub(crate) fn new(after: Option<String>, most: usize, bytes_max: usize) -> Self {
        Self { after, most, bytes_max, bytes: 0, names: BTreeMap::new(), is_cut: false }
    }

    /// Adds a name, and drops the last ones that don't fit.
    pub(crate) fn take(&mut self, name: &str, connections: usize) {
        if self.after.as_deref().is_some_and(|after| name <= after) {
            return;
        }
        if self.is_cut && self.names.last_key_value().is_some_and(|(last, _)| name > last.as_str()) {
            return;
        }
        match self.names.get_mut(name) {
            Some(count) => *count += connections as u64,
            None => {
                self.names.insert(name.to_owned(), connections as u64);
                self.bytes += name.len();
            }
        }
        while self.names.len() > self.most || (self.bytes > self.bytes_max && self.names.len() > 1) {
            self.is_cut = true;
            self.bytes -= self.names.pop_last().map_or(0, |(last, _)| last.len());
        }
    }

    /// Returns the names, and whether further ones follow.
    #[must_use]
    pub(crate) fn into_names(self) -> (BTreeMap<String, u64>, bool) {
        (self.names, self.is_cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(names: &[&str], (after, most, bytes_max): (Option<&str>, usize, usize)) -> (Vec<(String, u64)>, bool) {
        let mut collector = FirstNames::new(after.map(str::to_owned), most, bytes_max);
        names.iter().for_each(|name| collector.take(name, 1));
        let (names, is_cut) = collector.into_names();
        (names.into_iter().collect(), is_cut)
    }

    #[test]
    fn the_first_names_are_kept_and_a_name_that_comes_again_is_summed() {
        let names = ["f", "a", "d", "b", "c", "e", "c"];
        assert_eq!(first(&names, (Some("b"), 2, 99)), (vec![("c".into(), 2), ("d".into(), 1)], true));
        assert_eq!(first(&names, (Some("d"), 2, 99)), (vec![("e".into(), 1), ("f".into(), 1)], false));
    }

    #[test]
    fn a_name_alone_is_never_too_long() {
        assert_eq!(first(&["bbb", "ccc", "aaa"], (None, 9, 5)), (vec![("aaa".into(), 1)], true));
        assert_eq!(first(&["aaaaaaaaa"], (None, 9, 5)).0.len(), 1);
    }
}
