//! Metrics of webhooks, by hub.

use super::Exposition;
use crate::metrics::{Histogram, WebhookOutcome};

impl Exposition<'_> {
    /// Metrics of webhooks; none on a node without any.
    pub(super) fn webhooks(&mut self) -> prometheus::Result<()> {
        let webhooks = &self.shared.webhooks;
        if self.shared.settings.webhooks.rules.is_empty() {
            return Ok(());
        }
        let requests =
            self.counter("trunkline_webhook_requests_total", "Requests to webhooks, by outcome.", &["hub", "outcome"])?;
        let help = "Further attempts of requests to webhooks.";
        let retries = self.counter("trunkline_webhook_retries_total", help, &["hub"])?;
        let help = "Events that no webhook was told of.";
        let dropped = self.counter("trunkline_webhook_events_dropped_total", help, &["hub"])?;
        let all = webhooks.counters();
        for (hub, counters) in &all {
            for (outcome, label) in WebhookOutcome::ALL {
                requests.with_label_values(&[&**hub, label]).inc_by(counters.of(outcome).get());
            }
            retries.with_label_values(&[&**hub]).inc_by(counters.retries.get());
            dropped.with_label_values(&[&**hub]).inc_by(counters.dropped.get());
        }
        let levels = [
            ("trunkline_webhook_in_flight", "Requests to webhooks under way.", webhooks.in_flight()),
            (
                "trunkline_webhook_waiting_bytes",
                "Bytes of events for webhooks, those under way included.",
                webhooks.waiting_bytes(),
            ),
            ("trunkline_webhook_clients", "Clients whose end no webhook was told of.", webhooks.clients()),
        ];
        for (name, help, now) in levels {
            let level = self.gauge(name, help, &[])?;
            level.with_label_values::<&str>(&[]).set(i64::try_from(now).unwrap_or(i64::MAX));
        }
        let durations = all
            .iter()
            .map(|(hub, counters)| (Some(("hub", &**hub)), Histogram::sum_up(std::iter::once(&counters.durations))));
        let help = "Time of requests to webhooks until the end of the answer.";
        self.histogram("trunkline_webhook_duration_seconds", help, durations.collect());
        Ok(())
    }
}
