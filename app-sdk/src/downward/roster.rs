//! Which client connections are here.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, RwLock};

use crate::connection::{Connection, LinkId};
use crate::sync::{read, write};

/// The connections of a hub by their ids. Whoever takes one out is the one who ends it.
#[derive(Debug, Default)]
pub(crate) struct Roster(RwLock<HashSet<Entry>>);

/// A connection that is found by its id; a set of these costs eight bytes each, a map would repeat the id.
#[derive(Debug)]
struct Entry(Arc<Connection>);

impl Roster {
    /// Adds a connection; returns the one that had the id before and stays.
    pub(crate) fn insert(&self, connection: &Arc<Connection>) -> Result<(), Arc<Connection>> {
        let mut set = write(&self.0);
        if let Some(Entry(present)) = set.get(connection.id()) {
            return Err(Arc::clone(present));
        }
        set.insert(Entry(Arc::clone(connection)));
        Ok(())
    }

    /// Takes this very connection out; `false` when somebody has done so already.
    pub(crate) fn remove(&self, connection: &Arc<Connection>) -> bool {
        let mut set = write(&self.0);
        match set.get(connection.id()) {
            Some(Entry(present)) if Arc::ptr_eq(present, connection) => set.remove(connection.id()),
            _ => false,
        }
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<Connection>> {
        read(&self.0).get(id).map(|Entry(connection)| Arc::clone(connection))
    }

    /// Whether this very connection is here.
    pub(crate) fn holds(&self, connection: &Arc<Connection>) -> bool {
        read(&self.0).get(connection.id()).is_some_and(|Entry(present)| Arc::ptr_eq(present, connection))
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<Connection>> {
        read(&self.0).iter().map(|Entry(connection)| Arc::clone(connection)).collect()
    }

    /// The connections whose home is this link. Looks at all of them: links end seldom.
    pub(crate) fn at_home(&self, link: LinkId) -> Vec<Arc<Connection>> {
        let set = read(&self.0);
        set.iter()
            .filter(|Entry(connection)| connection.home() == link)
            .map(|Entry(connection)| Arc::clone(connection))
            .collect()
    }
}

impl Borrow<str> for Entry {
    fn borrow(&self) -> &str {
        self.0.id()
    }
}

impl Hash for Entry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id().hash(state);
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.0.id() == other.0.id()
    }
}

impl Eq for Entry {}
