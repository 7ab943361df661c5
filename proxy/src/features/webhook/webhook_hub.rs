//! Webhook of one hub: target URL, requests in flight and their outcomes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytestring::ByteString;
use http::HeaderMap;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::Instant;
use trunkline_protocol::key::{AccessKey, AccessKeys};

use super::subject::{HubConnection, HubUser};
use super::subject_log::SubjectStay;
use super::webhook_client::Backlog;
use super::webhook_event::{EventKind, WebhookEvent};
use super::webhook_presence::WebhookPresence;
use crate::engine::upstream::BackEndState;
use crate::ground::clock::unix_ms;
use crate::ground::condition::{ConditionKind, Finding, quoted};
use crate::ground::config::{UrlTemplate, WebhookConnecting, WebhookSecret, WebhookSettings};
use crate::ground::metrics::WebhookCounters;
use crate::ground::net::connector::Connector;
use crate::ground::net::http_client::HttpClient;
use crate::ground::routing::{WebhookHeader, WebhookHubSettings, WebhookTable};

#[derive(Debug)]
pub(crate) struct WebhookHub {
    name: String,
    pub(crate) template: UrlTemplate,
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

/// Failures of requests, and slow answers since the last fast one.
#[derive(Debug, Default)]
struct WebhookTrouble {
    /// Failures of calls. Answers to other events don't end them.
    calls: FailureRun,
    events: FailureRun,
    /// Whether any event was accepted.
    has_accepted: bool,
    slow: Option<(Instant, Duration)>,
    slow_sum: u32,
    requests: u64,
    failures: u64,
    /// Smoothed duration of a request.
    latency: Duration,
}

/// Failures of requests of one class.
#[derive(Debug, Default)]
struct FailureRun {
    /// The latest failure, with its problem.
    last: Option<(Instant, String)>,
    refusals: u32,
    rejections: u32,
    /// A fault adds to this sum, and a valid answer takes one away, so that a part of the requests may fail.
    fault_sum: u32,
    /// First clients with calls that were refused in a row.
    refused: Vec<ByteString>,
    /// Unix time of the first failure since the requests were last without faults, in milliseconds.
    since_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WebhookFailure {
    /// Status 401 or 403: the signature is refused, or the client.
    Refusal,
    /// Another status of the class 4xx to an event: the URL is wrong, or the request of the client.
    Rejection,
    /// Such a status to a call: the answer of the app to a client, such as to an unknown method.
    OfClient,
    Fault,
}

/// Weight of a new duration in the smoothed one: a part of this size.
const LATENCY_PART: u32 = 8;

/// Maximum length of a user id with events about the user, as in REST.
const USER_MAX_CHARS: usize = 1024;

/// Number of refusals in a row after which they are about the signature and not about clients.
const REFUSALS_MIN: u32 = 3;

/// Weight of a fault, and limit of the sum: one failure in five requests is reported, and five valid answers in a row
/// end it.
const FAULT_WEIGHT: u32 = 4;
const HIGHEST_FAULT_SUM: u32 = 8;

/// Number of clients with refused calls from which the refusals are about the signature.
const REFUSED_CLIENTS_MIN: usize = 3;

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
    /// Current settings of single hubs, replaced on reload. The first one that matches a hub counts.
    pub(super) tables: ArcSwap<Vec<WebhookTable>>,
    /// Settings of hubs without a table.
    pub(super) own_settings: Arc<WebhookHubSettings>,
    /// Current secrets, replaced on reload.
    pub(super) secrets: ArcSwap<Vec<WebhookSecret>>,
    /// Current headers of the requests of all hubs, replaced on reload.
    pub(super) headers: ArcSwap<Vec<WebhookHeader>>,
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

impl WebhookTerms {
    /// Current settings of a hub, given in lower case.
    pub(super) fn of_hub(&self, hub: &str) -> Arc<WebhookHubSettings> {
        let tables = self.tables.load();
        let table = tables.iter().find(|table| table.hubs.matches(hub));
        table.map_or(&self.own_settings, |table| &table.settings).clone()
    }

