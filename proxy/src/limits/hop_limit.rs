//! Limits of the requests that are carried to the owners of their connections, and the owners that are gone for good.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::metrics::HopRefusal;

/// Maximum number of requests under way to one owner. An address has some 28 000 ports towards one other, so a node has
/// never carried many more.
pub(crate) const HOPS_PER_OWNER_MAX: u32 = 20_000;

/// Maximum number of requests of one connection under way. A client has a GET and a POST, and for a moment one more of
/// each.
pub(crate) const HOPS_PER_CONNECTION_MAX: u32 = 16;

/// Time for which an owner is remembered as gone. An address may have led elsewhere for a moment only.
const GONE_TIME: Duration = Duration::from_secs(300);

/// Maximum number of owners that are remembered as gone; beyond it the oldest are forgotten.
const GONE_MAX: usize = 1024;

/// Counters of the hops under way, shared by all shards of a node.
#[derive(Debug, Default)]
pub(crate) struct HopLimits(Mutex<Hops>);

#[derive(Debug, Default)]
struct Hops {
    by_owner: HashMap<Box<str>, u32>,
    by_connection: HashMap<u128, u32>,
    gone: VecDeque<(Box<str>, Instant)>,
}

/// Permit of one hop; dropping it frees it.
#[derive(Debug)]
pub(crate) struct HopPermit {
    limits: Arc<HopLimits>,
    boot: Box<str>,
    connection: u128,
}

impl HopLimits {
    /// Takes a permit for one request of a connection to the owner with this boot id.
    ///
    /// # Errors
    /// When the owner is gone, or it or the connection has as many as it may have.
    pub(crate) fn begin(self: &Arc<Self>, boot: &str, connection: u128) -> Result<HopPermit, HopRefusal> {
        let mut hops = self.lock();
        while hops.gone.front().is_some_and(|(_, since)| since.elapsed() > GONE_TIME) {
            hops.gone.pop_front();
        }
        if hops.gone.iter().any(|(gone, _)| **gone == *boot) {
            return Err(HopRefusal::OwnerGone);
        }
        if hops.by_owner.get(boot).is_some_and(|open| *open >= HOPS_PER_OWNER_MAX) {
            return Err(HopRefusal::OwnerFull);
        }
        let of_connection = hops.by_connection.entry(connection).or_default();
        if *of_connection >= HOPS_PER_CONNECTION_MAX {
            return Err(HopRefusal::ConnectionFull);
        }
        *of_connection += 1;
        *hops.by_owner.entry(boot.into()).or_default() += 1;
        Ok(HopPermit { limits: self.clone(), boot: boot.into(), connection })
    }

    /// Remembers for a while that the owner with this boot id is gone.
    pub(crate) fn mark_gone(&self, boot: &str) {
        let mut hops = self.lock();
        if hops.gone.iter().all(|(gone, _)| **gone != *boot) {
            if hops.gone.len() >= GONE_MAX {
                hops.gone.pop_front();
            }
            hops.gone.push_back((boot.into(), Instant::now()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Hops> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for HopPermit {
    fn drop(&mut self) {
        let mut hops = self.limits.lock();
        release(&mut hops.by_connection, self.connection);
        release(&mut hops.by_owner, std::mem::take(&mut self.boot));
    }
}

fn release<K: Eq + Hash>(open: &mut HashMap<K, u32>, key: K) {
    if let Entry::Occupied(mut entry) = open.entry(key) {
        *entry.get_mut() -= 1;
        if *entry.get() == 0 {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_and_an_owner_have_so_many_requests_under_way_and_none_is_counted_after_its_end() {
        let limits = Arc::new(HopLimits::default());
        let mut permits: Vec<_> = (0..16).map(|_| limits.begin("boot", 1).unwrap()).collect();
        assert_eq!(limits.begin("boot", 1).unwrap_err(), HopRefusal::ConnectionFull);
        permits.extend((16..20_000).map(|number| limits.begin("boot", 1 + number).unwrap()));
        assert_eq!(limits.begin("boot", 0).unwrap_err(), HopRefusal::OwnerFull);
        drop(limits.begin("other", 0).unwrap());
        permits.clear();
        let hops = limits.lock();
        assert!(hops.by_owner.is_empty() && hops.by_connection.is_empty());
    }

    #[test]
    fn an_owner_that_is_gone_stays_gone_and_the_memory_of_it_is_bounded() {
        let limits = Arc::new(HopLimits::default());
        for number in 0..2 * GONE_MAX {
            limits.mark_gone(&number.to_string());
            limits.mark_gone(&number.to_string());
        }
        assert_eq!(limits.lock().gone.len(), GONE_MAX);
        assert_eq!(limits.begin(&(2 * GONE_MAX - 1).to_string(), 1).unwrap_err(), HopRefusal::OwnerGone);
        assert!(limits.begin("0", 1).is_ok());
    }
}
