//! App server's end of a link to a webhook, without I/O: frames and responses in, frames and requests out.
//!
//! A request is taken only with a permit. Until then it is an event of its client, which can be dropped if the client
//! disconnects.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use tokio::time::Instant;
use trunkline_protocol::hub::{
    CLOSED_WITH_ERROR, Close, Completion, HandshakeRequest, HandshakeResponse, HubMessage, HubProtocol, Outcome,
    next_frame,
};
use trunkline_protocol::limits::{HANDSHAKE_MAX_BYTES, LINK_FRAME_MAX_BYTES};
use trunkline_protocol::service::{
    Ack, AckStatus, ClientCompletion, ClientInvocation, CloseConnection, ConnectionData, ConnectionFlowControl,
    ErrorCompletion, FlowSubject, GroupChange, OpenConnection, ServiceMessage,
};
use trunkline_protocol::wire::USER_ID_CLAIM;

use super::answer::{WebhookAnswer, completion};
use super::client_fact::ClientFacts;
use super::connect_answer::Gifts;
use super::webhook_client::{WebhookClient, WebhookStage};
use super::webhook_event::{EventError, EventKind, WebhookEvent};
use super::webhook_hub::WebhookHub;
use crate::ground::config::WebhookConnecting;

/// Reason for closing a client of a node that was lost to others.
const REPORTED_TEXT: &str = "other nodes have reported the client as disconnected";

#[derive(Debug)]
pub(super) struct LoopbackServer {
    hub: Arc<WebhookHub>,
    clients: HashMap<ByteString, WebhookClient>,
    /// Clients with an event to send next, in order of arrival.
    line: BTreeMap<u64, ByteString>,
    next_place: u64,
    /// Joins of connecting clients without an acknowledgement.
    joins: HashMap<i64, ByteString>,
    last_join: i64,
    /// Frames produced by the current step.
    frames: Vec<ServiceMessage>,
}

/// Request to send to the back end.
#[derive(Debug)]
pub(crate) struct Post {
    pub(super) connection_id: ByteString,
    pub(super) facts: Arc<ClientFacts>,
    pub(super) event: WebhookEvent,
}

impl LoopbackServer {
    pub(super) fn new(hub: Arc<WebhookHub>) -> Self {
        Self {
            hub,
            clients: HashMap::new(),
            line: BTreeMap::new(),
            next_place: 0,
            joins: HashMap::new(),
            last_join: 0,
            frames: Vec::new(),
        }
    }

    /// Handles a frame from the node; returns the resulting frames.
    #[must_use]
    pub(super) fn take_message(&mut self, message: ServiceMessage) -> Vec<ServiceMessage> {
        match message {
            ServiceMessage::OpenConnection(open) => self.opened(&open),
            ServiceMessage::ConnectionData(data) => self.received(&data.connection_id, &data.payload),
            ServiceMessage::CloseConnection(close) => self.closed(&close),
            ServiceMessage::ClientInvocation(request) => self.asked(request),
            ServiceMessage::Ack(ack) => self.joined(&ack),
            ServiceMessage::UpdateConnectionClaims(update) => {
                let client = self.clients.get_mut(&update.connection_id);
                if let Some(client) = client.filter(|client| client.stage != WebhookStage::Over) {
                    client.facts = Arc::new(client.facts.refreshed(&update.claims));
                }
            }
            // Echoed unchanged, as `echo` requires.
            ServiceMessage::Ping(ping) => self.frames.push(ServiceMessage::Ping(ping)),
            // Frames without relevance for webhooks.
            _ => {}
        }
        std::mem::take(&mut self.frames)
    }

    pub(super) fn has_next_post(&self) -> bool {
        !self.line.is_empty()
    }

    /// Takes the longest waiting request, to be sent now.
    #[must_use]
    pub(super) fn next_post(&mut self) -> Option<Post> {
        let (_, connection_id) = self.line.pop_first()?;
        let client = self.clients.get_mut(&connection_id)?;
        client.place = None;
        let event = client.take_next()?;
        Some(Post { connection_id, facts: client.facts.clone(), event })
    }

    /// Handles the response to a client's request; returns the resulting frames.
    #[must_use]
    pub(super) fn answered(&mut self, id: &ByteString, answer: WebhookAnswer) -> Vec<ServiceMessage> {
        if let Some(client) = self.clients.get_mut(id) {
            client.answered();
            if let (WebhookStage::Open(_), WebhookAnswer::Completion(payload)) = (client.stage, answer) {
                self.frames.push(data_for(id, payload));
            }
            self.go_on(id);
        }
        std::mem::take(&mut self.frames)
    }

