//! Numbers for operators, in Prometheus' text format; names begin with `trunkline_app_`.

use std::sync::Arc;

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

/// The registry of one server.
#[derive(Debug, Clone)]
pub(crate) struct Metrics(Arc<Families>);

#[derive(Debug)]
struct Families {
    registry: Registry,
    links: IntGaugeVec,
    links_resumed: IntCounterVec,
    connections: IntGaugeVec,
    invocations: IntCounterVec,
    frames_down: IntCounterVec,
    frames_up: IntCounterVec,
    pauses: IntCounterVec,
    rehomed: IntCounterVec,
    frames_lost: IntCounterVec,
    running: IntGaugeVec,
    streams: IntGaugeVec,
    items_down: IntCounterVec,
    items_up: IntCounterVec,
    client_results: IntCounterVec,
    client_results_waiting: IntGaugeVec,
}

/// The numbers of one hub, looked up once.
#[derive(Debug)]
pub(crate) struct HubMetrics {
    pub(crate) links: IntGauge,
    pub(crate) links_resumed: IntCounter,
    pub(crate) connections: IntGauge,
    pub(crate) invocations_ok: IntCounter,
    pub(crate) invocations_failed: IntCounter,
    pub(crate) invocations_unbound: IntCounter,
    pub(crate) frames_down: IntCounter,
    pub(crate) frames_up: IntCounter,
    pub(crate) pauses: IntCounter,
    pub(crate) rehomed: IntCounter,
    pub(crate) frames_lost: IntCounter,
    pub(crate) running: IntGauge,
    pub(crate) streams: IntGauge,
    pub(crate) items_down: IntCounter,
    pub(crate) items_up: IntCounter,
    pub(crate) client_results_ok: IntCounter,
    pub(crate) client_results_failed: IntCounter,
    pub(crate) client_results_waiting: IntGauge,
}

/// One more in a gauge, until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted(IntGauge);

impl Counted {
    pub(crate) fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let registry = Registry::new();
        let families = Families {
            links: gauge(&registry, "links", "Open links to proxies."),
            links_resumed: counter(
                &registry,
                "links_resumed_total",
                "Links that went on where a lost one was.",
                &["hub"],
            ),
            connections: gauge(&registry, "connections", "Client connections that are here."),
            invocations: counter(
                &registry,
                "invocations_total",
                "Calls of clients, by what came of them.",
                &["hub", "outcome"],
            ),
            frames_down: counter(&registry, "frames_down_total", "Frames queued on links.", &["hub"]),
            frames_up: counter(&registry, "frames_up_total", "Frames read from links.", &["hub"]),
            pauses: counter(
                &registry,
                "pauses_total",
                "Clients paused because too much waited for their handlers.",
                &["hub"],
            ),
            rehomed: counter(
                &registry,
                "connections_rehomed_total",
                "Client connections that go on here and began elsewhere, or over another link.",
                &["hub"],
            ),
            frames_lost: counter(
                &registry,
                "frames_lost_total",
                "Frames that were not acknowledged, or had no other link to leave by, when the session of their link ended.",
                &["hub"],
            ),
            running: gauge(&registry, "invocations_running", "Calls of clients that run, those with streams too."),
            streams: gauge(&registry, "streams_running", "Streams that are being sent to clients."),
            items_down: counter(&registry, "stream_items_down_total", "Items of streams queued for clients.", &["hub"]),
            items_up: counter(
                &registry,
                "stream_items_up_total",
                "Items of uploads that methods have taken.",
                &["hub"],
            ),
            client_results: counter(
                &registry,
                "client_results_total",
                "Results that clients were asked for, by what came of it.",
                &["hub", "outcome"],
            ),
            client_results_waiting: gauge(
                &registry,
                "client_results_waiting",
                "Results of clients that are waited for.",
            ),
            registry,
        };
        Self(Arc::new(families))
    }

    pub(crate) fn hub(&self, hub: &str) -> HubMetrics {
        let of = |vec: &IntCounterVec| vec.with_label_values(&[hub]);
        let invocations = |outcome| self.0.invocations.with_label_values(&[hub, outcome]);
        let client_results = |outcome| self.0.client_results.with_label_values(&[hub, outcome]);
        HubMetrics {
            links: self.0.links.with_label_values(&[hub]),
            links_resumed: of(&self.0.links_resumed),
            connections: self.0.connections.with_label_values(&[hub]),
            invocations_ok: invocations("ok"),
            invocations_failed: invocations("failed"),
            invocations_unbound: invocations("unbound"),
            frames_down: of(&self.0.frames_down),
            frames_up: of(&self.0.frames_up),
            pauses: of(&self.0.pauses),
            rehomed: of(&self.0.rehomed),
            frames_lost: of(&self.0.frames_lost),
            running: self.0.running.with_label_values(&[hub]),
            streams: self.0.streams.with_label_values(&[hub]),
            items_down: of(&self.0.items_down),
            items_up: of(&self.0.items_up),
            client_results_ok: client_results("ok"),
            client_results_failed: client_results("failed"),
            client_results_waiting: self.0.client_results_waiting.with_label_values(&[hub]),
        }
    }

    pub(crate) fn text(&self) -> String {
        // Writing to a String fails only if a family has no name; ours have.
        TextEncoder::new().encode_to_string(&self.0.registry.gather()).unwrap_or_default()
    }
}

#[expect(
    clippy::expect_used,
    reason = "names and labels are literals of this file; each test that makes a server checks them"
)]
fn gauge(registry: &Registry, name: &str, help: &str) -> IntGaugeVec {
    let gauge = IntGaugeVec::new(Opts::new(format!("trunkline_app_{name}"), help), &["hub"]).expect("a valid name");
    registry.register(Box::new(gauge.clone())).expect("a new name");
    gauge
}

#[expect(
    clippy::expect_used,
    reason = "names and labels are literals of this file; each test that makes a server checks them"
)]
fn counter(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    let counter = IntCounterVec::new(Opts::new(format!("trunkline_app_{name}"), help), labels).expect("a valid name");
    registry.register(Box::new(counter.clone())).expect("a new name");
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hub_shows_its_numbers_from_the_start() {
        let metrics = Metrics::new();
        metrics.hub("chat").links.set(5);
        let text = metrics.text();
        assert!(text.contains("trunkline_app_links{hub=\"chat\"} 5"), "{text}");
        assert!(text.contains("trunkline_app_invocations_total{hub=\"chat\",outcome=\"ok\"} 0"), "{text}");
    }
}
