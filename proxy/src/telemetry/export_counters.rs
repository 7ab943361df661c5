//! Counters of what was exported to a collector, and of what was dropped.

use crate::metrics::{Counter, label, metered};

label! {
    /// Kind of what is exported.
    pub(crate) enum ExportedSignal as "signal", in SignalCounters {
        Traces = "traces",
        Metrics = "metrics",
    }
}

metered! {
    /// Counters of the export of one node.
    pub(crate) struct ExportCounters {
        /// Spans that the collector has taken.
        #[metric(
            "trunkline_otlp_spans_total",
            "Spans of sampled calls and connections, by what became of them.",
            outcome = "exported"
        )]
        pub exported: Counter,
        /// Spans that were not begun, because the node had begun its maximum in that second.
        #[metric("trunkline_otlp_spans_total", outcome = "over_rate")]
        pub over_rate: Counter,
        /// Spans that were dropped, because the queue to the exporter was full.
        #[metric("trunkline_otlp_spans_total", outcome = "queue_full")]
        pub queue_full: Counter,
        /// Spans that the collector refused or did not take in time.
        #[metric("trunkline_otlp_spans_total", outcome = "undelivered")]
        pub undelivered: Counter,
        /// Requests that the collector has taken.
        #[metric(
            "trunkline_otlp_requests_total",
            "Requests to the OpenTelemetry collector, by what they carried.",
            outcome = "ok"
        )]
        pub taken: SignalCounters,
        /// Requests that failed, retries included.
        #[metric("trunkline_otlp_requests_total", outcome = "failed")]
        pub failed: SignalCounters,
    }
}
