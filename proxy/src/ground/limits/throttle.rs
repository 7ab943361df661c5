//! Throttles: token buckets with a burst of one second, stored as the time when consumed tokens are refilled.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Duration of a burst: the tokens available after an idle period.
pub(super) const BURST: Duration = Duration::from_secs(1);

/// Error: the wait would exceed the caller's limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooFast {
    /// Time after which a retry may succeed.
    pub retry_after: Duration,
}

/// Returns the refill time after consuming `amount` more. Times are nanoseconds since [`BURST`] before the start.
pub(super) fn pay(paid_at: u64, now: u64, amount: u64, per_second: NonZeroU32) -> u64 {
    let price = u128::from(amount) * BURST.as_nanos() / u128::from(per_second.get());
    paid_at.max(now - nanos(BURST)).saturating_add(u64::try_from(price).unwrap_or(u64::MAX))
}

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn moment(now: Duration) -> u64 {
    nanos(now.saturating_add(BURST))
}

/// Token bucket shared by all threads.
#[derive(Debug)]
pub(crate) struct Bucket {
    per_second: NonZeroU32,
    paid_at: AtomicU64,
}

impl Bucket {
    pub(crate) fn new(per_second: NonZeroU32) -> Self {
        Self { per_second, paid_at: AtomicU64::new(0) }
    }

    /// Takes one token and returns the wait before proceeding. Fails if the wait would exceed `wait_max`. Then no token
    /// is taken.
    pub(crate) fn take(&self, now: Duration, wait_max: Duration) -> Result<Duration, TooFast> {
        let now = moment(now);
        let (mut wait, mut excess) = (0, 0);
        let taken = self.paid_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |paid_at| {
            let next = pay(paid_at, now, 1, self.per_second);
            wait = next.saturating_sub(now);
            excess = wait.saturating_sub(nanos(wait_max));
            (excess == 0).then_some(next)
        });
        match taken {
            Ok(_) => Ok(Duration::from_nanos(wait)),
            Err(_) => Err(TooFast { retry_after: Duration::from_nanos(excess) }),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Quota {
    messages: Option<NonZeroU32>,
    bytes: Option<NonZeroU32>,
    messages_paid_at: u64,
    bytes_paid_at: u64,
}

/// Time for which a client connection must not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Debt {
    pub messages: Duration,
    pub bytes: Duration,
}

impl Quota {
    /// Creates a full quota; `None` without limits.
    pub(crate) fn new(messages: Option<NonZeroU32>, bytes: Option<NonZeroU32>) -> Option<Box<Self>> {
        let is_limited = messages.is_some() || bytes.is_some();
        is_limited.then(|| Box::new(Self { messages, bytes, messages_paid_at: 0, bytes_paid_at: 0 }))
    }

    pub(crate) fn charge(&mut self, now: Duration, messages: u64, bytes: usize) -> Debt {
        self.charge_within(Duration::MAX, now, messages, bytes)
    }

    /// Charges messages and bytes, up to a maximum debt.
    pub(crate) fn charge_within(&mut self, debt_max: Duration, now: Duration, messages: u64, bytes: usize) -> Debt {
        let now = moment(now);
        let owed = |paid_at: &mut u64, amount: u64, per_second: Option<NonZeroU32>| {
            let Some(per_second) = per_second else { return Duration::ZERO };
            *paid_at = pay(*paid_at, now, amount, per_second).min(now.saturating_add(nanos(debt_max)));
            Duration::from_nanos(paid_at.saturating_sub(now))
        };
        Debt {
            messages: owed(&mut self.messages_paid_at, messages, self.messages),
            bytes: owed(&mut self.bytes_paid_at, bytes as u64, self.bytes),
        }
    }

    /// Maximum number of bytes to read in one go, so that a debt lasts little more than a second.
    pub(crate) fn read_max_bytes(&self) -> usize {
        self.bytes.map_or(usize::MAX, |bytes| usize::try_from(bytes.get()).unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rate(per_second: u32) -> NonZeroU32 {
        NonZeroU32::new(per_second).unwrap()
    }

    #[test]
    fn a_burst_passes_then_waits_then_is_refused() {
        let bucket = Bucket::new(rate(10));
        for _ in 0..10 {
            assert_eq!(bucket.take(Duration::ZERO, SECOND / 5), Ok(Duration::ZERO));
        }
        assert_eq!(bucket.take(Duration::ZERO, SECOND / 5), Ok(SECOND / 10));
        assert_eq!(bucket.take(Duration::ZERO, SECOND / 5), Ok(SECOND / 5));
        assert_eq!(bucket.take(Duration::ZERO, SECOND / 5), Err(TooFast { retry_after: SECOND / 10 }));
        // The refused call took no token.
        assert_eq!(bucket.take(SECOND / 10, SECOND / 5), Ok(SECOND / 5));
    }

    #[test]
    fn a_quiet_time_saves_up_no_more_than_a_burst() {
        let bucket = Bucket::new(rate(5));
        for _ in 0..5 {
            assert_eq!(bucket.take(SECOND * 1000, Duration::ZERO), Ok(Duration::ZERO));
        }
        assert!(bucket.take(SECOND * 1000, Duration::ZERO).is_err());
        assert_eq!(bucket.take(SECOND * 1001, Duration::ZERO), Ok(Duration::ZERO));
    }

    #[test]
    fn a_client_owes_time_for_what_is_over_its_quota() {
        let mut quota = Quota::new(Some(rate(10)), Some(rate(1000))).unwrap();
        assert_eq!(quota.charge(Duration::ZERO, 10, 1000), Debt::default());
        assert_eq!(quota.charge(Duration::ZERO, 5, 100), Debt { messages: SECOND / 2, bytes: SECOND / 10 });
        assert_eq!(quota.charge(SECOND, 5, 100), Debt::default());
        assert!(Quota::new(None, None).is_none());
    }
}
