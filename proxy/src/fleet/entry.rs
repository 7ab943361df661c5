//! Messages and queries that enter the fleet by HTTP: operator announcements and the REST data plane.
//!
//! ```text
//!  request ─► hub by name ─┬─► shards of this node ─────────┐
//!                          └─► nodes that may be concerned ─┴─► one answer, and the nodes without an answer
//! ```
//!
//! Sends from app servers are ordered by epoch. For hubs with dial-in, nodes number sends that enter here too.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use tokio::time::timeout;
use trunkline_protocol::fleet::Wanted;
use trunkline_protocol::service::{
    Ack, AckStatus, Audience, ClientInvocation, DownMark, GroupMemberQuery, MemberPage, Payloads, RecordReply,
    RecordRequest, RecordedSet, ServiceMessage,
};

use super::combined_answer::{AnswerTerms, QuestionedHub, page_of};
use super::fleet_core::Fleet;
use super::fleet_member::FleetMember;
#[cfg(test)]
use super::fleet_relay::relayed;
use super::fleet_relay::{OwnAnswer, is_about_own, keep_first, stamped, with_wanted};
use super::node_question::{ANSWER_TIMEOUT, Answers};
use super::peer_request::{PeerRequest, PeerResponse};
use super::question::NoAnswer;
use crate::engine::shard::{Recorder, RequestOrigin, SendOrigin, Shared, not_asked};
use crate::engine::upstream::{AppServerId, Hub, HubIndex, HubOrigin, ReplyTo};
#[cfg(test)]
use crate::ground::auth::Signer;
use crate::ground::routing::HistoryTerms;

/// Hub named by a request, known to this node or not.
#[derive(Debug, Clone)]
pub(crate) struct NamedHub {
    /// Fleet-wide key of the hub.
    key: String,
    here: Option<Arc<Hub>>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct FleetDelivery {
    /// Nodes that delivered it, including this one and nodes without receivers.
    pub(crate) nodes: u64,
    /// Nodes without an answer.
    pub(crate) missing: Vec<String>,
    pub(crate) clients: u64,
    /// Whether any answering node has the hub.
    pub(crate) is_known: bool,
    /// Positions of the message in the records of its receivers: groups and users with their names.
    pub(crate) positions: Vec<(String, String)>,
}

#[derive(Debug)]
pub(crate) struct FleetAnswer {
    pub(crate) ack: Ack,
    /// Nodes without an answer. A positive answer is final without them.
    pub(crate) missing: Vec<String>,
    /// Whether nothing was done, because the store is away.
    pub(crate) is_store_away: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum InvocationOutcome {
    /// Framed completion, encoded in the named hub protocol.
    Completed { protocol: ByteString, completion: Bytes },
    /// Reason of the failure.
    Failed(String),
    /// No answering node has the client.
    NotFound { missing: Vec<String> },
    /// The client result timed out.
    Late,
}

impl InvocationOutcome {
    fn from_answer(answer: Option<ServiceMessage>) -> Self {
        match answer {
            Some(ServiceMessage::ClientCompletion(answer)) => {
                Self::Completed { protocol: answer.protocol, completion: answer.payload }
            }
            Some(ServiceMessage::ErrorCompletion(error)) => Self::Failed(error.error.to_string()),
            Some(other) => Self::Failed(format!("{} is not an answer", other.name())),
            None => Self::Late,
        }
    }
}

impl NamedHub {
    /// The hub with a fleet-wide key.
    pub(super) fn of_key(shared: &Shared, key: &str) -> Self {
        Self { key: key.to_owned(), here: shared.hubs.keyed(key) }
    }

    /// Fleet-wide key of the hub.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// The hub, if this node has it.
    pub(crate) fn here(&self) -> Option<&Arc<Hub>> {
        self.here.as_ref()
    }

