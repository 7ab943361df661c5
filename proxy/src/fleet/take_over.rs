//! Take-overs of client connections: what a node asks the others when a client comes back that is not its own, and what it
//! answers itself.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::debug;
use trunkline_protocol::fleet::{MoveStep, MovedState, MovingConnection, NodeMessage, encode_relay};
use trunkline_protocol::service::{ConnectionMoved, ServiceMessage};

use super::fleet_member::{FleetMember, MemberState};
use super::node_link::NodeLink;
use super::{ANSWER_TIMEOUT, Fleet};
use crate::shard::{AnnouncedMove, ShardSender, TakeOver, TakenOver, short};
use crate::upstream::Hub;

/// Time in which the other nodes say whether they have a connection. One that is frozen has others wait for no longer.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// Time in which a late node says so, once all others have answered. It has been silent for seconds, so its client is better
/// off with a new connection.
const LATE_LOOK_TIMEOUT: Duration = Duration::from_millis(300);

/// Request for a connection, of one step.
#[derive(Debug, Clone)]
pub(super) struct MoveRequest {
    pub(super) question: u64,
    pub(super) step: MoveStep,
    pub(super) hub: ByteString,
    pub(super) connection_id: ByteString,
}

impl Fleet {
    /// Takes a connection over from the node that has it; it is at this shard then, without a socket.
    pub(super) fn take_over_for(&self, hub: Arc<Hub>, connection_id: String, shard: ShardSender) -> TakeOver {
        let fleet = self.clone();
        let Some(runtime) = self.0.runtime.get() else { return Box::pin(async { TakenOver::Nowhere }) };
        // Once begun it is finished, whether or not the client still waits.
        let task = runtime.spawn(async move { fleet.take_over_now(&hub, &connection_id, &shard).await });
        Box::pin(async move { task.await.unwrap_or(TakenOver::Failed) })
    }

    async fn take_over_now(&self, hub: &Arc<Hub>, id: &str, shard: &ShardSender) -> TakenOver {
        let members: Vec<_> = self.members().iter().filter(|member| member.is_linked()).cloned().collect();
        let Some((owner, moving)) =
            self.ask_for(MoveStep::Look, hub, id, members, (LOOK_TIMEOUT, LATE_LOOK_TIMEOUT)).await
        else {
            return TakenOver::Nowhere;
        };
        let Ok(moving) = MovingConnection::decode(&moving) else { return TakenOver::Failed };
        let (index, settings, own_id, known) = (hub.index(), hub.settings(), id.to_owned(), moving.clone());
        let arrived = shard.inspect(move |state| state.arrive(index, &settings, &own_id, &known)).await.flatten();
        let Some(place) = arrived else {
            debug!(
                hub = hub.name(),
                connection = short(id),
                peer = owner.name(),
                "its app server is not reached from here"
            );
            return TakenOver::Failed;
        };
        if hub.is_of_door() && timeout(LOOK_TIMEOUT, self.be_known()).await.is_err() {
            debug!(hub = hub.name(), connection = short(id), "other nodes don't know in time what is wanted here");
            shard.post(move |state| state.give_up_arrival(place));
            return TakenOver::Failed;
        }
        let taken = self.ask_for(MoveStep::Take, hub, id, vec![owner.clone()], (ANSWER_TIMEOUT, ANSWER_TIMEOUT)).await;
        let state = taken.and_then(|(_, state)| MovedState::decode(&state).ok());
        let settled = match state {
            Some(state) => shard.inspect(move |shard| shard.settle(place, index, (&moving, state))).await == Some(true),
            None => false,
        };
        if settled {
            self.tell_of(MoveStep::Arrived, hub, id, &owner);
            debug!(hub = hub.name(), connection = short(id), peer = owner.name(), "a client connection has arrived");
            return TakenOver::Here(place.0, place.1);
        }
        debug!(hub = hub.name(), connection = short(id), peer = owner.name(), "a client connection has not arrived");
        shard.post(move |state| state.give_up_arrival(place));
        TakenOver::Failed
    }

