//! Rate limits of calls by method and user: token buckets in tables shared by all shards.
//!
//! Full buckets are evicted, so only callers of the last second are stored.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::Duration;

use super::throttle::{BURST, moment, nanos, pay};
use crate::ground::bounded::Partitions;

/// Maximum number of buckets in a partition; 262 144 in all, about 8 MiB.
const BUCKETS_PER_PART_MAX: usize = 16 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct RatedCall<'a> {
    pub rule: &'a str,
    pub method: &'a str,
    /// User, or connection if there is no user.
    pub caller: RatedCaller<'a>,
}

/// Caller of a method: a user over all their connections, or a connection without a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum RatedCaller<'a> {
    User(&'a str),
    Connection(&'a str),
}

#[derive(Debug, Default)]
pub(crate) struct MethodRates(Partitions<RatePart>);

#[derive(Debug, Default)]
struct RatePart {
    /// Time when the consumed tokens are refilled, by hash of the call.
    paid_at: HashMap<u64, u64>,
    swept_at: u64,
}

impl MethodRates {
    /// Takes a token if the call is within its rate. If the table is full, callers without a bucket are refused, to
    /// protect the app server.
    #[must_use]
    pub(crate) fn take(&self, hub: &str, call: RatedCall<'_>, per_second: NonZeroU32, now: Duration) -> bool {
        let hash = self.0.hash(&(hub, call));
        self.0.of_hash(hash).take(hash, per_second, moment(now))
    }
}

impl RatePart {
    fn take(&mut self, hash: u64, per_second: NonZeroU32, now: u64) -> bool {
        if self.paid_at.len() >= BUCKETS_PER_PART_MAX && !self.paid_at.contains_key(&hash) {
            self.sweep(now);
            if self.paid_at.len() >= BUCKETS_PER_PART_MAX {
                return false;
            }
        }
        let paid_at = self.paid_at.entry(hash).or_default();
        let next = pay(*paid_at, now, 1, per_second);
        let is_within = next <= now;
        if is_within {
            *paid_at = next;
        }
        is_within
    }

    /// Evicts full buckets, at most once per burst period to limit the cost under load.
    fn sweep(&mut self, now: u64) {
        let full_before = now.saturating_sub(nanos(BURST));
        if self.swept_at <= full_before {
            self.swept_at = now;
            self.paid_at.retain(|_, paid_at| *paid_at > full_before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn take(rates: &MethodRates, method: &str, caller: RatedCaller<'_>, now: Duration) -> bool {
        rates.take("chat", RatedCall { rule: "1", method, caller }, NonZeroU32::new(2).unwrap(), now)
    }

    #[test]
    fn each_method_and_caller_has_a_rate_of_its_own() {
        let rates = MethodRates::default();
        let (ann, ben) = (RatedCaller::User("ann"), RatedCaller::User("ben"));
        assert!(take(&rates, "Say", ann, SECOND) && take(&rates, "Say", ann, SECOND));
        assert!(!take(&rates, "Say", ann, SECOND));
        assert!(take(&rates, "Say", ben, SECOND) && take(&rates, "Ask", ann, SECOND));
        assert!(take(&rates, "Say", RatedCaller::Connection("ann"), SECOND), "a connection is no user of that name");
        assert!(take(&rates, "Say", ann, SECOND + SECOND / 2), "a refusal costs nothing");
        assert!(!take(&rates, "Say", ann, SECOND + SECOND / 2));
    }

    #[test]
    fn callers_beyond_the_bound_are_refused_until_others_have_been_quiet_for_a_second() {
        let mut part = RatePart::default();
        let rate = NonZeroU32::MIN;
        let now = moment(SECOND);
        for hash in 0..BUCKETS_PER_PART_MAX as u64 {
            assert!(part.take(hash, rate, now));
        }
        assert!(!part.take(u64::MAX, rate, now));
        let later = moment(SECOND * 2);
        assert!(part.take(0, rate, later));
        assert!(part.take(u64::MAX, rate, moment(SECOND * 2)), "what is full again is forgotten");
        assert!(part.paid_at.len() <= 2);
    }
}
