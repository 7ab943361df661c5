//! Registry of one hub's client connections on this app server. Pure logic: the caller does the locking.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::connection::{Connection, LinkId};

/// Connections of a hub by ID. The caller that removes a connection closes it.
#[derive(Debug, Default)]
pub(super) struct Registry(HashSet<RegistryEntry>);

/// A connection, hashed by its ID. A set uses eight bytes per entry; a map would store the ID twice.
#[derive(Debug)]
struct RegistryEntry(Arc<Connection>);

impl Registry {
    /// Adds a connection. Fails with the existing connection if the ID is in use.
    pub(super) fn insert(&mut self, connection: &Arc<Connection>) -> Result<(), Arc<Connection>> {
        if let Some(present) = self.get(connection.id()) {
            return Err(Arc::clone(present));
        }
        self.0.insert(RegistryEntry(Arc::clone(connection)));
        Ok(())
    }

    /// Removes exactly this connection. Returns `false` if it is not registered.
    pub(super) fn remove(&mut self, connection: &Arc<Connection>) -> bool {
        self.contains(connection) && self.0.remove(connection.id())
    }

    pub(super) fn get(&self, id: &str) -> Option<&Arc<Connection>> {
        self.0.get(id).map(|RegistryEntry(connection)| connection)
    }

    /// Whether exactly this connection is registered, not just its ID.
    pub(super) fn contains(&self, connection: &Arc<Connection>) -> bool {
        self.get(connection.id()).is_some_and(|present| Arc::ptr_eq(present, connection))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Connection>> {
        self.0.iter().map(|RegistryEntry(connection)| connection)
    }

    /// Connections with their home on this link. A full scan, because links rarely close.
    pub(super) fn at_home(&self, link: LinkId) -> Vec<Arc<Connection>> {
        self.iter().filter(|connection| connection.home().link() == link).map(Arc::clone).collect()
    }
}

impl Borrow<str> for RegistryEntry {
    fn borrow(&self) -> &str {
        self.0.id()
    }
}

impl Hash for RegistryEntry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id().hash(state);
    }
}

impl PartialEq for RegistryEntry {
    fn eq(&self, other: &Self) -> bool {
        self.0.id() == other.0.id()
    }
}

impl Eq for RegistryEntry {}

#[cfg(test)]
pub(super) mod tests {
    use trunkline_protocol::hub::HubProtocol;
    use trunkline_protocol::service::{Capabilities, OpenConnection};

    use super::*;
    use crate::connection::{Home, connect_request_of};
    use crate::node::{Node, NodeName};

    pub(crate) fn connection(id: &'static str, home: u64) -> Arc<Connection> {
        let request = connect_request_of(OpenConnection { connection_id: id.into(), ..OpenConnection::default() });
        let node = Arc::new(Node::new(NodeName::proxy("node", "boot"), Capabilities::plain()));
        Arc::new(Connection::new(request, HubProtocol::Json, Home::new(LinkId(home), node)))
    }

    #[test]
    fn the_first_connection_with_an_id_stays_until_it_is_removed() {
        let mut registry = Registry::default();
        let (first, second) = (connection("c1", 1), connection("c1", 1));
        registry.insert(&first).unwrap();
        assert!(Arc::ptr_eq(&registry.insert(&second).unwrap_err(), &first));
        assert!(registry.contains(&first) && !registry.contains(&second));
        assert!(!registry.remove(&second), "another connection with this id is here");
        assert!(registry.remove(&first));
        assert!(!registry.remove(&first), "only one caller closes it");
        registry.insert(&second).unwrap();
        assert!(Arc::ptr_eq(registry.get("c1").unwrap(), &second));
    }

    #[test]
    fn connections_are_found_by_their_home_link() {
        let mut registry = Registry::default();
        for (id, home) in [("c1", 1), ("c2", 2), ("c3", 1)] {
            registry.insert(&connection(id, home)).unwrap();
        }
        let mut ids: Vec<_> = registry.at_home(LinkId(1)).iter().map(|connection| connection.id().to_owned()).collect();
        ids.sort();
        assert_eq!(ids, ["c1", "c3"]);
        assert_eq!(registry.iter().count(), 3);
        assert!(registry.get("c4").is_none());
    }
}
