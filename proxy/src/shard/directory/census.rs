//! How many client connections there are of each kind, counted as they come, move and go: whoever looks visits none.

use std::collections::HashMap;

use super::Client;
use crate::upstream::{AppServerId, HubIndex};

/// What clients are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Kind {
    pub hub: HubIndex,
    pub app: AppServerId,
    /// What they travel by.
    pub transport: &'static str,
    pub protocol: &'static str,
}

impl Kind {
    /// The kind of a client connection.
    #[must_use]
    pub(crate) fn of(client: &Client) -> Self {
        let (hub, app) = (client.home.hub(), client.home.app());
        Self { hub, app, transport: client.transport.name(), protocol: client.content.speech().label() }
    }
}

/// How many there are of each kind; kinds without any are not in it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Census(HashMap<Kind, u64>);

impl Census {
    /// One more of this kind.
    pub(super) fn add(&mut self, kind: Kind) {
        *self.0.entry(kind).or_default() += 1;
    }

    pub(super) fn take(&mut self, kind: Kind) {
        if let Some(count) = self.0.get_mut(&kind) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&kind);
            }
        }
    }

    /// Adds what another shard has.
    pub(crate) fn merge(&mut self, other: &Self) {
        other.iter().for_each(|(kind, count)| *self.0.entry(*kind).or_default() += count);
    }

    /// All kinds and their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Kind, u64)> {
        self.0.iter().map(|(kind, count)| (kind, *count))
    }

    /// How many there are in all.
    #[must_use]
    pub(crate) fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use trunkline_protocol::hub::HubProtocol;

    use super::*;
    use crate::net::socket::Socket;
    use crate::shard::directory::{Content, Directory};
    use crate::upstream::LinkHandle;

    #[test]
    fn a_client_counts_once_where_it_is_at_home_until_it_closes() {
        let home = |app| Arc::new(LinkHandle::opened(HubIndex::from(0), AppServerId::from(app)));
        let socket = Socket::boxed(tokio::io::empty());
        let client = Client::new("id".into(), 0, home(1), Content::Hub(HubProtocol::Json), socket);
        let mut directory = Directory::default();
        let counts = |directory: &Directory| -> Vec<_> {
            directory.census().iter().map(|(kind, count)| (kind.app, count)).collect()
        };
        let slot = directory.insert(client, None);
        assert_eq!(counts(&directory), [(AppServerId::from(1), 1)]);
        directory.move_to(slot, &home(2));
        assert_eq!(counts(&directory), [(AppServerId::from(2), 1)]);
        directory.close(slot, 5);
        assert_eq!(counts(&directory), []);
        directory.move_to(slot, &home(1));
        directory.remove(slot);
        assert_eq!(counts(&directory), [], "it counts no second time, and is not taken away twice");
    }

    #[test]
    fn a_kind_without_any_is_gone_and_shards_add_up() {
        let kind = |hub| Kind { hub: HubIndex::from(hub), app: AppServerId::NONE, transport: "a", protocol: "b" };
        let (mut one, mut other) = (Census::default(), Census::default());
        for hub in [1, 1, 2] {
            one.add(kind(hub));
        }
        one.take(kind(2));
        one.take(kind(3));
        assert_eq!(one.iter().collect::<Vec<_>>(), [(&kind(1), 2)]);
        other.add(kind(1));
        other.merge(&one);
        assert_eq!((other.iter().count(), other.total()), (1, 3));
    }
}
