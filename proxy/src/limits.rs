//! What is counted to hold the limits of a node: pure, the time comes in as an argument.
//!
//! All of it is off the delivery path. Connecting touches an atomic or one of several small tables; a client's messages
//! are counted only where a limit for them is set.

mod addresses;
mod pace;
mod pending;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

pub(crate) use addresses::{Addresses, Seat};
pub(crate) use pace::{Bucket, Quota, TooFast};
pub(crate) use pending::Pending;

use crate::config::FrontendLimits;

/// What all shards of a node count together.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// New client connections, by time.
    pub connects: Option<Bucket>,
    /// Sockets that are no client connection (yet), by address.
    pub sockets: Option<Arc<Addresses>>,
    /// Client connections, by address.
    pub clients: Option<Arc<Addresses>>,
    /// Negotiates that led to no connection yet, by address.
    pub pending: Option<Pending>,
    open: AtomicU32,
}

impl Tally {
    #[must_use]
    pub(crate) fn new(limits: &FrontendLimits) -> Self {
        let addresses = || limits.connections_per_address.map(|most| Arc::new(Addresses::new(most)));
        Self {
            connects: limits.connects_per_second.map(Bucket::new),
            sockets: addresses(),
            clients: addresses(),
            pending: limits.pending_per_address.map(Pending::new),
            open: AtomicU32::new(0),
        }
    }

    /// Sockets on which requests are served: those of client connections are counted elsewhere.
    #[must_use]
    pub(crate) fn open(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }

    /// Such a socket begins.
    pub(crate) fn opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// It has ended, or has become a client connection.
    pub(crate) fn closed(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}
