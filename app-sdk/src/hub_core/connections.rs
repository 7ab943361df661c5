//! Connections of one hub: active ones, ones that were closed during a move, and IDs recently reassigned from or to
//! other app servers.

use std::borrow::Borrow;
use std::collections::{HashSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::mem;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use bytestring::ByteString;
use tokio::sync::broadcast;
use tokio::time::Instant;
use trunkline_protocol::limits::STATEFUL_RECONNECT_TIMEOUT_S;

use crate::connection::{Connection, LinkId};
use crate::sync::{lock, read_lock, write_lock};

#[derive(Debug, Default)]
pub(crate) struct Connections {
    /// By ID. The caller that removes a connection closes it.
    here: RwLock<HashSet<RegistryEntry>>,
    tombstones: Mutex<Tombstones>,
}

impl Connections {
    /// Adds a connection. Fails with the existing connection if the ID is in use.
    pub(crate) fn insert(&self, connection: &Arc<Connection>) -> Result<(), Arc<Connection>> {
        let mut here = write_lock(&self.here);
        if let Some(RegistryEntry(present)) = here.get(connection.id()) {
            return Err(Arc::clone(present));
        }
        here.insert(RegistryEntry(Arc::clone(connection)));
        Ok(())
    }

    /// Ends exactly this connection. The notification of its proxy is queued in the same step, so that a shutdown,
    /// which closes the links once no connection is left, cannot overtake it. Returns `false` if the connection has
    /// already ended.
    pub(super) fn end_connection(&self, connection: &Arc<Connection>, tell: impl FnOnce()) -> bool {
        let mut here = write_lock(&self.here);
        let was_here = here.get(connection.id()).is_some_and(|present| Arc::ptr_eq(&present.0, connection));
        if was_here {
            here.remove(connection.id());
            tell();
        }
        was_here
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<Connection>> {
        read_lock(&self.here).get(id).map(|RegistryEntry(connection)| Arc::clone(connection))
    }

    /// Whether exactly this connection is registered, not just its ID.
    pub(crate) fn contains(&self, connection: &Arc<Connection>) -> bool {
        read_lock(&self.here).get(connection.id()).is_some_and(|present| Arc::ptr_eq(&present.0, connection))
    }

    pub(crate) fn all(&self) -> Vec<Arc<Connection>> {
        read_lock(&self.here).iter().map(|RegistryEntry(connection)| Arc::clone(connection)).collect()
    }

    /// Counts all connections, and the connections with their home on this link.
    pub(crate) fn count(&self, link: LinkId) -> (usize, usize) {
        let here = read_lock(&self.here);
        (here.len(), here.iter().filter(|entry| entry.0.home.link() == link).count())
    }

    /// Connections with their home on this link. A full scan, because links rarely close.
    pub(crate) fn at_home(&self, link: LinkId) -> Vec<Arc<Connection>> {
        let here = read_lock(&self.here);
        here.iter().filter(|entry| entry.0.home.link() == link).map(|entry| Arc::clone(&entry.0)).collect()
    }

    /// Keeps a connection that was closed during a move, for the node that has it now.
    pub(super) fn keep_tombstone(&self, connection: &Arc<Connection>) {
        lock(&self.tombstones).push(connection);
    }

    /// Takes a connection that was closed during a move, to notify the node that resumes it.
    pub(crate) fn take_tombstone(&self, id: &str) -> Option<Arc<Connection>> {
        lock(&self.tombstones).take_connection(id)
    }
}

/// Closed connections with last frames for their next node, oldest first. The next push removes expired ones.
#[derive(Debug, Default)]
struct Tombstones(VecDeque<(Instant, Arc<Connection>)>);

impl Tombstones {
    fn push(&mut self, connection: &Arc<Connection>) {
        let (now, longest) = (Instant::now(), Duration::from_secs(STATEFUL_RECONNECT_TIMEOUT_S));
        while self.0.pop_front_if(|(since, _)| now.duration_since(*since) > longest).is_some() {}
        self.0.push_back((now, Arc::clone(connection)));
    }

    fn take_connection(&mut self, id: &str) -> Option<Arc<Connection>> {
        let place = self.0.iter().position(|(_, connection)| connection.id() == id)?;
        self.0.remove(place).map(|(_, connection)| connection)
    }
}

/// A connection, hashed by its ID. A set uses eight bytes per entry; a map would store the ID twice.
#[derive(Debug)]
struct RegistryEntry(Arc<Connection>);

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

/// Size of one generation of IDs. At least this many of the newest IDs are kept, at most twice as many.
const GENERATION: usize = 8192;

#[derive(Debug, Default)]
pub(crate) struct RecentIds(Mutex<IdGenerations>);

#[derive(Debug, Default)]
struct IdGenerations {
    young: HashSet<ByteString>,
    old: HashSet<ByteString>,
}

impl RecentIds {
    pub(crate) fn insert(&self, id: ByteString) {
        let mut ids = lock(&self.0);
        if ids.young.len() >= GENERATION {
            ids.old = mem::take(&mut ids.young);
        }
        ids.young.insert(id);
    }

    pub(crate) fn contains(&self, id: &str) -> bool {
        let ids = lock(&self.0);
        ids.young.contains(id) || ids.old.contains(id)
    }
}

/// ID of a reassigned connection after its `on_rehomed`, and whether the connection was kept.
pub(crate) type TakenOver = (ByteString, bool);

/// Maximum number of events that a slow observer can lag behind.
const TAKEN_OVER_MAX: usize = 16;

#[derive(Debug)]
pub(crate) struct TakeOvers(broadcast::Sender<TakenOver>);

impl Default for TakeOvers {
    fn default() -> Self {
        Self(broadcast::channel(TAKEN_OVER_MAX).0)
    }
}

impl TakeOvers {
    /// Announces that `on_rehomed` of a connection has run.
    pub(crate) fn announce(&self, connection: &Connection, is_kept: bool) {
        if self.0.receiver_count() > 0 {
            let _ = self.0.send((connection.shared_id(), is_kept));
        }
    }

    pub(crate) fn observe(&self) -> broadcast::Receiver<TakenOver> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc;
    use std::thread;

    use trunkline_protocol::hub::HubProtocol;
    use trunkline_protocol::service::{Capabilities, OpenConnection};

    use super::*;
    use crate::connection::{Home, connect_request_of};
    use crate::node::{Node, NodeName};

    fn connection(id: &'static str, home: u64) -> Arc<Connection> {
        let request = connect_request_of(OpenConnection { connection_id: id.into(), ..OpenConnection::default() });
        let node = Arc::new(Node::new(NodeName::proxy("node", "boot"), Capabilities::plain()));
        Arc::new(Connection::new(request, HubProtocol::Json, Home::new(LinkId(home), node)))
    }

    #[test]
    fn the_first_connection_with_an_id_stays_until_it_is_removed() {
        let connections = Connections::default();
        let (first, second) = (connection("c1", 1), connection("c1", 1));
        let remove = |connection| connections.end_connection(connection, || ());
        connections.insert(&first).unwrap();
        assert!(Arc::ptr_eq(&connections.insert(&second).unwrap_err(), &first));
        assert!(connections.contains(&first) && !connections.contains(&second));
        assert!(!remove(&second), "another connection with this id is here");
        assert!(remove(&first));
        assert!(!remove(&first), "only one caller closes it");
        connections.insert(&second).unwrap();
        assert!(Arc::ptr_eq(&connections.get("c1").unwrap(), &second));
    }

    #[test]
    fn connections_are_found_by_their_home_link() {
        let connections = Connections::default();
        for (id, home) in [("c1", 1), ("c2", 2), ("c3", 1)] {
            connections.insert(&connection(id, home)).unwrap();
        }
        let mut ids: Vec<_> =
            connections.at_home(LinkId(1)).iter().map(|connection| connection.id().to_owned()).collect();
        ids.sort();
        assert_eq!(ids, ["c1", "c3"]);
        assert_eq!((connections.count(LinkId(1)), connections.all().len()), ((3, 2), 3));
        assert!(connections.get("c4").is_none());
    }

    #[test]
    fn a_connection_is_registered_until_its_proxy_is_notified_of_its_end() {
        let (connections, ending) = (Connections::default(), connection("c1", 1));
        connections.insert(&ending).unwrap();
        let (is_announced, (begun, begins), (asked, asks)) = (AtomicBool::new(false), mpsc::channel(), mpsc::channel());
        thread::scope(|scope| {
            let (connections, is_announced) = (&connections, &is_announced);
            scope.spawn(move || {
                begins.recv().unwrap();
                asked.send(()).unwrap();
                assert_eq!(connections.count(LinkId(1)), (0, 0));
                assert!(is_announced.load(Ordering::SeqCst), "a stop would end the links by now");
            });
            let tell = || {
                begun.send(()).unwrap();
                asks.recv().unwrap();
                is_announced.store(true, Ordering::SeqCst);
            };
            assert!(connections.end_connection(&ending, tell));
        });
        assert!(!connections.end_connection(&ending, || panic!("only one caller ends it")));
    }

    #[test]
    fn the_newest_are_remembered_and_the_set_stays_small() {
        let ids = RecentIds::default();
        for number in 0..5 * GENERATION {
            ids.insert(number.to_string().into());
        }
        assert!((4 * GENERATION..5 * GENERATION).all(|number| ids.contains(&number.to_string())));
        assert!(!ids.contains("0"));
        let ids = lock(&ids.0);
        assert!(ids.young.len() + ids.old.len() <= 2 * GENERATION);
    }
}
