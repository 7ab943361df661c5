//! Consumer of another node's messages: relays go to shards, and queries are answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use tracing::{debug, warn};
use trunkline_link::FrameSink;
use trunkline_process::{LinePermit, LogLimit};
use trunkline_protocol::fleet::{BeatPing, NodeMessage, SharedMembership, SharedRevocation, encode_relay};
use trunkline_protocol::service::{
    Ack, ClientInvocation, FrameHead, Ping, RecordRequest, ServiceMessage, ServiceMessageError, Stamped,
};

use super::entry::{answer_for_unknown, take_result};
use super::fleet_core::Fleet;
use super::fleet_member::FleetMember;
use super::fleet_relay::NoReply;
use super::node_link::{DropCause, NodeLink};
use super::peer_request::{PeerRequest, PeerResponse};
use super::take_over::{MoveRequest, TakeOvers};
use crate::engine::link::{FrameSource, RoutedBatch, route, route_counted};
use crate::engine::shard::{Audience, MembershipChange, RequestOrigin, SendOrigin, ShardCommand, no_such_connection};
use crate::engine::upstream::{AppServerId, HubIndex, ReplyTo};
use crate::features::user_group::MembershipNews;
use crate::ground::clock::unix_seconds;

/// Minimum interval between log lines about skipped frames of a link.
const SKIPPED_INTERVAL: Duration = Duration::from_secs(60);

/// Dialling direction of the link that a message arrived on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkDirection {
    /// Dialled by the other node: relays, queries and reports.
    ByIt,
    /// Dialled by this node: answers.
    ByUs,
}

/// Whether to count the receivers of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counting {
    No,
    Receivers,
}

pub(super) struct NodeSink<'a> {
    fleet: &'a Fleet,
    member: &'a Arc<FleetMember>,
    link: &'a Arc<NodeLink>,
    dialled: LinkDirection,
    batch: RoutedBatch,
    /// Limit of log lines about skipped frames.
    warnings: LogLimit,
}

impl<'a> NodeSink<'a> {
    pub(super) fn new(
        fleet: &'a Fleet,
        member: &'a Arc<FleetMember>,
        link: &'a Arc<NodeLink>,
        dialled: LinkDirection,
    ) -> Self {
        let warnings = LogLimit::new(1, SKIPPED_INTERVAL);
        Self { fleet, member, link, dialled, batch: RoutedBatch::for_shards(fleet.shared()), warnings }
    }

    fn handle(&mut self, message: NodeMessage) {
        match (message, self.dialled) {
            (NodeMessage::Relay { hub, frame }, LinkDirection::ByIt) => match read_stamped(&frame) {
                Ok(Some((ServiceMessage::MoveConnection(order), _))) => {
                    TakeOvers::from_fleet(self.fleet).take_announced(
                        self.member.boot().into(),
                        hub,
                        order.connection_id,
                    );
                }
                read => {
                    self.apply(&hub, read, Counting::No, |hub| Arc::new(NoReply(hub)));
                }
            },
            (NodeMessage::Ask { question, hub, frame }, LinkDirection::ByIt) => self.ask(question, &hub, &frame),
            (NodeMessage::Request { question, method, target, body }, LinkDirection::ByIt) => {
                let (fleet, link) = (self.fleet.clone(), self.link.clone());
                tokio::spawn(async move {
                    let PeerResponse { status, body } =
                        fleet.questions().answer_request(PeerRequest { method, target, body }).await;
                    link.notify(&NodeMessage::Response { question, status: status.as_u16(), body });
                });
            }
            (NodeMessage::Move { question, step, hub, connection_id }, LinkDirection::ByIt) => {
                let (fleet, link) = (self.fleet.clone(), self.link.clone());
                let request = MoveRequest { question, step, hub, connection_id };
                tokio::spawn(async move { TakeOvers::from_fleet(&fleet).answer_move(request, link).await });
            }
            (NodeMessage::Moved { question, state }, LinkDirection::ByUs) => {
                self.fleet.questions().moves.take_answer(question, self.member.boot(), state);
            }
            (NodeMessage::State(state), LinkDirection::ByIt) => self.member.set_reported(state),
            (NodeMessage::Interest(update), LinkDirection::ByIt) => self.member.apply_interest(update),
            (NodeMessage::Membership(told), LinkDirection::ByIt) => self.merge_membership(&told),
            (NodeMessage::Revocation(told), LinkDirection::ByIt) => self.merge_revocation(&told),
            (NodeMessage::Presence(update), LinkDirection::ByIt) => self.fleet.presence().apply(self.member, update),
            (NodeMessage::Answer { question, frame }, LinkDirection::ByUs) => {
                let answer = frame.and_then(|frame| ServiceMessage::decode(&frame).ok().flatten());
                self.fleet.questions().asks.take_answer(question, self.member.boot(), answer);
            }
            (NodeMessage::Response { question, status, body }, LinkDirection::ByUs) => {
                self.fleet.questions().requests.take_answer(
                    question,
                    self.member.boot(),
                    PeerResponse::new(status, body),
                );
            }
            (other, _) => debug!(peer = self.member.name(), kind = other.name(), "node message ignored"),
        }
    }

