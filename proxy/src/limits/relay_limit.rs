//! Limit of requests that are under way to app servers: of one client address, to one app server, and of the node.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::address_limit::{AddressLimit, AddressPermit};
use crate::config::RelaySettings;
use crate::net::address::Address;

/// Requests under way to app servers.
#[derive(Debug)]
pub(crate) struct RelayLimit {
    node_max: Option<NonZeroU32>,
    upstream_max: Option<NonZeroU32>,
    addresses: Option<Arc<AddressLimit>>,
    under_way: Mutex<RelayCounts>,
}

#[derive(Debug, Default)]
struct RelayCounts {
    node: u32,
    /// Requests of each app server that has any.
    upstreams: HashMap<Address, u32>,
}

/// Permit of one request that is under way; dropping it frees it.
#[derive(Debug)]
pub(crate) struct RelayPermit {
    limit: Arc<RelayLimit>,
    upstream: Option<Address>,
    _address: Option<AddressPermit>,
}

/// Limit that refuses a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RelayRefusal {
    /// The node has as many under way as it may have.
    Node,
    /// The client's address has as many.
    Address,
}

impl RelayLimit {
    #[must_use]
    pub(super) fn new(settings: &RelaySettings) -> Arc<Self> {
        let addresses = settings.requests_per_address_max.and_then(NonZeroU32::new);
        Arc::new(Self {
            node_max: settings.requests_max,
            upstream_max: settings.requests_per_upstream_max,
            addresses: addresses.map(|most| Arc::new(AddressLimit::new(most))),
            under_way: Mutex::default(),
        })
    }

    /// Permit for one more request of this address; without one it counts for the node alone.
    ///
    /// # Errors
    /// The limit that is reached.
    pub(crate) fn take(self: &Arc<Self>, address: Option<IpAddr>) -> Result<RelayPermit, RelayRefusal> {
        let address = match (&self.addresses, address) {
            (Some(addresses), Some(ip)) => Some(addresses.take(ip).ok_or(RelayRefusal::Address)?),
            _ => None,
        };
        let mut counts = self.counts();
        if self.node_max.is_some_and(|most| counts.node >= most.get()) {
            return Err(RelayRefusal::Node);
        }
        counts.node += 1;
        Ok(RelayPermit { limit: self.clone(), upstream: None, _address: address })
    }

    fn counts(&self) -> MutexGuard<'_, RelayCounts> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RelayPermit {
    /// Counts the request for this app server instead of the one before; `false` if that has as many as it may have.
    #[must_use]
    pub(crate) fn choose(&mut self, upstream: &Address) -> bool {
        let mut counts = self.limit.counts();
        if let Some(former) = self.upstream.take() {
            counts.leave(&former);
        }
        let under_way = counts.upstreams.get(upstream).copied().unwrap_or_default();
        if self.limit.upstream_max.is_some_and(|most| under_way >= most.get()) {
            return false;
        }
        counts.upstreams.insert(upstream.clone(), under_way + 1);
        self.upstream = Some(upstream.clone());
        true
    }
}

impl RelayCounts {
    fn leave(&mut self, upstream: &Address) {
        if let Some(under_way) = self.upstreams.get_mut(upstream) {
            *under_way -= 1;
            if *under_way == 0 {
                self.upstreams.remove(upstream);
            }
        }
    }
}

impl Drop for RelayPermit {
    fn drop(&mut self) {
        let mut counts = self.limit.counts();
        counts.node -= 1;
        if let Some(upstream) = &self.upstream {
            counts.leave(upstream);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(node: u32, upstream: u32, address: u32) -> Arc<RelayLimit> {
        RelayLimit::new(&RelaySettings {
            requests_max: NonZeroU32::new(node),
            requests_per_upstream_max: NonZeroU32::new(upstream),
            requests_per_address_max: Some(address),
            ..RelaySettings::embedded()
        })
    }

    fn ip(last: u32) -> Option<IpAddr> {
        Some(IpAddr::V4(last.into()))
    }

    /// Four connections of 256 requests each, as many as one address once held at an app server.
    const REQUESTS: usize = 4 * 256;

    #[test]
    fn an_address_holds_no_more_requests_than_it_may_and_others_have_theirs() {
        let limit = limit(8192, 1024, 256);
        let permits: Vec<_> = (0..REQUESTS).filter_map(|_| limit.take(ip(1)).ok()).collect();
        assert_eq!((permits.len(), limit.take(ip(1)).err()), (256, Some(RelayRefusal::Address)));
        assert!(limit.take(ip(2)).is_ok());
        drop(permits);
        assert!(limit.take(ip(1)).is_ok());
        assert_eq!(limit.counts().node, 0);
    }

    #[test]
    fn the_node_and_each_app_server_have_limits_of_their_own() {
        let limit = limit(3, 2, 0);
        let (one, two): (Address, Address) = ("http://10.0.0.1".parse().unwrap(), "http://10.0.0.2".parse().unwrap());
        let mut permits: Vec<_> = (0..3).map(|_| limit.take(ip(1)).unwrap()).collect();
        assert_eq!(limit.take(ip(1)).err(), Some(RelayRefusal::Node));
        let chosen: Vec<_> = permits.iter_mut().map(|permit| permit.choose(&one)).collect();
        assert_eq!(chosen, [true, true, false]);
        assert!(permits[2].choose(&two), "another one has room");
        assert!(permits[0].choose(&two) && permits[0].choose(&one), "a request counts for one of them");
        drop(permits);
        let counts = limit.counts();
        assert_eq!((counts.node, counts.upstreams.len()), (0, 0));
    }
}
