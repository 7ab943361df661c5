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
    connections: IntGaugeVec,
    invocations: IntCounterVec,
    frames_down: IntCounterVec,
    frames_up: IntCounterVec,
    pauses: IntCounterVec,
    frames_lost: IntCounterVec,
}

/// The numbers of one hub, looked up once.
#[derive(Debug)]
pub(crate) struct HubMetrics {
    pub(crate) links: IntGauge,
    pub(crate) connections: IntGauge,
    pub(crate) invocations_ok: IntCounter,
    pub(crate) invocations_failed: IntCounter,
    pub(crate) invocations_unbound: IntCounter,
    pub(crate) frames_down: IntCounter,
    pub(crate) frames_up: IntCounter,
    pub(crate) pauses: IntCounter,
    pub(crate) frames_lost: IntCounter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let registry = Registry::new();
        let families = Families {
            links: gauge(&registry, "links", "Open links to proxies."),
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
            frames_lost: counter(
                &registry,
                "frames_lost_total",
                "Frames that waited for a link when the last one of their proxy ended.",
                &["hub"],
            ),
            registry,
        };
        Self(Arc::new(families))
    }

    pub(crate) fn hub(&self, hub: &str) -> HubMetrics {
        let of = |vec: &IntCounterVec| vec.with_label_values(&[hub]);
        let invocations = |outcome| self.0.invocations.with_label_values(&[hub, outcome]);
        HubMetrics {
            links: self.0.links.with_label_values(&[hub]),
            connections: self.0.connections.with_label_values(&[hub]),
            invocations_ok: invocations("ok"),
            invocations_failed: invocations("failed"),
            invocations_unbound: invocations("unbound"),
            frames_down: of(&self.0.frames_down),
            frames_up: of(&self.0.frames_up),
            pauses: of(&self.0.pauses),
            frames_lost: of(&self.0.frames_lost),
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
