//! Census of client connections by kind, updated as they open, move and close, so that reading it visits no
//! client.

use std::collections::HashMap;

use super::Client;
use crate::engine::upstream::{AppServerId, HubIndex};

/// Labels of the client counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ClientKind {
    pub hub: HubIndex,
    pub app: AppServerId,
    pub transport: &'static str,
    pub protocol: &'static str,
}

impl ClientKind {
    pub(crate) fn kind_of(client: &Client) -> Self {
        let (hub, app) = (client.home().hub(), client.home().app);
        Self { hub, app, transport: client.traits().transport.name(), protocol: client.content().protocol().label() }
    }
}

/// Number of clients of each kind, without empty kinds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Census(HashMap<ClientKind, u64>);

impl Census {
    pub(super) fn count_in(&mut self, kind: ClientKind) {
        *self.0.entry(kind).or_default() += 1;
    }

    pub(super) fn count_out(&mut self, kind: ClientKind) {
        if let Some(count) = self.0.get_mut(&kind) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&kind);
            }
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        other.iter().for_each(|(kind, count)| *self.0.entry(*kind).or_default() += count);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ClientKind, u64)> {
        self.0.iter().map(|(kind, count)| (kind, *count))
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_without_any_is_gone_and_shards_add_up() {
        let kind = |hub| ClientKind { hub: HubIndex::from(hub), app: AppServerId::NONE, transport: "a", protocol: "b" };
        let (mut one, mut other) = (Census::default(), Census::default());
        for hub in [1, 1, 2] {
            one.count_in(kind(hub));
        }
        one.count_out(kind(2));
        one.count_out(kind(3));
        assert_eq!(one.iter().collect::<Vec<_>>(), [(&kind(1), 2)]);
        other.count_in(kind(1));
        other.merge(&one);
        assert_eq!((other.iter().count(), other.total()), (1, 3));
    }
}
