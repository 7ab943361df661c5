//! Metrics in Prometheus' text format; names begin with `trunkline_app_`.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use trunkline_protocol::cause::Cause;

/// Metrics of one server.
#[derive(Clone)]
pub(crate) struct Metrics(Arc<Families>);

/// Outcome of a client's call, as metrics name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallOutcome {
    Ok,
    /// The method returned an error, or panicked.
    Failed,
    /// No method, or not one for these arguments.
    Unbound,
    /// The client cancelled the call.
    Cancelled,
}

impl CallOutcome {
    const ALL: [Self; 4] = [Self::Ok, Self::Failed, Self::Unbound, Self::Cancelled];

    fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Unbound => "unbound",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Method label of calls to unknown methods.
pub(crate) const UNKNOWN_METHOD: &str = "unknown";

/// Durations of calls, in seconds: from 100 µs on.
const DURATIONS: [f64; 17] =
    [0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

struct Families {
    /// The server's own, or the app's.
    registry: OnceLock<Registry>,
    /// The families that are registered there.
    all: Vec<Box<dyn Collector>>,
    opened: IntCounterVec,
    closed: IntCounterVec,
    durations: HistogramVec,
    link_bytes: IntCounterVec,
    links: IntGaugeVec,
    links_resumed: IntCounterVec,
    connections: IntGaugeVec,
    invocations: IntCounterVec,
    frames_down: IntCounterVec,
    frames_up: IntCounterVec,
    pauses: IntCounterVec,
    rehomed: IntCounterVec,
    restored: IntCounterVec,
    restorable_dropped: IntCounterVec,
    frames_lost: IntCounterVec,
    running: IntGaugeVec,
    streams: IntGaugeVec,
    items_down: IntCounterVec,
    items_up: IntCounterVec,
    client_results: IntCounterVec,
    client_results_dropped: IntCounterVec,
    client_results_waiting: IntGaugeVec,
    presence_notices: IntCounterVec,
    presence_ignored: IntCounterVec,
    questions_refused: IntCounterVec,
}

/// Metrics of one hub, looked up once.
#[derive(Debug)]
pub(crate) struct HubMetrics {
    pub(crate) links: IntGauge,
    pub(crate) links_resumed: IntCounter,
    pub(crate) connections: IntGauge,
    pub(crate) opened: IntCounter,
    closed: Vec<IntCounter>,
    invocations: IntCounterVec,
    durations: HistogramVec,
    hub: Box<str>,
    pub(crate) bytes_down: IntCounter,
    pub(crate) bytes_up: IntCounter,
    pub(crate) frames_down: IntCounter,
    pub(crate) frames_up: IntCounter,
    pub(crate) pauses: IntCounter,
    pub(crate) rehomed: IntCounter,
    pub(crate) restored: IntCounter,
    pub(crate) restorable_dropped: IntCounter,
    pub(crate) frames_lost: IntCounter,
    pub(crate) running: IntGauge,
    pub(crate) streams: IntGauge,
    pub(crate) items_down: IntCounter,
    pub(crate) items_up: IntCounter,
    pub(crate) client_results_ok: IntCounter,
    pub(crate) client_results_failed: IntCounter,
    pub(crate) client_results_dropped: IntCounter,
    pub(crate) client_results_waiting: IntGauge,
    pub(crate) presence_notices: IntCounter,
    pub(crate) presence_ignored: IntCounter,
    pub(crate) questions_refused: IntCounter,
}

/// Metrics of one method of a hub, each looked up when it is first needed.
#[derive(Debug, Default)]
pub(crate) struct MethodMetrics([OnceLock<(IntCounter, Histogram)>; CallOutcome::ALL.len()]);

impl HubMetrics {
    /// Counter of connections that closed for this cause.
    pub(crate) fn closed(&self, cause: Cause) -> &IntCounter {
        // There is one for each cause; the first, should a build ever differ from itself.
        self.closed.get(cause.index()).unwrap_or(&self.opened)
    }

    /// Counts a call of a method that has completed.
    pub(crate) fn invoked(&self, metrics: &MethodMetrics, method: &str, outcome: CallOutcome, took: Duration) {
        let Some(place) = metrics.0.get(outcome as usize) else { return };
        let (count, durations) = place.get_or_init(|| {
            let labels = [&*self.hub, method, outcome.label()];
            (self.invocations.with_label_values(&labels), self.durations.with_label_values(&labels))
        });
        count.inc();
        durations.observe(took.as_secs_f64());
    }
}

/// Guard that counts one in a gauge until it is dropped.
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

/// Builder of the metric families.
#[derive(Default)]
struct Making(Vec<Box<dyn Collector>>);

impl Making {
    fn keep<C: Collector + Clone + 'static>(&mut self, collector: C) -> C {
        self.0.push(Box::new(collector.clone()));
        collector
    }

    #[expect(
        clippy::expect_used,
        reason = "names and labels are literals of this file; each test that makes a server checks them"
    )]
    fn gauge(&mut self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.keep(IntGaugeVec::new(Opts::new(format!("trunkline_app_{name}"), help), labels).expect("a valid name"))
    }

    #[expect(
        clippy::expect_used,
        reason = "names and labels are literals of this file; each test that makes a server checks them"
    )]
    fn counter(&mut self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.keep(IntCounterVec::new(Opts::new(format!("trunkline_app_{name}"), help), labels).expect("a valid name"))
    }

    #[expect(
        clippy::expect_used,
        reason = "names and labels are literals of this file; each test that makes a server checks them"
    )]
    fn durations(&mut self, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
        let options = HistogramOpts::new(format!("trunkline_app_{name}"), help).buckets(DURATIONS.to_vec());
        self.keep(HistogramVec::new(options, labels).expect("a valid name"))
    }
}

