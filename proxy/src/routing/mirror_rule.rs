//! Mirror: copies of the messages of sampled connections for another group.

use std::sync::Arc;

use super::condition::PathPattern;
use super::share::Share;
use crate::metrics::MirrorCounters;

/// Mirror of a hub's connections.
#[derive(Debug, Clone)]
pub(crate) struct MirrorRule {
    /// Name in metrics, logs and on the observer page.
    pub label: Arc<str>,
    pub hub: PathPattern,
    pub group: Arc<str>,
    /// Share of the hub's connections that are copied, from 0 to 1.
    pub sample: f64,
    /// Whether its answers are compared with those of the primary app server.
    pub is_diff: bool,
    /// Whether messages to the clients are copied, too.
    pub copies_down: bool,
    pub counters: Arc<MirrorCounters>,
}

impl MirrorRule {
    /// Whether it is another reading of the same rule, so that its copies can go on.
    #[must_use]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let is_same = |one: &Self| (one.label.clone(), one.group.clone(), one.is_diff, one.copies_down);
        is_same(self) == is_same(other)
    }

    /// Whether the messages of this connection are copied. The same ones are at each node and after a restart.
    #[must_use]
    pub(crate) fn samples(&self, connection_id: &str) -> bool {
        Share::of(&self.group, connection_id).is_in_first(self.sample)
    }
}
