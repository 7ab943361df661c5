//! Webhooks of a node, one per hub with a matching rule.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arc_swap::ArcSwap;
use bytestring::ByteString;
use tokio::sync::Semaphore;
use trunkline_protocol::manifest::HubManifest;

use super::answer::WebhookAnswer;
use super::client_fact::{ClientFacts, header_text};
use super::event_sender::EventSender;
use super::loopback_server::Post;
use super::subject::{HubConnection, HubUser, Subject};
use super::subject_table::{SubjectReport, TAKE_OVER_DELAY};
use super::webhook_client::Backlog;
use super::webhook_dialler::WebhookDialler;
use super::webhook_event::{EventError, EventKind, LAST_NUMBER, WebhookEvent};
use super::webhook_hub::{WebhookHub, WebhookTerms};
use super::webhook_presence::WebhookPresence;
use crate::engine::shard::Shared;
use crate::engine::upstream::MemoryDialler;
use crate::ground::clock::unix_ms;
use crate::ground::condition::Finding;
use crate::ground::config::{WebhookConnecting, WebhookSecret};
use crate::ground::metrics::{LabelledCounters, WebhookCounters};
use crate::ground::routing::{WebhookHeader, WebhookTable};

/// Reason in `disconnected` for a client whose node was lost.
const LOST_TEXT: &str = "The node of the client was lost.";

/// Maximum size of a client message, unless the hub's table says otherwise or `--message-max-bytes` is lower.
const MESSAGE_MAX_BYTES: usize = 1024 * 1024;

/// Subject whose events back ends receive.
pub(crate) trait Reported: Subject {
    /// Presence of these subjects, if back ends receive events about it.
    fn presence(webhooks: &Webhooks) -> Option<&WebhookPresence<Self>>;

    /// Whether the back end of a hub receives events about these subjects.
    fn is_wanted(hub: &WebhookHub) -> bool;

    /// Event of a report. Fails if the URL can't be built from the hub's name.
    fn post(&self, hub: &WebhookHub, is_online: bool) -> Result<Post, EventError>;
}

#[derive(Debug)]
pub(crate) struct Webhooks {
    terms: Arc<WebhookTerms>,
    /// Webhooks in use. They are kept alive by the hub's pool and links, and so end with the hub.
    hubs: Mutex<HashMap<String, Weak<WebhookHub>>>,
    counters: LabelledCounters<WebhookCounters>,
}

impl Webhooks {
    pub(crate) fn new(shared: &Shared) -> Self {
        let settings = &shared.settings.webhooks;
        let (has_rules, boot) = (!settings.rules.is_empty(), &shared.boot);
        let total = settings.total_in_flight_max.get().min(Semaphore::MAX_PERMITS);
        // One rule leaves half of the permits to the others.
        let of_rule = if settings.rules.len() > 1 { total.div_ceil(2) } else { total };
        let terms = WebhookTerms {
            room: Semaphore::new(total),
            rule_rooms: settings.rules.iter().map(|_| Semaphore::new(of_rule)).collect(),
            backlog: Arc::new(Backlog::new(settings.waiting_max_bytes)),
            secrets: ArcSwap::from_pointee(settings.secrets.clone()),
            headers: ArcSwap::from_pointee(settings.headers.clone()),
            tables: ArcSwap::from_pointee(shared.settings.rules.webhooks.clone()),
            own_settings: Arc::default(),
            settings: settings.clone(),
            keys: shared.settings.keys.clone(),
            connector: shared.ways.connector.clone(),
            presence: settings
                .needs_presence(&shared.settings.rules.webhooks)
                .then(|| WebhookPresence::new(boot, settings.presence_grace)),
            connections: (has_rules && settings.reports_lost_clients)
                .then(|| WebhookPresence::new(boot, TAKE_OVER_DELAY)),
        };
        Self { terms: Arc::new(terms), hubs: Mutex::default(), counters: LabelledCounters::default() }
    }

    /// Replaces the signing secrets, from the next request on.
    pub(crate) fn set_secrets(&self, secrets: Vec<WebhookSecret>) {
        self.terms.secrets.store(Arc::new(secrets));
    }

    /// Replaces the headers of all hubs, from the next request on.
    pub(crate) fn set_headers(&self, headers: Vec<WebhookHeader>) {
        self.terms.headers.store(Arc::new(headers));
    }

    /// Whether a hub, given in lower case, has a webhook.
    #[must_use]
    pub(crate) fn serve(&self, hub: &str) -> bool {
        self.terms.settings.rule_for(hub).is_some()
    }

    /// Replaces the settings of single hubs.
    pub(crate) fn set_tables(&self, shared: &Shared, tables: &[WebhookTable]) {
        self.terms.tables.store(Arc::new(tables.to_vec()));
        for hub in shared.hubs.living().iter().filter(|hub| hub.has_webhook()) {
            hub.set_settings(self.manifest(shared, hub.name(), &hub.settings().path));
        }
    }

