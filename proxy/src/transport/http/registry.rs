//! Where requests find the connections that they carry, whatever thread serves them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use trunkline_protocol::cause::Cause;

use super::Carried;

/// So many parts that threads seldom meet, and that a sweep holds nobody up.
const PARTS: usize = 64;

type Part = HashMap<Arc<str>, Arc<Carried>>;

/// All connections of a node that are carried by requests, by their ids.
#[derive(Debug)]
pub(crate) struct Registry {
    parts: Vec<Mutex<Part>>,
    hasher: RandomState,
}

impl Default for Registry {
    fn default() -> Self {
        Self { parts: (0..PARTS).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }
}

impl Registry {
    /// The connection of this id.
    #[must_use]
    pub(crate) fn find(&self, id: &str) -> Option<Arc<Carried>> {
        self.part(id)?.get(id).cloned()
    }

    /// The connection of this id, a new one if there is none and `may_begin` lets it be.
    ///
    /// # Errors
    /// What `may_begin` says.
    pub(crate) fn find_or_make<E>(
        &self,
        id: &str,
        may_begin: impl FnOnce() -> Result<(), E>,
    ) -> Result<Arc<Carried>, E> {
        // Under the lock, so that of two first requests the slower one finds what the faster one made.
        let mut part = self.part(id);
        if let Some(found) = part.as_ref().and_then(|part| part.get(id)) {
            return Ok(found.clone());
        }
        may_begin()?;
        let made = Arc::new(Carried::new(id));
        if let Some(part) = &mut part {
            part.insert(made.id.clone(), made.clone());
        }
        Ok(made)
    }

    /// Whether there is none.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.parts.iter().all(|part| part.lock().unwrap_or_else(PoisonError::into_inner).is_empty())
    }

    /// Takes a connection out and ends the requests that wait for it; with the last of them the pipe is closed.
    pub(crate) fn remove(&self, carried: &Arc<Carried>) {
        if let Some(mut part) = self.part(&carried.id)
            && let Entry::Occupied(entry) = part.entry(carried.id.clone())
            && Arc::ptr_eq(entry.get(), carried)
        {
            entry.remove();
        }
        carried.gone.cancel();
    }

    /// One tick: takes out those that had no GET for more than so many ticks.
    pub(crate) fn sweep(&self, idle_ticks_max: u32) -> Vec<Arc<Carried>> {
        let mut idle = Vec::new();
        for part in &self.parts {
            let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
            idle.extend(part.extract_if(|_, carried| carried.idle() > idle_ticks_max).map(|(_, carried)| carried));
        }
        for carried in &idle {
            carried.say_why(Cause::PollsStopped);
            carried.gone.cancel();
        }
        idle
    }

    fn part(&self, id: &str) -> Option<MutexGuard<'_, Part>> {
        let place = self.hasher.hash_one(id) % PARTS as u64;
        let part = self.parts.get(usize::try_from(place).ok()?)?;
        Some(part.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
