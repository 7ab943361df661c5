//! Counters of what was exported to a collector, and of what was dropped.

use crate::metrics::Counter;

/// Kind of what is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExportedSignal {
    Traces,
    Metrics,
}

impl ExportedSignal {
    /// All of them, with their labels.
    pub(crate) const ALL: [(Self, &'static str); 2] = [(Self::Traces, "traces"), (Self::Metrics, "metrics")];
}

/// Counters of the export of one node.
#[derive(Debug, Default)]
pub(crate) struct ExportCounters {
    /// Spans that the collector has taken.
    pub exported: Counter,
    /// Spans that were not begun, because the node had begun its maximum in that second.
    pub over_rate: Counter,
    /// Spans that were dropped, because the queue to the exporter was full.
    pub queue_full: Counter,
    /// Spans that the collector refused or did not take in time.
    pub undelivered: Counter,
    taken: [Counter; ExportedSignal::ALL.len()],
    failed: [Counter; ExportedSignal::ALL.len()],
}

impl ExportCounters {
    /// Spans by what became of them, with their labels.
    #[must_use]
    pub(crate) fn spans(&self) -> [(&'static str, u64); 4] {
        [
            ("exported", self.exported.get()),
            ("over_rate", self.over_rate.get()),
            ("queue_full", self.queue_full.get()),
            ("undelivered", self.undelivered.get()),
        ]
    }

    /// Requests of a signal that the collector has taken.
    pub(crate) fn taken(&self, signal: ExportedSignal) -> &Counter {
        let [traces, metrics] = &self.taken;
        match signal {
            ExportedSignal::Traces => traces,
            ExportedSignal::Metrics => metrics,
        }
    }

    /// Requests of a signal that failed, retries included.
    pub(crate) fn failed(&self, signal: ExportedSignal) -> &Counter {
        let [traces, metrics] = &self.failed;
        match signal {
            ExportedSignal::Traces => traces,
            ExportedSignal::Metrics => metrics,
        }
    }
}
