//! Pending negotiates by address: negotiates without a connection so far. Counted in two periods, then dropped.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use trunkline_protocol::limits::{CLOCK_SKEW_S, CONNECT_TIMEOUT_S};

use super::address_key::AddressKey;
use crate::ground::bounded::Partitions;

/// Length of a period. A token is valid for no longer than both periods together at their shortest.
const SPAN_S: u64 = CONNECT_TIMEOUT_S + CLOCK_SKEW_S;

/// Maximum number of addresses per partition (of 16). Above it, expired entries are evicted. If the partition is still
/// full, new addresses are not counted: a flood from that many addresses can't be limited per address.
const ADDRESSES_MAX: usize = 8 * 1024;

#[derive(Debug)]
pub(crate) struct PendingNegotiations {
    most: NonZeroU32,
    counts: Partitions<HashMap<AddressKey, Count>>,
}

#[derive(Debug, Default)]
struct Count {
    span: u64,
    now: u32,
    before: u32,
}

impl Count {
    fn advance(&mut self, span: u64) {
        match span - self.span.min(span) {
            0 => {}
            1 => (self.before, self.now) = (self.now, 0),
            _ => (self.before, self.now) = (0, 0),
        }
        self.span = self.span.max(span);
    }
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
        let mut part = self.counts.of(&key);
        if part.len() >= ADDRESSES_MAX && !part.contains_key(&key) {
            part.retain(|_, count| count.span + 1 >= span);
            if part.len() >= ADDRESSES_MAX {
                return Ok(());
            }
        }
        let count = part.entry(key).or_default();
        count.advance(span);
        if count.now.saturating_add(count.before) >= self.most.get() {
            return Err(Duration::from_secs((span + 1) * SPAN_S).saturating_sub(now));
        }
        count.now += 1;
        Ok(())
    }

    /// Counts a connection, which completes a negotiate of its address.
    pub(crate) fn connected(&self, ip: IpAddr, now: Duration) {
        let key = AddressKey::from(ip);
        let mut part = self.counts.of(&key);
        let Some(count) = part.get_mut(&key) else { return };
        count.advance(now.as_secs() / SPAN_S);
        let older = if count.before > 0 { &mut count.before } else { &mut count.now };
        *older = older.saturating_sub(1);
        if count.before == 0 && count.now == 0 {
            part.remove(&key);
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
        assert!(pending.counts.of(&AddressKey::from(ANN)).is_empty());
    }

    #[test]
    fn the_table_is_bounded_and_forgets_old_addresses() {
        let pending = PendingNegotiations::new(NonZeroU32::MIN);
        let total =
            || (0..=u8::MAX).map(|last| pending.counts.of(&AddressKey::V4(u32::from(last))).len()).max().unwrap();
        for number in 0..200_000_u32 {
            assert_eq!(pending.negotiated(IpAddr::V4(number.into()), at(0)), Ok(()));
        }
        assert_eq!(total(), ADDRESSES_MAX);
        assert_eq!(pending.negotiated(ANN, at(3 * SPAN_S)), Ok(()));
        assert_eq!(pending.counts.of(&AddressKey::from(ANN)).len(), 1);
    }
}
