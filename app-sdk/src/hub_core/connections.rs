//! Connections of one hub: active ones, and ones that were closed during a move.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use tokio::time::Instant;
use trunkline_protocol::limits::STATEFUL_RECONNECT_TIMEOUT_S;

use super::registry::Registry;
use crate::connection::{Connection, LinkId};
use crate::sync::{lock, read, write};

#[derive(Debug, Default)]
pub(crate) struct Connections {
    here: RwLock<Registry>,
    tombstones: Mutex<Tombstones>,
}

impl Connections {
    pub(crate) fn insert(&self, connection: &Arc<Connection>) -> Result<(), Arc<Connection>> {
        write(&self.here).insert(connection)
    }

    /// Ends exactly this connection. The notification of its proxy is queued in the same step, so that a shutdown,
    /// which closes the links once no connection is left, cannot overtake it. Returns `false` if the connection has
    /// already ended.
    pub(super) fn end(&self, connection: &Arc<Connection>, tell: impl FnOnce()) -> bool {
        let mut here = write(&self.here);
        let was_here = here.remove(connection);
        if was_here {
            tell();
        }
        was_here
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<Connection>> {
        read(&self.here).get(id).map(Arc::clone)
    }

    pub(crate) fn contains(&self, connection: &Arc<Connection>) -> bool {
        read(&self.here).contains(connection)
    }

    pub(crate) fn all(&self) -> Vec<Arc<Connection>> {
        read(&self.here).iter().map(Arc::clone).collect()
    }

    /// Counts all connections, and the connections with their home on this link.
    pub(crate) fn count(&self, link: LinkId) -> (usize, usize) {
        let here = read(&self.here);
        (here.iter().count(), here.at_home(link).len())
    }

    pub(crate) fn at_home(&self, link: LinkId) -> Vec<Arc<Connection>> {
        read(&self.here).at_home(link)
    }

    /// Keeps a connection that was closed during a move, for the node that has it now.
    pub(super) fn keep_tombstone(&self, connection: &Arc<Connection>) {
        lock(&self.tombstones).push(connection);
    }

    /// Takes a connection that was closed during a move, to notify the node that resumes it.
    pub(crate) fn take_tombstone(&self, id: &str) -> Option<Arc<Connection>> {
        lock(&self.tombstones).take(id)
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

    fn take(&mut self, id: &str) -> Option<Arc<Connection>> {
        let place = self.0.iter().position(|(_, connection)| connection.id() == id)?;
        self.0.remove(place).map(|(_, connection)| connection)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc;
    use std::thread;

    use super::super::registry::tests::connection;
    use super::*;

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
            assert!(connections.end(&ending, tell));
        });
        assert!(!connections.end(&ending, || panic!("only one caller ends it")));
    }
}