    fn opened(&mut self, open: &OpenConnection) {
        // A connection that lost another link is already open: the back end is not notified again.
        let comes_from = open.origin().previous_home.is_some();
        let protocol = open.protocol.as_deref().and_then(HubProtocol::from_name);
        let stage = match protocol.filter(|_| comes_from) {
            Some(protocol) => WebhookStage::Open(protocol),
            None => WebhookStage::Handshaking,
        };
        let gifts = match self.hub.connecting() {
            WebhookConnecting::Open => Gifts::default(),
            WebhookConnecting::Asked => Gifts::from_claims(open.claims.iter().map(|(name, value)| (&**name, &**value))),
        };
        let facts = ClientFacts::from_opening(open).with_data(gifts.data.as_deref());
        let mut client = WebhookClient::new(facts, stage, self.hub.backlog());
        let user = open.claims.iter().find(|(name, _)| *name == USER_ID_CLAIM);
        // Copied, because a slice would keep the whole received buffer alive.
        client.user = user.filter(|_| self.hub.shares_users()).map(|(_, user)| ByteString::from(&**user));
        match stage {
            WebhookStage::Handshaking => client.groups = gifts.groups,
            _ => enter(&self.hub, &open.connection_id, &mut client),
        }
        // Copied, because a slice would keep the whole received buffer alive.
        if self.clients.insert(ByteString::from(&*open.connection_id), client).is_none() {
            self.hub.client_came();
        }
    }

    fn received(&mut self, id: &ByteString, payload: &Bytes) {
        let Some(client) = self.clients.get_mut(id) else { return };
        match client.stage {
            WebhookStage::Handshaking => self.shake_hands(id, payload),
            WebhookStage::Joining(..) => client.keep_early(payload),
            WebhookStage::Open(protocol) => self.take_messages(id, protocol, payload),
            WebhookStage::Over => {}
        }
        self.go_on(id);
    }

    fn shake_hands(&mut self, id: &ByteString, payload: &Bytes) {
        let read = HandshakeRequest::read_request(payload, HANDSHAKE_MAX_BYTES);
        let (request, rest) = match read {
            Ok(Some((request, used))) => (request, payload.slice(used..)),
            // The node forwards complete handshakes only.
            Ok(None) => return self.refuse(id, "Handshake was canceled."),
            Err(error) => return self.refuse(id, &error.to_string()),
        };
        let protocol = request.protocol;
        let Some(client) = self.clients.get_mut(id) else { return };
        let groups = std::mem::take(&mut client.groups);
        if groups.is_empty() {
            self.welcome(id, protocol);
            return self.take_messages(id, protocol, &rest);
        }
        client.stage = WebhookStage::Joining(protocol, groups.len());
        client.keep_early(&rest);
        for group in groups {
            self.last_join += 1;
            self.joins.insert(self.last_join, ByteString::from(&**id));
            let (connection_id, group) = (id.clone(), Some(group.into()));
            let change = GroupChange { connection_id, group, ack_id: self.last_join };
            self.frames.push(ServiceMessage::JoinGroupWithAck(change));
        }
    }

    /// Handles the acknowledgement of a join. A client is accepted once it is in all its groups, so that it misses no
    /// reaction to its arrival.
    fn joined(&mut self, ack: &Ack) {
        let Some(id) = self.joins.remove(&ack.ack_id) else { return };
        let Some(client) = self.clients.get_mut(&id) else { return };
        let WebhookStage::Joining(protocol, left) = client.stage else { return };
        match ack.status {
            // A node without an answer receives the join later.
            AckStatus::Ok | AckStatus::Timeout if left > 1 => client.stage = WebhookStage::Joining(protocol, left - 1),
            AckStatus::Ok | AckStatus::Timeout => {
                let early = client.take_early();
                self.welcome(&id, protocol);
                self.take_messages(&id, protocol, &early.into());
            }
            _ => {
                let problem = ack.message.as_deref().unwrap_or("the connection has ended");
                self.refuse(&id, &format!("Connection refused, a group of its client can't be joined: {problem}."));
            }
        }
        self.go_on(&id);
    }

    /// Accepts a client and notifies the back end.
    fn welcome(&mut self, id: &ByteString, protocol: HubProtocol) {
        self.frames.push(data_for(id, HandshakeResponse::default().encode()));
        if let Some(client) = self.clients.get_mut(id) {
            client.stage = WebhookStage::Open(protocol);
            enter(&self.hub, id, client);
        }
        self.report(id, EventKind::Connected, None);
    }

