//! State of one client of a webhook hub: waiting events in order, at most one in flight. A pure value.
//!
//! ```text
//!  Handshaking ─► Joining ─► Open ─► Over
//!        └───────────────────┘         └─► removed, once its last event is answered
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use tokio::time::Instant;
use trunkline_protocol::hub::HubProtocol;
use trunkline_protocol::limits::CLIENT_RESULT_TIMEOUT_MS;
use trunkline_protocol::service::FlowOperation;

use super::client_fact::ClientFacts;
use super::subject::{HubConnection, HubUser};
use super::subject_log::SubjectStay;
use super::webhook_event::{EventKind, LAST_NUMBER, WebhookEvent};
use crate::ground::bounded::{Budget, BudgetShare};

/// Waiting bytes of a client at which reading is paused. It resumes at half.
const WAITING_MAX_BYTES: usize = 64 * 1024;

/// Waiting bytes of a client at which reading is paused while the node's backlog is full. Larger than the connected
/// event, because a paused client could leave unnoticed.
const WAITING_WHEN_FULL_MAX_BYTES: usize = 1024;

/// Maximum number of pending client results forwarded from one client.
const QUESTIONS_MAX: usize = 100;

/// Time for which a pending result is guaranteed. Afterwards it is kept until another needs the room.
const QUESTION_KEPT_FOR: Duration = Duration::from_millis(CLIENT_RESULT_TIMEOUT_MS);

#[derive(Debug)]
pub(super) struct WebhookClient {
    pub(super) facts: Arc<ClientFacts>,
    pub(super) stage: WebhookStage,
    /// User of the client, for other nodes.
    pub(super) user: Option<ByteString>,
    /// Set while the client is open and its user counts as online.
    pub(super) stay: Option<SubjectStay<HubUser>>,
    /// Set until the end is reported, if another node would report it for this one.
    pub(super) record: Option<SubjectStay<HubConnection>>,
    /// Groups that the client joins before it is accepted.
    pub(super) groups: Vec<String>,
    /// Bytes received before the client was accepted.
    early: Vec<u8>,
    events: VecDeque<WebhookEvent>,
    /// Position in the link's queue of clients with an event to send.
    pub(super) place: Option<u64>,
    /// Bytes of the event in flight.
    under_way: Option<usize>,
    next_number: u64,
    is_paused: bool,
    /// Client results with waiting callers.
    questions: Vec<Question>,
    share: BacklogShare,
}

