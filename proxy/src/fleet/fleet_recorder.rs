//! Recorder of each group and user of the fleet: the node with the highest hash of both.
//!
//! ```text
//!  send ─► its node ─► recorder? ─┬─ this node ─► lane of the hub: a round of changes (`record_round`)
//!                                 └─ another ───► RecordRequest ─► the same there; never passed on again
//! ```
//!
//! Nodes that are starting or draining record nothing. While views differ, a node that is not the recorder in its own
//! view refuses.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use trunkline_protocol::service::{
    Ack, RecordAct, RecordPage, RecordRefusal, RecordReply, RecordRequest, RecordStart, RecordedSet, ServiceMessage,
    presence_weight,
};

use super::fleet_core::Fleet;
use super::fleet_member::{FleetMember, MemberState};
use super::fleet_membership::own_phase;
use super::record_lane::RecordChange;
use crate::engine::shard::{Recorder, RequestOrigin};
use crate::engine::upstream::HubOrigin;
use crate::features::message_log::{RecordKey, RecordRefused};
use crate::ground::clock::unix_ms;
use crate::ground::condition::{ConditionKind, Finding};
use crate::ground::routing::HistoryTerms;

/// Attempts after a refusal because a record is moving, and their interval. Views of nodes agree sooner.
const MOVE_ATTEMPTS: usize = 10;
const MOVE_INTERVAL: Duration = Duration::from_millis(200);

/// Maximum number of records of a round that are read from the store.
const READS_MAX: usize = 8;

/// Time for which a refusal is reported.
const REFUSED_TIME: Duration = Duration::from_secs(150);

/// Terms of a record without a rule at this node: rules differ between nodes during a rollout.
const UNKNOWN_TERMS: HistoryTerms = HistoryTerms { messages: 1000, age: Duration::from_secs(3600) };

impl Recorder for Fleet {
    fn request_record(
        &self,
        hub: &str,
        request: RecordRequest,
        origin: RequestOrigin,
    ) -> Pin<Box<dyn Future<Output = RecordReply> + Send>> {
        let first = self.request_once(hub, request.clone(), origin);
        if origin == RequestOrigin::OtherNode {
            return first;
        }
        let (fleet, hub) = (self.clone(), hub.to_owned());
        Box::pin(async move {
            let mut reply = first.await;
            for _ in 0..MOVE_ATTEMPTS {
                if reply.refused != Some(RecordRefusal::Moving) {
                    break;
                }
                sleep(MOVE_INTERVAL).await;
                reply = fleet.request_once(&hub, request.clone(), origin).await;
            }
            if matches!(reply.refused, Some(RecordRefusal::Moving | RecordRefusal::Unreachable)) {
                let finding = Finding::new(ConditionKind::RecordsRefused, hub, &*reply.problem);
                fleet.shared().reports.conditions.report(finding, Some(REFUSED_TIME));
            }
            reply
        })
    }
}

impl Fleet {
    fn request_once(
        &self,
        hub: &str,
        request: RecordRequest,
        origin: RequestOrigin,
    ) -> Pin<Box<dyn Future<Output = RecordReply> + Send>> {
        if let Some(unpeered) = request.nodes.iter().find(|boot| !self.is_member(boot)) {
            let reply = refusal(&RecordRefused::Unpeered(unpeered.to_string()));
            return Box::pin(async move { reply });
        }
        let request = RecordRequest { nodes: Vec::new(), ..request };
        if origin == RequestOrigin::OtherNode && matches!(request.act, RecordAct::Give | RecordAct::Yield) {
            return self.move_record(hub, request);
        }
        let recorder = self.recorder_of(hub, &request.set);
        if recorder.is_none()
            && request.act == RecordAct::Read
            && let Some(reply) = self.read_here(hub, &request)
        {
            return Box::pin(async move { reply });
        }
        match (recorder, origin) {
            (None, _) => {
                let (reply, replied) = oneshot::channel();
                let fleet = self.clone();
                self.records().queue(hub, RecordChange { request, reply }, |hub, changes| {
                    tokio::spawn(fleet.run_lane(hub, changes));
                });
                let unreplied = || refusal(&RecordRefused::Unreachable("the node is stopping".into()));
                Box::pin(async move { replied.await.unwrap_or_else(|_| unreplied()) })
            }
            (Some(member), RequestOrigin::Here) => {
                let body = ServiceMessage::RecordRequest(request).to_body();
                let answers = self.ask(vec![member.clone()], hub, &body);
                Box::pin(async move {
                    let answer = answers.await.into_iter().next().map(|(_, answer)| answer);
                    let payload = match answer {
                        Some(Ok(Some(ServiceMessage::Ack(Ack { payload: Some(payload), .. })))) => Some(payload),
                        _ => None,
                    };
                    let reply = payload.and_then(|payload| RecordReply::decode(&payload).ok());
                    reply.unwrap_or_else(|| {
                        let problem = format!("the node {} that has the record does not answer", member.name());
                        refusal(&RecordRefused::Unreachable(problem))
                    })
                })
            }
            (Some(member), RequestOrigin::OtherNode) => {
                let reply = refusal(&RecordRefused::Moving(member.name().to_owned()));
                Box::pin(async move { reply })
            }
        }
    }