    /// Refuses a client. The back end gets no end event.
    fn refuse(&mut self, id: &ByteString, text: &str) {
        let response = HandshakeResponse { error: Some(text.to_owned()) };
        self.frames.push(data_for(id, response.encode()));
        self.frames.push(close_of(id, text));
        self.forget(id);
    }

    /// Queues an event about a connection, if the hub sends it.
    fn report(&mut self, id: &ByteString, kind: EventKind, error: Option<&str>) {
        let events = self.hub.own_settings().events;
        if !(if kind == EventKind::Connected { events.connected } else { events.disconnected }) {
            return;
        }
        match (WebhookEvent::of_connection(self.hub.place(), kind, error), self.clients.get_mut(id)) {
            (Ok(event), Some(client)) => client.push(event),
            _ => self.hub.counters().dropped.increment(),
        }
    }

    fn take_messages(&mut self, id: &ByteString, protocol: HubProtocol, payload: &Bytes) {
        let mut rest = payload.clone();
        while !rest.is_empty() {
            // The node forwards complete messages only.
            let Ok(Some(frame)) = next_frame(protocol, &rest, LINK_FRAME_MAX_BYTES) else {
                return self.break_off(id, protocol, "the message is malformed");
            };
            let body = rest.slice(frame.body);
            rest = rest.slice(frame.length..);
            match protocol.decode(&body) {
                Ok(Some(message)) => self.handle_message(id, protocol, message),
                Ok(None) => {}
                Err(error) if error.is_dropped_call() => self.refuse_call(id, protocol, None, &error),
                Err(error) => match (error.call_id(), error.failed_end()) {
                    (Some(call), _) => self.refuse_call(id, protocol, Some(call), &error),
                    (None, Some(end)) => self.pass_result(id, protocol, end),
                    (None, None) => return self.break_off(id, protocol, &error.to_string()),
                },
            }
        }
    }

    fn handle_message(&mut self, id: &ByteString, protocol: HubProtocol, message: HubMessage) {
        match message {
            HubMessage::Invocation(_) | HubMessage::StreamInvocation(_) => self.call(id, protocol, message),
            HubMessage::Completion(result) => self.pass_result(id, protocol, result),
            // Client streams are refused when called; the node handles the rest.
            _ => {}
        }
    }

    fn call(&mut self, id: &ByteString, protocol: HubProtocol, message: HubMessage) {
        let call = message.invocation_id().cloned();
        let event = match self.hub.own_settings().events.messages {
            true => WebhookEvent::of_call(self.hub.place(), protocol, message),
            false => Err(EventError::Silent),
        };
        match event {
            Ok(event) => {
                if let Some(client) = self.clients.get_mut(id) {
                    client.push(event);
                }
            }
            Err(error) => self.refuse_call(id, protocol, call.as_ref(), &error),
        }
    }

    fn refuse_call(&mut self, id: &ByteString, protocol: HubProtocol, call: Option<&ByteString>, error: &dyn Display) {
        self.hub.counters().dropped.increment();
        if let Some(invocation_id) = call {
            let error = Outcome::Error(error.to_string().into());
            self.frames.push(data_for(id, completion(protocol, invocation_id, error)));
        }
    }

    /// Forwards a client result to the waiting caller.
    fn pass_result(&mut self, id: &ByteString, protocol: HubProtocol, result: Completion) {
        let question = self.clients.get_mut(id).and_then(|client| client.take_question(&result.invocation_id));
        let Some((invocation_id, caller_server_id)) = question else { return };
        self.frames.push(ServiceMessage::ClientCompletion(ClientCompletion {
            payload: completion(protocol, &invocation_id, result.outcome),
            invocation_id,
            connection_id: id.clone(),
            caller_server_id,
            protocol: ByteString::from_static(protocol.name()),
        }));
    }

    /// Records a caller waiting for a client result; the node sends the invocation.
    fn asked(&mut self, request: ClientInvocation) {
        let ClientInvocation { invocation_id, connection_id, caller_server_id, .. } = request;
        let Some(client) = self.clients.get_mut(&connection_id) else { return };
        let (copied_id, copied_caller) = (ByteString::from(&*invocation_id), ByteString::from(&*caller_server_id));
        if !client.ask(copied_id, copied_caller, Instant::now()) {
            let error = "too many pending client results".into();
            let refusal = ErrorCompletion { invocation_id, connection_id, caller_server_id, error };
            self.frames.push(ServiceMessage::ErrorCompletion(refusal));
        }
    }

