//! Take-over of client connections: queries to other nodes when a client reconnects here, and answers to their queries.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::debug;
use trunkline_protocol::fleet::{MoveStep, MovedState, MovingConnection, NodeMessage, encode_relay};
use trunkline_protocol::limits::INTEREST_STALE_MS;
use trunkline_protocol::service::{ConnectionMoved, MoveConnection, ServiceMessage};

use super::fleet_core::Fleet;
use super::fleet_member::{FleetMember, MemberState};
use super::fleet_relay::relayed;
use super::node_link::NodeLink;
use super::node_question::ANSWER_TIMEOUT;
use super::question::FirstAnswer;
use crate::engine::shard::{
    AnnouncedMove, Reachability, ShardSender, Slot, SoughtConnection, TakeOver, TakenOver, moving, short,
};
use crate::engine::upstream::{Hub, LinkHandle};
use crate::ground::auth::Signer;

/// Timeout for finding a connection at other nodes. A frozen node delays the client no longer than this.
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);

/// Timeout for a late node once all others have answered. The node has been silent for seconds, so a new connection
/// serves its client better.
const LATE_LOOK_TIMEOUT: Duration = Duration::from_millis(300);

/// Lag from which a node gets the timeout of a late one, before it counts as late.
const LOOK_LAG_MS: u64 = 1_500;

/// Time until other nodes have this node's interest or count as late; the wait then ends.
const KNOWN_TIMEOUT: Duration = Duration::from_millis(INTEREST_STALE_MS + 500);

/// Limit of the wait for late messages from the old node, which keeps the connection for longer.
const REST_TIMEOUT: Duration = Duration::from_secs(2);

/// One step of a take-over request.
#[derive(Debug, Clone)]
pub(super) struct MoveRequest {
    pub(super) question: u64,
    pub(super) step: MoveStep,
    pub(super) hub: ByteString,
    pub(super) connection_id: ByteString,
}

#[derive(Debug, Clone)]
pub(super) struct TakeOvers(Fleet);

impl TakeOvers {
    pub(super) fn from_fleet(fleet: &Fleet) -> Self {
        Self(fleet.clone())
    }

    /// Takes over a connection from its owner. Afterwards it is at this shard, without a socket.
    pub(super) fn begin_take_over(
        &self,
        hub: Arc<Hub>,
        connection_id: String,
        shard: ShardSender,
        sought: SoughtConnection,
    ) -> TakeOver {
        let these = self.clone();
        let Some(runtime) = self.0.runtime().get() else { return Box::pin(async { TakenOver::Nowhere }) };
        // Runs to completion, even if the client leaves.
        let task = runtime.spawn(async move { these.take_over_now(&hub, &connection_id, &shard, sought).await });
        Box::pin(async move { task.await.unwrap_or(TakenOver::Failed) })
    }

    /// Whether the node with this boot id is reachable now.
    pub(super) fn reachability(&self, boot: &str) -> Reachability {
        match self
            .0
            .members()
            .find(boot)
            .map(|member| (member.links.are_complete(), member.state(self.0.members().now_ms())))
        {
            None if self.0.members().is_alone() => Reachability::Alone,
            None => Reachability::Unknown,
            Some((_, MemberState::Unreachable)) => Reachability::Refused,
            Some((true, MemberState::Starting | MemberState::Ready | MemberState::Draining)) => Reachability::Alive,
            Some(_) => Reachability::Late,
        }
    }

    fn inspect_timeout(&self, member: &FleetMember, sought: SoughtConnection) -> Duration {
        let now_ms = self.0.members().now_ms();
        let is_late = match member.state(now_ms) {
            MemberState::Unreachable => return Duration::ZERO,
            MemberState::Late => true,
            MemberState::Starting | MemberState::Ready | MemberState::Draining => {
                member.links.lag_ms(now_ms) > LOOK_LAG_MS
            }
        };
        match (is_late, sought) {
            (true, SoughtConnection::New) => Duration::ZERO,
            (true, SoughtConnection::Return) | (false, SoughtConnection::New) => LATE_LOOK_TIMEOUT,
            (false, SoughtConnection::Return) => LOOK_TIMEOUT,
        }
    }