    /// Origin of a broadcast in this epoch of this node.
    fn origin(&self, shared: &Shared, epoch: i64) -> SendOrigin {
        match self.here.as_ref().is_none_or(|hub| hub.capabilities().sends_to_all_nodes) {
            true => SendOrigin::OtherNode,
            false => SendOrigin::Sender(shared.fleet.origin, epoch),
        }
    }

    fn questioned(&self) -> QuestionedHub {
        let here = self.here.as_ref().map(|hub| hub.index());
        QuestionedHub { key: self.key.clone(), here, app: AppServerId::OTHER_NODE }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct FleetEntry(Fleet);

impl FleetEntry {
    pub(crate) fn from_fleet(fleet: &Fleet) -> Self {
        Self(fleet.clone())
    }

    pub(crate) fn has_others(&self) -> bool {
        !self.0.members().all().is_empty()
    }

    /// Other nodes that may have clients of a hub.
    pub(crate) fn others_with(&self, hub: &NamedHub) -> Vec<Arc<FleetMember>> {
        self.0.members().wanting(&hub.key, &[Wanted::Everyone])
    }

    /// Sends a request to the API of these nodes.
    pub(crate) async fn request(&self, asked: Vec<Arc<FleetMember>>, request: &PeerRequest) -> Answers<PeerResponse> {
        self.0.request(asked, request, ANSWER_TIMEOUT).await
    }

    /// Relays a message to members that may want it. Never waits and has no answer.
    #[cfg(test)]
    pub(crate) fn relay(&self, hub: &str, wanted: &[Wanted<'_>], message: &ServiceMessage) {
        let frame = relayed(hub, message, 0);
        for member in self.0.members().wanting(hub, wanted) {
            self.0.fleet_relay().pass_to(&member, &Signer::Fleet, &frame);
        }
    }

    /// Queries the members that may be concerned. Queries are queued immediately to preserve order.
    #[cfg(test)]
    pub(crate) fn ask(
        &self,
        hub: &str,
        wanted: &[Wanted<'_>],
        message: &ServiceMessage,
    ) -> impl Future<Output = Answers<Option<ServiceMessage>>> + use<> {
        self.0.ask(self.0.members().wanting(hub, wanted), hub, &message.to_body())
    }

    /// Finds a hub by its configured name, or by its path without the slash.
    pub(crate) fn hub_named(&self, name: &str) -> NamedHub {
        let hubs = &self.0.shared().hubs;
        match hubs.named(name).or_else(|| hubs.find(&format!("/{name}"))) {
            Some(hub) => NamedHub { key: hub.key().to_owned(), here: Some(hub) },
            None => self.hub_of_name(name),
        }
    }

    /// Finds a hub by name only. Paths are not unique to one owner.
    pub(crate) fn hub_of_name(&self, name: &str) -> NamedHub {
        let (hubs, lower) = (&self.0.shared().hubs, name.to_ascii_lowercase());
        if let Some(hub) = hubs.named(name).or_else(|| hubs.named(&lower)) {
            return NamedHub { key: hub.key().to_owned(), here: Some(hub) };
        }
        let dial_in_key = HubOrigin::DialIn.key(&lower);
        let is_announced = |key: &str| self.0.members().all().iter().any(|member| member.has_announced(key));
        let is_elsewhere = match () {
            () if is_announced(name) => true,
            // A late node may want anything, so it doesn't show the kind of the hub.
            () if self.0.shared().settings.accepts_dial_in || is_announced(&dial_in_key) => false,
            () => !self.0.members().wanting(name, &[Wanted::Everyone]).is_empty(),
        };
        NamedHub { key: if is_elsewhere { name.to_owned() } else { dial_in_key }, here: None }
    }

    /// Delivers a message at all nodes, in call order. The future waits for the nodes.
    pub(crate) async fn begin_delivery(
        &self,
        hub: &NamedHub,
        message: ServiceMessage,
    ) -> impl Future<Output = FleetDelivery> + use<> {
        self.room(hub, &message).await;
        let send = self.0.shared().fleet.moves.begin_send();
        let epoch = send.epoch();
        // Read once: a node that ends in the meantime is missing but no longer a member.
        let members = self.0.members().all();
        let asked = match is_for_this_node_alone(self.0.shared(), &message) {
            true => Vec::new(),
            false => with_wanted(&message, |wanted| self.0.members().wanting_of(&members, &hub.key, wanted)),
        };
        let members = members.len() as u64;
        let body = stamped(&message, epoch);
        let others = self.0.ask(asked, &hub.key, &body);
        let own = match &hub.here {
            Some(here) => {
                let (reply_to, counted) = OwnAnswer::new_pair(here.index(), AppServerId::OTHER_NODE);
                // Can't fail for messages with receivers.
                drop(
                    self.0
                        .fleet_relay()
                        .route_counted_here(&reply_to, hub.origin(self.0.shared(), epoch), message, body.len())
                        .await,
                );
                Some(counted)
            }
            None => None,
        };
        drop(send);
        let is_here = hub.here.is_some();
        async move {
            let others = others.await;
            let own = match own {
                Some(counted) => counted.await.ok(),
                None => None,
            };
            let told = || others.iter().filter_map(|(_, answer)| answer.as_ref().ok()?.as_ref());
            let missing = names_of_missing(&others);
            FleetDelivery {
                nodes: (1 + members).saturating_sub(missing.len() as u64),
                clients: told().chain(&own).map(receivers_counted).sum(),
                is_known: is_here || told().next().is_some(),
                positions: Vec::new(),
                missing,
            }
        }
    }

    /// How a hub records a group or a user; `None` if it does not.
    pub(crate) fn history_of(&self, hub: &NamedHub, set: &RecordedSet) -> Option<HistoryTerms> {
        self.0.shared().hubs.history_of(&hub.key, set)
    }

    /// Carries out a request at the recorder of its set, in the order of the calls.
    pub(crate) fn request_record(
        &self,
        hub: &NamedHub,
        request: RecordRequest,
    ) -> impl Future<Output = RecordReply> + use<> {
        let recorder = self.0.shared().recorder().map_or(&self.0 as &dyn Recorder, |recorder| &**recorder);
        recorder.request_record(&hub.key, request, RequestOrigin::Here)
    }

    /// Waits until the hub's app has room at the members that may want a message.
    async fn room(&self, hub: &NamedHub, message: &ServiceMessage) {
        let wanting = || with_wanted(message, |wanted| self.0.members().wanting(&hub.key, wanted));
        self.0.room(&self.0.share_of_hub(&hub.key), wanting).await;
    }

    /// Queries this node and all others concerned. One positive answer decides; a negative one needs all nodes.
    pub(crate) async fn ask_fleet(&self, hub: &NamedHub, question: ServiceMessage) -> FleetAnswer {
        if let Err(away) = self.0.keep_in_store(&hub.key, &question).await {
            let ack = AnswerTerms::from_question(&question).unstored(&away);
            return FleetAnswer { ack, missing: Vec::new(), is_store_away: true };
        }
        self.room(hub, &question).await;
        let asked = match &question {
            question if is_about_own(self.0.shared(), question) => Vec::new(),
            question if question.outlasts_connections() => self.0.members().all().to_vec(),
            question => with_wanted(question, |wanted| self.0.members().wanting(&hub.key, wanted)),
        };
        keep_first(self.0.shared(), &hub.key, &question);
        let others = self.0.ask(asked, &hub.key, &question.to_body());
        let terms = AnswerTerms::from_question(&question);
        let own = match &hub.here {
            Some(here) => self.0.fleet_relay().ask_here((here.index(), AppServerId::OTHER_NODE), question).await,
            None => answer_for_unknown(self.0.shared(), &hub.key, &question),
        };
        let others = others.await;
        let missing = names_of_missing(&others);
        let answers = std::iter::once(Ok(own)).chain(others.into_iter().map(|(_, answer)| answer));
        FleetAnswer { ack: terms.combine(answers.collect()), missing, is_store_away: false }
    }

    /// Waits until little data is queued for a client, at most this long, or until the client closes or moves.
    pub(crate) async fn wait_for_client(&self, hub: &NamedHub, connection_id: &str, within: Duration) {
        let mark = ServiceMessage::DownMark(DownMark { connection_id: connection_id.into(), number: 0 });
        if self.0.shared().routes.find(connection_id).is_none() {
            // Nodes without the client answer immediately.
            let asked = self.0.members().wanting(&hub.key, &[Wanted::Everyone]);
            drop(self.0.ask_within(asked, &hub.key, (&mark.to_body(), within)).await);
        } else if let Some(here) = &hub.here {
            let own = self.0.fleet_relay().ask_here((here.index(), AppServerId::OTHER_NODE), mark);
            drop(timeout(within, own).await);
        }
    }

    /// Lists one page of a group's members. Nodes without an answer are added to `missing`, if there is such a list.
    ///
    /// # Errors
    /// Status and reason, if a node does not answer or the page token is invalid.
    pub(crate) async fn list_group(
        &self,
        hub: &NamedHub,
        query: GroupMemberQuery,
        missing: Option<&mut Vec<String>>,
    ) -> Result<MemberPage, (AckStatus, String)> {
        let others = self.0.members().wanting(&hub.key, &[Wanted::Group(&query.group)]);
        page_of(&self.0, &hub.questioned(), query, others, missing).await
    }

    /// Invokes a client method at any node and waits for the result. `invocation` builds the message from the
    /// invocation id.
    pub(crate) async fn invoke_client(
        &self,
        hub: &NamedHub,
        connection_id: &str,
        invocation: impl FnOnce(&str) -> Payloads,
        within: Duration,
    ) -> InvocationOutcome {
        let Some(open) = self.0.questions().results.open_question() else {
            return InvocationOutcome::Failed("too many pending client results at this node".into());
        };
        let shared = self.0.shared();
        let id = format!("{}.{}", shared.boot, open.number());
        let payloads = invocation(&id);
        let request = ClientInvocation {
            invocation_id: id.as_str().into(),
            connection_id: connection_id.into(),
            caller_server_id: shared.boot.as_str().into(),
            payloads,
        };
        let index = hub.here.as_ref().map_or(HubIndex::from(u32::MAX), |hub| hub.index());
        let (reply_to, own) = OwnAnswer::new_pair(index, AppServerId::OTHER_NODE);
        let missing = match shared.routes.find(connection_id).is_some() {
            true => self.invoke_here(hub, &reply_to, request).await,
            false => self.invoke_elsewhere(hub, &reply_to, request).await,
        };
        drop(reply_to);
        if let Err(missing) = missing {
            return InvocationOutcome::NotFound { missing };
        }
        let own = async {
            match own.await {
                Ok(answer) => Some(answer),
                // The open query receives the answer.
                Err(_) => std::future::pending().await,
            }
        };
        let answer = tokio::select! {
            answer = open.first(within) => answer,
            answer = own => answer,
        };
        if answer.is_none() {
            shared.client_results.fail_one(&id, "has not answered in time");
        }
        InvocationOutcome::from_answer(answer)
    }

    async fn invoke_here(
        &self,
        hub: &NamedHub,
        reply_to: &Arc<dyn ReplyTo>,
        request: ClientInvocation,
    ) -> Result<(), Vec<String>> {
        let send = self.0.shared().fleet.moves.begin_send();
        let origin = hub.origin(self.0.shared(), send.epoch());
        self.0
            .fleet_relay()
            .route_here(reply_to, origin, ServiceMessage::ClientInvocation(request))
            .await
            .map_err(|_| Vec::new())
    }

    /// Queries the other nodes for a client; the owner invokes it. If no node has the client, the error lists the nodes
    /// without an answer.
    async fn invoke_elsewhere(
        &self,
        hub: &NamedHub,
        reply_to: &Arc<dyn ReplyTo>,
        request: ClientInvocation,
    ) -> Result<(), Vec<String>> {
        let (results, id) = (&self.0.shared().client_results, request.invocation_id.clone());
        // Also for unknown hubs: the result doesn't name its origin.
        let is_awaited = hub.here.as_ref().is_none_or(|hub| !hub.capabilities().names_callers);
        if is_awaited {
            let name = hub.here.as_ref().map_or("", |hub| hub.name());
            let share = self.0.shared().share_of_asker(&**reply_to, name);
            if let Err(refused) = results.begin_wait(reply_to, &request, None, &share) {
                reply_to.answer(&not_asked(request, &refused));
                return Ok(());
            }
        }
        let message = ServiceMessage::ClientInvocation(request);
        self.room(hub, &message).await;
        let asked = self.0.members().wanting(&hub.key, &[Wanted::Everyone]);
        let answers = {
            let send = self.0.shared().fleet.moves.begin_send();
            self.0.ask(asked, &hub.key, &stamped(&message, send.epoch()))
        };
        let answers = answers.await;
        // The node with the client sends an empty answer; all others report it missing.
        match answers.iter().find(|(_, answer)| matches!(answer, Ok(None))) {
            Some((member, _)) => {
                results.set_node(&id, member.boot());
                Ok(())
            }
            None => {
                results.fail_one(&id, "does not exist");
                Err(names_of_missing(&answers))
            }
        }
    }
}

/// Answer for a hub unknown here. Users may be in its groups anyway.
pub(super) fn answer_for_unknown(shared: &Shared, hub: &str, question: &ServiceMessage) -> Option<ServiceMessage> {
    let (groups, AnswerTerms { ack_id, .. }) = (&shared.user_groups, AnswerTerms::from_question(question));
    let (status, message) = match (shared.note_user_groups(hub, question), question) {
        (Err(refusal), _) => (AckStatus::InternalServerError, refusal.to_string()),
        (Ok(()), ServiceMessage::CheckUserInGroupWithAck(check))
            if groups.contain(hub, &check.user_id, &check.group) =>
        {
            (AckStatus::Ok, String::new())
        }
        _ => return None,
    };
    Some(ServiceMessage::Ack(Ack { ack_id, status, message: Some(message.into()), payload: None }))
}

/// Passes a client result to the waiting caller. The client's hub may be unknown here.
pub(super) fn take_result(shared: &Shared, answer: &ServiceMessage) {
    let (id, connection_id) = match answer {
        ServiceMessage::ClientCompletion(answer) => (&answer.invocation_id, &answer.connection_id),
        ServiceMessage::ErrorCompletion(answer) => (&answer.invocation_id, &answer.connection_id),
        _ => return,
    };
    let waiting = shared.client_results.take_waiting(id, connection_id, AppServerId::OTHER_NODE);
    waiting.iter().for_each(|waiting| waiting.reply_to.answer(answer));
}

fn is_for_this_node_alone(shared: &Shared, message: &ServiceMessage) -> bool {
    let routes = &shared.routes;
    let is_here_alone = |id: &ByteString| routes.find(id).is_some() && routes.is_here_alone(id);
    matches!(message.audience(), Some(Audience::Connections(ids)) if ids.iter().all(is_here_alone))
}

fn names_of_missing<T>(answers: &[(Arc<FleetMember>, Result<T, NoAnswer>)]) -> Vec<String> {
    answers.iter().filter(|(_, answer)| answer.is_err()).map(|(member, _)| member.name().to_owned()).collect()
}

fn receivers_counted(message: &ServiceMessage) -> u64 {
    let ServiceMessage::Ack(Ack { payload: Some(payload), .. }) = message else { return 0 };
    MemberPage::from_payload(payload).ok().and_then(|page| page.count).unwrap_or_default()
}