    pub(super) fn connecting(&self, own: &WebhookHubSettings) -> WebhookConnecting {
        match own.connect {
            Some(true) => WebhookConnecting::Asked,
            Some(false) => WebhookConnecting::Open,
            None => self.settings.connecting,
        }
    }
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
    fn run(&mut self, kind: &EventKind) -> &mut FailureRun {
        if kind.is_message() { &mut self.calls } else { &mut self.events }
    }

    /// Failing class of requests that is a condition, with the last problem.
    fn finding(&self) -> Option<(ConditionKind, &FailureRun, &str)> {
        let runs = [&self.calls, &self.events].into_iter();
        let found = runs.filter_map(|run| {
            let (at, problem) = run.last.as_ref().filter(|(at, _)| at.elapsed() < TROUBLE_TIME)?;
            Some((*at, (run.condition(self.has_accepted)?, run, &**problem)))
        });
        found.max_by_key(|(at, _)| *at).map(|(_, found)| found)
    }

    fn accept(&mut self, kind: &EventKind) {
        self.has_accepted = true;
        self.run(kind).accept();
    }

    fn fail(&mut self, kind: &EventKind, (client, problem): (&ByteString, String), failure: WebhookFailure) {
        self.failures += 1;
        let run = self.run(kind);
        match failure {
            WebhookFailure::OfClient => return,
            WebhookFailure::Refusal => {
                run.refusals = run.refusals.saturating_add(1);
                // `connect` and events of users have no connection id: each counts.
                let is_new = client.is_empty() || !run.refused.contains(client);
                if is_new && run.refused.len() < REFUSED_CLIENTS_MIN {
                    run.refused.push(client.clone());
                }
            }
            WebhookFailure::Rejection => run.rejections = run.rejections.saturating_add(1),
            WebhookFailure::Fault => run.fault_sum = HIGHEST_FAULT_SUM.min(run.fault_sum + FAULT_WEIGHT),
        }
        run.last = Some((Instant::now(), problem));
        run.since_ms.get_or_insert_with(unix_ms);
    }
}

impl FailureRun {
    fn condition(&self, has_accepted: bool) -> Option<ConditionKind> {
        let (refusals_min, rejections_min) = match has_accepted {
            true => (ACCEPTED_REFUSALS_MIN, ACCEPTED_REFUSALS_MIN),
            false => (REFUSALS_MIN, 1),
        };
        // Calls of one client prove nothing about the signature.
        if self.refusals >= refusals_min && self.refused.len() >= REFUSED_CLIENTS_MIN {
            return Some(ConditionKind::WebhookRefusesSignature);
        }
        let has_failed = self.fault_sum >= FAULT_WEIGHT || self.rejections >= rejections_min;
        has_failed.then_some(ConditionKind::WebhookFails)
    }

    fn accept(&mut self) {
        (self.refusals, self.rejections) = (0, 0);
        self.refused.clear();
        self.fault_sum = self.fault_sum.saturating_sub(1);
        if self.fault_sum < FAULT_WEIGHT {
            self.since_ms = None;
        }
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
        let presence = self.terms.presence.as_ref().filter(|_| self.has_presence())?;
        let user = user?;
        if user.chars().count() > USER_MAX_CHARS {
            presence.table().ignore();
            return None;
        }
        let (hub, user) = (self.name.as_str().into(), user.into());
        Some(presence.log.enter(HubUser { hub, user }))
    }

    /// Notes a connection, if other nodes report its end when this node is lost. The returned value ends it.
    pub(super) fn record(&self, id: &str, user: Option<&str>) -> Option<SubjectStay<HubConnection>> {
        let is_sent = self.own_settings().events.disconnected;
        let connections = self.terms.connections.as_ref().filter(|_| is_sent)?;
        let user = user.filter(|user| user.chars().count() <= USER_MAX_CHARS).unwrap_or_default();
        let (hub, id, user) = (self.name.as_str().into(), id.into(), user.into());
        Some(connections.log.enter(HubConnection { hub, id, user }))
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
        self.terms.connecting(&self.own_settings())
    }

    /// Current settings of this hub alone.
    pub(super) fn own_settings(&self) -> Arc<WebhookHubSettings> {
        self.terms.of_hub(&self.name)
    }

    /// Adds the operator's headers to a request.
    pub(super) fn add_headers(&self, head: &mut HeaderMap) {
        WebhookHeader::set_all(&self.terms.headers.load(), head);
        WebhookHeader::set_all(&self.own_settings().headers, head);
    }

