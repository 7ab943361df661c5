//! Tally in addition to message counts: connects, ends, failed calls, times, and events per second.
//!
//! Tallies of several generators can be added.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::clock::SECOND_US;
use trunkline_generator::histogram::Histogram;

/// Maximum number of separate seconds: one day. Later ones count as the last.
const SECONDS_MAX: usize = 86_400;

pub(crate) type Causes = BTreeMap<String, u64>;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) attempted: u64,
    /// Connects that opened a hub connection.
    pub(crate) opened: u64,
    /// Failed connects, by cause.
    pub(crate) failed: Causes,
    /// Unexpected ends of connections, by cause.
    pub(crate) ended: Causes,
    pub(crate) errors: Causes,
    /// Duration of a connect up to the handshake response.
    pub(crate) connect: Histogram,
    /// Time from a message's due time (see [`counts_from`](crate::clock::counts_from)) to its receipt.
    pub(crate) latency: Histogram,
    /// Time between two messages received by one client.
    pub(crate) interval: Histogram,
    /// Delay of sends after their due time, caused by the generator.
    pub(crate) lateness: Histogram,
    pub(crate) seconds: Vec<Second>,
    pub(crate) storms: Vec<StormTally>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Second {
    pub(crate) opened: u64,
    pub(crate) closed: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) latency_sum_us: u64,
    pub(crate) latency_count: u64,
    pub(crate) latency_max_us: u64,
}

/// Simultaneous disconnect of all clients, with the time of each reconnect since then.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct StormTally {
    pub(crate) clients: u64,
    pub(crate) back: Histogram,
}

impl Tally {
    pub(crate) fn opened(&mut self, now_us: u64, took_us: u64) {
        self.opened += 1;
        self.connect.record(took_us);
        self.second(now_us).opened += 1;
    }

    /// Counts the end of a connection; without a cause, it was planned.
    pub(crate) fn closed(&mut self, now_us: u64, cause: Option<String>) {
        self.second(now_us).closed += 1;
        if let Some(cause) = cause {
            *self.ended.entry(cause).or_default() += 1;
        }
    }

    pub(crate) fn failed(&mut self, cause: String) {
        *self.failed.entry(cause).or_default() += 1;
    }

    pub(crate) fn error(&mut self, cause: impl Into<String>) {
        *self.errors.entry(cause.into()).or_default() += 1;
    }

    pub(crate) fn sent(&mut self, now_us: u64, due_us: u64) {
        self.lateness.record(now_us.saturating_sub(due_us));
        self.second(now_us).sent += 1;
    }

    /// Counts an immediately sent answer.
    pub(crate) fn answered(&mut self, now_us: u64) {
        self.second(now_us).sent += 1;
    }

    pub(crate) fn received(&mut self, now_us: u64, latency_us: u64) {
        self.latency.record(latency_us);
        let second = self.second(now_us);
        second.received += 1;
        second.latency_sum_us += latency_us;
        second.latency_count += 1;
        second.latency_max_us = second.latency_max_us.max(latency_us);
    }

    /// Whether every connect succeeded and lasted, and every call was answered.
    pub(crate) fn is_clean(&self) -> bool {
        self.failed.is_empty() && self.ended.is_empty() && self.errors.is_empty()
    }

    /// Adds the counts of another generator, second by second.
    pub(crate) fn add(&mut self, other: &Self) {
        self.attempted += other.attempted;
        self.opened += other.opened;
        add_causes(&mut self.failed, &other.failed);
        add_causes(&mut self.ended, &other.ended);
        add_causes(&mut self.errors, &other.errors);
        self.connect.add(&other.connect);
        self.latency.add(&other.latency);
        self.interval.add(&other.interval);
        self.lateness.add(&other.lateness);
        for (number, second) in other.seconds.iter().enumerate() {
            self.at(number).add(second);
        }
        self.storms.extend(other.storms.iter().cloned());
    }

    /// Number of open connections at the end of each second.
    pub(crate) fn open_by_second(&self) -> Vec<u64> {
        let mut open: u64 = 0;
        let count = |second: &Second| {
            open = (open + second.opened).saturating_sub(second.closed);
            open
        };
        self.seconds.iter().map(count).collect()
    }

    fn second(&mut self, now_us: u64) -> &mut Second {
        self.at(usize::try_from(now_us / SECOND_US).unwrap_or(SECONDS_MAX))
    }

    #[expect(clippy::indexing_slicing, reason = "the list was just made long enough")]
    fn at(&mut self, number: usize) -> &mut Second {
        let number = number.min(SECONDS_MAX);
        if self.seconds.len() <= number {
            self.seconds.resize(number + 1, Second::default());
        }
        &mut self.seconds[number]
    }
}

impl Second {
    fn add(&mut self, other: &Self) {
        self.opened += other.opened;
        self.closed += other.closed;
        self.sent += other.sent;
        self.received += other.received;
        self.latency_sum_us += other.latency_sum_us;
        self.latency_count += other.latency_count;
        self.latency_max_us = self.latency_max_us.max(other.latency_max_us);
    }
}

fn add_causes(causes: &mut Causes, others: &Causes) {
    for (cause, count) in others {
        *causes.entry(cause.clone()).or_default() += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally() -> Tally {
        let mut tally = Tally { attempted: 3, ..Tally::default() };
        tally.opened(100, 100);
        tally.opened(1_500_000, 200);
        tally.failed("connection refused".into());
        tally.closed(2_100_000, Some("reset".into()));
        tally.sent(1_600_000, 1_599_000);
        tally.received(1_700_000, 100_000);
        tally
    }

    #[test]
    fn what_happens_is_counted_in_its_second() {
        let tally = tally();
        assert_eq!(tally.open_by_second(), [1, 2, 1]);
        assert_eq!(
            (tally.seconds[1].sent, tally.seconds[1].received, tally.seconds[1].latency_max_us),
            (1, 1, 100_000)
        );
        assert!(!tally.is_clean());
    }

    #[test]
    fn the_sum_of_two_is_twice_one() {
        let mut sum = tally();
        sum.add(&tally());
        assert_eq!((sum.attempted, sum.opened, sum.latency.count(), sum.lateness.count()), (6, 4, 2, 2));
        assert_eq!(sum.failed["connection refused"], 2);
        assert_eq!(sum.open_by_second(), [2, 4, 2]);
    }
}
