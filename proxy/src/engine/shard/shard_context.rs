//! Immutable context of one shard: shared node state and counters.

use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, info};

use super::close_reason::CloseReason;
use super::connection::Client;
use super::shared::Shared;
use super::shared::history::{PastConnection, short};
use crate::ground::clock::unix_ms;
use crate::ground::metrics::{ConnectionCounters, Counters, HubCounters, Limit};

/// App token claim that lets its client see error details.
const DETAILED_ERRORS_CLAIM: &str = "asrs.s.derror";

/// Tick of a new shard.
pub(super) const FIRST_TICK: u32 = 1;

#[derive(Debug, Clone)]
pub(crate) struct ShardContext {
    pub index: u16,
    pub shared: Arc<Shared>,
    pub counters: Arc<Counters>,
}

impl ShardContext {
    pub(crate) fn now_us(&self) -> u64 {
        u64::try_from(self.shared.uptime().as_micros()).unwrap_or(u64::MAX)
    }

    /// Sets whether other threads have to record the times of their batches.
    pub(super) fn show_timed(&self, is_timed: bool) {
        if let Some(own) = self.shared.shards().get(usize::from(self.index)) {
            own.set_traced(is_timed);
        }
    }

    fn hub_counters(&self, client: &Client) -> &HubCounters {
        self.counters.hub(client.home().hub().get())
    }

    fn connection_counters(&self, client: &Client) -> &ConnectionCounters {
        self.hub_counters(client).connections(client.traits().transport, client.content().protocol())
    }

    /// Whether the client may see error details, by its hub's settings or its token.
    pub(super) fn with_details(&self, client: &Client) -> bool {
        let Some(hub) = self.shared.hubs.at(client.home().hub()) else { return false };
        let by_token = || {
            let open = client.cold().read_opening()?;
            let claim = open.claims.into_iter().find(|(name, _)| name == DETAILED_ERRORS_CLAIM)?;
            Some(claim.1.eq_ignore_ascii_case("true"))
        };
        hub.settings().detailed_errors || (hub.capabilities().tokens_hold_terms && by_token().unwrap_or(false))
    }

    pub(super) fn record_open(&self, client: &Client) {
        let connections = self.connection_counters(client);
        connections.opened.increment();
        connections.open.follow(0, 1);
    }

    pub(super) fn record_arrival(&self, client: &Client) {
        self.connection_counters(client).open.follow(0, 1);
    }

    pub(super) fn record_moved_out(&self, client: &Client) {
        self.connection_counters(client).open.follow(1, 0);
    }

    /// Counts a close, logs it, and puts it into the history.
    pub(super) fn record_close(&self, client: &Client, reason: &CloseReason) {
        self.connection_counters(client).open.follow(1, 0);
        self.hub_counters(client).closed.count(reason.cause);
        let lived = Duration::from_micros(self.now_us().saturating_sub(client.cold().origin().opened_us));
        self.counters.lifetimes.observe_duration(lived);
        let hub = client.home().hub_identity().name();
        self.log_close(hub, &client.id, reason);
        let app_server = self.shared.hubs.instance(client.home().app);
        let opening = client.cold().read_opening().unwrap_or_default();
        let past = PastConnection::new(&client.id, reason.cause, reason.detail.as_deref());
        let past = PastConnection {
            hub: Some(hub.into()),
            transport: Some(client.traits().transport),
            protocol: Some(client.content().protocol()),
            app_server: Some(&*app_server).filter(|instance| !instance.is_empty()).map(Into::into),
            opened_ms: Some(self.opened_ms(client)),
            ..past.with_opening(&opening)
        };
        self.shared.remember(self.index, &past);
    }

    /// Open time of a client connection in milliseconds since 1970, on any node.
    pub(super) fn opened_ms(&self, client: &Client) -> u64 {
        unix_ms().saturating_sub(self.now_us().saturating_sub(client.cold().origin().opened_us) / 1000)
    }

    /// Records how long the app server took for a client's hub handshake.
    pub(super) fn record_app_handshake(&self, client: &Client) {
        let took = Duration::from_micros(self.now_us().saturating_sub(client.cold().origin().opened_us));
        self.counters.handshakes_of_apps.observe_duration(took);
    }

    /// Logs a close with the terms of metrics and hooks.
    fn log_close(&self, hub: &str, id: &str, reason: &CloseReason) {
        let CloseReason { cause, detail, .. } = reason;
        let connection = short(id);
        if cause.is_notable() && self.may_log() || cause.is_mistake() && self.may_log_mistake() {
            info!(hub, connection, %cause, detail, "client connection closed");
        } else {
            debug!(hub, connection, %cause, detail, "client connection closed");
        }
    }

    /// Whether the log rate permits a line caused by a client. Counts suppressions.
    pub(crate) fn may_log(&self) -> bool {
        self.counted(self.shared.limits.may_log(self.shared.uptime()))
    }

    fn may_log_mistake(&self) -> bool {
        self.counted(self.shared.limits.may_log_mistake(self.shared.uptime()))
    }

    fn counted(&self, may_log: bool) -> bool {
        if !may_log {
            self.counters.limit(Limit::LogLines).increment();
        }
        may_log
    }
}