    pub(super) fn has_presence(&self) -> bool {
        self.own_settings().presence.unwrap_or(self.terms.settings.has_presence)
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

    pub(super) fn note_answer(&self, kind: &EventKind) {
        self.trouble().accept(kind);
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

    /// Notes a failed request of a client, with the problem in words.
    pub(super) fn note_failure(
        &self,
        client: &ByteString,
        event: &WebhookEvent,
        problem: &str,
        failure: WebhookFailure,
    ) {
        let name = quoted(&event.name);
        let problem = format!("{}/{name}: {problem} ({})", event.kind.category(), self.template);
        self.trouble().fail(&event.kind, (client, problem), failure);
    }

    /// State of the back end, for the observer.
    pub(super) fn state(&self) -> BackEndState {
        let trouble = self.trouble();
        let failing = trouble.finding().and_then(|(_, run, problem)| Some((run.since_ms?, problem.to_owned())));
        BackEndState {
            requests: trouble.requests,
            failures: trouble.failures,
            in_flight: self.in_flight() as u64,
            latency: trouble.latency,
            failing,
        }
    }

    /// Conditions of the back end: it fails, or it is slow.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let (trouble, mut findings) = (self.trouble(), Vec::new());
        findings.extend(trouble.finding().map(|(kind, _, problem)| Finding::new(kind, self.name.as_str(), problem)));
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
    use trunkline_protocol::hub::HubProtocol;

    use super::*;

    const CALL: EventKind = EventKind::Message { protocol: HubProtocol::Json, invocation_id: None };

    fn fail(trouble: &mut WebhookTrouble, kind: &EventKind, client: u32, failure: WebhookFailure) {
        trouble.fail(kind, (&client.to_string().into(), "status code".to_owned()), failure);
    }

    fn condition(trouble: &WebhookTrouble) -> Option<ConditionKind> {
        trouble.finding().map(|(kind, ..)| kind)
    }

    #[test]
    fn a_single_refused_event_of_a_client_is_no_failure_of_a_back_end_that_answers() {
        let mut trouble = WebhookTrouble::default();
        fail(&mut trouble, &EventKind::Connected, 1, WebhookFailure::Rejection);
        assert_eq!(condition(&trouble), Some(ConditionKind::WebhookFails));
        trouble.has_accepted = true;
        assert_eq!(condition(&trouble), None);
    }

    #[test]
    fn failing_calls_are_a_condition_beside_events_that_are_answered_and_if_a_part_fails() {
        let mut trouble = WebhookTrouble::default();
        for client in 0..20 {
            (0..10).for_each(|_| trouble.accept(&EventKind::Connected));
            fail(&mut trouble, &CALL, client, WebhookFailure::Fault);
            assert_eq!(condition(&trouble), Some(ConditionKind::WebhookFails), "{client}");
            trouble.accept(&CALL);
        }
        (0..5).for_each(|_| trouble.accept(&CALL));
        assert_eq!((condition(&trouble), trouble.calls.since_ms), (None, None));
    }

    #[test]
    fn answers_to_calls_of_one_client_raise_no_alarm() {
        let mut trouble = WebhookTrouble { has_accepted: true, ..WebhookTrouble::default() };
        for _ in 0..100 {
            fail(&mut trouble, &CALL, 1, WebhookFailure::OfClient);
            fail(&mut trouble, &CALL, 1, WebhookFailure::Refusal);
        }
        assert_eq!((condition(&trouble), trouble.failures), (None, 200));
        (2..4).for_each(|client| fail(&mut trouble, &CALL, client, WebhookFailure::Refusal));
        assert_eq!(condition(&trouble), Some(ConditionKind::WebhookRefusesSignature));
    }

    #[test]
    fn refused_events_without_a_connection_are_about_the_signature() {
        let mut trouble = WebhookTrouble::default();
        for count in 1..=REFUSALS_MIN {
            trouble.fail(&EventKind::Connect, (&"".into(), "status code 401".to_owned()), WebhookFailure::Refusal);
            let is_reported = condition(&trouble) == Some(ConditionKind::WebhookRefusesSignature);
            assert_eq!(is_reported, count == REFUSALS_MIN, "{count}");
        }
    }
}