    /// Whether a start of a node is this one or known as a member.
    fn is_member(&self, boot: &str) -> bool {
        *boot == *self.shared().boot || self.members().all().iter().any(|member| member.boot() == boot)
    }

    /// Node that records a set; `None` for this node.
    pub(super) fn recorder_of(&self, hub: &str, set: &RecordedSet) -> Option<Arc<FleetMember>> {
        let kind = if set.is_user { "user" } else { "group" };
        let name = format!("{hub}/{kind}/{}", set.name);
        let (recorders, records_here) = self.recorders();
        let best = recorders.iter().map(|member| (presence_weight(member.boot(), &name), member));
        let (weight, member) = best.max_by_key(|(weight, _)| *weight)?;
        let own = presence_weight(&self.shared().boot, &name);
        (!records_here || weight > own).then(|| member.clone())
    }

    /// Other nodes that record, and whether this node does: the ready ones, or all if none is ready.
    fn recorders(&self) -> (Vec<Arc<FleetMember>>, bool) {
        let (now_ms, members) = (self.members().now_ms(), self.members().all());
        let linked = members.iter().filter(|member| member.links.outgoing().is_some());
        let is_ready =
            |member: &&Arc<FleetMember>| matches!(member.state(now_ms), MemberState::Ready | MemberState::Late);
        let ready: Vec<_> = linked.clone().filter(is_ready).cloned().collect();
        match (ready.is_empty(), MemberState::from(own_phase(self.shared())) == MemberState::Ready) {
            (true, false) => (linked.cloned().collect(), true),
            (_, records_here) => (ready, records_here),
        }
    }

    /// Whether the nodes that record have just changed.
    pub(super) fn are_recorders_new(&self) -> bool {
        let (recorders, records_here) = self.recorders();
        let hashes = recorders.iter().map(|member| presence_weight(member.boot(), ""));
        let hashes = hashes.fold(u64::from(records_here), |hash, weight| hash ^ weight);
        self.records().see_recorders(hashes, self.members().now_ms())
    }

    /// Whether this node has the record as it is: it is not in the store or at another node only.
    pub(super) fn is_current(&self, key: &RecordKey) -> bool {
        let are_new = self.are_recorders_new();
        match self.store() {
            Some(_) => self.records().is_as_stored(key),
            None => !are_new || self.records().log().contains(key),
        }
    }

    /// Answers a read from memory, unless another node may have become the recorder unnoticed: the record was given to
    /// one, or the position is unknown here and has to be looked up in the store.
    fn read_here(&self, hub: &str, request: &RecordRequest) -> Option<RecordReply> {
        let key = record_key(hub, request);
        if self.records().log().is_given(&key, unix_ms()) {
            return Some(refusal(&RecordRefused::Moving("another node".into())));
        }
        if !self.is_current(&key) {
            return None;
        }
        let page = self.page_of(&key, request);
        if page.reset.is_some() && self.store().is_some() {
            self.records().distrust(&key);
            return None;
        }
        Some(self.read_reply(page))
    }

