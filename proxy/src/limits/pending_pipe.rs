//! Limit of pipes that a POST has made and no GET has begun to read: each holds what was posted.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use trunkline_protocol::limits::{PENDING_PIPES_MAX, PENDING_PIPES_PER_ADDRESS_MAX};

use super::address_limit::{AddressLimit, AddressPermit};

/// Pending pipes of a node.
#[derive(Debug)]
pub(crate) struct PendingPipes {
    pending: AtomicU32,
    addresses: Arc<AddressLimit>,
}

/// Permit of one pending pipe; dropping it frees it.
#[derive(Debug)]
pub(crate) struct PipePermit {
    pipes: Arc<PendingPipes>,
    _address: Option<AddressPermit>,
}

impl PendingPipes {
    #[must_use]
    pub(super) fn new() -> Arc<Self> {
        let per_address = NonZeroU32::new(PENDING_PIPES_PER_ADDRESS_MAX).unwrap_or(NonZeroU32::MIN);
        Arc::new(Self { pending: AtomicU32::new(0), addresses: Arc::new(AddressLimit::new(per_address)) })
    }

    /// Number of pending pipes.
    #[must_use]
    pub(crate) fn count(&self) -> u32 {
        self.pending.load(Ordering::Relaxed)
    }

    /// Permit for one more pipe; `None` at a limit. Without an address it counts for the node alone.
    #[must_use]
    pub(crate) fn take(self: &Arc<Self>, address: Option<IpAddr>) -> Option<PipePermit> {
        let address = address.map(|ip| self.addresses.take(ip).ok_or(())).transpose().ok()?;
        let taken = self.pending.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |pending| {
            (pending < PENDING_PIPES_MAX).then_some(pending + 1)
        });
        taken.ok().map(|_| PipePermit { pipes: self.clone(), _address: address })
    }
}

impl Drop for PipePermit {
    fn drop(&mut self) {
        self.pipes.pending.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_are_bounded_by_address_and_by_node_and_freed_with_their_permits() {
        let pipes = PendingPipes::new();
        let ip = |last: u32| Some(IpAddr::V4(last.into()));
        let mut permits: Vec<_> = (0..10_000).filter_map(|_| pipes.take(ip(1))).collect();
        assert_eq!(
            (permits.len(), pipes.count()),
            (PENDING_PIPES_PER_ADDRESS_MAX as usize, PENDING_PIPES_PER_ADDRESS_MAX)
        );
        permits.extend((2..10_000).filter_map(|last| pipes.take(ip(last))));
        assert_eq!((permits.len(), pipes.take(None).is_none()), (PENDING_PIPES_MAX as usize, true));
        drop(permits);
        assert_eq!(pipes.count(), 0);
        assert!(pipes.take(ip(1)).is_some());
    }
}