/// Client result with a waiting caller.
#[derive(Debug)]
struct Question {
    invocation_id: ByteString,
    /// App server of the caller.
    caller: ByteString,
    asked_at: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WebhookStage {
    Handshaking,
    /// Waiting for this number of groups to be joined.
    Joining(HubProtocol, usize),
    Open(HubProtocol),
    /// The client disconnected or was closed.
    Over,
}

impl WebhookClient {
    pub(super) fn new(facts: ClientFacts, stage: WebhookStage, backlog: &Arc<Backlog>) -> Self {
        Self {
            facts: Arc::new(facts),
            stage,
            user: None,
            stay: None,
            record: None,
            groups: Vec::new(),
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

    pub(super) fn protocol(&self) -> Option<HubProtocol> {
        match self.stage {
            WebhookStage::Open(protocol) => Some(protocol),
            WebhookStage::Handshaking | WebhookStage::Joining(..) | WebhookStage::Over => None,
        }
    }

    /// Queues an event behind the waiting ones.
    pub(super) fn push(&mut self, event: WebhookEvent) {
        let is_last = event.kind == EventKind::Disconnected && self.record.is_some();
        let event = WebhookEvent { number: if is_last { LAST_NUMBER } else { self.next_number }, ..event };
        self.next_number += 1;
        self.share.bytes.add(event.bytes());
        self.events.push_back(event);
    }

    /// Whether an event can be sent now; not while another is in flight.
    pub(super) fn has_next(&self) -> bool {
        self.under_way.is_none() && !self.events.is_empty()
    }

    pub(super) fn take_next(&mut self) -> Option<WebhookEvent> {
        if !self.has_next() {
            return None;
        }
        let event = self.events.pop_front()?;
        self.under_way = Some(event.bytes());
        Some(event)
    }

    /// Records that the event in flight was answered or abandoned.
    pub(super) fn answered(&mut self) {
        if let Some(bytes) = self.under_way.take() {
            self.share.bytes.remove(bytes);
        }
    }

    pub(super) fn keep_early(&mut self, bytes: &[u8]) {
        self.early.extend_from_slice(bytes);
        self.share.bytes.add(bytes.len());
    }

    pub(super) fn take_early(&mut self) -> Vec<u8> {
        self.share.bytes.remove(self.early.len());
        std::mem::take(&mut self.early)
    }

    /// Whether the connected event has not been sent yet.
    pub(super) fn is_unreported(&self) -> bool {
        self.events.front().is_some_and(|event| event.kind == EventKind::Connected)
    }

    /// Records the end once; remaining events are still sent. From now on the client's facts, kept only for these
    /// events, count towards the backlog.
    pub(super) fn end_client(&mut self) {
        self.stage = WebhookStage::Over;
        drop(self.stay.take());
        self.share.ended.add(1);
        self.share.bytes.add(self.facts.bytes());
        self.questions = Vec::new();
        drop(self.take_early());
    }

    pub(super) fn drop_events(&mut self) -> u64 {
        let count = self.events.len() as u64;
        self.share.bytes.remove(self.events.iter().map(WebhookEvent::bytes).sum());
        self.events.clear();
        count
    }

    /// Whether the client has ended and all events are answered.
    pub(super) fn is_finished(&self) -> bool {
        self.stage == WebhookStage::Over && self.events.is_empty() && self.under_way.is_none()
    }

    /// Returns whether to pause or resume reading. A full node backlog lowers the threshold.
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

    /// Records a caller waiting for a client result; `false` at the limit. Since a client may never answer, old entries
    /// make room.
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

    /// Takes the app server waiting for a result.
    pub(super) fn take_question(&mut self, invocation_id: &str) -> Option<(ByteString, ByteString)> {
        let place = self.questions.iter().position(|question| question.invocation_id == invocation_id)?;
        let Question { invocation_id, caller, .. } = self.questions.swap_remove(place);
        Some((invocation_id, caller))
    }
}

/// Maximum number of disconnected clients with undelivered events. Events of further ones are dropped.
const ENDED_MAX: usize = 16_384;

/// Backlog of a node's webhooks: data waiting for back ends, limited in bytes and clients.
#[derive(Debug)]
pub(super) struct Backlog {
    /// Bytes of waiting and in-flight events, and of data about disconnected clients.
    pub(super) bytes: Arc<Budget>,
    /// Clients whose end was not yet delivered to the back end.
    pub(super) clients: Arc<Budget>,
    /// Disconnected clients among them.
    pub(super) ended: Arc<Budget>,
}

/// One client's share of the backlog, returned on drop.
#[derive(Debug)]
pub(super) struct BacklogShare {
    pub(super) bytes: BudgetShare,
    pub(super) ended: BudgetShare,
    _client: BudgetShare,
}

impl Backlog {
    pub(super) fn new(max_bytes: usize) -> Self {
        let [bytes, clients, ended] = [max_bytes, usize::MAX, ENDED_MAX].map(|limit| Arc::new(Budget::new(limit)));
        Self { bytes, clients, ended }
    }

    #[must_use]
    pub(super) fn share(&self) -> BacklogShare {
        BacklogShare { bytes: self.bytes.charge(0), ended: self.ended.charge(0), _client: self.clients.charge(1) }
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
        client.end_client();
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

    #[test]
    fn a_share_leaves_nothing_behind() {
        let backlog = Backlog::new(10);
        let (mut one, mut other) = (backlog.share(), backlog.share());
        one.bytes.add(7);
        other.bytes.add(7);
        assert!(backlog.bytes.is_exceeded());
        one.bytes.remove(3);
        one.ended.add(1);
        let numbers = |backlog: &Backlog| (backlog.bytes.used(), backlog.clients.used(), backlog.ended.used());
        assert_eq!((one.bytes.amount(), numbers(&backlog), backlog.bytes.is_exceeded()), (4, (11, 2, 1), true));
        drop(one);
        assert_eq!((numbers(&backlog), backlog.bytes.is_exceeded()), ((7, 1, 0), false));
        drop(other);
        assert_eq!(numbers(&backlog), (0, 0, 0));
    }
}
