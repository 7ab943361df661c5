//! Webhook of one hub: target URL, requests in flight and their outcomes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::Instant;
use trunkline_protocol::key::{AccessKey, AccessKeys};

use super::backlog::Backlog;
use super::subject::{HubConnection, HubUser};
use super::subject_log::SubjectStay;
use super::webhook_presence::WebhookPresence;
use crate::clock::unix_ms;
use crate::condition::{ConditionKind, Finding};
use crate::config::{UrlTemplate, WebhookConnecting, WebhookSecret, WebhookSettings};
use crate::metrics::WebhookCounters;
use crate::net::connector::Connector;
use crate::net::http_client::HttpClient;
use crate::upstream::BackEndState;

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
    trouble: Mutex<WebhookTrouble>,
    /// HTTP clients of the shards' threads.
    http_clients: Mutex<HashMap<ThreadId, HttpClient>>,
}

/// Failures of requests since the last valid answer, and slow answers since the last fast one.
#[derive(Debug, Default)]
struct WebhookTrouble {
    failure: Option<(Instant, String)>,
    refusals: u32,
    rejections: u32,
    has_failed: bool,
    /// Whether any event was accepted.
    has_accepted: bool,
    slow: Option<(Instant, Duration)>,
    slow_sum: u32,
    requests: u64,
    failures: u64,
    /// Smoothed duration of a request.
    latency: Duration,
    /// Unix time of the first failure since the last valid answer, in milliseconds.
    failing_since_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WebhookFailure {
    /// Status 401 or 403: the signature is refused, or the client.
    Refusal,
    /// Another status of the class 4xx: the URL is wrong, or the request of the client.
    Rejection,
    Fault,
}

/// Weight of a new duration in the smoothed one: a part of this size.
const LATENCY_PART: u32 = 8;

/// Maximum length of a user id with events about the user, as in REST.
const USER_MAX_CHARS: usize = 1024;

/// Number of refusals in a row after which they are about the signature and not about clients.
const REFUSALS_MIN: u32 = 3;

/// Number of refusals or rejections in a row after which they are about the back end, although it has accepted events:
/// clients can cause some of them.
const ACCEPTED_REFUSALS_MIN: u32 = 20;

/// Time of an answer from which it is slow.
const SLOW_ANSWER: Duration = Duration::from_secs(5);

/// A slow answer adds to a sum, and a fast one takes one away, so that some fast ones between slow ones don't end the
/// condition. From the minimum on it is reported.
const SLOW_ANSWER_WEIGHT: u32 = 2;
const SLOW_SUM_MIN: u32 = 3;
const HIGHEST_SLOW_SUM: u32 = 6;

/// Time after the last failure for which it is reported.
const TROUBLE_TIME: Duration = Duration::from_secs(600);

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
    /// Permits for the hubs of each rule.
    pub(super) rule_rooms: Vec<Semaphore>,
    pub(super) backlog: Arc<Backlog>,
    pub(super) presence: Option<WebhookPresence<HubUser>>,
    pub(super) connections: Option<WebhookPresence<HubConnection>>,
}

/// Permit for one request, from the hub, its rule and the node.
#[derive(Debug)]
pub(super) struct RequestPermit<'a> {
    _of_hub: Option<SemaphorePermit<'a>>,
    _of_rule: Option<SemaphorePermit<'a>>,
    _of_node: Option<SemaphorePermit<'a>>,
}

impl WebhookTerms {
    fn room_of_rule(&self, hub: &str) -> Option<&Semaphore> {
        let rule = self.settings.rules.iter().position(|rule| rule.hubs.matches(hub))?;
        self.rule_rooms.get(rule)
    }
}

