//! Table by client address: values of the current span of time and of the one before.
//!
//! ```text
//!  span 7    now: a, b    before: c
//!  span 8    now:         before: a, b    c is dropped
//! ```
//!
//! What a stranger makes a node keep is thus bounded in number and, as the tables are swept once a second, in time: it
//! is gone within two spans of the stranger's last request.

use std::collections::HashMap;

use super::address_key::AddressKey;

#[derive(Debug)]
pub(super) struct SpanTable<V> {
    span: u64,
    pub(super) now: HashMap<AddressKey, V>,
    pub(super) before: HashMap<AddressKey, V>,
}

impl<V> Default for SpanTable<V> {
    fn default() -> Self {
        Self { span: 0, now: HashMap::new(), before: HashMap::new() }
    }
}

impl<V: Default> SpanTable<V> {
    /// Moves on to a span, and drops the values of older ones. Returns whether the span is new.
    pub(super) fn advance(&mut self, span: u64) -> bool {
        let passed = span.saturating_sub(self.span);
        if passed > 0 {
            let ended = std::mem::take(&mut self.now);
            (self.span, self.before) = (span, if passed == 1 { ended } else { HashMap::new() });
        }
        passed > 0
    }

    /// Whether the current span has an entry of an address, or room for one below the limit.
    pub(super) fn has_room(&self, key: AddressKey, limit: usize) -> bool {
        self.now.len() < limit || self.now.contains_key(&key)
    }

    /// Returns the entry of an address in the current span; `None` if the span has as many addresses as the limit.
    pub(super) fn entry(&mut self, key: AddressKey, limit: usize) -> Option<&mut V> {
        self.has_room(key, limit).then(|| self.now.entry(key).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: AddressKey = AddressKey::V4(1);
    const BEN: AddressKey = AddressKey::V4(2);

    #[test]
    fn an_entry_is_kept_for_its_span_and_the_next_one() {
        let mut table = SpanTable::<u32>::default();
        *table.entry(ANN, 1).unwrap() += 5;
        assert!(table.entry(BEN, 1).is_none() && table.entry(ANN, 1).is_some());
        assert!(!table.advance(0) && table.advance(1));
        assert_eq!((table.now.len(), table.before.get(&ANN)), (0, Some(&5)));
        *table.entry(BEN, 1).unwrap() += 7;
        assert!(!table.advance(0), "a thread that has read its clock earlier");
        assert!(table.advance(2));
        assert_eq!((table.before.get(&ANN), table.before.get(&BEN)), (None, Some(&7)));
        table.entry(ANN, 1);
        assert!(table.advance(4));
        assert!(table.now.is_empty() && table.before.is_empty());
    }
}
