//! HTTP transports: client connections made of requests, with Server-Sent Events or long polling.
//!
//! ```text
//!  POST ──► send ──────────┐
//!                 OuterHalf ══ pipe ══ InnerHalf ── the client module, on the owning shard
//!  GET  ◄── next_messages ─┘
//! ```
//!
//! The client module uses the inner half like any socket. Requests on any thread find the outer half in the
//! [registry](HttpTransports). The pipe carries hub messages upward. Downward it carries WebSocket frames, for their
//! message boundaries; the waiting request removes them.

mod carried_get;
#[cfg(test)]
mod half_test;
mod inner_half;
mod outer_half;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use trunkline_protocol::cause::Cause;
use trunkline_protocol::limits::FIRST_GET_TIMEOUT_S;

pub(crate) use carried_get::{CarriedGet, CarriedGets, GetKind};
pub(crate) use inner_half::InnerHalf;
pub(crate) use outer_half::{ActiveGet, OuterHalf, PollOutcome, SendError, TransportPermits};

/// Number of locks: enough to make contention rare and sweeps short.
const PARTS: usize = 64;

type Part = HashMap<Arc<str>, Arc<OuterHalf>>;

#[derive(Debug)]
pub(crate) struct HttpTransports {
    parts: Vec<Mutex<Part>>,
    hasher: RandomState,
}

impl Default for HttpTransports {
    fn default() -> Self {
        Self { parts: (0..PARTS).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }
}

impl HttpTransports {
    pub(crate) fn find(&self, id: &str) -> Option<Arc<OuterHalf>> {
        self.part(id)?.get(id).cloned()
    }

    /// Finds a connection, or inserts a new one if `may_begin` permits.
    ///
    /// # Errors
    /// The error returned by `may_begin`.
    pub(crate) fn find_or_insert<E>(
        &self,
        id: &str,
        may_begin: impl FnOnce() -> Result<TransportPermits, E>,
    ) -> Result<Arc<OuterHalf>, E> {
        // Called under the lock, so that of two first requests the second finds the first one's entry.
        let mut part = self.part(id);
        if let Some(found) = part.as_ref().and_then(|part| part.get(id)) {
            return Ok(found.clone());
        }
        let inserted = Arc::new(OuterHalf::new(id.into(), may_begin()?));
        if let Some(part) = &mut part {
            part.insert(inserted.id.clone(), inserted.clone());
        }
        Ok(inserted)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.parts.iter().all(|part| part.lock().unwrap_or_else(PoisonError::into_inner).is_empty())
    }

    /// Removes a connection and ends its waiting requests. The pipe closes with the last of them.
    pub(crate) fn remove(&self, outer: &Arc<OuterHalf>) {
        if let Some(mut part) = self.part(&outer.id)
            && let Entry::Occupied(entry) = part.entry(outer.id.clone())
            && Arc::ptr_eq(entry.get(), outer)
        {
            entry.remove();
        }
        outer.mark_removed();
    }

    /// Counts a tick and removes connections without a GET for more than `idle_ticks_max` ticks; earlier, if there was
    /// never a GET.
    pub(crate) fn sweep(&self, idle_ticks_max: u32) -> Vec<Arc<OuterHalf>> {
        let mut idle = Vec::new();
        for part in &self.parts {
            let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
            let is_idle = |outer: &OuterHalf| {
                let first = idle_ticks_max.min(FIRST_GET_TIMEOUT_S);
                outer.tick() > if outer.transport().is_some() { idle_ticks_max } else { first }
            };
            idle.extend(part.extract_if(|_, outer| is_idle(outer)).map(|(_, outer)| outer));
        }
        for outer in &idle {
            outer.set_close_cause(Cause::PollsStopped);
            outer.mark_removed();
        }
        idle
    }

    fn part(&self, id: &str) -> Option<MutexGuard<'_, Part>> {
        let index = self.hasher.hash_one(id) % PARTS as u64;
        let part = self.parts.get(usize::try_from(index).ok()?)?;
        Some(part.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
