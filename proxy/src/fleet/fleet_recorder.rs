//! Recorder of each group and user of the fleet: the node with the highest hash of both.
//!
//! ```text
//!  send ─► its node ─► recorder? ─┬─ this node ─► lane of the hub: append ─► Recorded to all nodes concerned ─► reply
//!                                 └─ another ───► RecordRequest ─► the same there; never passed on again
//! ```
//!
//! Nodes that are starting or draining record nothing. While views differ, a node that is not the recorder in its own
//! view refuses.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use trunkline_protocol::service::{
    Ack, Position, RecordReply, RecordRequest, RecordStart, Recorded, ServiceMessage, presence_weight,
};

use super::entry::{FleetDelivery, FleetEntry, NamedHub};
use super::fleet_core::Fleet;
use super::fleet_member::{FleetMember, MemberState};
use super::fleet_membership::own_phase;
use super::record_lane::RecordChange;
use crate::engine::shard::{Recorder, RequestOrigin};
use crate::engine::upstream::HubOrigin;
use crate::features::message_log::{RecordKey, RecordRefused};
use crate::ground::clock::unix_ms;
use crate::ground::routing::HistoryTerms;

/// Terms of a record whose rule this node does not have: rules differ between nodes during a roll-out.
const UNKNOWN_TERMS: HistoryTerms = HistoryTerms { messages: 1000, age: std::time::Duration::from_secs(3600) };

impl Recorder for Fleet {
    fn request_record(
        &self,
        hub: &str,
        request: RecordRequest,
        origin: RequestOrigin,
    ) -> Pin<Box<dyn Future<Output = RecordReply> + Send>> {
        match (self.recorder_of(hub, &request), origin) {
            (None, _) if &*request.act == "read" => {
                let reply = self.read_record(hub, &request);
                Box::pin(async move { reply })
            }
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
                let problem = format!("the record is being moved to the node {}", member.name());
                Box::pin(async move { refusal(&RecordRefused::Unreachable(problem)) })
            }
        }
    }
}

impl Fleet {
    /// Node that records a set; `None` for this node.
    fn recorder_of(&self, hub: &str, request: &RecordRequest) -> Option<Arc<FleetMember>> {
        let kind = if request.set.is_user { "user" } else { "group" };
        let name = format!("{hub}/{kind}/{}", request.set.name);
        let now_ms = self.members().now_ms();
        let members = self.members().all();
        let ready = members.iter().filter(|member| {
            matches!(member.state(now_ms), MemberState::Ready | MemberState::Late) && member.links.outgoing().is_some()
        });
        let best =
            ready.map(|member| (presence_weight(member.boot(), &name), member)).max_by_key(|(weight, _)| *weight);
        let (weight, member) = best?;
        let own = presence_weight(&self.shared().boot, &name);
        let records_here = MemberState::from(own_phase(self.shared())) == MemberState::Ready;
        (!records_here || weight > own).then(|| member.clone())
    }

    fn record_key(hub: &str, request: &RecordRequest) -> RecordKey {
        (hub.into(), request.set.clone())
    }

    fn read_record(&self, hub: &str, request: &RecordRequest) -> RecordReply {
        let start = request.start.parse().unwrap_or(RecordStart::Newest);
        let page = self.records().log().read(&Self::record_key(hub, request), start, unix_ms());
        if page.reset.is_some() {
            self.records().counters.resets.increment();
        }
        RecordReply { page: Some(page), ..RecordReply::default() }
    }

    async fn run_lane(self, hub: Arc<str>, mut changes: mpsc::UnboundedReceiver<RecordChange>) {
        while let Some(RecordChange { request, reply }) = changes.recv().await {
            match self.change_record(&hub, &request) {
                Ok((position, Some(recorded))) => {
                    let named = NamedHub::of_key(self.shared(), &hub);
                    let message = ServiceMessage::Recorded(recorded);
                    let delivery = FleetEntry::from_fleet(&self).begin_delivery(&named, message).await;
                    tokio::spawn(async move { reply.send(receipt(position, delivery.await)) });
                }
                Ok((position, None)) => drop(reply.send(receipt(position, FleetDelivery::default()))),
                Err(refused) => {
                    self.records().counters.refused.increment();
                    drop(reply.send(refusal(&refused)));
                }
            }
        }
    }

    /// Changes a record. Returns the message for its members and followers, unless the send was repeated.
    fn change_record(&self, hub: &str, request: &RecordRequest) -> Result<(Position, Option<Recorded>), RecordRefused> {
        let key = Self::record_key(hub, request);
        let mut log = self.records().log();
        let recorded = |position: Position, end: Option<&'static str>| Recorded {
            set: request.set.clone(),
            epoch: position.epoch,
            number: position.number,
            end: end.map(Into::into),
            body: request.body.clone(),
        };
        match &*request.act {
            "append" => {
                let app = self.fleet_relay().owner_of(hub);
                let send = (request.id.as_ref(), request.body.clone());
                let appended = log.append(&key, (&app, self.terms_of(hub, request)), send, unix_ms())?;
                self.records().counters.appended.add(u64::from(!appended.is_repeated));
                let position = appended.position;
                Ok((position, (!appended.is_repeated).then(|| recorded(position, None))))
            }
            "finish" => log.finish(&key).map(|position| (position, Some(recorded(position, Some("finished"))))),
            "delete" => log.delete(&key).map(|position| (position, Some(recorded(position, Some("deleted"))))),
            act => Err(RecordRefused::Unreachable(format!("this node knows no {act:?} of a record"))),
        }
    }

    fn terms_of(&self, hub: &str, request: &RecordRequest) -> HistoryTerms {
        let hubs = &self.shared().hubs;
        let rules = match hubs.keyed(hub) {
            Some(hub) => hub.rules(),
            None => hubs.rules().of_hub(&format!("/{}", HubOrigin::name_in(hub))),
        };
        rules.and_then(|rules| rules.history_of(&request.set)).unwrap_or(UNKNOWN_TERMS)
    }
}

fn receipt(position: Position, FleetDelivery { nodes, missing, clients, .. }: FleetDelivery) -> RecordReply {
    let (position, missing) = (position.to_string().into(), missing.into_iter().map(Into::into).collect());
    RecordReply { position, nodes, clients, missing, ..RecordReply::default() }
}

fn refusal(refused: &RecordRefused) -> RecordReply {
    RecordReply { refused: Some(refused.kind().into()), problem: refused.to_string().into(), ..RecordReply::default() }
}
