//! Metrics in Prometheus' text format, summed over the shards when they are asked for.

mod relay;

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::counters::{Cause, Counter, Counters, Direction, FrameKind};
use crate::shard::Shared;

/// All metrics of a node as text.
///
/// # Errors
/// When two metrics had the same name, which a test rules out.
pub fn render(shared: &Shared, is_ready: bool) -> prometheus::Result<String> {
    let sheet = Sheet { registry: Registry::new(), shared };
    sheet.node(is_ready)?;
    sheet.clients()?;
    sheet.links()?;
    sheet.traffic()?;
    sheet.relay()?;
    sheet.owner_hops()?;
    TextEncoder::new().encode_to_string(&sheet.registry.gather())
}

/// One answer in the making.
struct Sheet<'a> {
    registry: Registry,
    shared: &'a Shared,
}

impl Sheet<'_> {
    fn node(&self, is_ready: bool) -> prometheus::Result<()> {
        let version = env!("CARGO_PKG_VERSION");
        let build = self.gauge("trunkline_build_info", "What runs here.", &["version", "node"])?;
        build.with_label_values(&[version, &self.shared.settings.node]).set(1);
        let ready = self.gauge("trunkline_ready", "1 while clients are taken in.", &[])?;
        ready.with_label_values::<&str>(&[]).set(i64::from(is_ready));
        self.total("trunkline_connections_accepted_total", "Sockets accepted.", |counters| &counters.accepted)?;
        self.total("trunkline_negotiations_total", "Negotiations answered.", |counters| &counters.negotiated)?;
        self.total("trunkline_requests_refused_total", "Requests answered with a status of 400 or above.", |counters| {
            &counters.refused
        })
    }

    fn clients(&self) -> prometheus::Result<()> {
        let clients = self.gauge("trunkline_client_connections", "Client connections that are open.", &["hub"])?;
        for hub in self.shared.hubs.all().iter() {
            clients.with_label_values(&[hub.name()]).set(self.shared.clients(hub.index()));
        }
        self.total("trunkline_client_connections_opened_total", "Client connections opened.", |counters| {
            &counters.opened
        })?;
        let closed = self.counter(
            "trunkline_client_connections_closed_total",
            "Client connections ended, by cause.",
            &["cause"],
        )?;
        for (cause, label) in Cause::ALL {
            closed.with_label_values(&[label]).inc_by(self.sum(|counters| counters.closed(cause)));
        }
        self.total("trunkline_client_messages_total", "Hub messages that clients sent up.", |counters| {
            &counters.messages_up
        })?;
        self.total("trunkline_deliveries_total", "Frames given to clients.", |counters| &counters.deliveries)?;
        self.total("trunkline_keep_alives_total", "Keep-alives sent to clients.", |counters| &counters.keep_alives)?;
        self.total(
            "trunkline_unknown_receivers_total",
            "Downward frames for a connection that is not here.",
            |counters| &counters.unknown_receivers,
        )
    }

    fn links(&self) -> prometheus::Result<()> {
        let links = self.gauge("trunkline_links", "Links to app servers, by state.", &["hub", "app", "state"])?;
        for hub in self.shared.hubs.all().iter() {
            for pool in hub.pools().iter() {
                let (open, size) = (pool.open(), pool.size());
                let app = pool.app().name.as_str();
                for (state, count) in [("open", open), ("down", size - open)] {
                    links.with_label_values(&[hub.name(), app, state]).add(i64::try_from(count).unwrap_or(i64::MAX));
                }
            }
        }
        self.total("trunkline_links_lost_total", "Links lost after they were open.", |counters| &counters.links_lost)
    }

    fn traffic(&self) -> prometheus::Result<()> {
        let labels = ["direction", "kind"];
        let frames = self.counter("trunkline_link_frames_total", "Frames on links.", &labels)?;
        let bytes = self.counter("trunkline_link_bytes_total", "Bytes of frames on links.", &labels)?;
        for (direction, up_or_down) in [(Direction::Up, "up"), (Direction::Down, "down")] {
            for (kind, name) in [(FrameKind::Ping, "ping"), (FrameKind::Message, "message")] {
                let values = [up_or_down, name];
                frames
                    .with_label_values(&values)
                    .inc_by(self.sum(|counters| &counters.traffic(direction, kind).frames));
                bytes.with_label_values(&values).inc_by(self.sum(|counters| &counters.traffic(direction, kind).bytes));
            }
        }
        Ok(())
    }

    fn sum(&self, of: impl Fn(&Counters) -> &Counter) -> u64 {
        self.shared.counters().iter().map(|counters| of(counters).get()).sum()
    }

    fn total(&self, name: &str, help: &str, of: impl Fn(&Counters) -> &Counter) -> prometheus::Result<()> {
        self.counter(name, help, &[])?.with_label_values::<&str>(&[]).inc_by(self.sum(of));
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
}