    /// Closes clients whose end other nodes have reported up to a position of the log. They may connect again.
    #[must_use]
    pub(super) fn close_reported(&mut self, until: u64) -> Vec<ServiceMessage> {
        let is_reported = |client: &WebhookClient| client.record.as_ref().is_some_and(|stay| stay.version() <= until);
        let clients = self.clients.iter().filter(|(_, client)| is_reported(client));
        let open: Vec<_> = clients.filter_map(|(id, client)| Some((id.clone(), client.protocol()?))).collect();
        for (id, protocol) in open {
            self.close_client(&id, protocol, Close { error: None, allow_reconnect: true }, REPORTED_TEXT);
            self.go_on(&id);
        }
        std::mem::take(&mut self.frames)
    }

    /// Closes a client after a protocol violation.
    fn break_off(&mut self, id: &ByteString, protocol: HubProtocol, problem: &str) {
        let close = Close { error: Some(CLOSED_WITH_ERROR.into()), allow_reconnect: false };
        self.close_client(id, protocol, close, problem);
    }

    fn close_client(&mut self, id: &ByteString, protocol: HubProtocol, close: Close, problem: &str) {
        let mut bytes = BytesMut::new();
        protocol.encode(&HubMessage::Close(close), &mut bytes);
        self.frames.push(data_for(id, bytes.freeze()));
        self.frames.push(close_of(id, problem));
        self.end_client(id, Some(problem));
    }

    fn closed(&mut self, close: &CloseConnection) {
        let id = &close.connection_id;
        if close.is_reassignment() {
            return self.forget(id);
        }
        self.end_client(id, close.error.as_deref().filter(|error| !error.is_empty()));
        self.go_on(id);
    }

    /// Records the end of a client, and notifies the back end if it was notified of the start.
    fn end_client(&mut self, id: &ByteString, error: Option<&str>) {
        let Some(client) = self.clients.get_mut(id) else { return };
        let was_open = client.protocol().is_some();
        if client.stage == WebhookStage::Over {
            return;
        }
        client.end_client();
        let (hub, backlog) = (&self.hub, self.hub.backlog());
        if !was_open {
            // The pending connect request is obsolete; the back end has no state for the client.
            client.drop_events();
            return;
        }
        if backlog.bytes.is_exceeded() || backlog.ended.is_exceeded() {
            let is_unreported = client.is_unreported();
            hub.counters().dropped.add(client.drop_events());
            if is_unreported {
                // The back end will never see the client, so its end is not reported.
                return;
            }
        }
        if backlog.ended.is_exceeded() {
            hub.counters().dropped.increment();
        } else {
            self.report(id, EventKind::Disconnected, error);
        }
    }

    /// Queues a client's next event for a permit, pauses or resumes reading, and removes a finished client.
    fn go_on(&mut self, id: &ByteString) {
        let Some(client) = self.clients.get_mut(id) else { return };
        if client.has_next() && client.place.is_none() {
            client.place = Some(self.next_place);
            // Copied, because a slice would keep the whole received buffer alive.
            self.line.insert(self.next_place, ByteString::from(&**id));
            self.next_place += 1;
        }
        if let Some(operation) = client.flow(self.hub.backlog().bytes.is_exceeded()) {
            let flow = ConnectionFlowControl { connection_id: id.clone(), subject: FlowSubject::Client, operation };
            self.frames.push(ServiceMessage::ConnectionFlowControl(flow));
        }
        if client.is_finished() {
            self.forget(id);
        }
    }

    fn forget(&mut self, id: &ByteString) {
        let Some(client) = self.clients.remove(id) else { return };
        self.hub.clients_left(1);
        if let Some(place) = client.place {
            self.line.remove(&place);
        }
    }
}

/// Notes an open client for the events that this or another node sends.
fn enter(hub: &WebhookHub, id: &str, client: &mut WebhookClient) {
    client.stay = hub.enter(client.user.as_deref());
    client.record = hub.record(id, client.user.as_deref());
}

impl Drop for LoopbackServer {
    fn drop(&mut self) {
        self.hub.clients_left(self.clients.len());
    }
}

fn data_for(id: &ByteString, payload: Bytes) -> ServiceMessage {
    ServiceMessage::ConnectionData(ConnectionData { connection_id: id.clone(), payload, ..ConnectionData::default() })
}

