//! Limits of a node: counters of sockets, connections and negotiates. Pure: time comes in as an argument.
//!
//! All of it is off the delivery path. Connecting touches an atomic or one of several small tables; a client's messages
//! are counted only where a limit for them is set.

mod address_limit;
mod hop_limit;
mod pending_negotiation;
mod throttle;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

pub(crate) use address_limit::{AddressLimit, AddressPermit};
pub(crate) use hop_limit::{HOPS_PER_CONNECTION_MAX, HOPS_PER_OWNER_MAX, HopLimits, HopPermit};
pub(crate) use pending_negotiation::PendingNegotiations;
pub(crate) use throttle::{Bucket, Quota, TooFast};

use crate::config::FrontendLimits;

/// Counters that all shards of a node share.
#[derive(Debug, Default)]
pub(crate) struct LimitCounters {
    /// Rate of new client connections.
    pub connects: Option<Bucket>,
    /// Sockets that are no client connection (yet), by address.
    pub sockets: Option<Arc<AddressLimit>>,
    /// Client connections, by address.
    pub clients: Option<Arc<AddressLimit>>,
    /// Negotiates that led to no connection yet, by address.
    pub pending: Option<PendingNegotiations>,
    /// Requests that are carried to other nodes, by their client's address.
    pub hop_clients: Option<Arc<AddressLimit>>,
    /// Requests that are carried to other nodes, by owner and connection.
    pub hops: Arc<HopLimits>,
    open: AtomicU32,
}

impl LimitCounters {
    #[must_use]
    pub(crate) fn new(limits: &FrontendLimits) -> Self {
        let addresses = || limits.connections_per_address.map(|most| Arc::new(AddressLimit::new(most)));
        Self {
            connects: limits.connects_per_second.map(Bucket::new),
            sockets: addresses(),
            clients: addresses(),
            pending: limits.pending_per_address.map(PendingNegotiations::new),
            hop_clients: addresses(),
            hops: Arc::default(),
            open: AtomicU32::new(0),
        }
    }

    /// Number of sockets on which requests are served; those of client connections are counted elsewhere.
    #[must_use]
    pub(crate) fn open(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }

    /// Counts such a socket that begins.
    pub(crate) fn opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one that has ended, or has become a client connection.
    pub(crate) fn closed(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}