    /// Takes a part of a record from another node, or gives a record to the node that asks for it.
    fn move_record(&self, hub: &str, request: RecordRequest) -> Pin<Box<dyn Future<Output = RecordReply> + Send>> {
        let (fleet, key) = (self.clone(), record_key(hub, &request));
        Box::pin(async move {
            if let Some(asking) = &request.id {
                if fleet.records().log().contains(&key)
                    && let Some(member) = fleet.members().find(asking)
                {
                    fleet.give_record(&key, &member).await;
                }
            } else if let Some(page) = RecordReply::decode(&request.body).ok().and_then(|reply| reply.page) {
                let (app, terms) = (fleet.fleet_relay().owner_of(&key.0), fleet.terms_of(&key.0, &request));
                fleet.records().log().import(&key, (&app, terms), page, unix_ms());
            }
            RecordReply::default()
        })
    }

    pub(super) fn read_record(&self, hub: &str, request: &RecordRequest) -> RecordReply {
        self.read_reply(self.page_of(&record_key(hub, request), request))
    }

    fn page_of(&self, key: &RecordKey, request: &RecordRequest) -> RecordPage {
        let start = request.start.parse().unwrap_or(RecordStart::Newest);
        self.records().log().read(key, start, unix_ms())
    }

    fn read_reply(&self, page: RecordPage) -> RecordReply {
        if page.reset.is_some() {
            self.records().counters.resets.increment();
        }
        RecordReply { page: Some(page), ..RecordReply::default() }
    }

    async fn run_lane(self, hub: Arc<str>, mut changes: mpsc::UnboundedReceiver<RecordChange>) {
        while let Some(round) = self.records().next_round(&hub, &mut changes).await {
            for round in self.split_round(&hub, round) {
                self.run_round(&hub, round).await;
            }
        }
    }

    /// Cuts a round, so that few records at a time are read from the store: they need room in memory together.
    fn split_round(&self, hub: &str, round: Vec<RecordChange>) -> Vec<Vec<RecordChange>> {
        if self.store().is_none() {
            return vec![round];
        }
        let (mut parts, mut part, mut unread) = (Vec::new(), Vec::new(), HashSet::new());
        for change in round {
            let key = record_key(hub, &change.request);
            if !self.records().is_as_stored(&key) && !self.records().log().contains(&key) && !unread.contains(&key) {
                if unread.len() >= READS_MAX {
                    unread.clear();
                    parts.push(std::mem::take(&mut part));
                }
                unread.insert(key);
            }
            part.push(change);
        }
        parts.push(part);
        parts
    }

    /// Reports that another node records what no rule of this node names.
    pub(super) fn report_unknown(&self, hub: &str) {
        let finding =
            Finding::new(ConditionKind::RecordRulesDiffer, HubOrigin::name_in(hub), "a send came to be recorded");
        self.shared().reports.conditions.report(finding, Some(REFUSED_TIME));
    }

    /// Records a copy of the last message of a set, and delivers it to nobody.
    #[cfg(test)]
    pub(crate) fn record_undelivered(&self, hub: &str, set: &RecordedSet) -> trunkline_protocol::service::Position {
        let (key, app) = ((hub.into(), set.clone()), self.fleet_relay().owner_of(hub));
        let mut log = self.records().log();
        let message = log.read(&key, RecordStart::Last(1), unix_ms()).messages.remove(0);
        log.append(&key, (&app, UNKNOWN_TERMS), (None, message.body), unix_ms()).unwrap().position
    }

    pub(super) fn terms_of(&self, hub: &str, request: &RecordRequest) -> HistoryTerms {
        self.shared().hubs.history_of(hub, &request.set).unwrap_or(UNKNOWN_TERMS)
    }
}

pub(super) fn record_key(hub: &str, request: &RecordRequest) -> RecordKey {
    (hub.into(), request.set.clone())
}

pub(super) fn refusal(refused: &RecordRefused) -> RecordReply {
    RecordReply { refused: Some(refused.kind()), problem: refused.to_string().into(), ..RecordReply::default() }
}