    /// Waits until the other nodes know what is wanted here: at the door they pass it on.
    async fn be_known(&self) {
        let (known, is_known) = oneshot::channel();
        // It fails when the client waits no more.
        self.when_settled(move || known.send(()).unwrap_or_default());
        drop(is_known.await);
    }

    /// Begins a new epoch of this node for a connection that is about to leave another one, or this one, and tells that node
    /// behind all sends that have entered the fleet here before.
    pub(super) fn begin_epoch(&self, owner: ByteString, hub: ByteString, connection_id: ByteString) {
        let announced = AnnouncedMove { owner, hub, connection_id };
        match (self.shared().moves.push(announced), self.0.runtime.get()) {
            (Ok(true), Some(runtime)) => {
                let fleet = self.clone();
                drop(runtime.spawn(async move { fleet.answer_announced().await }));
            }
            (Ok(_), _) => {}
            (Err(error), _) => debug!(%error, "a client connection can't move"),
        }
    }

    async fn answer_announced(&self) {
        let shared = self.shared();
        while let Some((epoch, moves)) = shared.moves.next_moves().await {
            for AnnouncedMove { owner, hub, connection_id } in moves {
                if let Some(member) = self.member(&owner) {
                    let answer = ServiceMessage::ConnectionMoved(ConnectionMoved { connection_id, epoch });
                    let mut frame = BytesMut::new();
                    encode_relay(&hub, &answer.to_body(), &mut frame);
                    self.pass_to(&member, &frame);
                } else if let Some(location) = shared.routes.find(&connection_id)
                    && let Some(shard) = shared.shards().get(usize::from(location.shard))
                    && let Some(hub) = shared.hubs.keyed(&hub).map(|hub| hub.index())
                {
                    let own = shared.origin;
                    shard.post(move |state| state.move_answered_for(hub, &connection_id, own, epoch));
                }
            }
        }
    }

    /// Asks members for a connection: the first that has it, and what it says. Late ones may take less time than others.
    async fn ask_for(
        &self,
        step: MoveStep,
        hub: &Hub,
        id: &str,
        asked: Vec<Arc<FleetMember>>,
        within: (Duration, Duration),
    ) -> Option<(Arc<FleetMember>, Bytes)> {
        let question = self.0.moves.open()?;
        let frame = move_frame(question.number(), step, hub, id);
        let sent: Vec<_> = asked.into_iter().filter(|member| self.send(member, &frame).is_ok()).collect();
        let now_ms = self.now_ms();
        question.first_some(sent, |member| member.state(now_ms) == MemberState::Late, within).await
    }

    fn tell_of(&self, step: MoveStep, hub: &Hub, id: &str, member: &FleetMember) {
        if let Some(link) = member.outgoing() {
            link.tell(&NodeMessage::Move { question: 0, step, hub: hub.key().into(), connection_id: id.into() });
        }
    }

    /// Answers another node that asks for a connection.
    pub(super) async fn answer_move(&self, request: MoveRequest, link: Arc<NodeLink>) {
        let MoveRequest { question, step, hub, connection_id } = request;
        let shared = self.shared();
        let index = shared.hubs.keyed(&hub).map(|hub| hub.index());
        let location = shared.routes.find(&connection_id);
        let shard = location.and_then(|location| shared.shards().get(usize::from(location.shard)));
        let state = match (index, shard, step) {
            (Some(hub), Some(shard), MoveStep::Look) => {
                let looked = shard.inspect(move |state| state.look(hub, &connection_id)).await.flatten();
                looked.map(|moving| moving.encode())
            }
            (Some(hub), Some(shard), MoveStep::Take) => {
                let (answer, answered) = oneshot::channel();
                shard.post(move |state| state.depart(hub, &connection_id, answer));
                answered.await.ok().flatten()
            }
            (Some(hub), Some(shard), MoveStep::Arrived) => {
                return shard.post(move |state| state.forget_moved(hub, &connection_id));
            }
            _ => None,
        };
        link.tell(&NodeMessage::Moved { question, state });
    }
}

fn move_frame(question: u64, step: MoveStep, hub: &Hub, id: &str) -> Bytes {
    NodeMessage::Move { question, step, hub: hub.key().into(), connection_id: id.into() }.to_frame()
}
