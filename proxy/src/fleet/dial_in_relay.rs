//! Messages and queries from app servers that dial in, for clients of other nodes.
//!
//! Queries: answers of this and other nodes are combined into one.
//!
//! ```text
//!  query ─┬─► this node ───────────────────┐
//!         └─► nodes that its link reaches ─┴─► one Ok decides, NotFound needs all ─► one ack over the link of the query
//! ```

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use tokio::sync::oneshot;
use tokio::time::sleep;
use tracing::debug;
use trunkline_protocol::service::{Ack, AckStatus, ClientInvocation, GroupMemberQuery, MoveConnection, ServiceMessage};

use super::combined_answer::{AnswerTerms, QuestionedHub, page_of};
use super::fleet_core::Fleet;
use super::fleet_member::{FleetMember, MemberState};
use super::fleet_membership::Membership;
use super::fleet_relay::{NoReply, OwnAnswer, is_about_own, keep_first, relayed, stamped, with_wanted};
use super::node_question::Answers;
use super::take_over::TakeOvers;
use crate::engine::shard::{
    OtherNodes, Reachability, SendOrigin, ShardSender, SoughtConnection, TakeOver, TargetVerdict, no_such_connection,
    not_asked,
};
use crate::engine::upstream::{AppServerId, Hub, HubIndex, LinkHandle, ReplyTo};
use crate::features::store::StoreAway;
use crate::ground::auth::Signer;
use crate::ground::limits::SignerShare;

/// Maximum number of polls for the end of a move before a client is invoked, and their interval.
const MOVE_LOOKS: u32 = 500;
const MOVE_LOOK_INTERVAL: Duration = Duration::from_millis(20);

impl OtherNodes for Fleet {
    fn pass_result(&self, hub: &str, caller: &str, answer: &ServiceMessage) {
        if caller == self.shared().boot {
            if let Some(number) = invocation(answer).and_then(|id| id.rsplit('.').next()?.parse().ok()) {
                self.questions().results.take_answer(number, caller, answer.clone());
            }
        } else if let Some(member) = self.members().find(caller) {
            let signer = self.fleet_relay().owner_of(hub);
            self.fleet_relay().pass_to(&member, &signer, &relayed(hub, answer, 0));
        } else {
            // An app server that dials in uses its own ids, so only the waiting node can match the answer.
            let (frame, signer) = (relayed(hub, answer, 0), self.fleet_relay().owner_of(hub));
            for member in self.members().all().iter().filter(|member| member.links.are_complete()) {
                self.fleet_relay().pass_to(member, &signer, &frame);
            }
        }
    }

    fn pass_on(&self, link: &LinkHandle, message: &ServiceMessage, epoch: i64) {
        let key = link.hub_identity().key();
        keep_first(self.shared(), key, message);
        let wanting = wanting_of(self, link, message);
        if !wanting.is_empty() {
            let (frame, share) = (relayed(key, message, epoch), share_of_link(self, link));
            for member in wanting {
                self.fleet_relay().pass_to(&member, &share.signer, &frame);
            }
        }
    }

    fn room(&self, link: &LinkHandle) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>> {
        let share = share_of_link(self, link);
        if !self.is_crowded(&share) {
            return None;
        }
        let fleet = self.clone();
        Some(Box::pin(async move { fleet.room(&share, || fleet.members().all().to_vec()).await }))
    }

    fn are_sought(&self) -> bool {
        self.members().is_finding_others() || self.store().is_some_and(|store| store.reason_closed().is_some())
    }

    fn is_for_us(&self, link: &LinkHandle) -> bool {
        self.presence().reach(self.members(), link).is_for_us
    }

    fn ask_too(
        &self,
        link: &Arc<LinkHandle>,
        reply_to: &Arc<dyn ReplyTo>,
        message: &ServiceMessage,
    ) -> Option<Arc<dyn ReplyTo>> {
        let (runtime, key) = (self.runtime().get()?, link.hub_identity().key());
        keep_first(self.shared(), key, message);
        if let ServiceMessage::GroupMemberQuery(query) = message
            && query.page_size != Some(0)
        {
            let nodes = wanting_of(self, link, message);
            if nodes.is_empty() {
                return None;
            }
            let silent = Arc::new(NoReply(link.hub()));
            let (fleet, link, reply_to, query) = (self.clone(), link.clone(), reply_to.clone(), query.clone());
            drop(runtime.spawn(async move { list_members(&fleet, (&link, &*reply_to), query, nodes).await }));
            return Some(silent);
        }
        let asked = if is_about_own(self.shared(), message) { Vec::new() } else { wanting_of(self, link, message) };
        if asked.is_empty() && !(self.store().is_some() && message.outlasts_connections()) {
            return None;
        }
        let answers = self.ask(asked, key, &message.to_body());
        let (own, answer) = GatheredAnswer::begin_gathering(reply_to.clone(), message);
        let stored = self.keep_in_store(key, message);
        drop(runtime.spawn(async move {
            let (answers, stored) = tokio::join!(answers, stored);
            answer.give(answers, stored.err()).await;
        }));
        Some(own)
    }

