//! Stragglers: clients still connected when the time of a drain is over. For the log, therefore bounded.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::engine::shard::{ShardState, short};

/// Maximum number of logged client ids.
const IDS_MAX: usize = 10;

/// Maximum number of logged kinds, by hub and transport.
const KINDS_MAX: usize = 20;

#[derive(Debug, Default)]
pub(crate) struct Stragglers {
    by_kind: BTreeMap<(String, &'static str), usize>,
    /// Prefixes of some of their ids.
    ids: Vec<String>,
}

impl Stragglers {
    /// Collects the remaining clients, including closed ones with an open socket.
    pub(crate) fn at_shard(state: &ShardState) -> Self {
        let mut stragglers = Stragglers::default();
        let connections = &state.core.connections;
        for (_, client) in connections.range(0..connections.slot_count()) {
            let hub = client.home().hub_identity().name().to_owned();
            *stragglers.by_kind.entry((hub, client.traits().transport.name())).or_default() += 1;
            if stragglers.ids.len() < IDS_MAX {
                stragglers.ids.push(short(&client.id).to_owned());
            }
        }
        stragglers
    }

    pub(crate) fn merge(&mut self, other: Self) {
        for (kind, count) in other.by_kind {
            *self.by_kind.entry(kind).or_default() += count;
        }
        self.ids.extend(other.ids);
        self.ids.truncate(IDS_MAX);
    }

    /// Counts by hub and transport as text.
    pub(crate) fn kinds(&self) -> String {
        let mut text = String::new();
        for ((hub, transport), count) in self.by_kind.iter().take(KINDS_MAX) {
            let comma = if text.is_empty() { "" } else { ", " };
            // Writing to a string never fails.
            let _ = write!(text, "{comma}{hub}: {count} {transport}");
        }
        if self.by_kind.len() > KINDS_MAX {
            text.push_str(", …");
        }
        text
    }

    /// Some client ids, as shown by the observer.
    pub(crate) fn ids(&self) -> String {
        self.ids.join(" ")
    }
}

#[cfg(test)]
mod tests;
