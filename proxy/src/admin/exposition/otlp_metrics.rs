//! Metrics of the export to an OpenTelemetry collector.

use super::Exposition;
use crate::telemetry::ExportedSignal;

impl Exposition<'_> {
    /// Spans and requests by what became of them; none where nothing is exported.
    pub(super) fn otlp(&self) -> prometheus::Result<()> {
        let Some(tracer) = &self.shared.tracer else { return Ok(()) };
        let counters = &tracer.queue().counters;
        let help = "Spans of sampled calls and connections, by what became of them.";
        let spans = self.counter("trunkline_otlp_spans_total", help, &["outcome"])?;
        for (outcome, count) in counters.spans() {
            spans.with_label_values(&[outcome]).inc_by(count);
        }
        let help = "Requests to the OpenTelemetry collector, by what they carried.";
        let requests = self.counter("trunkline_otlp_requests_total", help, &["signal", "outcome"])?;
        for (signal, label) in ExportedSignal::ALL {
            requests.with_label_values(&[label, "ok"]).inc_by(counters.taken(signal).get());
            requests.with_label_values(&[label, "failed"]).inc_by(counters.failed(signal).get());
        }
        Ok(())
    }
}
