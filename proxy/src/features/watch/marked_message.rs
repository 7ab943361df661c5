//! Messages in app servers with pending reports. Bounded: the oldest are evicted first.

use std::collections::BTreeMap;

use crate::engine::shard::Slot;

/// Maximum number of messages with pending reports. Those never reported stay until evicted.
const MARKED_MAX: usize = 4_096;

type TraceEntry = (u64, u64);

/// Messages with pending reports of app servers, by mark.
#[derive(Debug, Default)]
pub(super) struct MarkedMessages(BTreeMap<i64, (Slot, Vec<TraceEntry>)>);

impl MarkedMessages {
    pub(super) fn add(&mut self, mark: i64, slot: Slot, entry: TraceEntry) {
        self.0.entry(mark).or_insert_with(|| (slot, Vec::new())).1.push(entry);
        if self.0.len() > MARKED_MAX {
            self.0.pop_first();
        }
    }

    /// Returns the traces with this message of the client, and removes it after the last report.
    pub(super) fn find(&mut self, mark: i64, slot: Slot, is_last: bool) -> Vec<TraceEntry> {
        let known = self.0.get(&mark).filter(|(of, _)| *of == slot).map(|(_, entries)| entries.clone());
        if known.is_some() && is_last {
            self.0.remove(&mark);
        }
        known.unwrap_or_default()
    }

    /// Removes the messages of a client when its slot may be reused.
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
    fn the_oldest_messages_are_evicted_and_messages_of_a_departed_client_removed() {
        let mut marked = MarkedMessages::default();
        (0..).take(MARKED_MAX + 1).for_each(|mark| marked.add(mark, 1, (0, 0)));
        assert!(marked.find(0, 1, true).is_empty());
        assert_eq!(marked.find(1, 1, true).len(), 1);
        marked.forget(1);
        assert!(marked.0.is_empty());
    }
}
