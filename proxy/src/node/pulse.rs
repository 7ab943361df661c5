//! By what it is seen from outside that all threads of a node live.

use std::sync::Arc;

use crate::shard::Shared;

/// The pulse of a node; it can be felt until the node has ended.
#[derive(Debug, Clone)]
pub struct Pulse(pub(super) Arc<Shared>);

impl Pulse {
    /// How many seconds the slowest shard has counted. It goes on only while each of them does its work.
    #[must_use]
    pub fn ticks(&self) -> u64 {
        self.0.counters().iter().map(|counters| counters.ticks.get()).min().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use trunkline_protocol::key::{AccessKey, AccessKeys};

    use super::*;
    use crate::config::Settings;
    use crate::shard::{ShardSender, Ways};

    #[test]
    fn one_shard_that_stands_still_is_felt_although_the_others_go_on() {
        let keys = AccessKeys::new(vec![AccessKey::random()]).unwrap();
        let senders = (0..2).map(|_| ShardSender::new().0).collect();
        let shared = Shared::new(Settings::embedded(keys, Vec::new(), true), Ways::default(), senders);
        let pulse = Pulse(shared.clone());
        let tick = |shard| shared.counters_of(shard).ticks.increment();
        (0..2).for_each(tick);
        assert_eq!(pulse.ticks(), 1);
        tick(0);
        tick(0);
        assert_eq!(pulse.ticks(), 1);
        tick(1);
        assert_eq!(pulse.ticks(), 2);
    }
}