impl WebhookTrouble {
    /// Recent failures of the back end that are a condition, with the last problem.
    fn finding(&self) -> Option<(ConditionKind, &str)> {
        let (refusals_min, rejections_min) = match self.has_accepted {
            true => (ACCEPTED_REFUSALS_MIN, ACCEPTED_REFUSALS_MIN),
            false => (REFUSALS_MIN, 1),
        };
        let has_failed = self.has_failed || self.rejections >= rejections_min;
        let kind = match self.refusals >= refusals_min {
            true => Some(ConditionKind::WebhookRefusesSignature),
            false => has_failed.then_some(ConditionKind::WebhookFails),
        };
        let recent = self.failure.as_ref().filter(|(at, _)| at.elapsed() < TROUBLE_TIME);
        kind.zip(recent.map(|(_, problem)| problem.as_str()))
    }
}

impl WebhookHub {
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
            trouble: Mutex::default(),
            http_clients: Mutex::default(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn template(&self) -> &UrlTemplate {
        &self.template
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.settings().in_flight_max.get().saturating_sub(self.room.available_permits())
    }

    /// Whether the hub has clients, or ends still to be reported.
    pub(super) fn has_clients(&self) -> bool {
        self.clients.load(Ordering::Relaxed) > 0
    }

    /// Whether other nodes receive the users of clients.
    pub(super) fn shares_users(&self) -> bool {
        self.terms.presence.is_some() || self.terms.connections.is_some()
    }

    /// Notes a connection of a user, if back ends receive presence events. The returned value ends it.
    #[must_use]
    pub(super) fn enter(&self, user: Option<&str>) -> Option<SubjectStay<HubUser>> {
        let presence = self.terms.presence.as_ref()?;
        let user = user?;
        if user.chars().count() > USER_MAX_CHARS {
            presence.table().ignore();
            return None;
        }
        let (hub, user) = (self.name.as_str().into(), user.into());
        Some(presence.log().enter(HubUser { hub, user }))
    }

    /// Notes a connection, if other nodes report its end when this node is lost. The returned value ends it.
    pub(super) fn record(&self, id: &str, user: Option<&str>) -> Option<SubjectStay<HubConnection>> {
        let connections = self.terms.connections.as_ref()?;
        let user = user.filter(|user| user.chars().count() <= USER_MAX_CHARS).unwrap_or_default();
        let (hub, id, user) = (self.name.as_str().into(), id.into(), user.into());
        Some(connections.log().enter(HubConnection { hub, id, user }))
    }

    /// Position in the log of connections up to which other nodes have reported the ends, whenever it changes.
    pub(super) fn reported(&self) -> Option<watch::Receiver<u64>> {
        self.terms.connections.as_ref().map(WebhookPresence::reported)
    }

    /// Counts a new client at one of the links.
    pub(super) fn client_came(&self) {
        self.clients.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn clients_left(&self, count: usize) {
        self.clients.fetch_sub(count, Ordering::Relaxed);
    }

    pub(super) fn counters(&self) -> &WebhookCounters {
        &self.counters
    }

    pub(super) fn settings(&self) -> &WebhookSettings {
        &self.terms.settings
    }

    pub(super) fn connecting(&self) -> WebhookConnecting {
        self.terms.settings.connecting
    }

    pub(super) fn backlog(&self) -> &Arc<Backlog> {
        &self.terms.backlog
    }

    pub(super) fn place(&self) -> (&str, &UrlTemplate) {
        (&self.name, &self.template)
    }

    /// HTTP client of this thread, to which its connections are bound.
    pub(super) fn http_client(&self) -> HttpClient {
        let new = || HttpClient::new(self.terms.connector.for_clients(), self.settings().connect_timeout);
        let mut clients = self.http_clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.entry(thread::current().id()).or_insert_with(new).clone()
    }

    /// Current signing secrets: the hub's own, or the access keys.
    pub(super) fn secrets(&self) -> Vec<AccessKey> {
        let in_force = self.terms.secrets.load();
        let own: Vec<_> = in_force.iter().filter_map(|secret| secret.of(&self.name)).cloned().collect();
        if own.is_empty() { self.terms.keys.iter().collect() } else { own }
    }

    /// Waits for a permit to send a request. Links of a hub take turns. The limits of the hub and its rule come first,
    /// so that a hanging back end, perhaps of many hubs, leaves permits for others.
    pub(super) async fn request_permit(&self) -> RequestPermit<'_> {
        // The semaphores are never closed.
        let of_hub = self.room.acquire().await.ok();
        let of_rule = match self.terms.room_of_rule(&self.name) {
            Some(room) => room.acquire().await.ok(),
            None => None,
        };
        let of_node = self.terms.room.acquire().await.ok();
        RequestPermit { _of_hub: of_hub, _of_rule: of_rule, _of_node: of_node }
    }

    pub(super) fn note_answer(&self) {
        let mut trouble = self.trouble();
        (trouble.failure, trouble.failing_since_ms) = (None, None);
        (trouble.refusals, trouble.rejections) = (0, 0);
        (trouble.has_failed, trouble.has_accepted) = (false, true);
    }

    pub(super) fn note_duration(&self, duration: Duration) {
        let mut trouble = self.trouble();
        trouble.latency = match trouble.requests {
            0 => duration,
            _ => trouble.latency - trouble.latency / LATENCY_PART + duration / LATENCY_PART,
        };
        trouble.requests += 1;
        let is_slow = duration >= SLOW_ANSWER;
        if trouble.slow.is_some_and(|(at, _)| at.elapsed() >= TROUBLE_TIME) {
            trouble.slow_sum = 0;
        }
        if is_slow {
            trouble.slow = Some((Instant::now(), duration));
            trouble.slow_sum = HIGHEST_SLOW_SUM.min(trouble.slow_sum + SLOW_ANSWER_WEIGHT);
        } else {
            trouble.slow_sum = trouble.slow_sum.saturating_sub(1);
        }
    }

    pub(super) fn note_failure(&self, event: &str, problem: &str, failure: WebhookFailure) {
        let mut trouble = self.trouble();
        trouble.failure = Some((Instant::now(), format!("{event}: {problem} ({})", self.template)));
        trouble.failing_since_ms.get_or_insert_with(unix_ms);
        trouble.failures += 1;
        match failure {
            WebhookFailure::Refusal => trouble.refusals = trouble.refusals.saturating_add(1),
            WebhookFailure::Rejection => trouble.rejections = trouble.rejections.saturating_add(1),
            WebhookFailure::Fault => trouble.has_failed = true,
        }
    }

    /// State of the back end, for the observer.
    pub(super) fn state(&self) -> BackEndState {
        let trouble = self.trouble();
        let problem = trouble.finding().map(|(_, problem)| problem.to_owned());
        BackEndState {
            requests: trouble.requests,
            failures: trouble.failures,
            in_flight: self.in_flight() as u64,
            latency: trouble.latency,
            failing: trouble.failing_since_ms.zip(problem),
        }
    }

    /// Conditions of the back end: it fails, or it is slow.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let (trouble, mut findings) = (self.trouble(), Vec::new());
        findings.extend(trouble.finding().map(|(kind, problem)| Finding::new(kind, self.name.as_str(), problem)));
        let slow = trouble.slow.filter(|(at, _)| at.elapsed() < TROUBLE_TIME && trouble.slow_sum >= SLOW_SUM_MIN);
        if let Some((_, duration)) = slow {
            let (seconds, waiting) = (duration.as_secs(), self.in_flight());
            let detail = format!("the last answer took {seconds} s, waiting requests: {waiting} ({})", self.template);
            findings.push(Finding::new(ConditionKind::WebhookSlow, self.name.as_str(), detail));
        }
        findings
    }

    fn trouble(&self) -> MutexGuard<'_, WebhookTrouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_refused_event_of_a_client_is_no_failure_of_a_back_end_that_answers() {
        let failure = Some((Instant::now(), "messages: status code 404".to_owned()));
        let mut trouble = WebhookTrouble { has_accepted: true, rejections: 1, failure, ..WebhookTrouble::default() };
        assert_eq!(trouble.finding(), None);
        trouble.has_accepted = false;
        assert_eq!(trouble.finding(), Some((ConditionKind::WebhookFails, "messages: status code 404")));
    }
}
