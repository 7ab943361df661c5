//! Requests for links: when to request a link from an app server that has not reached a node. Pure.
//!
//! ```text
//!  missing ── 1 s ──► request ── 1 s ──► request ── … ── growing intervals ──► request        until the link opens
//!          └──────── 4 s ────────► from now on, another node with links of the app server carries one
//! ```

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

/// Delay before the first request; the link is usually being opened already.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// Number of requests at short intervals.
const QUICK_TRIES: u32 = 5;

/// Maximum interval between requests.
const INTERVAL_MAX: Duration = Duration::from_secs(10);

/// Interval for links that are preferable but not required.
const IDLE_INTERVAL: Duration = Duration::from_secs(60);

/// Time before a node carries the link. Until then, the load balancer may route a retry to the right node.
const CARRIED_AFTER: Duration = Duration::from_secs(4);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Urgency {
    /// The node has no link from the app server.
    Missing,
    /// Another node carries the existing link.
    Carried,
}

#[derive(Debug)]
pub(super) struct LinkRequestSchedule<K>(HashMap<K, RequestTimes>);

#[derive(Debug, Clone, Copy)]
struct RequestTimes {
    since: Instant,
    next: Instant,
    tries: u32,
}

impl<K> Default for LinkRequestSchedule<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Clone + Eq + Hash> LinkRequestSchedule<K> {
    /// Replaces the set of missing links; returns those to request now.
    pub(super) fn update(&mut self, requested: &HashMap<K, Urgency>, now: Instant) -> HashSet<K> {
        self.0.retain(|key, _| requested.contains_key(key));
        let mut due = HashSet::new();
        for (key, urgency) in requested {
            let new = RequestTimes { since: now, next: now + FIRST_WAIT, tries: 0 };
            let times = self.0.entry(key.clone()).or_insert(new);
            if times.next <= now {
                times.tries += 1;
                times.next = now + interval(times.tries, *urgency);
                due.insert(key.clone());
            }
        }
        due
    }

    /// Whether any matching request is old enough for a carried link.
    pub(super) fn is_any_old(&self, is_meant: impl Fn(&K) -> bool, now: Instant) -> bool {
        let mut meant = self.0.iter().filter(|(key, _)| is_meant(key));
        meant.any(|(_, times)| now.duration_since(times.since) >= CARRIED_AFTER)
    }
}

fn interval(tries: u32, urgency: Urgency) -> Duration {
    match urgency {
        Urgency::Carried => IDLE_INTERVAL,
        Urgency::Missing => {
            let doublings = tries.saturating_sub(QUICK_TRIES).min(10);
            (Duration::from_secs(1) * 2_u32.pow(doublings)).min(INTERVAL_MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked_at(urgency: Urgency, seconds: u64) -> Vec<u64> {
        let (mut schedule, begun) = (LinkRequestSchedule::default(), Instant::now());
        let requested = HashMap::from([("a", urgency)]);
        let is_asked = |second: &u64| !schedule.update(&requested, begun + Duration::from_secs(*second)).is_empty();
        (0..seconds).filter(is_asked).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_missing_link_is_asked_for_ever_more_rarely() {
        assert_eq!(asked_at(Urgency::Missing, 50), [1, 2, 3, 4, 5, 6, 8, 12, 20, 30, 40]);
        assert_eq!(asked_at(Urgency::Carried, 130), [1, 61, 121]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_begins_again_when_it_was_fulfilled() {
        let (mut schedule, begun) = (LinkRequestSchedule::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        let requested = HashMap::from([("a", Urgency::Missing)]);
        let is_old =
            |schedule: &LinkRequestSchedule<_>, key, second| schedule.is_any_old(|known| *known == key, at(second));
        schedule.update(&requested, at(0));
        assert!(!is_old(&schedule, "a", 3) && is_old(&schedule, "a", 4) && !is_old(&schedule, "b", 4));
        assert!(schedule.update(&HashMap::new(), at(5)).is_empty());
        schedule.update(&requested, at(6));
        assert!(!is_old(&schedule, "a", 9) && is_old(&schedule, "a", 10));
    }
}
