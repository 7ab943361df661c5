//! Census of client connections by kind, kept up to date as they open, move and close: reading it visits no client.

use std::collections::HashMap;

use super::Client;
use crate::upstream::{AppServerId, HubIndex};

/// Labels by which clients are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ClientKind {
    pub hub: HubIndex,
    pub app: AppServerId,
    pub transport: &'static str,
    pub protocol: &'static str,
}

impl ClientKind {
    #[must_use]
    pub(crate) fn of(client: &Client) -> Self {
        let (hub, app) = (client.home.hub(), client.home.app());
        Self { hub, app, transport: client.transport.name(), protocol: client.content.speech().label() }
    }
}

/// Number of clients of each kind; kinds without any are not in it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Census(HashMap<ClientKind, u64>);

impl Census {
    pub(super) fn add(&mut self, kind: ClientKind) {
        *self.0.entry(kind).or_default() += 1;
    }

    pub(super) fn take(&mut self, kind: ClientKind) {
        if let Some(count) = self.0.get_mut(&kind) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&kind);
            }
        }
    }

    /// Adds the census of another shard.
    pub(crate) fn merge(&mut self, other: &Self) {
        other.iter().for_each(|(kind, count)| *self.0.entry(*kind).or_default() += count);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ClientKind, u64)> {
        self.0.iter().map(|(kind, count)| (kind, *count))
    }

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
    use crate::shard::connection::Connections;
    use crate::shard::content::Content;
    use crate::upstream::LinkHandle;

    #[test]
    fn a_client_counts_once_where_it_is_at_home_until_it_closes() {
        let home = |app| Arc::new(LinkHandle::opened(HubIndex::from(0), AppServerId::from(app)));
        let socket = Socket::boxed(tokio::io::empty());
        let client = Client::new("id".into(), 0, home(1), Content::Hub(HubProtocol::Json), socket);
        let mut connections = Connections::default();
        let counts = |connections: &Connections| -> Vec<_> {
            connections.census().iter().map(|(kind, count)| (kind.app, count)).collect()
        };
        let slot = connections.insert(client, None);
        assert_eq!(counts(&connections), [(AppServerId::from(1), 1)]);
        connections.set_home(slot, &home(2));
        assert_eq!(counts(&connections), [(AppServerId::from(2), 1)]);
        connections.close(slot, 5);
        assert_eq!(counts(&connections), []);
        connections.set_home(slot, &home(1));
        connections.remove(slot);
        assert_eq!(counts(&connections), [], "it counts no second time, and is not taken away twice");
    }

    #[test]
    fn a_kind_without_any_is_gone_and_shards_add_up() {
        let kind = |hub| ClientKind { hub: HubIndex::from(hub), app: AppServerId::NONE, transport: "a", protocol: "b" };
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