    async fn take_over_now(
        &self,
        hub: &Arc<Hub>,
        id: &str,
        shard: &ShardSender,
        sought: SoughtConnection,
    ) -> TakenOver {
        let members: Vec<_> =
            self.0.members().all().iter().filter(|member| member.links.are_complete()).cloned().collect();
        let inspect_timeout = |member: &FleetMember| self.inspect_timeout(member, sought);
        let (owner, moving) = match self.ask_for(MoveStep::Inspect, hub, id, members, inspect_timeout).await {
            FirstAnswer::Found(owner, moving) => (owner, moving),
            FirstAnswer::NotFound => return TakenOver::Nowhere,
            FirstAnswer::Unclear => return TakenOver::Unclear,
        };
        let Ok(moving) = MovingConnection::decode(&moving) else { return TakenOver::Failed };
        let (index, settings, own_id, known) = (hub.index(), hub.settings(), id.to_owned(), moving.clone());
        let arrived =
            shard.inspect(move |state| moving::arrive(state, index, &settings, &own_id, &known)).await.flatten();
        let Some(place) = arrived else {
            debug!(
                hub = hub.name(),
                connection = short(id),
                peer = owner.name(),
                "its app server is not reachable from this node, or the connection is about to close"
            );
            return TakenOver::Failed;
        };
        if !hub.capabilities().sends_to_all_nodes && timeout(KNOWN_TIMEOUT, self.be_known()).await.is_err() {
            debug!(
                hub = hub.name(),
                connection = short(id),
                "other nodes did not receive this node's subscriptions in time"
            );
            shard.post(move |state| moving::give_up_arrival(state, place));
            return TakenOver::Failed;
        }
        let taken = self.ask_for(MoveStep::Take, hub, id, vec![owner.clone()], |_| ANSWER_TIMEOUT).await;
        let state = match taken {
            FirstAnswer::Found(_, state) => MovedState::decode(&state).ok(),
            FirstAnswer::NotFound | FirstAnswer::Unclear => None,
        };
        let settled = match state {
            Some(moved) => {
                shard.inspect(move |state| moving::settle(state, place, index, (&moving, moved))).await.flatten()
            }
            None => None,
        };
        if let Some(home) = settled {
            if !home.capabilities.sends_to_all_nodes
                && timeout(REST_TIMEOUT, self.await_rest(&home, (hub, id), (shard, place.0), &owner)).await.is_err()
            {
                debug!(
                    hub = hub.name(),
                    connection = short(id),
                    peer = owner.name(),
                    "move of a client connection timed out"
                );
            }
            self.notify_of(MoveStep::Arrived, hub, id, &owner);
            debug!(hub = hub.name(), connection = short(id), peer = owner.name(), "client connection moved here");
            return TakenOver::Here(place.0, place.1);
        }
        debug!(hub = hub.name(), connection = short(id), peer = owner.name(), "client connection could not move here");
        shard.post(move |state| moving::give_up_arrival(state, place));
        TakenOver::Failed
    }

    /// Waits until the old node has relayed the sends from before the app server received the resume. By dial-in, the
    /// app server pauses only answers to calls.
    async fn await_rest(
        &self,
        home: &LinkHandle,
        (hub, id): (&Hub, &str),
        (shard, slot): (&ShardSender, Slot),
        owner: &FleetMember,
    ) {
        home.fence().await;
        let (rest, has_come) = oneshot::channel();
        shard.post(move |state| moving::await_rest(state, slot, rest));
        let order = ServiceMessage::MoveConnection(MoveConnection { connection_id: id.into() });
        self.0.fleet_relay().pass_to(owner, &Signer::Fleet, &relayed(hub.key(), &order, 0));
        drop(has_come.await);
    }

    /// Waits until all other nodes have confirmed this node's subscriptions (dial-in only), and so relay messages for
    /// its clients.
    async fn be_known(&self) {
        let (known, is_known) = oneshot::channel();
        // Fails when the client stops waiting.
        let Some(interest) = self.0.members().interest() else { return };
        interest.when_all_acknowledged(move || known.send(()).unwrap_or_default());
        drop(is_known.await);
    }

    /// Answers an announced take-over, as the current owner or as the node that has just taken the connection from this
    /// one; in that case, after all earlier sends of the app server.
    pub(super) fn take_announced(&self, owner: ByteString, hub: ByteString, connection_id: ByteString) {
        let shared = self.0.shared();
        let index = shared.hubs.keyed(&hub).map(|hub| hub.index());
        let shard = shared.routes.find(&connection_id).and_then(|place| shared.shards().get(usize::from(place.shard)));
        let (Some(index), Some(shard), Some(runtime)) = (index, shard.cloned(), self.0.runtime().get()) else {
            return self.begin_epoch(owner, hub, connection_id);
        };
        let (these, id) = (self.clone(), connection_id.clone());
        drop(runtime.spawn(async move {
            let home = shard.inspect(move |state| moving::home_of_given(state, index, &id)).await;
            if let Some(home) = home.flatten() {
                drop(timeout(REST_TIMEOUT, home.fence()).await);
            }
            these.begin_epoch(owner, hub, connection_id);
        }));
    }

