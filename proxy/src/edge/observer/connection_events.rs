//! Ends and refusals of client connections, failed calls and round trips: totals of this node, and rates between two
//! readings.

use std::collections::BTreeMap;

use trunkline_protocol::cause::Cause;

use crate::engine::shard::Shared;
use crate::ground::metrics::{CauseCounters, Histogram};

/// Number of causes with their own rate in a sample. The other causes are summed up.
const SHOWN_CAUSES: usize = 5;

/// Name of the sum of the other causes.
const OTHER_CAUSES: &str = "other";

/// Rates per second, by cause.
pub(super) type CauseRates = BTreeMap<String, f64>;

/// Totals since the node started.
#[derive(Debug, Clone, Default)]
pub(super) struct ConnectionTotals {
    closed: BTreeMap<&'static str, u64>,
    refused: BTreeMap<&'static str, u64>,
    call_errors: u64,
    round_trips: u64,
    round_trips_s: f64,
}

/// Events between two readings.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct ConnectionEvents {
    /// Client connections that ended, per second.
    pub(super) closed: CauseRates,
    /// Requests, sockets and client connections that were refused, per second.
    pub(super) refused: CauseRates,
    /// Calls that their app server answered with an error, per second.
    pub(super) call_errors: f64,
    /// Mean round trip of links to app servers; `None` without a measurement.
    pub(super) round_trip_ms: Option<f64>,
}

impl ConnectionTotals {
    pub(super) fn read_totals(shared: &Shared) -> Self {
        let mut totals = Self::default();
        for counters in shared.counters() {
            add_causes(&mut totals.refused, &counters.requests_refused);
            add_causes(&mut totals.refused, &counters.sockets_refused);
            for hub in counters.hubs() {
                add_causes(&mut totals.closed, &hub.closed);
                add_causes(&mut totals.refused, &hub.refused);
                totals.call_errors += hub.call_errors.get();
            }
        }
        let round_trips = Histogram::sum_up(shared.counters().iter().map(|counters| &counters.round_trips));
        (totals.round_trips, totals.round_trips_s) = (round_trips.count, round_trips.sum);
        totals
    }

    /// Events since an earlier reading.
    pub(super) fn since(&self, before: &Self, seconds: f64) -> ConnectionEvents {
        let trips = self.round_trips.saturating_sub(before.round_trips);
        let trips_ms = (self.round_trips_s - before.round_trips_s).max(0.0) * 1000.0;
        ConnectionEvents {
            closed: rates(&self.closed, &before.closed, seconds),
            refused: rates(&self.refused, &before.refused, seconds),
            call_errors: per_second(self.call_errors.saturating_sub(before.call_errors), seconds),
            round_trip_ms: (trips > 0).then(|| rounded(trips_ms / as_float(trips), 1000.0)),
        }
    }
}

fn add_causes(totals: &mut BTreeMap<&'static str, u64>, causes: &CauseCounters) {
    for cause in Cause::all() {
        let count = causes.of(cause);
        if count > 0 {
            *totals.entry(cause.label()).or_default() += count;
        }
    }
}

/// Rates of the most frequent causes, and of all others together.
fn rates(now: &BTreeMap<&'static str, u64>, before: &BTreeMap<&'static str, u64>, seconds: f64) -> CauseRates {
    let earlier = |cause: &str| before.get(cause).copied().unwrap_or_default();
    let mut counts: Vec<_> = now.iter().map(|(cause, count)| (*cause, count.saturating_sub(earlier(cause)))).collect();
    counts.retain(|(_, count)| *count > 0);
    counts.sort_by_key(|(cause, count)| (std::cmp::Reverse(*count), *cause));
    let others: u64 = counts.iter().skip(SHOWN_CAUSES).map(|(_, count)| count).sum();
    counts.truncate(SHOWN_CAUSES);
    counts.extend((others > 0).then_some((OTHER_CAUSES, others)));
    counts.into_iter().map(|(cause, count)| (cause.to_owned(), per_second(count, seconds))).collect()
}

fn per_second(count: u64, seconds: f64) -> f64 {
    rounded(as_float(count) / seconds.max(0.001), 100.0)
}

fn rounded(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

#[expect(clippy::cast_precision_loss, reason = "counts between two readings fit into 52 bits")]
fn as_float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_rates_by_cause_since_the_earlier_reading() {
        let before = ConnectionTotals {
            closed: BTreeMap::from([("drained", 4), ("operator", 2)]),
            call_errors: 1,
            round_trips: 10,
            round_trips_s: 1.0,
            ..ConnectionTotals::default()
        };
        let now = ConnectionTotals {
            closed: BTreeMap::from([("drained", 4), ("operator", 12), ("slow_client", 1)]),
            call_errors: 6,
            round_trips: 14,
            round_trips_s: 1.002,
            ..before.clone()
        };
        let events = now.since(&before, 10.0);
        let closed = CauseRates::from([("operator".to_owned(), 1.0), ("slow_client".to_owned(), 0.1)]);
        let expected = ConnectionEvents { closed, call_errors: 0.5, round_trip_ms: Some(0.5), ..Default::default() };
        assert_eq!(events, expected);
        assert_eq!(now.since(&now, 10.0), ConnectionEvents::default(), "nothing has happened since");
    }

    #[test]
    fn beyond_five_causes_the_rarest_are_summed_up() {
        let causes = ["a", "b", "c", "d", "e", "f", "g"];
        let now = causes.into_iter().zip([70, 60, 50, 40, 30, 20, 10]).collect();
        let rates = rates(&now, &BTreeMap::new(), 10.0);
        assert_eq!(rates.len(), SHOWN_CAUSES + 1);
        assert_eq!((rates["a"], rates["e"], rates[OTHER_CAUSES]), (7.0, 3.0, 3.0));
    }
}
