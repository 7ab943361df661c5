//! Heartbeat of all shards, for the supervisor's watchdog.

use std::sync::Arc;

use crate::engine::shard::Shared;

/// Heartbeat of a node. It advances only while every shard does.
#[derive(Debug, Clone)]
pub struct Heartbeat(pub(super) Arc<Shared>);

impl Heartbeat {
    /// Seconds counted by the slowest shard.
    #[must_use]
    pub fn ticks(&self) -> u64 {
        self.0.counters().iter().map(|counters| counters.ticks.get()).min().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use trunkline_protocol::key::{AccessKey, AccessKeys};

    use super::*;
    use crate::engine::shard::ShardSender;
    use crate::ground::config::Settings;

    #[test]
    fn one_hanging_shard_stops_the_heartbeat() {
        let keys = AccessKeys::new(vec![AccessKey::random()]).unwrap();
        let senders = (0..2).map(|_| ShardSender::new().0).collect();
        let shared = Shared::alone(Settings::embedded(keys, Vec::new(), true), senders);
        let heartbeat = Heartbeat(shared.clone());
        let tick = |shard| shared.counters_of(shard).ticks.increment();
        (0..2).for_each(tick);
        assert_eq!(heartbeat.ticks(), 1);
        tick(0);
        tick(0);
        assert_eq!(heartbeat.ticks(), 1);
        tick(1);
        assert_eq!(heartbeat.ticks(), 2);
    }
}
