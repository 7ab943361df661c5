//! Metrics in the text format of Prometheus, summed over the shards when they are read.
//!
//! Names, help texts and labels of all metrics stand here and in the files below.

mod client_metrics;
mod fleet_metrics;
mod forwarding_metrics;
mod link_metrics;
mod otlp_metrics;
mod rest_metrics;
mod rule_metrics;
mod webhook_metrics;

#[cfg(target_os = "linux")]
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{Bucket, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder, proto};
use trunkline_protocol::cause::Cause;

use super::admin_counters::AdminCounters;
use crate::fleet::{Fleet, own_phase};
use crate::metrics::{
    Buckets, CauseCounters, Counter, Counters, Distribution, Gauge, Histogram, Limit, Outcome, OutcomeCounters,
};
use crate::observer::Readiness;
use crate::shard::Shared;

/// Writes all metrics of a node.
///
/// # Errors
/// When two metrics have one name, which a test rules out.
pub(super) fn render(readiness: &Readiness, fleet: &Fleet, admin: &AdminCounters) -> prometheus::Result<String> {
    TextEncoder::new().encode_to_string(&families(readiness, fleet, admin)?)
}

/// Collects all metrics of a node.
///
/// # Errors
/// When two metrics have one name, which a test rules out.
pub(crate) fn families(
    readiness: &Readiness,
    fleet: &Fleet,
    admin: &AdminCounters,
) -> prometheus::Result<Vec<MetricFamily>> {
    let shared = readiness.shared();
    let mut exposition = Exposition { registry: Registry::new(), histograms: Vec::new(), shared };
    exposition.node(readiness.reasons_not_ready().is_empty())?;
    exposition.requests()?;
    exposition.connection_steps()?;
    exposition.tokens()?;
    exposition.clients()?;
    exposition.messages()?;
    exposition.links()?;
    exposition.traffic()?;
    exposition.relay()?;
    exposition.owner_hops()?;
    exposition.fleet(own_phase(readiness.shared()).into(), fleet)?;
    exposition.rules()?;
    exposition.data_plane()?;
    exposition.webhooks()?;
    exposition.admin(admin)?;
    exposition.otlp()?;
    exposition.process()?;
    let mut families = exposition.registry.gather();
    families.append(&mut exposition.histograms);
    Ok(families)
}

/// Metrics of one answer, while they are collected.
struct Exposition<'a> {
    registry: Registry,
    /// Histograms apart: shards count their buckets, and the library has no way to set them.
    histograms: Vec<MetricFamily>,
    shared: &'a Shared,
}

/// Name and help of a metric, and its counters by outcome.
type OutcomeMetric = (&'static str, &'static str, fn(&Counters) -> &OutcomeCounters);