    fn invoke(&self, link: &Arc<LinkHandle>, request: &ClientInvocation, epoch: i64) -> bool {
        let Some(runtime) = self.runtime().get() else { return false };
        let hub = link.hub_identity();
        let message = ServiceMessage::ClientInvocation(request.clone());
        let asked = wanting_of(self, link, &message);
        if asked.is_empty() {
            return false;
        }
        let share = self.shared().share_of_asker(&**link, hub.name());
        let begun = self.shared().client_results.begin_wait(&(link.clone() as Arc<dyn ReplyTo>), request, None, &share);
        if let Err(refused) = begun {
            link.send(&not_asked(request.clone(), &refused));
            return true;
        }
        let (fleet, id) = (self.clone(), request.invocation_id.clone());
        let answers = self.ask(asked, hub.key(), &stamped(&message, epoch));
        drop(runtime.spawn(async move {
            let answers = answers.await;
            let results = &fleet.shared().client_results;
            // The node with the client sends an empty answer; all others report it missing.
            match answers.iter().find(|(_, answer)| matches!(answer, Ok(None))) {
                Some((member, _)) => {
                    results.set_node(&id, member.boot());
                    if fleet.members().find(member.boot()).is_none() {
                        results.node_gone(member.boot());
                    }
                }
                None if answers.iter().all(|(_, answer)| answer.is_ok()) => results.fail_one(&id, "does not exist"),
                None => results.fail_one(&id, "may be at a node that does not answer"),
            }
        }));
        true
    }

    fn app_servers(&self, hub: &str) -> Vec<String> {
        self.presence().elsewhere(self.members(), hub)
    }

    fn links_changed(&self) {
        self.presence().note_change();
    }

    fn judge_target(&self, hub: &Hub, instance: &str, target: &str) -> TargetVerdict {
        self.presence().judge(self.members(), hub, instance, target)
    }

    fn is_linked(&self) -> bool {
        self.members().all().iter().any(|member| member.links.are_complete())
    }

    fn are_ready(&self) -> bool {
        let now_ms = self.members().now_ms();
        self.members().all().iter().any(|member| member.state(now_ms) == MemberState::Ready)
    }

    fn successor(&self) -> Option<(String, String)> {
        let (members, now_ms) = (self.members().all(), self.members().now_ms());
        let mut ready = members.iter().filter(|member| member.state(now_ms) == MemberState::Ready);
        ready.find_map(|member| Some((member.boot().to_owned(), member.client_port()?.to_string())))
    }

    fn announce_move(&self, hub: HubIndex, connection_id: &ByteString) -> Option<Vec<AppServerId>> {
        let hub = self.shared().hubs.at(hub)?;
        let order = ServiceMessage::MoveConnection(MoveConnection { connection_id: connection_id.clone() });
        let frame = relayed(hub.key(), &order, 0);
        let mut asked = vec![self.shared().fleet.origin];
        for member in self.members().all().iter().filter(|member| member.links.are_complete()) {
            if !self.fleet_relay().pass_to(member, &Signer::Fleet, &frame) {
                return None;
            }
            asked.push(self.shared().hubs.number(member.boot()));
        }
        TakeOvers::from_fleet(self).begin_epoch(
            self.shared().boot.as_str().into(),
            hub.key().into(),
            connection_id.clone(),
        );
        Some(asked)
    }

    fn let_move(&self, hub: HubIndex) -> bool {
        let now_ms = self.members().now_ms();
        let is_late = |member: &Arc<FleetMember>| member.state(now_ms) == MemberState::Late;
        !self.members().all().iter().any(is_late)
            && self.shared().hubs.at(hub).is_some_and(|hub| has_one_endpoint(self.members(), &hub))
    }

    fn invoke_later(&self, link: &Arc<LinkHandle>, request: ClientInvocation) {
        let Some(runtime) = self.runtime().get() else { return };
        let (fleet, link) = (self.clone(), link.clone());
        drop(runtime.spawn(async move { invoke_when_moved(&fleet, &link, request).await }));
    }

    fn take_over(
        &self,
        hub: &Arc<Hub>,
        connection_id: &str,
        shard: &ShardSender,
        sought: SoughtConnection,
    ) -> TakeOver {
        TakeOvers::from_fleet(self).begin_take_over(hub.clone(), connection_id.to_owned(), shard.clone(), sought)
    }

    fn reachability(&self, boot: &str) -> Reachability {
        TakeOvers::from_fleet(self).reachability(boot)
    }
}

