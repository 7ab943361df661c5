//! Metrics in Prometheus' text format, summed over the shards when they are asked for.

mod relay;

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::counters::{Cause, Counter, Counters, Direction, FrameKind, Gauge, Limit, Outcome, Outcomes, SessionEnd};
use crate::shard::Shared;

/// All metrics of a node as text.
///
/// # Errors
/// When two metrics had the same name, which a test rules out.
pub fn render(shared: &Shared, is_ready: bool) -> prometheus::Result<String> {
    let sheet = Sheet { registry: Registry::new(), shared };
    sheet.node(is_ready)?;
    sheet.requests()?;
    sheet.doors()?;
    sheet.tokens()?;
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

/// A metric's name, its help, and where it is counted by outcome.
type Kind = (&'static str, &'static str, fn(&Counters) -> &Outcomes);

impl Sheet<'_> {
    fn node(&self, is_ready: bool) -> prometheus::Result<()> {
        let version = env!("CARGO_PKG_VERSION");
        let build = self.gauge("trunkline_build_info", "What runs here.", &["version", "node"])?;
        build.with_label_values(&[version, &self.shared.settings.node]).set(1);
        let ready = self.gauge("trunkline_ready", "1 while clients are taken in.", &[])?;
        ready.with_label_values::<&str>(&[]).set(i64::from(is_ready));
        Ok(())
    }

    fn requests(&self) -> prometheus::Result<()> {
        self.total("trunkline_connections_accepted_total", "Sockets accepted.", |counters| &counters.accepted)?;
        self.total("trunkline_negotiations_total", "Negotiations answered.", |counters| &counters.negotiated)?;
        self.total(
            "trunkline_requests_refused_total",
            "Requests answered with a status of 400 or above.",
            |counters| &counters.refused,
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

    fn doors(&self) -> prometheus::Result<()> {
        let kinds: [Kind; 3] = [
            ("trunkline_tls_handshakes_total", "TLS handshakes with clients.", |counters| &counters.tls_handshakes),
            ("trunkline_proxy_headers_total", "PROXY protocol headers.", |counters| &counters.proxy_headers),
            ("trunkline_certificate_reads_total", "Certificates read anew.", |counters| &counters.certificate_reads),
        ];
        for (name, help, outcomes) in kinds {
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
        for (reason, count) in self.shared.verifier.refused() {
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
        for (outcome, count) in self.shared.verifier.reads() {
            reads.with_label_values(&[outcome]).inc_by(count);
        }
        Ok(())
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
        self.total(
            "trunkline_client_connections_rehomed_total",
            "Client connections given another home.",
            |counters| &counters.rehomed,
        )?;
        self.total(
            "trunkline_calls_failed_total",
            "Calls answered with an error because their app server was gone.",
            |counters| &counters.calls_failed,
        )?;
        self.total("trunkline_client_messages_total", "Hub messages that clients sent up.", |counters| {
            &counters.messages_up
        })?;
        self.total("trunkline_deliveries_total", "Frames given to clients.", |counters| &counters.deliveries)?;
        // A shard counts its own: a group or user with connections at several is counted at each.
        self.level("trunkline_groups", "Groups with members, by shard and summed.", |counters| &counters.groups)?;
        self.level("trunkline_users", "Users with connections, by shard and summed.", |counters| &counters.users)?;
        self.level("trunkline_outbox_bytes", "Bytes that wait because their clients read no faster.", |counters| {
            &counters.outbox_bytes
        })?;
        let dropped = self.counter("trunkline_frames_dropped_total", "Frames not given to clients.", &["reason"])?;
        dropped.with_label_values(&["slow_client"]).inc_by(self.sum(|counters| &counters.dropped));
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
                let (open, resuming) = (pool.open(), pool.resuming());
                let down = pool.size().saturating_sub(open + resuming);
                let app = pool.app().name.as_str();
                for (state, count) in [("open", open), ("resuming", resuming), ("down", down)] {
                    links.with_label_values(&[hub.name(), app, state]).add(i64::try_from(count).unwrap_or(i64::MAX));
                }
            }
        }
        self.total("trunkline_links_lost_total", "Links that lost their sockets.", |counters| {
            &counters.sessions.interrupted
        })?;
        self.total("trunkline_links_resumed_total", "Lost links that went on where they were.", |counters| {
            &counters.sessions.resumed
        })?;
        self.total("trunkline_frames_replayed_total", "Frames sent again over resumed links.", |counters| {
            &counters.sessions.replayed
        })?;
        self.total(
            "trunkline_frames_lost_total",
            "Upward frames that ended with the session of their link, not acknowledged or not sent.",
            |counters| &counters.sessions.frames_lost,
        )?;
        let ended = self.counter("trunkline_link_sessions_ended_total", "Sessions of links, by end.", &["cause"])?;
        for (cause, label) in SessionEnd::ALL {
            ended.with_label_values(&[label]).inc_by(self.sum(|counters| counters.sessions.ended(cause)));
        }
        Ok(())
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
}
