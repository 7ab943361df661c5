//! State of one client of a hub with a webhook: events that wait, in order, one of them under way. A pure value.
//!
//! ```text
//!  Handshaking ─► Admitting ─► Open ─► Over
//!        └─────────────────────┘         └─► gone, once its last event is answered
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use tokio::time::Instant;
use trunkline_protocol::hub::HubProtocol;
use trunkline_protocol::limits::CLIENT_RESULT_TIMEOUT_MS;
use trunkline_protocol::service::FlowOperation;

use super::backlog::{Backlog, BacklogShare};
use super::client_fact::ClientFacts;
use super::webhook_event::{EventKind, WebhookEvent};

/// Bytes of one client that wait, beyond which it is read no further; half of it reads it on.
const WAITING_MAX_BYTES: usize = 64 * 1024;

/// Bytes of one client that wait while the node's backlog is full, beyond which it is read no further. More than the
/// news that it is there: a client that is not read may leave unnoticed.
const WAITING_WHEN_FULL_MAX_BYTES: usize = 1024;

/// Maximum number of questions of others to one client whose answers are passed on.
const QUESTIONS_MAX: usize = 100;

/// Time for which a question has its place for certain; whoever waits longer gets the answer while no other needs the
/// place.
const QUESTION_KEPT_FOR: Duration = Duration::from_millis(CLIENT_RESULT_TIMEOUT_MS);

/// Client of a hub with a webhook.
#[derive(Debug)]
pub(super) struct WebhookClient {
    pub(super) facts: Arc<ClientFacts>,
    pub(super) stage: WebhookStage,
    /// Bytes that the client has sent before it was let in.
    early: Vec<u8>,
    events: VecDeque<WebhookEvent>,
    /// Place in the line of the link's clients with an event that is to be sent next.
    pub(super) place: Option<u64>,
    /// Bytes of the event under way.
    under_way: Option<usize>,
    next_number: u64,
    is_paused: bool,
    /// Client results that others wait for.
    questions: Vec<Question>,
    share: BacklogShare,
}

/// Client result that somebody waits for.
#[derive(Debug)]
struct Question {
    invocation_id: ByteString,
    /// App server that asks.
    caller: ByteString,
    asked_at: Instant,
}

/// Where a client is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WebhookStage {
    /// Its hub handshake has not come.
    Handshaking,
    /// The back end is asked whether it may connect.
    Admitting(HubProtocol),
    Open(HubProtocol),
    /// It has gone, or was closed.
    Over,
}

impl WebhookClient {
    #[must_use]
    pub(super) fn new(facts: ClientFacts, stage: WebhookStage, backlog: &Arc<Backlog>) -> Self {
        Self {
            facts: Arc::new(facts),
            stage,
            early: Vec::new(),
            events: VecDeque::new(),
            place: None,
            under_way: None,
            next_number: 0,
            is_paused: false,
            questions: Vec::new(),
            share: backlog.share(),
        }
    }

    /// Protocol of an open client.
    #[must_use]
    pub(super) fn protocol(&self) -> Option<HubProtocol> {
        match self.stage {
            WebhookStage::Open(protocol) => Some(protocol),
            WebhookStage::Handshaking | WebhookStage::Admitting(_) | WebhookStage::Over => None,
        }
    }

    /// Adds an event behind those that wait.
    pub(super) fn push(&mut self, event: WebhookEvent) {
        let event = WebhookEvent { number: self.next_number, ..event };
        self.next_number += 1;
        self.share.bytes.add(event.bytes());
        self.events.push_back(event);
    }

    /// Whether an event is to be sent next: none is while one is under way.
    #[must_use]
    pub(super) fn has_next(&self) -> bool {
        self.under_way.is_none() && !self.events.is_empty()
    }

    /// Takes the event that is to be sent next, now that there is room for it.
    pub(super) fn take_next(&mut self) -> Option<WebhookEvent> {
        if !self.has_next() {
            return None;
        }
        let event = self.events.pop_front()?;
        self.under_way = Some(event.bytes());
        Some(event)
    }

    /// Notes that the event under way is answered, or given up.
    pub(super) fn answered(&mut self) {
        if let Some(bytes) = self.under_way.take() {
            self.share.bytes.remove(bytes);
        }
    }

    /// Keeps what a client has sent before it was let in.
    pub(super) fn keep_early(&mut self, bytes: &[u8]) {
        self.early.extend_from_slice(bytes);
        self.share.bytes.add(bytes.len());
    }

    /// Takes what was kept.
    pub(super) fn take_early(&mut self) -> Vec<u8> {
        self.share.bytes.remove(self.early.len());
        std::mem::take(&mut self.early)
    }

    /// Whether the back end has not been told that it is there: that event waits.
    #[must_use]
    pub(super) fn is_untold(&self) -> bool {
        self.events.front().is_some_and(|event| event.kind == EventKind::Connected)
    }