    /// Stores a membership of a user, and adds or removes the user's connections here.
    fn merge_membership(&mut self, told: &SharedMembership) {
        let shared = self.fleet.shared();
        let merged = self.fleet.user_groups().merge(told);
        let merged = merged.inspect_err(|problem| shared.count_refused_membership(&told.hub, problem));
        let change = match merged.unwrap_or(MembershipNews::Nothing) {
            MembershipNews::Begun => MembershipChange::Join(told.group.clone()),
            MembershipNews::Ended => MembershipChange::Leave(told.group.clone()),
            MembershipNews::Nothing => return,
        };
        if let Some(hub) = shared.hubs.keyed(&told.hub) {
            let to = Audience::Users(vec![told.user.clone()]).into();
            self.batch.for_all(ShardCommand::ChangeGroups { hub: hub.index(), to, change, ack: None });
        }
    }

    fn merge_revocation(&self, told: &SharedRevocation) {
        let shared = self.fleet.shared();
        let revocations = &self.fleet.admission().revocations;
        if let Err(problem) = revocations.revoke(told, unix_seconds()) {
            revocations.refused.increment();
            if shared.limits.may_log(shared.uptime()) {
                warn!(
                    peer = self.member.name(),
                    %problem,
                    "revocations of another node can't be stored: its revoked tokens are still accepted here"
                );
            }
        }
        if let Some(user) = told.user.as_ref().filter(|_| told.closed_ms > 0)
            && revocations.note_close(told, told.closed_ms)
        {
            self.close_all_of(user);
        }
    }

    /// Closes the connections of a user, as other nodes did in this node's absence. Newer connections too, because this
    /// node could not check for revoked tokens.
    fn close_all_of(&self, user: &ByteString) {
        for shard in self.fleet.shared().shards() {
            let user = user.clone();
            shard.post(move |state| {
                state.close_revoked(&user);
            });
        }
    }

    /// Answers a query about connections here. An unknown hub has none.
    fn ask(&mut self, question: u64, hub: &str, frame: &Bytes) {
        let (fleet, link) = (self.fleet.clone(), self.link.clone());
        let read = match read_stamped(frame) {
            Ok(Some((ServiceMessage::RecordRequest(request), _))) => {
                return self.request_record(question, hub, request);
            }
            read => read,
        };
        let Some(known) = fleet.shared().hubs.keyed(hub) else {
            let frame = self.answer_for_unknown(hub, read).map(|answer| answer.to_body());
            return link.notify(&NodeMessage::Answer { question, frame });
        };
        let is_known = match read {
            Ok(Some((ServiceMessage::ClientInvocation(request), epoch))) if !known.capabilities().names_callers => {
                self.invoke(question, hub, request, epoch)
            }
            read => {
                let reply_to = |hub| -> Arc<dyn ReplyTo> { Arc::new(NodeReplyTo::new(hub, question, link)) };
                self.apply(hub, read, Counting::Receivers, reply_to)
            }
        };
        if !is_known {
            let frame = match read_stamped(frame) {
                Ok(Some((ServiceMessage::ClientInvocation(request), _))) => Some(no_such_connection(request).to_body()),
                _ => None,
            };
            self.link.notify(&NodeMessage::Answer { question, frame });
        }
    }