/// All families as one collector: a registry takes them together, or not at all.
struct All(Arc<Families>);

impl Collector for All {
    fn desc(&self) -> Vec<&Desc> {
        self.0.all.iter().flat_map(|family| family.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.0.all.iter().flat_map(|family| family.collect()).collect()
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let (mut all, hub, calls) = (Making::default(), &["hub"][..], &["hub", "method", "outcome"][..]);
        let build = all.gauge("build_info", "What runs here.", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Self(Arc::new(Families {
            links: all.gauge("links", "Open links to proxies.", hub),
            links_resumed: all.counter("links_resumed_total", "Links that went on where a lost one was.", hub),
            connections: all.gauge("connections", "Client connections that are here.", hub),
            opened: all.counter("connections_opened_total", "Client connections that began here.", hub),
            closed: all.counter("connections_closed_total", "Client connections that ended here, by cause.", &[
                "hub", "cause",
            ]),
            rehomed: all.counter(
                "connections_rehomed_total",
                "Client connections that go on here and began elsewhere, or over another link.",
                hub,
            ),
            restored: all.counter(
                "connections_restored_total",
                "Clients that began anew and got back what their lost connection had.",
                hub,
            ),
            restorable_dropped: all.counter(
                "restorable_dropped_total",
                "Lost clients whose groups and items were dropped before their time, because there were too many.",
                hub,
            ),
            invocations: all.counter("invocations_total", "Calls of clients, by what came of them.", calls),
            durations: all.durations(
                "invocation_duration_seconds",
                "How long calls took until they were answered; streams until their end.",
                calls,
            ),
            frames_down: all.counter("frames_down_total", "Frames queued on links.", hub),
            frames_up: all.counter("frames_up_total", "Frames read from links.", hub),
            link_bytes: all.counter("link_bytes_total", "Bytes of these frames.", &["hub", "direction"]),
            frames_lost: all.counter(
                "frames_lost_total",
                "Frames that were not acknowledged, or had no other link to leave by, when the session of their link ended.",
                hub,
            ),
            pauses: all.counter("pauses_total", "Clients paused because too much waited for their handlers.", hub),
            running: all.gauge("invocations_running", "Calls of clients that run, those with streams too.", hub),
            streams: all.gauge("streams_running", "Streams that are being sent to clients.", hub),
            items_down: all.counter("stream_items_down_total", "Items of streams queued for clients.", hub),
            items_up: all.counter("stream_items_up_total", "Items of uploads that methods have taken.", hub),
            client_results: all.counter(
                "client_results_total",
                "Results that clients were asked for, by what came of it.",
                &["hub", "outcome"],
            ),
            client_results_dropped: all.counter(
                "client_results_dropped_total",
                "Answers of clients that nobody waits for, such as late ones, or that another client was asked for.",
                hub,
            ),
            client_results_waiting: all.gauge("client_results_waiting", "Results of clients that are waited for.", hub),
            presence_notices: all.counter("presence_notices_total", "Notices that hooks of presence were given.", hub),
            presence_ignored: all.counter(
                "presence_ignored_total",
                "Users and members of groups that were not followed, because there were too many.",
                hub,
            ),
            questions_refused: all.counter(
                "questions_refused_total",
                "Questions about groups and users that were refused, because too many waited.",
                hub,
            ),
            registry: OnceLock::new(),
            all: all.0,
        }))
    }

    /// Registers all metrics in the app's registry.
    pub(crate) fn share(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(All(Arc::clone(&self.0))))?;
        measure_process(registry);
        // Who shares with two registries is served the first one.
        let _ = self.0.registry.set(registry.clone());
        Ok(())
    }

    pub(crate) fn hub(&self, hub: &str) -> HubMetrics {
        let families = &self.0;
        let of = |vec: &IntCounterVec| vec.with_label_values(&[hub]);
        let client_results = |outcome| families.client_results.with_label_values(&[hub, outcome]);
        // Those that only refuse are counted by proxies; they are never asked for, and not to be seen.
        let closed = |cause: Cause| match cause.closes() {
            true => families.closed.with_label_values(&[hub, cause.label()]),
            false => families.closed.with_label_values(&[hub, Cause::Unnamed.label()]),
        };
        HubMetrics {
            links: families.links.with_label_values(&[hub]),
            links_resumed: of(&families.links_resumed),
            connections: families.connections.with_label_values(&[hub]),
            opened: of(&families.opened),
            closed: Cause::all().map(closed).collect(),
            invocations: families.invocations.clone(),
            durations: families.durations.clone(),
            hub: hub.into(),
            bytes_down: families.link_bytes.with_label_values(&[hub, "down"]),
            bytes_up: families.link_bytes.with_label_values(&[hub, "up"]),
            frames_down: of(&families.frames_down),
            frames_up: of(&families.frames_up),
            pauses: of(&families.pauses),
            rehomed: of(&families.rehomed),
            restored: of(&families.restored),
            presence_notices: of(&families.presence_notices),
            presence_ignored: of(&families.presence_ignored),
            questions_refused: of(&families.questions_refused),
            restorable_dropped: of(&families.restorable_dropped),
            frames_lost: of(&families.frames_lost),
            running: families.running.with_label_values(&[hub]),
            streams: families.streams.with_label_values(&[hub]),
            items_down: of(&families.items_down),
            items_up: of(&families.items_up),
            client_results_ok: client_results("ok"),
            client_results_failed: client_results("failed"),
            client_results_dropped: of(&families.client_results_dropped),
            client_results_waiting: families.client_results_waiting.with_label_values(&[hub]),
        }
    }

    pub(crate) fn text(&self) -> String {
        let registry = self.0.registry.get_or_init(|| {
            let registry = Registry::new();
            // Nothing else is in it yet.
            let _ = registry.register(Box::new(All(Arc::clone(&self.0))));
            measure_process(&registry);
            registry
        });
        // Writing to a String fails only if a family has no name; ours have.
        TextEncoder::new().encode_to_string(&registry.gather()).unwrap_or_default()
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Registers the process metrics (CPU, memory, descriptors), unless the app has done so.
fn measure_process(_registry: &Registry) {
    #[cfg(target_os = "linux")]
    let _ = _registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()));
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
        assert!(
            text.contains("trunkline_app_connections_closed_total{cause=\"slow_client\",hub=\"chat\"} 0"),
            "{text}"
        );
        assert!(!text.contains("origin_refused"), "{text}");
    }