    /// Begins an epoch of this node for a connection about to leave its owner, and notifies the owner after all earlier
    /// sends.
    pub(super) fn begin_epoch(&self, owner: ByteString, hub: ByteString, connection_id: ByteString) {
        let announced = AnnouncedMove { owner, hub, connection_id };
        match (self.0.shared().fleet.moves.push(announced), self.0.runtime().get()) {
            (Ok(true), Some(runtime)) => {
                let these = self.clone();
                drop(runtime.spawn(async move { these.answer_announced().await }));
            }
            (Ok(_), _) => {}
            (Err(error), _) => debug!(%error, "client connection can't move to another node"),
        }
    }

    async fn answer_announced(&self) {
        let shared = self.0.shared();
        while let Some((epoch, moves)) = shared.fleet.moves.next_moves().await {
            for AnnouncedMove { owner, hub, connection_id } in moves {
                if let Some(member) = self.0.members().find(&owner) {
                    let answer = ServiceMessage::ConnectionMoved(ConnectionMoved { connection_id, epoch });
                    let mut frame = BytesMut::new();
                    encode_relay(&hub, &answer.to_body(), &mut frame);
                    self.0.fleet_relay().pass_to(&member, &Signer::Fleet, &frame);
                } else if let Some(location) = shared.routes.find(&connection_id)
                    && let Some(shard) = shared.shards().get(usize::from(location.shard))
                    && let Some(hub) = shared.hubs.keyed(&hub).map(|hub| hub.index())
                {
                    let own = shared.fleet.origin;
                    shard.post(move |state| moving::move_answered_for(state, hub, &connection_id, own, epoch));
                }
            }
        }
    }

    /// Queries members for a connection; returns the first owner and its answer. `time` is each member's timeout.
    async fn ask_for(
        &self,
        step: MoveStep,
        hub: &Hub,
        id: &str,
        asked: Vec<Arc<FleetMember>>,
        time: impl Fn(&FleetMember) -> Duration,
    ) -> FirstAnswer<Bytes> {
        let Some(question) = self.0.questions().moves.open_question() else { return FirstAnswer::Unclear };
        let frame = move_frame(question.number(), step, hub, id);
        let total = asked.len();
        let is_asked =
            |member: &Arc<FleetMember>| !time(member).is_zero() && member.links.send(&Signer::Fleet, &frame).is_ok();
        let sent: Vec<_> = asked.into_iter().filter(is_asked).collect();
        let are_all_asked = sent.len() == total;
        match question.first_some(sent, time).await {
            FirstAnswer::NotFound if !are_all_asked => FirstAnswer::Unclear,
            answer => answer,
        }
    }

    fn notify_of(&self, step: MoveStep, hub: &Hub, id: &str, member: &FleetMember) {
        if let Some(link) = member.links.outgoing() {
            link.notify(&NodeMessage::Move { question: 0, step, hub: hub.key().into(), connection_id: id.into() });
        }
    }

    pub(super) async fn answer_move(&self, request: MoveRequest, link: Arc<NodeLink>) {
        let MoveRequest { question, step, hub, connection_id } = request;
        let shared = self.0.shared();
        let index = shared.hubs.keyed(&hub).map(|hub| hub.index());
        let location = shared.routes.find(&connection_id);
        let shard = location.and_then(|location| shared.shards().get(usize::from(location.shard)));
        let state = match (index, shard, step) {
            (Some(hub), Some(shard), MoveStep::Inspect) => {
                let looked = shard.inspect(move |state| moving::inspect(state, hub, &connection_id)).await.flatten();
                looked.map(|moving| moving.encode())
            }
            (Some(hub), Some(shard), MoveStep::Take) => {
                let (answer, answered) = oneshot::channel();
                shard.post(move |state| moving::move_out(state, hub, &connection_id, answer));
                answered.await.ok().flatten()
            }
            (Some(hub), Some(shard), MoveStep::Arrived) => {
                return shard.post(move |state| moving::remove_moved(state, hub, &connection_id));
            }
            _ => None,
        };
        link.notify(&NodeMessage::Moved { question, state });
    }
}

fn move_frame(question: u64, step: MoveStep, hub: &Hub, id: &str) -> Bytes {
    NodeMessage::Move { question, step, hub: hub.key().into(), connection_id: id.into() }.to_frame()
}