    /// Answers a request about a record once it is carried out.
    fn request_record(&self, question: u64, hub: &str, request: RecordRequest) {
        let (shared, link) = (self.fleet.shared(), self.link.clone());
        let reply = shared.recorder().map(|it| it.request_record(hub, request, RequestOrigin::OtherNode));
        tokio::spawn(async move {
            let frame = match reply {
                Some(reply) => {
                    let ack = Ack { payload: Some(reply.await.encode()), ..Ack::default() };
                    Some(ServiceMessage::Ack(ack).to_body())
                }
                None => None,
            };
            link.notify(&NodeMessage::Answer { question, frame });
        });
    }

    fn answer_for_unknown(
        &self,
        hub: &str,
        read: Result<Option<(ServiceMessage, i64)>, ServiceMessageError>,
    ) -> Option<ServiceMessage> {
        match read {
            Ok(Some((ServiceMessage::ClientInvocation(request), _))) => Some(no_such_connection(request)),
            Ok(Some((question, _))) => answer_for_unknown(self.fleet.shared(), hub, &question),
            Ok(None) => None,
            Err(error) => {
                self.note_malformed(&error.to_string());
                None
            }
        }
    }

    /// Invokes a client of a dial-in hub; the result follows the answer. Returns `false` if the client is not here.
    fn invoke(&mut self, question: u64, hub: &str, mut request: ClientInvocation, epoch: i64) -> bool {
        let shared = self.fleet.shared().clone();
        if shared.routes.find(&request.connection_id).is_none() {
            return false;
        }
        self.link.notify(&NodeMessage::Answer { question, frame: None });
        let app = shared.hubs.app_servers.known(&request.caller_server_id).unwrap_or(AppServerId::OTHER_NODE);
        // Routes the result back to the other node, whichever way it arrives.
        request.caller_server_id = self.member.boot().into();
        let (fleet, member) = (self.fleet.clone(), self.member.clone());
        let key = ByteString::from(hub);
        let reply_to = |hub| -> Arc<dyn ReplyTo> { Arc::new(ResultReplyTo { fleet, member, key, hub, app }) };
        self.apply_message(hub, (ServiceMessage::ClientInvocation(request), epoch), Counting::No, reply_to)
    }

    /// Applies a service message as if from an app server. Returns `false` on failure.
    fn apply(
        &mut self,
        hub: &str,
        read: Result<Option<(ServiceMessage, i64)>, ServiceMessageError>,
        counting: Counting,
        reply_to: impl FnOnce(HubIndex) -> Arc<dyn ReplyTo>,
    ) -> bool {
        match read {
            Ok(Some(message)) => self.apply_message(hub, message, counting, reply_to),
            // Message kind of a later version.
            Ok(None) => false,
            Err(error) => self.note_malformed(&error.to_string()),
        }
    }

    fn apply_message(
        &mut self,
        hub: &str,
        (message, epoch): (ServiceMessage, i64),
        counting: Counting,
        reply_to: impl FnOnce(HubIndex) -> Arc<dyn ReplyTo>,
    ) -> bool {
        let (shared, counters) = (self.fleet.shared(), &self.fleet.fleet_relay().relayed);
        let Some(hub) = shared.hubs.keyed(hub) else {
            // The hub may appear later, with clients. Refusals are counted, and there is no waiting caller.
            drop(shared.note_user_groups(hub, &message));
            take_result(shared, &message);
            return false;
        };
        // In other hubs, app servers number their own epochs and send to all nodes.
        let origin = match hub.capabilities().sends_to_all_nodes {
            true => SendOrigin::OtherNode,
            false => SendOrigin::Sender(shared.hubs.number(self.member.boot()), epoch),
        };
        let hub = hub.index();
        let reply_to = reply_to(hub);
        let source = FrameSource { shared, counters, hub, reply_to: &reply_to, origin, filter: None };
        let routed = match counting {
            Counting::Receivers => route_counted(source, message, &mut self.batch),
            Counting::No => route(source, message, &mut self.batch),
        };
        match routed {
            Ok(()) => true,
            Err(problem) => self.note_malformed(&problem),
        }
    }

    fn note_malformed(&self, problem: &str) -> bool {
        self.fleet.fleet_relay().counters.drop_messages(DropCause::Malformed, 1);
        if let Some(LinePermit { left_out }) = self.warnings.take_line() {
            warn!(peer = self.member.name(), problem, left_out, "skipped a frame of a node");
        }
        false
    }
}

