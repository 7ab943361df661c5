//! Pending negotiates by address: negotiates without a connection so far. Counted in two periods, then dropped.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use trunkline_protocol::limits::{CLOCK_SKEW_S, CONNECT_TIMEOUT_S};

use super::address_key::AddressKey;
use super::span_table::SpanTable;
use crate::ground::bounded::Partitions;

/// Length of a period. A token is valid for no longer than both periods together at their shortest.
const SPAN_S: u64 = CONNECT_TIMEOUT_S + CLOCK_SKEW_S;

/// Maximum number of addresses per period and partition (of 16). Above it, new addresses are not counted: a flood from
/// that many addresses can't be limited per address.
const ADDRESSES_MAX: usize = 8 * 1024;

#[derive(Debug)]
pub(crate) struct PendingNegotiations {
    most: NonZeroU32,
    counts: Partitions<SpanTable<u32>>,
}

impl PendingNegotiations {
    pub(crate) fn new(most: NonZeroU32) -> Self {
        Self { most, counts: Partitions::default() }
    }

    /// Counts a negotiate.
    ///
    /// # Errors
    /// At the limit of the address, returns the time until some negotiates expire.
    pub(crate) fn negotiated(&self, ip: IpAddr, now: Duration) -> Result<(), Duration> {
        let (key, span) = (AddressKey::from(ip), now.as_secs() / SPAN_S);
        let mut counts = self.counts.of(&key);
        counts.advance(span);
        let counted = [&counts.now, &counts.before].map(|counts| counts.get(&key).copied().unwrap_or_default());
        if counted.iter().sum::<u32>() >= self.most.get() {
            return Err(Duration::from_secs((span + 1) * SPAN_S).saturating_sub(now));
        }
        counts.entry(key, ADDRESSES_MAX).into_iter().for_each(|count| *count += 1);
        Ok(())
    }

    /// Counts a connection, which completes a negotiate of its address.
    pub(crate) fn connected(&self, ip: IpAddr, now: Duration) {
        let key = AddressKey::from(ip);
        let mut counts = self.counts.of(&key);
        counts.advance(now.as_secs() / SPAN_S);
        let SpanTable { now, before, .. } = &mut *counts;
        let Some(older) = [before, now].into_iter().find(|counts| counts.contains_key(&key)) else { return };
        if let Some(count) = older.get_mut(&key).filter(|count| **count > 1) {
            *count -= 1;
        } else {
            older.remove(&key);
        }
    }

    /// Drops the counts of expired negotiates.
    pub(super) fn sweep(&self, now: Duration) {
        for mut counts in self.counts.each() {
            counts.advance(now.as_secs() / SPAN_S);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const BEN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn an_address_that_never_connects_reaches_its_limit() {
        let pending = PendingNegotiations::new(NonZeroU32::new(2).unwrap());
        assert_eq!(pending.negotiated(ANN, at(1)), Ok(()));
        assert_eq!(pending.negotiated(ANN, at(2)), Ok(()));
        assert_eq!(pending.negotiated(ANN, at(3)), Err(at(SPAN_S - 3)));
        assert_eq!(pending.negotiated(BEN, at(3)), Ok(()));
        // Negotiates still count in the next period, but not in the one after.
        assert!(pending.negotiated(ANN, at(SPAN_S + 1)).is_err());
        assert_eq!(pending.negotiated(ANN, at(2 * SPAN_S)), Ok(()));
    }

    #[test]
    fn an_address_that_connects_may_negotiate_again() {
        let pending = PendingNegotiations::new(NonZeroU32::MIN);
        for second in 0..100 {
            assert_eq!(pending.negotiated(ANN, at(second)), Ok(()));
            pending.connected(ANN, at(second));
        }
        let counts = pending.counts.of(&AddressKey::from(ANN));
        assert!(counts.now.is_empty() && counts.before.is_empty());
    }

    #[test]
    fn the_table_is_bounded_and_forgets_old_addresses() {
        let pending = PendingNegotiations::new(NonZeroU32::MIN);
        let total = || pending.counts.each().map(|counts| counts.now.len() + counts.before.len()).max().unwrap();
        for number in 0..200_000_u32 {
            assert_eq!(pending.negotiated(IpAddr::V4(number.into()), at(0)), Ok(()));
        }
        assert_eq!(total(), ADDRESSES_MAX);
        pending.sweep(at(SPAN_S));
        assert_eq!(total(), ADDRESSES_MAX, "still valid");
        pending.sweep(at(2 * SPAN_S));
        assert_eq!(total(), 0, "without any further request");
    }
}