    /// Settings of a hub, as an app server would state them.
    pub(super) fn manifest(&self, shared: &Shared, name: &str, path: &str) -> HubManifest {
        let own = self.terms.of_hub(name);
        let message_max_bytes = own.message_max_bytes.unwrap_or(MESSAGE_MAX_BYTES);
        HubManifest {
            name: name.to_owned(),
            path: path.to_owned(),
            message_max_bytes: message_max_bytes.min(shared.settings.message_max_bytes),
            asks_app: self.terms.connecting(&own) == WebhookConnecting::Asked,
            ..own.manifest.clone()
        }
    }

    /// Names of hubs served from the start under their own path.
    pub(crate) fn named_hubs(&self) -> impl Iterator<Item = &str> {
        self.terms.settings.named_hubs()
    }

    /// Finds the webhook of a discovered hub, and its dialler for the node.
    pub(crate) fn hub_of(&self, hub: &str) -> Option<(Arc<WebhookHub>, Arc<dyn MemoryDialler>)> {
        let rule = self.terms.settings.rule_for(hub)?;
        let mut hubs = self.hubs();
        let known = hubs.get(hub).and_then(Weak::upgrade).unwrap_or_else(|| {
            hubs.retain(|_, other| other.strong_count() > 0);
            let counters = self.counters.of(&hub.into());
            let new = Arc::new(WebhookHub::new(hub, rule.template.clone(), self.terms.clone(), counters));
            hubs.insert(hub.to_owned(), Arc::downgrade(&new));
            new
        });
        Some((known.clone(), Arc::new(WebhookDialler(known))))
    }

    /// Sends an event about a subject. Returns `false` if it has to be repeated later.
    pub(crate) async fn report<S: Reported>(&self, SubjectReport { subject, is_online }: &SubjectReport<S>) -> bool {
        // The node that reports may have no client of the hub, or no longer.
        let Some((hub, _)) = self.hub_of(subject.hub()).filter(|(hub, _)| S::is_wanted(hub)) else { return true };
        let Ok(post) = subject.post(&hub, *is_online) else { return true };
        let permit = hub.request_permit().await;
        let (_, answer) = EventSender::new(hub.clone()).deliver(permit, post).await;
        answer != WebhookAnswer::Later
    }

    pub(crate) fn has_clients(&self, hub: &str) -> bool {
        self.hubs().get(hub).and_then(Weak::upgrade).is_some_and(|hub| hub.has_clients())
    }

    pub(crate) fn findings(&self) -> Vec<Finding> {
        let hubs: Vec<_> = self.hubs().values().filter_map(Weak::upgrade).collect();
        hubs.iter().flat_map(|hub| hub.findings()).collect()
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.hubs().len()
    }

    /// Counters of each hub seen so far.
    pub(crate) fn counters(&self) -> Vec<(Arc<str>, Arc<WebhookCounters>)> {
        self.counters.all()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.hubs().values().filter_map(Weak::upgrade).map(|hub| hub.in_flight()).sum()
    }

    pub(crate) fn waiting_bytes(&self) -> usize {
        self.terms.backlog.bytes.used()
    }

    pub(crate) fn clients(&self) -> usize {
        self.terms.backlog.clients.used()
    }

    fn hubs(&self) -> MutexGuard<'_, HashMap<String, Weak<WebhookHub>>> {
        self.hubs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reported for HubUser {
    fn presence(webhooks: &Webhooks) -> Option<&WebhookPresence<Self>> {
        webhooks.terms.presence.as_ref()
    }

    fn is_wanted(hub: &WebhookHub) -> bool {
        hub.has_presence()
    }

    fn post(&self, hub: &WebhookHub, is_online: bool) -> Result<Post, EventError> {
        let event = WebhookEvent::of_user(hub.place(), (&*self.user, is_online), unix_ms())?;
        let facts = Arc::new(ClientFacts { user: Some(header_text(&self.user)), ..ClientFacts::default() });
        Ok(Post { connection_id: ByteString::new(), facts, event })
    }
}

impl Reported for HubConnection {
    fn presence(webhooks: &Webhooks) -> Option<&WebhookPresence<Self>> {
        webhooks.terms.connections.as_ref()
    }

    fn is_wanted(hub: &WebhookHub) -> bool {
        hub.own_settings().events.disconnected
    }

    fn post(&self, hub: &WebhookHub, _is_online: bool) -> Result<Post, EventError> {
        let event = WebhookEvent::of_connection(hub.place(), EventKind::Lost, Some(LOST_TEXT))?;
        let event = WebhookEvent { number: LAST_NUMBER, ..event };
        let user = (!self.user.is_empty()).then(|| header_text(&self.user));
        let facts = Arc::new(ClientFacts { user, ..ClientFacts::default() });
        Ok(Post { connection_id: self.id.clone(), facts, event })
    }
}
