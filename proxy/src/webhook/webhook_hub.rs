//! Webhook of one hub: target URL, requests in flight and their outcomes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;
use tracing::warn;
use trunkline_protocol::key::{AccessKey, AccessKeys};

use super::backlog::Backlog;
use crate::config::{UrlTemplate, WebhookConnecting, WebhookSecret, WebhookSettings};
use crate::limits::LogThrottle;
use crate::metrics::WebhookCounters;
use crate::net::connector::Connector;
use crate::net::http_client::HttpClient;

#[derive(Debug)]
pub(crate) struct WebhookHub {
    name: String,
    template: UrlTemplate,
    terms: Arc<WebhookTerms>,
    /// Permits for requests of this hub.
    room: Semaphore,
    /// Clients at all links with an end not yet reported to the back end.
    clients: AtomicUsize,
    counters: Arc<WebhookCounters>,
    warnings: LogThrottle,
}

/// Common settings of a node's webhooks.
#[derive(Debug)]
pub(super) struct WebhookTerms {
    pub(super) settings: WebhookSettings,
    /// Current secrets, replaced on reload.
    pub(super) secrets: ArcSwap<Vec<WebhookSecret>>,
    /// Signing keys for hubs without their own secrets.
    pub(super) keys: AccessKeys,
    pub(super) connector: Connector,
    /// Permits for requests of this node.
    pub(super) room: Semaphore,
    pub(super) backlog: Arc<Backlog>,
}

/// Permit for one request, from the hub and the node.
#[derive(Debug)]
pub(super) struct RequestPermit<'a> {
    _of_hub: Option<SemaphorePermit<'a>>,
    _of_node: Option<SemaphorePermit<'a>>,
}

impl WebhookHub {
    #[must_use]
    pub(super) fn new(
        name: &str,
        template: UrlTemplate,
        terms: Arc<WebhookTerms>,
        counters: Arc<WebhookCounters>,
    ) -> Self {
        let room = Semaphore::new(terms.settings.in_flight_max.get().min(Semaphore::MAX_PERMITS));
        Self {
            name: name.to_owned(),
            template,
            terms,
            room,
            clients: AtomicUsize::new(0),
            counters,
            warnings: LogThrottle::default(),
        }
    }

    #[must_use]
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    #[must_use]
    pub(crate) fn template(&self) -> &UrlTemplate {
        &self.template
    }

    #[must_use]
    pub(crate) fn in_flight(&self) -> usize {
        self.settings().in_flight_max.get().saturating_sub(self.room.available_permits())
    }

    /// Whether it has clients, or ends still to be reported.
    #[must_use]
    pub(super) fn has_clients(&self) -> bool {
        self.clients.load(Ordering::Relaxed) > 0
    }

    /// Counts a new client at one of the links.
    pub(super) fn client_came(&self) {
        self.clients.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn clients_left(&self, count: usize) {
        self.clients.fetch_sub(count, Ordering::Relaxed);
    }

    #[must_use]
    pub(super) fn counters(&self) -> &WebhookCounters {
        &self.counters
    }

    #[must_use]
    pub(super) fn settings(&self) -> &WebhookSettings {
        &self.terms.settings
    }

    #[must_use]
    pub(super) fn connecting(&self) -> WebhookConnecting {
        self.terms.settings.connecting
    }

    #[must_use]
    pub(super) fn backlog(&self) -> &Arc<Backlog> {
        &self.terms.backlog
    }

    /// Name and URL template.
    #[must_use]
    pub(super) fn place(&self) -> (&str, &UrlTemplate) {
        (&self.name, &self.template)
    }

    /// HTTP client for one link; its connections are bound to the link's thread.
    #[must_use]
    pub(super) fn http_client(&self) -> HttpClient {
        HttpClient::new(self.terms.connector.for_clients(), self.settings().connect_timeout)
    }

    /// Current signing secrets: the hub's own, or the access keys.
    #[must_use]
    pub(super) fn secrets(&self) -> Vec<AccessKey> {
        let in_force = self.terms.secrets.load();
        let own: Vec<_> = in_force.iter().filter_map(|secret| secret.of(&self.name)).cloned().collect();
        if own.is_empty() { self.terms.keys.iter().collect() } else { own }
    }

    /// Waits for a permit to send a request. Links of a hub take turns, and the hub's limit comes first, so that a
    /// hanging back end leaves permits for other hubs.
    pub(super) async fn request_permit(&self) -> RequestPermit<'_> {
        // Neither is ever closed.
        let of_hub = self.room.acquire().await.ok();
        let of_node = self.terms.room.acquire().await.ok();
        RequestPermit { _of_hub: of_hub, _of_node: of_node }
    }

    /// Logs a failure, throttled.
    pub(super) fn warn(&self, event: &str, problem: &str) {
        let left_out = self.warnings.pass(Instant::now());
        if let Some(left_out) = left_out {
            let (hub, to) = (&self.name, &self.template);
            warn!(hub, %to, event, problem, left_out, "unexpected answer of a webhook");
        }
    }
}
