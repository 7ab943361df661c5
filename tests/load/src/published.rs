//! Final line of the published load tests, for comparison.
//!
//! Minimum and maximum refer to the clients' *averages*, as published. Two errors are corrected: missed messages are
//! counted as lost of expected, including the start and end of the run, and the first tick of a client is not an
//! interval of zero.

use serde::{Deserialize, Serialize};

use crate::ledger::Counts;

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Mean {
    sum_us: u64,
    count: u64,
}

impl Mean {
    pub(crate) fn add(&mut self, time_us: u64) {
        self.sum_us += time_us;
        self.count += 1;
    }

    fn value(self) -> Option<f64> {
        (self.count > 0).then(|| self.sum_us as f64 / self.count as f64)
    }
}

/// Figure of a published line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Figure {
    /// Round trip times of echoes.
    EchoLatency,
    Interval,
    /// Latencies of chat messages.
    ChatLatency,
}

/// Averages of all clients in a mergeable form.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Published {
    figure: Figure,
    clients: u64,
    averages: u64,
    min_us: f64,
    max_us: f64,
    sum_us: f64,
}

impl Published {
    pub(crate) fn of(figure: Figure, means: impl IntoIterator<Item = Mean>) -> Self {
        let mut published = Self { figure, clients: 0, averages: 0, min_us: 0.0, max_us: 0.0, sum_us: 0.0 };
        for mean in means {
            let one = mean.value().map_or(Self { clients: 1, ..published.nothing() }, |value| Self {
                figure,
                clients: 1,
                averages: 1,
                min_us: value,
                max_us: value,
                sum_us: value,
            });
            published.add(&one);
        }
        published
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.clients += other.clients;
        if other.averages == 0 {
            return;
        }
        let is_first = self.averages == 0;
        self.min_us = if is_first { other.min_us } else { self.min_us.min(other.min_us) };
        self.max_us = if is_first { other.max_us } else { self.max_us.max(other.max_us) };
        self.averages += other.averages;
        self.sum_us += other.sum_us;
    }

    pub(crate) fn line(&self, counts: &Counts) -> String {
        let ms = |time_us: f64| format!("{:.2}ms", time_us / 1_000.0);
        let average = if self.averages == 0 { 0.0 } else { self.sum_us / self.averages as f64 };
        let missed = if counts.expected == 0 { 0.0 } else { counts.lost as f64 * 100.0 / counts.expected as f64 };
        let (clients, received) = (self.clients, counts.received);
        let (min, max, average) = (ms(self.min_us), ms(self.max_us), ms(average));
        let line = match self.figure {
            Figure::EchoLatency => format!(
                "Clients={clients}, Received={received}, Missed={missed:.2}%, Min latency={min}, Max latency={max}, \
                 Avg latency:{average}"
            ),
            Figure::Interval => format!(
                "Clients={clients}, Received={received}, Missed={missed:.2}%, Min interval={min}, Max interval={max}, \
                 Avg interval:{average}"
            ),
            Figure::ChatLatency => format!(
                "Clients={clients}, Min latency={min}, Max latency={max}, Avg Latency={average}, Received={received}, \
                 Missed={missed:.2}%"
            ),
        };
        match counts.misdelivered {
            0 => line,
            misdelivered => format!("{line}, Misdelivered={misdelivered}"),
        }
    }

    fn nothing(&self) -> Self {
        Self { figure: self.figure, clients: 0, averages: 0, min_us: 0.0, max_us: 0.0, sum_us: 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(times: &[u64]) -> Mean {
        let mut mean = Mean::default();
        times.iter().for_each(|&time| mean.add(time));
        mean
    }

    #[test]
    fn the_line_has_the_published_form() {
        let counts = Counts { sent: 4, expected: 4, received: 3, lost: 1, ..Counts::default() };
        let means = [mean(&[1_000, 3_000]), mean(&[4_000]), mean(&[])];
        let line = |figure| Published::of(figure, means).line(&counts);
        assert_eq!(
            line(Figure::EchoLatency),
            "Clients=3, Received=3, Missed=25.00%, Min latency=2.00ms, Max latency=4.00ms, Avg latency:3.00ms"
        );
        assert_eq!(
            line(Figure::Interval),
            "Clients=3, Received=3, Missed=25.00%, Min interval=2.00ms, Max interval=4.00ms, Avg interval:3.00ms"
        );
        assert_eq!(
            line(Figure::ChatLatency),
            "Clients=3, Min latency=2.00ms, Max latency=4.00ms, Avg Latency=3.00ms, Received=3, Missed=25.00%"
        );
    }

    #[test]
    fn adding_up_is_the_same_as_counting_together() {
        let (one, other) = ([mean(&[5]), mean(&[7])], [mean(&[1]), mean(&[])]);
        let mut sum = Published::of(Figure::Interval, one);
        sum.add(&Published::of(Figure::Interval, other));
        assert_eq!(sum, Published::of(Figure::Interval, one.into_iter().chain(other)));
    }
}
