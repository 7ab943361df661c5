//! Counters of the operator's rules, by label. They persist when the rules are reloaded.
//!
//! A rule gets its counters when it is activated, so that counting needs no lock or lookup.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Counter, metered};

/// Maximum number of labels per kind, including former rules. Each is a line in every scrape.
const LABELS_MAX: usize = 200;

/// Label for all further rules.
const OTHER: &str = "other";

/// Counters by label, bounded in number.
#[derive(Debug, Default)]
pub(crate) struct LabelledCounters<C>(Mutex<BTreeMap<Arc<str>, Arc<C>>>);

impl<C: Default> LabelledCounters<C> {
    /// Returns the counters of a label, creating them if necessary.
    pub(crate) fn of(&self, label: &Arc<str>) -> Arc<C> {
        let mut by_label = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = by_label.get(label) {
            return known.clone();
        }
        let label = if by_label.len() < LABELS_MAX { label.clone() } else { OTHER.into() };
        by_label.entry(label).or_default().clone()
    }

    pub(crate) fn all(&self) -> Vec<(Arc<str>, Arc<C>)> {
        let by_label = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        by_label.iter().map(|(label, counters)| (label.clone(), counters.clone())).collect()
    }
}

metered! {
    /// Counters of a mirror's copies.
    pub(crate) struct MirrorCounters {
        #[metric(
            "trunkline_mirror_messages_total",
            "Messages copied for a mirror, by outcome of the copy.",
            outcome = "sent"
        )]
        pub sent: Counter,
        /// The mirror was full or gone.
        #[metric("trunkline_mirror_messages_total", outcome = "dropped")]
        pub dropped: Counter,
    }
}

#[derive(Debug, Default)]
pub(crate) struct RuleCounters {
    /// Connections and requests matching a route.
    pub routes: LabelledCounters<Counter>,
    pub mirrors: LabelledCounters<MirrorCounters>,
    /// Calls refused by method rules.
    pub methods: LabelledCounters<Counter>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_keeps_its_counter_and_those_beyond_the_bound_share_one() {
        let counters = LabelledCounters::<Counter>::default();
        for at in 0..LABELS_MAX + 2 {
            counters.of(&at.to_string().into()).increment();
        }
        counters.of(&"0".into()).increment();
        let all = counters.all();
        assert_eq!(all.len(), LABELS_MAX + 1);
        let count =
            |label: &str| all.iter().filter(|(known, _)| **known == *label).map(|(_, of)| of.get()).sum::<u64>();
        assert_eq!((count("0"), count("1"), count(OTHER), count("201")), (2, 1, 2, 0));
    }
}