    #[test]
    fn calls_are_counted_and_timed_by_method_and_outcome() {
        let (metrics, method) = (Metrics::new(), MethodMetrics::default());
        let hub = metrics.hub("chat");
        hub.invoked(&method, "Say", CallOutcome::Ok, Duration::from_millis(3));
        hub.invoked(&method, "Say", CallOutcome::Ok, Duration::from_secs(100));
        hub.invoked(&method, "Say", CallOutcome::Failed, Duration::from_millis(3));
        let text = metrics.text();
        let ok = "{hub=\"chat\",method=\"Say\",outcome=\"ok\"}";
        assert!(text.contains(&format!("trunkline_app_invocations_total{ok} 2")), "{text}");
        assert!(text.contains(&format!("trunkline_app_invocation_duration_seconds_sum{ok} 100.003")), "{text}");
        assert!(text.contains("outcome=\"ok\",le=\"0.005\"} 1"), "{text}");
    }

    #[test]
    fn an_app_gets_them_into_its_own_registry_and_two_servers_get_an_error() {
        let (registry, metrics) = (Registry::new(), Metrics::new());
        registry.register(Box::new(IntCounter::new("my_total", "Mine.").unwrap())).unwrap();
        metrics.hub("chat");
        metrics.share(&registry).unwrap();
        let text = metrics.text();
        assert!(text.contains("my_total 0") && text.contains("trunkline_app_links{hub=\"chat\"} 0"), "{text}");
        assert!(Metrics::new().share(&registry).is_err());
    }
}
