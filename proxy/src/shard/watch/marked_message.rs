//! Messages in app servers whose reports are awaited. Bounded: the oldest are given up first.

use std::collections::BTreeMap;

use crate::shard::slot::Slot;

/// Maximum number of messages whose reports are awaited: one that is never reported stays until then.
const MARKED_MAX: usize = 4_096;

/// Number of a trace, and of a message in it.
type TraceEntry = (u64, u64);

/// Messages that app servers report on, by their marks.
#[derive(Debug, Default)]
pub(super) struct MarkedMessages(BTreeMap<i64, (Slot, Vec<TraceEntry>)>);

impl MarkedMessages {
    /// Adds a message of a client, as one trace has it.
    pub(super) fn add(&mut self, mark: i64, slot: Slot, entry: TraceEntry) {
        self.0.entry(mark).or_insert_with(|| (slot, Vec::new())).1.push(entry);
        if self.0.len() > MARKED_MAX {
            self.0.pop_first();
        }
    }

    /// Returns the traces that have a message of this client, and forgets it behind the last report.
    pub(super) fn find(&mut self, mark: i64, slot: Slot, is_last: bool) -> Vec<TraceEntry> {
        let known = self.0.get(&mark).filter(|(of, _)| *of == slot).map(|(_, entries)| entries.clone());
        if known.is_some() && is_last {
            self.0.remove(&mark);
        }
        known.unwrap_or_default()
    }

    /// Forgets the messages of a client whose slot may be used again.
    pub(super) fn forget(&mut self, slot: Slot) {
        self.0.retain(|_, (of, _)| *of != slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_taken_for_its_client_alone_and_once() {
        let mut marked = MarkedMessages::default();
        marked.add(7, 1, (0, 3));
        marked.add(7, 1, (1, 5));
        assert!(marked.find(7, 2, true).is_empty());
        assert_eq!(marked.find(7, 1, false), [(0, 3), (1, 5)]);
        assert_eq!(marked.find(7, 1, true), [(0, 3), (1, 5)]);
        assert!(marked.find(7, 1, true).is_empty());
    }

    #[test]
    fn the_oldest_are_given_up_and_those_of_a_client_that_is_gone_are_forgotten() {
        let mut marked = MarkedMessages::default();
        (0..).take(MARKED_MAX + 1).for_each(|mark| marked.add(mark, 1, (0, 0)));
        assert!(marked.find(0, 1, true).is_empty());
        assert_eq!(marked.find(1, 1, true).len(), 1);
        marked.forget(1);
        assert!(marked.0.is_empty());
    }
}