impl FrameSink for NodeSink<'_> {
    fn count(&mut self, message: Option<&ServiceMessage>, bytes: usize) {
        let counters = &self.fleet.fleet_relay().counters;
        counters.received_bytes.add(bytes as u64);
        if !matches!(message, Some(ServiceMessage::Ping(_))) {
            counters.received.increment();
        }
    }

    fn handle_ping(&mut self, ping: &Ping) {
        match BeatPing::from_ping(ping) {
            BeatPing::Asked(back) => {
                if self.dialled == LinkDirection::ByUs {
                    self.member.note_echo(self.fleet.members().now_ms());
                }
                self.link.outbox().echo(&back);
            }
            BeatPing::Answered(number) => {
                let asked_ms = self.link.take_answer(number);
                match (self.dialled, asked_ms) {
                    // By now it has sent all its interest over its own link.
                    (LinkDirection::ByIt, Some(asked_ms)) => self.member.confirm(asked_ms),
                    // And over this link it has received everything sent earlier.
                    (LinkDirection::ByUs, _) => self.fleet.members().note_beat(self.member, number),
                    (LinkDirection::ByIt, None) => {}
                }
            }
            BeatPing::Other => {}
        }
    }

    fn handle_frame(&mut self, body: &Bytes, message: Option<ServiceMessage>) -> Result<(), String> {
        // Node messages use numbers outside the service protocol.
        if let Some(message) = message {
            return Err(format!("a node must not send {} outside of a relay", message.name()));
        }
        if let Some(message) = NodeMessage::decode(body).map_err(|error| error.to_string())? {
            self.handle(message);
        }
        Ok(())
    }

    fn handle_skipped(&mut self, _head: &FrameHead, problem: &str) {
        self.note_malformed(problem);
    }

    async fn end_batch(&mut self, bytes: usize) {
        let shared = self.fleet.shared();
        std::mem::replace(&mut self.batch, RoutedBatch::for_shards(shared)).give(shared, bytes).await;
    }
}

/// Decodes a relayed message and the epoch in which it entered the fleet.
fn read_stamped(frame: &Bytes) -> Result<Option<(ServiceMessage, i64)>, ServiceMessageError> {
    Ok(match ServiceMessage::decode(frame)? {
        Some(ServiceMessage::Stamped(Stamped { epoch, body })) => {
            ServiceMessage::decode(&body)?.map(|message| (message, epoch))
        }
        message => message.map(|message| (message, 0)),
    })
}

/// Reply handle for a query of another node. Sends one reply: the first answer, or that there is none.
#[derive(Debug)]
struct NodeReplyTo {
    hub: HubIndex,
    question: u64,
    link: Arc<NodeLink>,
    is_answered: AtomicBool,
}

impl NodeReplyTo {
    fn new(hub: HubIndex, question: u64, link: Arc<NodeLink>) -> Self {
        Self { hub, question, link, is_answered: AtomicBool::new(false) }
    }

    fn answer_once(&self, frame: Option<Bytes>) {
        if self.is_answered.swap(true, Ordering::Relaxed) {
            return;
        }
        self.link.notify(&NodeMessage::Answer { question: self.question, frame });
    }
}

impl ReplyTo for NodeReplyTo {
    fn hub(&self) -> HubIndex {
        self.hub
    }

    fn app(&self) -> AppServerId {
        AppServerId::OTHER_NODE
    }

    fn answer(&self, message: &ServiceMessage) {
        self.answer_once(Some(message.to_body()));
    }
}

/// Reply handle of a client invocation from an app server linked to another node, which gets the result.
#[derive(Debug)]
struct ResultReplyTo {
    fleet: Fleet,
    member: Arc<FleetMember>,
    /// Fleet-wide key of the hub.
    key: ByteString,
    hub: HubIndex,
    app: AppServerId,
}

impl ReplyTo for ResultReplyTo {
    fn hub(&self) -> HubIndex {
        self.hub
    }

    /// The querying app server. If it owns the client, no other server is notified.
    fn app(&self) -> AppServerId {
        self.app
    }

    fn answer(&self, message: &ServiceMessage) {
        let mut frame = BytesMut::new();
        encode_relay(&self.key, &message.to_body(), &mut frame);
        let relay = self.fleet.fleet_relay();
        relay.pass_to(&self.member, &relay.owner_of(&self.key), &frame);
    }
}

impl Drop for NodeReplyTo {
    fn drop(&mut self) {
        self.answer_once(None);
    }
}
