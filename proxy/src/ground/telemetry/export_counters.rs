//! Counters of data exported to a collector, and of dropped data.

use crate::ground::metrics::{Counter, label, metered};

label! {
    /// Signal exported to the collector.
    pub(crate) enum ExportedSignal as "signal", in SignalCounters {
        Traces = "traces",
        Metrics = "metrics",
    }
}

metered! {
    /// Export counters of one node.
    pub(crate) struct ExportCounters {
        /// Spans accepted by the collector.
        #[metric(
            "trunkline_otlp_spans_total",
            "Spans of sampled calls and connections, by outcome.",
            outcome = "exported"
        )]
        pub exported: Counter,
        /// Spans not begun because of the rate limit.
        #[metric("trunkline_otlp_spans_total", outcome = "over_rate")]
        pub over_rate: Counter,
        /// Spans dropped because the export queue was full.
        #[metric("trunkline_otlp_spans_total", outcome = "queue_full")]
        pub queue_full: Counter,
        /// Spans that the collector rejected or did not accept in time.
        #[metric("trunkline_otlp_spans_total", outcome = "undelivered")]
        pub undelivered: Counter,
        /// Requests accepted by the collector.
        #[metric(
            "trunkline_otlp_requests_total",
            "Requests to the OpenTelemetry collector, by signal and outcome.",
            outcome = "ok"
        )]
        pub taken: SignalCounters,
        /// Failed requests, including retries.
        #[metric("trunkline_otlp_requests_total", outcome = "failed")]
        pub failed: SignalCounters,
    }
}
