//! Limits of requests forwarded to the nodes that own their connections, and a list of owners that are permanently
//! gone.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::ground::bounded::{Permit, Permits, Recent};
use crate::ground::metrics::HopRefusal;

/// Maximum number of requests in flight to one owner. An address has about 28 000 ports towards another address, so
/// this is close to the practical limit.
pub(crate) const HOPS_PER_OWNER_MAX: usize = 20_000;

/// Maximum number of requests in flight per connection. A client has a GET and a POST, and briefly a second one of
/// each.
pub(crate) const HOPS_PER_CONNECTION_MAX: usize = 16;

/// Time for which an owner counts as gone. Limited, because the address may have led to another node only for a moment.
const GONE_TIME: Duration = Duration::from_secs(300);

/// Maximum number of owners marked as gone. Above it, the oldest are evicted.
const GONE_MAX: usize = 1024;

#[derive(Debug)]
pub(crate) struct HopLimits {
    by_owner: Permits<Box<str>>,
    by_connection: Permits<u128>,
    gone: Mutex<Recent<Box<str>, (), Instant>>,
}

#[derive(Debug)]
pub(crate) struct HopPermit {
    _of_owner: Permit<Box<str>>,
    _of_connection: Permit<u128>,
}

impl Default for HopLimits {
    fn default() -> Self {
        Self {
            by_owner: Permits::new(usize::MAX, HOPS_PER_OWNER_MAX),
            by_connection: Permits::new(usize::MAX, HOPS_PER_CONNECTION_MAX),
            gone: Mutex::new(Recent::new(GONE_MAX)),
        }
    }
}

impl HopLimits {
    /// Takes a permit for a request of a connection to the owner with this boot id.
    pub(crate) fn begin(&self, boot: &str, connection: u128) -> Result<HopPermit, HopRefusal> {
        if self.gone().get(boot).is_some() {
            return Err(HopRefusal::OwnerGone);
        }
        Ok(HopPermit {
            _of_owner: self.by_owner.take(Some(boot.into())).map_err(|_| HopRefusal::OwnerFull)?,
            _of_connection: self.by_connection.take(Some(connection)).map_err(|_| HopRefusal::ConnectionFull)?,
        })
    }

    /// Marks the owner with this boot id as gone for a while.
    pub(crate) fn mark_gone(&self, boot: &str) {
        let mut gone = self.gone();
        if gone.get(boot).is_none() {
            gone.insert(boot.into(), (), Instant::now() + GONE_TIME);
        }
    }

    fn gone(&self) -> MutexGuard<'_, Recent<Box<str>, (), Instant>> {
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        gone.expire(Instant::now());
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_and_an_owner_have_so_many_requests_under_way_and_none_is_counted_after_its_end() {
        let limits = HopLimits::default();
        let mut permits: Vec<_> = (0..16).map(|_| limits.begin("boot", 1).unwrap()).collect();
        assert_eq!(limits.begin("boot", 1).unwrap_err(), HopRefusal::ConnectionFull);
        permits.extend((16..20_000).map(|number| limits.begin("boot", 1 + number).unwrap()));
        assert_eq!(limits.begin("boot", 0).unwrap_err(), HopRefusal::OwnerFull);
        drop(limits.begin("other", 0).unwrap());
        permits.clear();
        assert_eq!((limits.by_owner.len(), limits.by_connection.len()), (0, 0));
    }

    #[test]
    fn an_owner_that_is_gone_stays_gone_and_the_memory_of_it_is_bounded() {
        let limits = HopLimits::default();
        for number in 0..2 * GONE_MAX {
            limits.mark_gone(&number.to_string());
            limits.mark_gone(&number.to_string());
        }
        assert_eq!(limits.gone().keys().count(), GONE_MAX);
        assert_eq!(limits.begin(&(2 * GONE_MAX - 1).to_string(), 1).unwrap_err(), HopRefusal::OwnerGone);
        assert!(limits.begin("0", 1).is_ok());
    }
}
