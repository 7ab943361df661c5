//! Webhook of one hub: where its events go, what is under way, and what became of it.

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

/// Webhook of one hub.
#[derive(Debug)]
pub(crate) struct WebhookHub {
    name: String,
    template: UrlTemplate,
    terms: Arc<WebhookTerms>,
    /// Requests that may begin for this hub.
    room: Semaphore,
    /// Clients at all of its links whose end the back end has not been told of.
    clients: AtomicUsize,
    counters: Arc<WebhookCounters>,
    warnings: LogThrottle,
}

/// Terms of all webhooks of a node.
#[derive(Debug)]
pub(super) struct WebhookTerms {
    pub(super) settings: WebhookSettings,
    /// Secrets in force; a reload replaces them.
    pub(super) secrets: ArcSwap<Vec<WebhookSecret>>,
    /// Keys that sign requests of hubs without secrets of their own.
    pub(super) keys: AccessKeys,
    pub(super) connector: Connector,
    /// Requests that may begin at this node.
    pub(super) room: Semaphore,
    pub(super) backlog: Arc<Backlog>,
}

/// Room for one request, of its hub and of the node.
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

    /// Number of its requests that are under way.
    #[must_use]
    pub(crate) fn in_flight(&self) -> usize {
        self.settings().in_flight_max.get().saturating_sub(self.room.available_permits())
    }

    /// Whether it has any client, or has still to tell the back end of the end of one.
    #[must_use]
    pub(super) fn has_clients(&self) -> bool {
        self.clients.load(Ordering::Relaxed) > 0
    }

    /// Counts a client that has come to one of its links.
    pub(super) fn client_came(&self) {
        self.clients.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts clients that have left one of its links.
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

    /// Name and template, of which URLs are made.
    #[must_use]
    pub(super) fn place(&self) -> (&str, &UrlTemplate) {
        (&self.name, &self.template)
    }

    /// Client for requests of one link: its connections are kept on the thread of that.
    #[must_use]
    pub(super) fn http_client(&self) -> HttpClient {
        HttpClient::new(self.terms.connector.for_clients(), self.settings().connect_timeout)
    }

    /// Secrets that sign its requests at this moment: those of its own, or the access keys if it has none.
    #[must_use]
    pub(super) fn secrets(&self) -> Vec<AccessKey> {
        let in_force = self.terms.secrets.load();
        let own: Vec<_> = in_force.iter().filter_map(|secret| secret.of(&self.name)).cloned().collect();
        if own.is_empty() { self.terms.keys.iter().collect() } else { own }
    }

    /// Waits until a request may begin: the links of a hub in turn, and each hub in its own room first, so that one
    /// whose back end hangs leaves room for others.
    pub(super) async fn request_permit(&self) -> RequestPermit<'_> {
        // Neither is ever closed.
        let of_hub = self.room.acquire().await.ok();
        let of_node = self.terms.room.acquire().await.ok();
        RequestPermit { _of_hub: of_hub, _of_node: of_node }
    }

    /// Logs a failure, one of many.
    pub(super) fn warn(&self, event: &str, problem: &str) {
        let left_out = self.warnings.pass(Instant::now());
        if let Some(left_out) = left_out {
            let (hub, to) = (&self.name, &self.template);
            warn!(hub, %to, event, problem, left_out, "a webhook has not answered as it should");
        }
    }
}