/// Invokes a client method once the client's move has finished.
async fn invoke_when_moved(fleet: &Fleet, link: &Arc<LinkHandle>, request: ClientInvocation) {
    let shared = fleet.shared();
    let is_moving = |id: &str| shared.routes.find(id).is_some() && !shared.routes.is_here_alone(id);
    // A move takes milliseconds and rarely coincides with an invocation, so polling is enough.
    for _ in 0..MOVE_LOOKS {
        if !is_moving(&request.connection_id) {
            break;
        }
        sleep(MOVE_LOOK_INTERVAL).await;
    }
    let send = shared.fleet.moves.begin_send();
    if shared.routes.find(&request.connection_id).is_some() {
        let (reply_to, origin) =
            (link.clone() as Arc<dyn ReplyTo>, SendOrigin::Sender(shared.fleet.origin, send.epoch()));
        if let Err(problem) =
            fleet.fleet_relay().route_here(&reply_to, origin, ServiceMessage::ClientInvocation(request)).await
        {
            debug!(problem, "skipped a query of an app server");
        }
    } else if !fleet.invoke(link, &request, send.epoch()) {
        link.send(&no_such_connection(request));
    }
}

/// Whether all app servers of a hub dial the fleet through one address. With several, each server sends one copy per
/// address, and copies for a moving connection would be indistinguishable.
fn has_one_endpoint(members: &Membership, hub: &Hub) -> bool {
    let pools = hub.pools();
    let links: Vec<_> = pools.iter().flat_map(|pool| pool.links()).collect();
    let mut endpoints: Vec<_> = links.iter().filter_map(|link| link.endpoint()).collect();
    let told: Vec<_> = members.all().iter().map(|member| member.presence()).collect();
    endpoints.extend(told.iter().flat_map(|told| told.servers(hub.key())).map(|server| &*server.endpoint));
    endpoints.windows(2).all(|two| matches!(two, [one, other] if one == other))
}

/// Share of the app that sends over a link.
fn share_of_link(fleet: &Fleet, link: &LinkHandle) -> SignerShare {
    fleet.shared().share_of_asker(link, link.hub_identity().name())
}

/// Reachable members that may want a message.
fn wanting_of(fleet: &Fleet, link: &LinkHandle, message: &ServiceMessage) -> Vec<Arc<FleetMember>> {
    let reach = fleet.presence().reach(fleet.members(), link);
    if reach.members.is_empty() {
        return Vec::new();
    }
    if message.outlasts_connections() {
        return reach.members.clone();
    }
    let (now_ms, key) = (fleet.members().now_ms(), link.hub_identity().key());
    with_wanted(message, |wanted| {
        let wanting = reach.members.iter().filter(|member| member.may_want(key, wanted, now_ms));
        wanting.cloned().collect()
    })
}

/// Invocation id that a client result answers.
fn invocation(answer: &ServiceMessage) -> Option<&str> {
    match answer {
        ServiceMessage::ClientCompletion(answer) => Some(&answer.invocation_id),
        ServiceMessage::ErrorCompletion(answer) => Some(&answer.invocation_id),
        _ => None,
    }
}

/// Query of an app server that dials in: answers of this and other nodes are combined into one.
pub(super) struct GatheredAnswer {
    reply_to: Arc<dyn ReplyTo>,
    terms: AnswerTerms,
    own: oneshot::Receiver<ServiceMessage>,
}

impl GatheredAnswer {
    /// Starts gathering. Returns the reply handle for this node too.
    pub(super) fn begin_gathering(reply_to: Arc<dyn ReplyTo>, question: &ServiceMessage) -> (Arc<dyn ReplyTo>, Self) {
        let (own_answer, own) = OwnAnswer::new_pair(reply_to.hub(), reply_to.app());
        (own_answer, Self { reply_to, terms: AnswerTerms::from_question(question), own })
    }

    /// Sends the combined answer to the app server, once this node has answered.
    pub(super) async fn give(self, others: Answers<Option<ServiceMessage>>, away: Option<StoreAway>) {
        let Self { reply_to, terms, own } = self;
        let mut answers = vec![Ok(own.await.ok())];
        answers.extend(others.into_iter().map(|(_, answer)| answer));
        let ack = terms.combine(answers);
        reply_to.answer(&ServiceMessage::Ack(away.map_or(ack, |away| terms.unstored(&away))));
    }
}

/// Sends a page of a group's members, from this and other nodes, to an app server.
pub(super) async fn list_members(
    fleet: &Fleet,
    (link, reply_to): (&Arc<LinkHandle>, &dyn ReplyTo),
    query: GroupMemberQuery,
    others: Vec<Arc<FleetMember>>,
) {
    let ack_id = query.ack_id;
    let here = fleet.presence().reach(fleet.members(), link).is_for_us.then(|| link.hub());
    let hub = QuestionedHub { key: link.hub_identity().key().into(), here, app: link.app() };
    let ack = match page_of(fleet, &hub, query, others, None).await {
        Ok(page) => {
            let payload = Some(page.to_payload());
            Ack { ack_id, status: AckStatus::Ok, message: Some(ByteString::new()), payload }
        }
        Err((status, problem)) => Ack { ack_id, status, message: Some(problem.into()), payload: None },
    };
    reply_to.answer(&ServiceMessage::Ack(ack));
}
