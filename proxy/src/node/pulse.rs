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