    /// Notes once that it has gone; its events go on. What is known of it is kept for them alone from now on, so it
    /// counts.
    pub(super) fn end(&mut self) {
        self.stage = WebhookStage::Over;
        self.share.ended.add(1);
        self.share.bytes.add(self.facts.bytes());
        self.questions = Vec::new();
        drop(self.take_early());
    }

    /// Drops the events that wait, and returns their number.
    pub(super) fn drop_events(&mut self) -> u64 {
        let count = self.events.len() as u64;
        self.share.bytes.remove(self.events.iter().map(WebhookEvent::bytes).sum());
        self.events.clear();
        count
    }

    /// Whether nothing more is to be done for it.
    #[must_use]
    pub(super) fn is_finished(&self) -> bool {
        self.stage == WebhookStage::Over && self.events.is_empty() && self.under_way.is_none()
    }

    /// Says whether to stop reading it, or to read it on. Where the node's backlog is full, a little that waits stops
    /// it.
    pub(super) fn flow(&mut self, is_backlog_full: bool) -> Option<FlowOperation> {
        if self.stage == WebhookStage::Over {
            return None;
        }
        let bytes = self.share.bytes.amount();
        let is_much_when_full = is_backlog_full && bytes > WAITING_WHEN_FULL_MAX_BYTES;
        let is_too_much = bytes > WAITING_MAX_BYTES || is_much_when_full;
        let is_little = bytes <= WAITING_MAX_BYTES / 2 && !is_much_when_full;
        let operation = match self.is_paused {
            false if is_too_much => FlowOperation::Pause,
            true if is_little => FlowOperation::Resume,
            _ => return None,
        };
        self.is_paused = operation == FlowOperation::Pause;
        Some(operation)
    }

    /// Notes that somebody waits for a result of it; `false` if too many do. A client may never answer, so questions
    /// that are old make room.
    #[must_use]
    pub(super) fn ask(&mut self, invocation_id: ByteString, caller: ByteString, now: Instant) -> bool {
        if self.questions.len() >= QUESTIONS_MAX {
            self.questions.retain(|question| now < question.asked_at + QUESTION_KEPT_FOR);
        }
        let may_ask = self.questions.len() < QUESTIONS_MAX;
        if may_ask {
            self.questions.push(Question { invocation_id, caller, asked_at: now });
        }
        may_ask
    }

    /// Takes the app server that waits for a result of it.
    pub(super) fn take_question(&mut self, invocation_id: &str) -> Option<(ByteString, ByteString)> {
        let place = self.questions.iter().position(|question| question.invocation_id == invocation_id)?;
        let Question { invocation_id, caller, .. } = self.questions.swap_remove(place);
        Some((invocation_id, caller))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(backlog: &Arc<Backlog>) -> WebhookClient {
        WebhookClient::new(ClientFacts::default(), WebhookStage::Open(HubProtocol::Json), backlog)
    }

    fn event() -> WebhookEvent {
        let template = "http://app/".parse().unwrap();
        WebhookEvent::of_connection(("chat", &template), EventKind::Connected, None).unwrap()
    }

    #[test]
    fn events_leave_one_by_one_in_their_order() {
        let backlog = Arc::new(Backlog::new(usize::MAX));
        let mut client = client(&backlog);
        (0..3).for_each(|_| client.push(event()));
        assert_eq!(client.take_next().unwrap().number, 0);
        assert!(client.take_next().is_none(), "one is under way");
        client.answered();
        assert_eq!(client.take_next().unwrap().number, 1);
        client.end();
        assert!(!client.is_finished());
        client.answered();
        assert_eq!((client.take_next().unwrap().number, client.is_finished()), (2, false));
        client.answered();
        assert_eq!((client.is_finished(), backlog.bytes.used()), (true, 0));
    }

    #[test]
    fn too_much_pauses_once_and_half_of_it_resumes() {
        let backlog = Arc::new(Backlog::new(usize::MAX));
        let mut client = client(&backlog);
        let mut count = 0;
        let paused = loop {
            client.push(event());
            count += 1;
            if let Some(operation) = client.flow(false) {
                break operation;
            }
        };
        assert_eq!((paused, client.flow(false)), (FlowOperation::Pause, None));
        let resumed = loop {
            client.take_next().unwrap();
            client.answered();
            count -= 1;
            if let Some(operation) = client.flow(false) {
                break operation;
            }
        };
        assert_eq!(resumed, FlowOperation::Resume);
        assert!((50..200).contains(&count), "{count} events are left");
    }

    #[test]
    fn a_full_backlog_pauses_each_client_of_which_more_waits_than_that_it_is_there() {
        let backlog = Arc::new(Backlog::new(0));
        let mut client = client(&backlog);
        client.push(event());
        assert_eq!(client.flow(true), None, "it may leave at once");
        (0..3).for_each(|_| client.push(event()));
        assert_eq!((client.flow(true), client.flow(true)), (Some(FlowOperation::Pause), None));
        drop(client.take_next());
        assert_eq!(client.flow(true), None);
        client.answered();
        assert_eq!(client.flow(true), Some(FlowOperation::Resume));
    }
}