fn close_of(id: &ByteString, error: &str) -> ServiceMessage {
    let error = Some(error.into());
    ServiceMessage::CloseConnection(CloseConnection { connection_id: id.clone(), error, headers: Vec::new() })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use tokio::sync::Semaphore;
    use trunkline_protocol::key::{AccessKey, AccessKeys};
    use trunkline_protocol::manifest::{MIGRATE_FROM_HEADER, MIGRATE_TO_HEADER};
    use trunkline_protocol::service::FlowOperation;

    use super::*;
    use crate::features::webhook::connect_answer::CONNECT_CLAIM;
    use crate::features::webhook::subject::HubConnection;
    use crate::features::webhook::webhook_client::Backlog;
    use crate::features::webhook::webhook_event::LAST_NUMBER;
    use crate::features::webhook::webhook_hub::WebhookTerms;
    use crate::features::webhook::webhook_presence::WebhookPresence;
    use crate::ground::config::WebhookSettings;
    use crate::ground::net::connector::Connector;

    const HANDSHAKE: &[u8] = b"{\"protocol\":\"json\",\"version\":1}\x1e";
    const SAY: &[u8] = b"{\"type\":1,\"invocationId\":\"1\",\"target\":\"Say\",\"arguments\":[]}\x1e";

    fn server(connecting: WebhookConnecting) -> (LoopbackServer, Arc<Backlog>) {
        bounded(connecting, usize::MAX)
    }

    fn bounded(connecting: WebhookConnecting, waiting_max_bytes: usize) -> (LoopbackServer, Arc<Backlog>) {
        server_with(connecting, waiting_max_bytes, None)
    }

    fn server_with(
        connecting: WebhookConnecting,
        waiting_max_bytes: usize,
        connections: Option<WebhookPresence<HubConnection>>,
    ) -> (LoopbackServer, Arc<Backlog>) {
        let rules = vec!["chat=http://app/{category}/{event}".parse().unwrap()];
        let keys = AccessKeys::new(vec![AccessKey::new("a key that is long enough").unwrap()]).unwrap();
        let settings = WebhookSettings { rules, connecting, waiting_max_bytes, ..WebhookSettings::DEFAULT };
        let backlog = Arc::new(Backlog::new(waiting_max_bytes));
        let (room, connector, template) =
            (Semaphore::new(1), Connector::default(), settings.rule_for("chat").unwrap().template.clone());
        let secrets = arc_swap::ArcSwap::default();
        let rule_rooms = Vec::new();
        let backlog_of_hub = backlog.clone();
        let terms = WebhookTerms {
            settings,
            headers: arc_swap::ArcSwap::default(),
            tables: arc_swap::ArcSwap::default(),
            own_settings: Arc::default(),
            secrets,
            keys,
            connector,
            room,
            rule_rooms,
            backlog: backlog_of_hub,
            presence: None,
            connections,
        };
        let hub = WebhookHub::new("chat", template, Arc::new(terms), Arc::default());
        (LoopbackServer::new(Arc::new(hub)), backlog)
    }

    fn open(id: &'static str, header: Option<&'static str>) -> ServiceMessage {
        let headers = header.into_iter().map(|name| (name.into(), vec!["x".into()])).collect();
        let protocol = Some("json".into());
        ServiceMessage::OpenConnection(OpenConnection {
            connection_id: id.into(),
            headers,
            protocol,
            ..OpenConnection::default()
        })
    }

    fn data(id: &'static str, payload: &'static [u8]) -> ServiceMessage {
        data_for(&id.into(), Bytes::from_static(payload))
    }

    fn close(id: &'static str, header: Option<&'static str>) -> ServiceMessage {
        let headers = header.into_iter().map(|name| (name.into(), vec!["x".into()])).collect();
        ServiceMessage::CloseConnection(CloseConnection { connection_id: id.into(), error: None, headers })
    }

    /// Frames of a step, and the waiting requests, with permits.
    #[derive(Debug, Default)]
    struct Steps {
        frames: Vec<ServiceMessage>,
        posts: Vec<Post>,
    }

    fn take(end: &mut LoopbackServer, message: ServiceMessage) -> Steps {
        let frames = end.take_message(message);
        Steps { frames, posts: posts(end) }
    }

    fn answered(end: &mut LoopbackServer, id: &ByteString, answer: WebhookAnswer) -> Steps {
        let frames = end.answered(id, answer);
        Steps { frames, posts: posts(end) }
    }

    fn posts(end: &mut LoopbackServer) -> Vec<Post> {
        let posts = std::iter::from_fn(|| end.next_post()).collect();
        assert!(!end.has_next_post());
        posts
    }

    fn names(steps: &Steps) -> Vec<&str> {
        steps.posts.iter().map(|post| &*post.event.name).collect()
    }

    #[test]
    fn a_client_that_lost_another_link_continues_without_another_event() {
        let (mut end, backlog) = server(WebhookConnecting::Open);
        assert!(take(&mut end, open("c", Some(MIGRATE_FROM_HEADER))).posts.is_empty());
        assert_eq!(names(&take(&mut end, data("c", SAY))), ["Say"]);
        assert!(take(&mut end, close("c", Some(MIGRATE_TO_HEADER))).posts.is_empty(), "it goes on elsewhere");
        let late = answered(&mut end, &"c".into(), WebhookAnswer::Completion(Bytes::new()));
        assert!(late.frames.is_empty() && late.posts.is_empty());
        assert_eq!((backlog.clients.used(), backlog.bytes.used()), (0, 0));
    }

    #[test]
    fn clients_that_other_nodes_have_reported_are_closed_and_may_connect_again() {
        let connections = WebhookPresence::new("node", Duration::from_secs(2));
        let log = connections.log.clone();
        let (mut end, _backlog) = server_with(WebhookConnecting::Open, usize::MAX, Some(connections));
        for id in ["a", "b"] {
            drop(take(&mut end, open(id, None)));
            drop(take(&mut end, data(id, HANDSHAKE)));
        }
        drop(answered(&mut end, &"a".into(), WebhookAnswer::Done));
        let frames = end.close_reported(1);
        let [ServiceMessage::ConnectionData(close), ServiceMessage::CloseConnection(order)] = &frames[..] else {
            panic!("{frames:?}")
        };
        assert_eq!((&*close.connection_id, &*order.connection_id), ("a", "a"));
        assert_eq!(close.payload, "{\"type\":7,\"allowReconnect\":true}\u{1e}");
        let posts = posts(&mut end);
        assert_eq!((posts.len(), &*posts[0].event.name, posts[0].event.number), (1, "disconnected", LAST_NUMBER));
        assert_eq!(log.batch(0, log.version(), 0).changes.len(), 2, "the end is not reported yet");
        drop(end.answered(&"a".into(), WebhookAnswer::Done));
        let left: Vec<_> = log.batch(2, log.version(), 0).changes;
        assert_eq!(left.iter().map(|left| (&*left.subject.id, left.is_here)).collect::<Vec<_>>(), [("a", false)]);
        assert!(end.close_reported(1).is_empty());
    }

    #[test]
    fn a_client_that_disconnects_before_its_admission_causes_no_further_events() {
        let (mut end, backlog) = server(WebhookConnecting::Asked);
        drop(take(&mut end, open("a", None)));
        drop(take(&mut end, close("a", None)));
        drop(take(&mut end, open_with("b", r#"{"g":["red"]}"#)));
        assert!(take(&mut end, data("b", HANDSHAKE)).posts.is_empty(), "it waits for its group");
        drop(take(&mut end, close("b", None)));
        let late = take(&mut end, ack(1, AckStatus::Ok));
        assert!(late.frames.is_empty() && late.posts.is_empty() && end.joins.is_empty());
        assert_eq!((backlog.clients.used(), backlog.bytes.used()), (0, 0));
    }

    fn open_with(id: &'static str, gifts: &'static str) -> ServiceMessage {
        let claims = vec![(CONNECT_CLAIM.into(), gifts.into()), ("role".into(), "cook".into())];
        ServiceMessage::OpenConnection(OpenConnection { connection_id: id.into(), claims, ..OpenConnection::default() })
    }

    fn ack(ack_id: i64, status: AckStatus) -> ServiceMessage {
        ServiceMessage::Ack(Ack { ack_id, status, message: Some("no room".into()), payload: None })
    }

    #[test]
    fn a_client_is_accepted_when_it_is_in_all_its_groups_and_its_events_carry_its_data() {
        let (mut end, _backlog) = server(WebhookConnecting::Asked);
        drop(take(&mut end, open_with("c", r#"{"g":["red","blue"],"d":"x"}"#)));
        let steps = take(&mut end, data("c", HANDSHAKE));
        let groups = steps.frames.iter().map(|frame| match frame {
            ServiceMessage::JoinGroupWithAck(change) => change.group.as_deref().unwrap(),
            other => panic!("{other:?}"),
        });
        assert_eq!(groups.collect::<Vec<_>>(), ["red", "blue"]);
        drop(take(&mut end, data("c", SAY)));
        assert!(take(&mut end, ack(2, AckStatus::Ok)).frames.is_empty());
        let steps = take(&mut end, ack(1, AckStatus::Timeout));
        assert!(matches!(&steps.frames[..], [ServiceMessage::ConnectionData(data)] if data.payload == "{}\u{1e}"));
        assert_eq!(names(&steps), ["connected"]);
        let facts = &steps.posts[0].facts;
        let texts = [&facts.data, &facts.claims].map(|text| text.as_ref().unwrap().to_str().unwrap());
        assert_eq!(texts, ["x", "role: cook"]);
        assert_eq!(names(&answered(&mut end, &"c".into(), WebhookAnswer::Done)), ["Say"], "it was early");
    }

    #[test]
    fn a_client_that_can_not_join_is_refused_with_the_reason() {
        let (mut end, backlog) = server(WebhookConnecting::Asked);
        drop(take(&mut end, open_with("c", r#"{"g":["red","blue"]}"#)));
        drop(take(&mut end, data("c", HANDSHAKE)));
        let steps = take(&mut end, ack(1, AckStatus::InternalServerError));
        let [ServiceMessage::ConnectionData(answer), ServiceMessage::CloseConnection(_)] = &steps.frames[..] else {
            panic!("{:?}", steps.frames)
        };
        assert!(std::str::from_utf8(&answer.payload).unwrap().contains("can't be joined: no room"), "{answer:?}");
        assert!(take(&mut end, ack(2, AckStatus::Ok)).frames.is_empty());
        assert_eq!((backlog.clients.used(), end.joins.len()), (0, 0));
    }

    #[test]
    fn gifts_in_a_token_are_ignored_where_no_back_end_is_asked() {
        let (mut end, _backlog) = server(WebhookConnecting::Open);
        drop(take(&mut end, open_with("c", r#"{"g":["red"],"d":"x"}"#)));
        let steps = take(&mut end, data("c", HANDSHAKE));
        assert_eq!((names(&steps), steps.posts[0].facts.data.as_ref()), (vec!["connected"], None));
    }

    #[test]
    fn clients_that_come_and_go_without_room_leave_as_many_as_the_backlog_takes() {
        for (gifts, most) in [("{}", 16_384), ("{\"g\":[\"red\"]}", 0)] {
            let (mut end, backlog) = server(WebhookConnecting::Asked);
            for number in 0..20_000 {
                let id = number.to_string();
                let claims = vec![(CONNECT_CLAIM.into(), gifts.into())];
                let open = OpenConnection { connection_id: id.as_str().into(), claims, ..OpenConnection::default() };
                drop(end.take_message(ServiceMessage::OpenConnection(open)));
                drop(end.take_message(data_for(&id.as_str().into(), Bytes::from_static(HANDSHAKE))));
                drop(end.take_message(close_of(&id.into(), "")));
            }
            assert_eq!((backlog.clients.used(), end.line.len()), (most, most));
            while let Some(post) = end.next_post() {
                drop(end.answered(&post.connection_id, WebhookAnswer::Done));
            }
            assert_eq!((backlog.clients.used(), backlog.bytes.used()), (0, 0));
        }
    }

    #[test]
    fn a_full_backlog_keeps_the_end_event_only_after_a_sent_connected_event() {
        let (mut end, backlog) = bounded(WebhookConnecting::Open, 0);
        drop(end.take_message(open("told", None)));
        assert_eq!(names(&take(&mut end, data("told", HANDSHAKE))), ["connected"]);
        drop(end.take_message(open("untold", None)));
        drop(end.take_message(data("untold", HANDSHAKE)));
        drop(end.take_message(close("untold", None)));
        assert_eq!((backlog.clients.used(), end.has_next_post()), (1, false));
        drop(end.take_message(close("told", None)));
        assert_eq!(names(&answered(&mut end, &"told".into(), WebhookAnswer::Done)), ["disconnected"]);
    }

    #[test]
    fn facts_about_a_client_count_after_it_has_disconnected() {
        let (mut end, backlog) = server(WebhookConnecting::Open);
        let query = Some("x".repeat(1_000).into());
        drop(end.take_message(ServiceMessage::OpenConnection(OpenConnection {
            connection_id: "c".into(),
            query,
            ..OpenConnection::default()
        })));
        drop(end.take_message(data("c", HANDSHAKE)));
        assert!((200..500).contains(&backlog.bytes.used()), "{}", backlog.bytes.used());
        drop(end.take_message(close("c", None)));
        assert!((1_400..2_000).contains(&backlog.bytes.used()), "{}", backlog.bytes.used());
    }

    #[test]
    fn a_handshake_that_is_not_good_is_answered_as_the_official_server_does() {
        let (mut end, backlog) = server(WebhookConnecting::Open);
        drop(take(&mut end, open("c", None)));
        let steps = take(&mut end, data("c", b"{\"protocol\":\"json\",\"version\":9}\x1e"));
        let [ServiceMessage::ConnectionData(answer), ServiceMessage::CloseConnection(_)] = &steps.frames[..] else {
            panic!("{:?}", steps.frames)
        };
        assert_eq!(
            answer.payload,
            "{\"error\":\"The server does not support version 9 of the 'json' protocol.\"}\u{1e}"
        );
        assert_eq!((steps.posts.len(), backlog.clients.used()), (0, 0));
    }

    fn question(number: usize) -> ServiceMessage {
        let (invocation_id, connection_id) = (number.to_string().into(), "c".into());
        ServiceMessage::ClientInvocation(ClientInvocation {
            invocation_id,
            connection_id,
            ..ClientInvocation::default()
        })
    }

    #[tokio::test(start_paused = true)]
    async fn questions_that_a_client_never_answers_make_room_for_others_in_time() {
        let (mut end, _backlog) = server(WebhookConnecting::Open);
        drop(take(&mut end, open("c", Some(MIGRATE_FROM_HEADER))));
        assert!((0..100).all(|number| take(&mut end, question(number)).frames.is_empty()));
        tokio::time::advance(Duration::from_secs(29)).await;
        assert!(matches!(take(&mut end, question(100)).frames[..], [ServiceMessage::ErrorCompletion(_)]));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(take(&mut end, question(101)).frames.is_empty(), "nobody waits for the others any more");
        let answered = take(&mut end, data("c", b"{\"type\":3,\"invocationId\":\"101\",\"result\":1}\x1e"));
        assert!(matches!(answered.frames[..], [ServiceMessage::ClientCompletion(_)]));
    }

    #[test]
    fn more_questions_to_a_client_than_may_wait_are_refused() {
        let (mut end, _backlog) = server(WebhookConnecting::Open);
        drop(take(&mut end, open("c", Some(MIGRATE_FROM_HEADER))));
        assert!((0..100).all(|number| take(&mut end, question(number)).frames.is_empty()));
        assert!(matches!(take(&mut end, question(100)).frames[..], [ServiceMessage::ErrorCompletion(_)]));
        let answered = take(&mut end, data("c", b"{\"type\":3,\"invocationId\":\"7\",\"result\":1}\x1e"));
        assert!(matches!(answered.frames[..], [ServiceMessage::ClientCompletion(_)]));
        assert!(answered.posts.is_empty());
        assert!(take(&mut end, question(100)).frames.is_empty(), "there is room again");
    }

    proptest! {
        /// For any order of frames and responses, a client has one event in flight and leaves no state behind.
        #[test]
        fn any_order_of_frames_and_answers_leaves_nothing_behind(
            steps in proptest::collection::vec((0usize..3, 0usize..7), 0..120), asked in any::<bool>(),
        ) {
            let gifts = if asked { r#"{"g":["red"]}"# } else { "{}" };
            let (mut end, backlog) = server(WebhookConnecting::Asked);
            let mut under_way: HashMap<ByteString, u64> = HashMap::new();
            let mut paused: HashMap<ByteString, bool> = HashMap::new();
            let mut last: HashMap<ByteString, u64> = HashMap::new();
            for (client, action) in steps {
                let id = ["a", "b", "c"][client];
                let done = match action {
                    // Ids are never reused.
                    0 if !last.contains_key(id) => { last.insert(id.into(), 0); take(&mut end, open_with(id, gifts)) }
                    0 => Steps::default(),
                    1 => take(&mut end, data(id, HANDSHAKE)),
                    2 => take(&mut end, data(id, SAY)),
                    3 => take(&mut end, data(id, b"{\"type\":1")),
                    4 => take(&mut end, close(id, None)),
                    _ if under_way.remove(id).is_some() => {
                        answered(&mut end, &id.into(), WebhookAnswer::Done)
                    }
                    _ => {
                        let first = end.joins.keys().min().copied();
                        let status = if action == 5 { AckStatus::Ok } else { AckStatus::Forbidden };
                        first.map(|join| take(&mut end, ack(join, status))).unwrap_or_default()
                    }
                };
                check(done, &mut under_way, &mut paused);
            }
            for id in ["a", "b", "c"] {
                check(take(&mut end, close(id, None)), &mut under_way, &mut paused);
            }
            while let Some(id) = under_way.keys().next().cloned() {
                under_way.remove(&id);
                check(answered(&mut end, &id, WebhookAnswer::Done), &mut under_way, &mut paused);
            }
            prop_assert_eq!((backlog.clients.used(), backlog.bytes.used()), (0, 0));
        }
    }

    fn check(steps: Steps, under_way: &mut HashMap<ByteString, u64>, paused: &mut HashMap<ByteString, bool>) {
        for post in steps.posts {
            let before = under_way.insert(post.connection_id, post.event.number);
            assert!(before.is_none(), "two events of a client are under way");
        }
        for frame in steps.frames {
            if let ServiceMessage::ConnectionFlowControl(flow) = frame {
                let is_paused = flow.operation == FlowOperation::Pause;
                assert_ne!(paused.insert(flow.connection_id, is_paused), Some(is_paused));
            }
        }
    }
}
