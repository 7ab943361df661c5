//! GETs forwarded to the owners of their connections: event streams and polls in flight.
//!
//! A draining node asks the owners to end these long requests: polls immediately, event streams between two calls of
//! their clients and in batches, because their clients reconnect. Hop limits bound the number of GETs.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::ground::bounded::{Lease, Leases};
use crate::ground::net::address::Address;

/// Minimum age of an event stream before it is ended, enough for the client's handshake.
const SETTLING_TIME: Duration = Duration::from_secs(2);

/// Interval for repeating the request to end an event stream.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// Number of event streams that may end in one step even if more steps are left. So few can't cause a reconnect storm.
const FEW_STREAMS: usize = 5;

/// Table of GETs in flight.
#[derive(Debug, Default)]
pub(crate) struct CarriedGets(Leases<CarriedGet>);

/// Forwarded GET. Its lease is revoked when the owner is lost.
#[derive(Debug, Clone)]
pub(crate) struct CarriedGet {
    pub(crate) owner: Address,
    /// Boot id of the owner.
    boot: Arc<str>,
    /// Sealed token of the connection.
    pub(crate) token: Arc<str>,
    pub(crate) kind: GetKind,
    /// Start time, or time of the last request to end it.
    since: Instant,
    is_asked: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GetKind {
    EventStream,
    Poll,
}

impl CarriedGets {
    /// Registers a GET until the lease is dropped.
    pub(crate) fn begin_get(&self, (owner, boot): (&Address, &str), token: &str, kind: GetKind) -> Lease<CarriedGet> {
        let (owner, boot, token) = (owner.clone(), boot.into(), token.into());
        self.0.add(CarriedGet { owner, boot, token, kind, since: Instant::now(), is_asked: false })
    }

    /// Distinct owners of the GETs in flight: address and boot id.
    pub(crate) fn owners(&self) -> HashSet<(Address, Arc<str>)> {
        self.0.lock().iter().map(|(_, get)| (get.owner.clone(), get.boot.clone())).collect()
    }

    pub(crate) fn end_of_lost(&self, boot: &str) -> usize {
        let mut gets = self.0.lock();
        let lost: Vec<_> = gets.iter().filter(|(_, get)| *get.boot == *boot).map(|(number, _)| number).collect();
        lost.into_iter().filter_map(|number| gets.revoke(number)).count()
    }

    pub(crate) fn count(&self) -> usize {
        self.0.lock().len()
    }

    /// GETs to end in this step: all polls, and the event streams needed to end all in the given number of steps.
    #[must_use]
    pub(crate) fn take_due(&self, now: Instant, steps: usize) -> Vec<CarriedGet> {
        let mut gets = self.0.lock();
        let is_due = |get: &CarriedGet| {
            let after = if get.is_asked { ASK_AGAIN } else { SETTLING_TIME };
            get.kind == GetKind::EventStream && get.since + after <= now
        };
        let streams = gets.iter().filter(|(_, get)| is_due(get)).count();
        let most = streams.div_ceil(steps.max(1)).max(FEW_STREAMS);
        let mut due: Vec<_> =
            gets.iter().filter(|(_, get)| get.kind == GetKind::Poll).map(|(_, get)| get.clone()).collect();
        for get in gets.iter_mut().filter(|get| is_due(get)).take(most) {
            (get.since, get.is_asked) = (now, true);
            due.push(get.clone());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn polls_end_immediately_and_event_streams_spread_out_each_once() {
        let (gets, owner) = (CarriedGets::default(), "http://10.0.0.1:8080".parse().unwrap());
        let poll = gets.begin_get((&owner, "b1"), "poll", GetKind::Poll);
        let streams: Vec<_> =
            (0..100).map(|n| gets.begin_get((&owner, "b1"), &n.to_string(), GetKind::EventStream)).collect();
        let due = |after_s: u64, steps| gets.take_due(Instant::now() + Duration::from_secs(after_s), steps).len();
        assert_eq!(
            (due(0, 10), due(0, 10)),
            (1, 1),
            "a stream that has just begun is left alone, a poll is asked for again"
        );
        drop(poll);
        assert_eq!((due(2, 10), due(2, 9), due(2, 1), due(2, 1)), (10, 10, 80, 0));
        assert_eq!(due(12, 1), 100, "who has not heard is asked once more");
        drop(streams);
        assert_eq!(gets.count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_streams_end_soon() {
        let (gets, owner) = (CarriedGets::default(), "http://10.0.0.1:8080".parse().unwrap());
        let _streams: Vec<_> =
            (0..7).map(|n| gets.begin_get((&owner, "b1"), &n.to_string(), GetKind::EventStream)).collect();
        let now = Instant::now() + SETTLING_TIME;
        assert_eq!((gets.take_due(now, 50).len(), gets.take_due(now, 49).len()), (FEW_STREAMS, 2));
    }
}