impl Exposition<'_> {
    fn node(&self, is_ready: bool) -> prometheus::Result<()> {
        let version = env!("CARGO_PKG_VERSION");
        let build = self.gauge("trunkline_build_info", "What runs here.", &["version", "node"])?;
        build.with_label_values(&[version, &self.shared.settings.node]).set(1);
        let ready = self.gauge("trunkline_ready", "1 while clients are taken in.", &[])?;
        ready.with_label_values::<&str>(&[]).set(i64::from(is_ready));
        let draining = self.gauge("trunkline_draining", "1 while the node stops.", &[])?;
        draining.with_label_values::<&str>(&[]).set(i64::from(self.shared.has_begun_drain()));
        Ok(())
    }

    fn requests(&self) -> prometheus::Result<()> {
        self.total("trunkline_connections_accepted_total", "Sockets accepted.", |counters| &counters.accepted)?;
        self.total("trunkline_negotiations_total", "Negotiations answered.", |counters| &counters.negotiated)?;
        self.refusals(
            "trunkline_requests_refused_total",
            "Requests answered with a status of 400 or above.",
            |counters| &counters.requests_refused,
        )?;
        self.refusals(
            "trunkline_sockets_refused_total",
            "Sockets refused before their request was read.",
            |counters| &counters.sockets_refused,
        )?;
        self.total("trunkline_requests_malformed_total", "Requests that are no sound HTTP.", |counters| {
            &counters.malformed
        })?;
        let limits = self.counter("trunkline_limits_reached_total", "How often limits were reached.", &["limit"])?;
        for (limit, label) in Limit::ALL {
            limits.with_label_values(&[label]).inc_by(self.sum(|counters| counters.limit(limit)));
        }
        Ok(())
    }

    fn connection_steps(&self) -> prometheus::Result<()> {
        let metrics: [OutcomeMetric; 4] = [
            ("trunkline_tls_handshakes_total", "TLS handshakes with clients.", |counters| &counters.tls_handshakes),
            ("trunkline_proxy_headers_total", "PROXY protocol headers.", |counters| &counters.proxy_headers),
            ("trunkline_rule_reads_total", "Rules of the configuration file read anew.", |counters| {
                &counters.rule_reads
            }),
            ("trunkline_certificate_reads_total", "Certificates read anew.", |counters| &counters.certificate_reads),
        ];
        for (name, help, outcomes) in metrics {
            let metric = self.counter(name, help, &["outcome"])?;
            for (outcome, label) in Outcome::ALL {
                metric.with_label_values(&[label]).inc_by(self.sum(|counters| outcomes(counters).of(outcome)));
            }
        }
        Ok(())
    }

    fn tokens(&self) -> prometheus::Result<()> {
        let refused =
            self.counter("trunkline_access_tokens_refused_total", "Access tokens refused, by reason.", &["reason"])?;
        for (reason, count) in self.shared.admission.verifier.refused() {
            refused.with_label_values(&[reason]).inc_by(count);
        }
        let asked =
            self.counter("trunkline_app_decisions_total", "Clients that apps were asked about.", &["outcome"])?;
        let let_in = self.sum(|counters| &counters.let_in_by_app);
        let refused_by_app = self.sum(|counters| &counters.refused_by_app);
        let failed = self.sum(|counters| &counters.app_not_asked);
        for (outcome, count) in [("let_in", let_in), ("refused", refused_by_app), ("failed", failed)] {
            asked.with_label_values(&[outcome]).inc_by(count);
        }
        self.total("trunkline_origins_refused_total", "Upgrades refused because of their origin.", |counters| {
            &counters.refused_origins
        })?;
        let reads = self.counter("trunkline_jwks_reads_total", "Readings of key sets, by outcome.", &["outcome"])?;
        for (outcome, count) in self.shared.admission.verifier.reads() {
            reads.with_label_values(&[outcome]).inc_by(count);
        }
        Ok(())
    }

    /// Counter by cause, with only the causes that came: most of them can't where it is counted.
    fn refusals(&self, name: &str, help: &str, of: impl Fn(&Counters) -> &CauseCounters) -> prometheus::Result<()> {
        let metric = self.counter(name, help, &["cause"])?;
        for cause in Cause::all() {
            let so_far: u64 = self.shared.counters().iter().map(|counters| of(counters).of(cause)).sum();
            if so_far > 0 {
                metric.with_label_values(&[cause.label()]).inc_by(so_far);
            }
        }
        Ok(())
    }

    /// Refusals of the admin port itself.
    fn admin(&self, counters: &AdminCounters) -> prometheus::Result<()> {
        let refused = self.counter(
            "trunkline_admin_requests_refused_total",
            "Requests refused at the admin port, by reason.",
            &["reason"],
        )?;
        let reasons = [
            ("token", &counters.wrong_token),
            ("too_many_wrong_tokens", &counters.braked),
            ("host", &counters.foreign_host),
            ("stranger", &counters.strangers),
        ];
        for (reason, counter) in reasons {
            refused.with_label_values(&[reason]).inc_by(counter.get());
        }
        let closed = self.counter(
            "trunkline_admin_connections_closed_total",
            "Connections to the admin port that the node has closed, by reason.",
            &["reason"],
        )?;
        let reasons = [
            ("displaced", &counters.displaced),
            ("turned_away", &counters.turned_away),
            ("overdue", &counters.overdue),
        ];
        for (reason, counter) in reasons {
            closed.with_label_values(&[reason]).inc_by(counter.get());
        }
        Ok(())
    }

    /// CPU, memory and descriptors of this process, where the system tells them.
    fn process(&self) -> prometheus::Result<()> {
        #[cfg(target_os = "linux")]
        self.registry.register(Box::new(ProcessCollector::for_self()))?;
        Ok(())
    }

    fn sum(&self, of: impl Fn(&Counters) -> &Counter) -> u64 {
        self.shared.counters().iter().map(|counters| of(counters).get()).sum()
    }

    fn distribution<B: Buckets + 'static>(&self, of: impl Fn(&Counters) -> &Histogram<B>) -> Distribution {
        Histogram::sum_up(self.shared.counters().iter().map(|counters| of(counters)))
    }

    fn total(&self, name: &str, help: &str, of: impl Fn(&Counters) -> &Counter) -> prometheus::Result<()> {
        self.counter(name, help, &[])?.with_label_values::<&str>(&[]).inc_by(self.sum(of));
        Ok(())
    }

    fn level(&self, name: &str, help: &str, of: impl Fn(&Counters) -> &Gauge) -> prometheus::Result<()> {
        let now: u64 = self.shared.counters().iter().map(|counters| of(counters).get()).sum();
        self.gauge(name, help, &[])?.with_label_values::<&str>(&[]).set(i64::try_from(now).unwrap_or(i64::MAX));
        Ok(())
    }

    fn counter(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn histogram(&mut self, name: &str, help: &str, all: Vec<(Option<(&str, &str)>, Distribution)>) {
        let mut family = MetricFamily::default();
        family.set_name(name.into());
        family.set_help(help.into());
        family.set_field_type(MetricType::HISTOGRAM);
        family.set_metric(all.into_iter().map(|(label, distribution)| metric(label, distribution)).collect());
        self.histograms.push(family);
    }
}

fn metric(label: Option<(&str, &str)>, distribution: Distribution) -> Metric {
    let label = label.map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.into());
        pair.set_value(value.into());
        pair
    });
    let buckets = distribution.buckets.iter().map(|(bound, count)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(*count);
        bucket
    });
    let mut histogram = proto::Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(distribution.count);
    histogram.set_sample_sum(distribution.sum);
    let mut metric = Metric::from_label(label.into_iter().collect());
    metric.set_histogram(histogram);
    metric
}
