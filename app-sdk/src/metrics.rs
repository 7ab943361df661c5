//! Metrics in the Prometheus text format. Names begin with `trunkline_app_`.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use trunkline_protocol::cause::Cause;

use crate::brief_debug::brief_debug;

#[derive(Clone)]
pub(crate) struct Metrics(Arc<Families>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallOutcome {
    Ok,
    Failed,
    Unbound,
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

/// Buckets of call durations in seconds, from 100 µs.
const DURATIONS: [f64; 17] =
    [0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

struct DroppedLines(IntCounter);

impl DroppedLines {
    fn new() -> prometheus::Result<Self> {
        let help = "Log lines of LogQueue dropped because their reader is too slow or gone.";
        IntCounter::new("trunkline_app_log_lines_dropped_total", help).map(Self)
    }
}

impl Collector for DroppedLines {
    fn desc(&self) -> Vec<&Desc> {
        self.0.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.0.inc_by(trunkline_process::log_lines_dropped().saturating_sub(self.0.get()));
        self.0.collect()
    }
}

/// Kind of a metric that is selected from a family by labels.
trait Kind: Sized {
    type Family: Collector + Clone + 'static;

    fn family(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<Self::Family>;

    fn for_labels(family: &Self::Family, labels: &[&str]) -> Self;
}

impl Kind for IntCounter {
    type Family = IntCounterVec;

    fn family(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        IntCounterVec::new(Opts::new(name, help), labels)
    }

    fn for_labels(family: &IntCounterVec, labels: &[&str]) -> Self {
        family.with_label_values(labels)
    }
}

impl Kind for IntGauge {
    type Family = IntGaugeVec;

    fn family(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        IntGaugeVec::new(Opts::new(name, help), labels)
    }

    fn for_labels(family: &IntGaugeVec, labels: &[&str]) -> Self {
        family.with_label_values(labels)
    }
}

impl Kind for Histogram {
    type Family = HistogramVec;

    fn family(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<HistogramVec> {
        HistogramVec::new(HistogramOpts::new(name, help).buckets(DURATIONS.to_vec()), labels)
    }

    fn for_labels(family: &HistogramVec, labels: &[&str]) -> Self {
        family.with_label_values(labels)
    }
}

/// Declares the families, which all have the label `hub`: name, help text, further labels, and the metrics that a hub
/// resolves in advance, with these labels' values.
macro_rules! families {
    ($($family:ident: $kind:ident($name:literal, $help:literal $(, $label:literal)*)
        => [$($metric:ident($($value:literal),*)),*];)*
    ) => {
        struct Families {
            registry: OnceLock<Registry>,
            /// All families, as registered in `registry`.
            all: Vec<Box<dyn Collector>>,
            $($family: <$kind as Kind>::Family,)*
        }

        #[derive(Debug)]
        pub(crate) struct HubMetrics {
            hub: Box<str>,
            closed: Vec<IntCounter>,
            invocations: IntCounterVec,
            durations: HistogramVec,
            $($(pub(crate) $metric: $kind,)*)*
        }

        impl Families {
            fn new() -> prometheus::Result<Self> {
                let help = "Version of the program; always 1.";
                let build = IntGauge::family("trunkline_app_build_info", help, &["version"])?;
                build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
                let mut all: Vec<Box<dyn Collector>> = vec![Box::new(build), Box::new(DroppedLines::new()?)];
                $(
                    let $family = $kind::family(concat!("trunkline_app_", $name), $help, &["hub" $(, $label)*])?;
                    all.push(Box::new($family.clone()));
                )*
                Ok(Self { registry: OnceLock::new(), all, $($family,)* })
            }

            fn hub(&self, hub: &str) -> HubMetrics {
                HubMetrics {
                    hub: hub.into(),
                    closed: Cause::all().map(|cause| self.closed_by(hub, cause)).collect(),
                    invocations: self.invocations.clone(),
                    durations: self.durations.clone(),
                    $($($metric: $kind::for_labels(&self.$family, &[hub $(, $value)*]),)*)*
                }
            }
        }
    };
}

families! {
    links: IntGauge("links", "Open links to proxies.") => [links()];
    links_resumed: IntCounter("links_resumed_total", "Lost links that were resumed.") => [links_resumed()];
    connections: IntGauge("connections", "Client connections of this app server.") => [connections()];
    opened: IntCounter("connections_opened_total", "Client connections opened at this app server.") => [opened()];
    closed: IntCounter(
        "connections_closed_total",
        "Client connections closed at this app server, by cause.",
        "cause"
    ) => [];
    rehomed: IntCounter(
        "connections_rehomed_total",
        "Client connections taken over from another app server or link."
    ) => [rehomed()];
    invocations: IntCounter("invocations_total", "Calls of clients, by method and outcome.", "method", "outcome") => [];
    durations: Histogram(
        "invocation_duration_seconds",
        "Duration of calls until the answer; of streams until their end.",
        "method",
        "outcome"
    ) => [];
    frames_down: IntCounter("frames_down_total", "Frames queued on links.") => [frames_down()];
    frames_up: IntCounter("frames_up_total", "Frames read from links.") => [frames_up()];
    frames_skipped: IntCounter(
        "frames_skipped_total",
        "Frames of proxies that were skipped: over the limit of a link, malformed, or not allowed."
    ) => [frames_skipped()];
    link_bytes: IntCounter("link_bytes_total", "Bytes of frames on links.", "direction")
        => [bytes_down("down"), bytes_up("up")];
    frames_lost: IntCounter(
        "frames_lost_total",
        "Frames lost with the session of their link: not acknowledged, and no other link could send them."
    ) => [frames_lost()];
    pauses: IntCounter(
        "pauses_total",
        "Pauses of clients because too many bytes waited for their methods."
    ) => [pauses()];
    running: IntGauge("invocations_running", "Running calls of clients, including streams.") => [running()];
    streams: IntGauge("streams_running", "Streams currently sent to clients.") => [streams()];
    items_down: IntCounter("stream_items_down_total", "Stream items queued for clients.") => [items_down()];
    items_up: IntCounter("stream_items_up_total", "Upload items read by methods.") => [items_up()];
    client_results: IntCounter(
        "client_results_total",
        "Client results requested, by outcome.",
        "outcome"
    ) => [client_results_ok("ok"), client_results_failed("failed")];
    client_results_dropped: IntCounter(
        "client_results_dropped_total",
        "Client results dropped, because they came too late or from the wrong client."
    ) => [client_results_dropped()];
    client_results_waiting: IntGauge("client_results_waiting", "Pending client results.")
        => [client_results_waiting()];
    presence_notices: IntCounter("presence_notices_total", "Presence notices delivered to hooks.")
        => [presence_notices()];
    presence_ignored: IntCounter(
        "presence_ignored_total",
        "Users and group members not tracked by presence, because there were too many."
    ) => [presence_ignored()];
    questions_refused: IntCounter(
        "questions_refused_total",
        "Queries about groups and users refused because too many were pending."
    ) => [questions_refused()];
}

impl Families {
    /// Counter of connections closed with this cause. Proxies count the causes that only refuse.
    fn closed_by(&self, hub: &str, cause: Cause) -> IntCounter {
        let label = if cause.closes() { cause.label() } else { Cause::Unnamed.label() };
        self.closed.with_label_values(&[hub, label])
    }
}

/// Metrics of one method of a hub, each resolved on first use.
#[derive(Debug, Default)]
pub(crate) struct MethodMetrics([OnceLock<(IntCounter, Histogram)>; CallOutcome::ALL.len()]);

impl HubMetrics {
    pub(crate) fn closed(&self, cause: Cause) -> &IntCounter {
        // Every cause has a counter, so the fallback is unreachable.
        self.closed.get(cause.index()).unwrap_or(&self.opened)
    }

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

/// Guard that counts in a gauge until it is dropped.
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

/// All families as one collector, so that a registry accepts all or none.
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
    #[expect(
        clippy::expect_used,
        reason = "names and labels are literals of this file; each test that makes a server checks them"
    )]
    pub(crate) fn new() -> Self {
        Self(Arc::new(Families::new().expect("valid names")))
    }

    pub(crate) fn share(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(All(Arc::clone(&self.0))))?;
        measure_process(registry);
        // If shared with two registries, the first one is served.
        let _ = self.0.registry.set(registry.clone());
        Ok(())
    }

    pub(crate) fn hub(&self, hub: &str) -> HubMetrics {
        self.0.hub(hub)
    }

    pub(crate) fn text(&self) -> String {
        let registry = self.0.registry.get_or_init(|| {
            let registry = Registry::new();
            // Cannot fail: the registry is empty.
            let _ = registry.register(Box::new(All(Arc::clone(&self.0))));
            measure_process(&registry);
            registry
        });
        // Writing to a String fails only for a family without a name.
        TextEncoder::new().encode_to_string(&registry.gather()).unwrap_or_default()
    }
}

brief_debug!(Metrics, |_it| {});

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
