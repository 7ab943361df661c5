//! Route a frame of an app server: which commands it makes, and which shards they concern.
//!
//! One connection concerns the shard that owns it; a group, a user or all concern every shard, because each
//! keeps its own members. Frames are read and framed once, here, however many shards there are.

use std::sync::Arc;

use bytestring::ByteString;
use tracing::info;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::manifest::{CAUSE_HEADER, MIGRATE_TO_HEADER};
use trunkline_protocol::service::{
    ClientInvocation, CloseWithAck, ConnectionFlowControl, FlowOperation, FlowSubject, GroupChange, GroupMemberQuery,
    Payloads, RawKind, ServiceMessage, UserGroupChange,
};

use crate::metrics::SendKind;
use crate::shard::Location;
use crate::shard::{Audience, ConnectionCommand, Framed, MembershipChange, PendingAck, Receivers, ShardCommand};
use crate::shard::{MemberListing, MemberTally, Shard, no_such_connection};
use crate::upstream::LinkHandle;

/// The commands of one batch of frames, by shard.
#[derive(Debug)]
pub(super) struct RoutedBatch {
    commands: Vec<Vec<ShardCommand>>,
    has_begun: bool,
}

impl RoutedBatch {
    /// A batch without frames yet. A link waits with it until there are some, so it holds nothing that others could use.
    pub(super) fn of(shard: &Shard) -> Self {
        Self { commands: vec![Vec::new(); shard.shared().shards().len()], has_begun: false }
    }

    /// A frame has come, which this shard read: from the first one on the batch needs the shard's list.
    pub(super) fn begin(&mut self, shard: &Shard) {
        if !std::mem::replace(&mut self.has_begun, true)
            && let Some(own) = self.commands.get_mut(usize::from(shard.index()))
        {
            *own = shard.spare_commands();
        }
    }

    pub(super) fn into_commands(self) -> Vec<Vec<ShardCommand>> {
        self.commands
    }

    fn for_all(&mut self, command: ShardCommand) {
        let Some((last, others)) = self.commands.split_last_mut() else { return };
        others.iter_mut().for_each(|commands| commands.push(command.clone()));
        last.push(command);
    }

    fn for_shard(&mut self, shard: u16, command: ShardCommand) {
        if let Some(commands) = self.commands.get_mut(usize::from(shard)) {
            commands.push(command);
        }
    }

    /// Adds a command for the shard that owns a connection; drops it when none does.
    fn for_owner(&mut self, shard: &Shard, link: &LinkHandle, connection_id: ByteString, act: ConnectionCommand) {
        match shard.shared().routes.find(&connection_id) {
            Some(Location { shard, slot }) => {
                let (hub, app) = (link.hub(), link.app());
                self.for_shard(shard, ShardCommand::One { hub, app, connection_id, slot, command: act });
            }
            None => shard.counters().unknown_receivers.increment(),
        }
    }
}

/// Routes one frame into the batch.
///
/// # Errors
/// When an app server must not send such a frame, naming it.
pub(super) fn route(
    shard: &Shard,
    link: &Arc<LinkHandle>,
    message: ServiceMessage,
    batch: &mut RoutedBatch,
) -> Result<(), String> {
    let hub = link.hub();
    let sends = &shard.counters().sends;
    let mut send = |kind: SendKind, to: Receivers, payloads: &Payloads| {
        sends.of(kind).add_alone(1);
        batch.for_all(ShardCommand::Send { hub, to, message: Framed::new(payloads) });
    };
    match message {
        ServiceMessage::ConnectionData(data) => {
            sends.of(SendKind::Connection).add_alone(1);
            let kind = RawKind::from_data_type(data.data_type);
            batch.for_owner(shard, link, data.connection_id, ConnectionCommand::Data { payload: data.payload, kind });
        }
        ServiceMessage::MultiConnectionData(data) => {
            sends.of(SendKind::Connections).add_alone(1);
            send_to_connections(shard, link, data.connection_ids, &data.payloads, batch);
        }
        ServiceMessage::BroadcastData(data) => {
            send(SendKind::All, Receivers { excluded: data.excluded, ..Audience::Everyone.into() }, &data.payloads);
        }
        ServiceMessage::GroupBroadcastData(data) => {
            let (excluded, excluded_users) = (data.excluded, data.excluded_users);
            send(
                SendKind::Groups,
                Receivers { who: Audience::Groups(vec![data.group]), excluded, excluded_users },
                &data.payloads,
            );
        }
        ServiceMessage::MultiGroupBroadcastData(data) => {
            send(SendKind::Groups, Audience::Groups(data.groups).into(), &data.payloads);
        }
        ServiceMessage::UserData(data) => {
            send(SendKind::Users, Audience::Users(vec![data.user_id]).into(), &data.payloads)
        }
        ServiceMessage::MultiUserData(data) => {
            send(SendKind::Users, Audience::Users(data.user_ids).into(), &data.payloads)
        }
        ServiceMessage::CloseConnection(close) => {
            let is_handed_over = close.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(MIGRATE_TO_HEADER));
            if is_handed_over && shard.shared().routes.find(&close.connection_id).is_none() {
                let (app, connection_id) = (link.app(), close.connection_id);
                batch.for_all(ShardCommand::GivenAway { hub, app, connection_id });
                return Ok(());
            }
            let act = match is_handed_over {
                true => ConnectionCommand::HandOver { headers: close.headers },
                false => ConnectionCommand::Close { error: close.error, cause: named_cause(&close.headers) },
            };
            batch.for_owner(shard, link, close.connection_id, act);
        }
        ServiceMessage::ConnectionFlowControl(flow) => control_flow(shard, link, flow, batch),
        other => return route_rare(shard, link, other, batch),
    }
    Ok(())
}

/// Why the app server closes a connection, if it says so in a word that we know.
fn named_cause(headers: &[(ByteString, Vec<ByteString>)]) -> Option<Cause> {
    let (_, values) = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(CAUSE_HEADER))?;
    Cause::from_label(values.first()?).filter(|cause| cause.closes())
}

/// Routes the rare frames.
fn route_rare(
    shard: &Shard,
    link: &Arc<LinkHandle>,
    message: ServiceMessage,
    batch: &mut RoutedBatch,
) -> Result<(), String> {
    let ack = |ack_id| PendingAck::new(link.clone(), ack_id);
    match message {
        ServiceMessage::JoinGroup(change) => change_group(shard, link, change, GroupOperation::Join, None, batch),
        ServiceMessage::LeaveGroup(change) => change_group(shard, link, change, GroupOperation::Leave, None, batch),
        ServiceMessage::JoinGroupWithAck(change) => {
            let ack = ack(change.ack_id);
            change_group(shard, link, change, GroupOperation::Join, Some(ack), batch);
        }
        ServiceMessage::LeaveGroupWithAck(change) => {
            let ack = ack(change.ack_id);
            change_group(shard, link, change, GroupOperation::Leave, Some(ack), batch);
        }
        ServiceMessage::UserJoinGroup(change) => change_user_group(link, change, GroupOperation::Join, None, batch),
        ServiceMessage::UserLeaveGroup(change) => change_user_group(link, change, GroupOperation::Leave, None, batch),
        ServiceMessage::UserJoinGroupWithAck(change) => {
            let ack = ack(change.ack_id);
            change_user_group(link, change, GroupOperation::Join, Some(ack), batch);
        }
        ServiceMessage::UserLeaveGroupWithAck(change) => {
            let ack = ack(change.ack_id);
            change_user_group(link, change, GroupOperation::Leave, Some(ack), batch);
        }
        ServiceMessage::CheckConnectionExistenceWithAck(check) => {
            self::check(link, Audience::Connections(vec![check.subject]), None, check.ack_id, batch);
        }
        ServiceMessage::CheckGroupExistenceWithAck(check) => {
            self::check(link, Audience::Groups(vec![check.subject]), None, check.ack_id, batch);
        }
        ServiceMessage::CheckUserExistenceWithAck(check) => {
            self::check(link, Audience::Users(vec![check.subject]), None, check.ack_id, batch);
        }
        ServiceMessage::CheckUserInGroupWithAck(check) => {
            self::check(link, Audience::Users(vec![check.user_id]), Some(check.group), check.ack_id, batch);
        }
        ServiceMessage::GroupMemberQuery(query) => query_members(shard, link, query, batch),
        ServiceMessage::CloseConnectionWithAck(close) => {
            close_many(link, Audience::Connections(vec![close.subject.clone()]), close, batch);
        }
        ServiceMessage::CloseConnectionsWithAck(close) => close_many(link, Audience::Everyone, close, batch),
        ServiceMessage::CloseUserConnectionsWithAck(close) => {
            close_many(link, Audience::Users(vec![close.subject.clone()]), close, batch);
        }
        ServiceMessage::CloseGroupConnectionsWithAck(close) => {
            close_many(link, Audience::Groups(vec![close.subject.clone()]), close, batch);
        }
        ServiceMessage::ClientInvocation(question) => invoke_client(shard, link, question, batch),
        ServiceMessage::ClientCompletion(answer) => {
            let caller = answer.caller_server_id.clone();
            pass_result(shard, link, &caller, &ServiceMessage::ClientCompletion(answer));
        }
        ServiceMessage::ErrorCompletion(answer) => {
            let caller = answer.caller_server_id.clone();
            pass_result(shard, link, &caller, &ServiceMessage::ErrorCompletion(answer));
        }
        other => return refuse(&other),
    }
    Ok(())
}

fn invoke_client(shard: &Shard, link: &Arc<LinkHandle>, question: ClientInvocation, batch: &mut RoutedBatch) {
    let id = question.connection_id.clone();
    if shard.shared().routes.find(&id).is_none() {
        return link.send(&no_such_connection(question));
    }
    batch.for_owner(shard, link, id, ConnectionCommand::Invoke { link: link.clone(), request: question });
}

/// Passes a client result on to the app server that invoked the client; if that is gone, nobody waits for it.
fn pass_result(shard: &Shard, link: &LinkHandle, caller: &str, answer: &ServiceMessage) {
    let hubs = shard.shared().hubs.all();
    let Some(hub) = hubs.get(link.hub().get()) else { return };
    let pools = hub.pools();
    let caller_pool = pools.iter().find(|pool| pool.app().instance == caller);
    if let Some(link) = caller_pool.and_then(|pool| pool.any_link()) {
        link.send(answer);
    }
}

/// Frames that mean nothing here are skipped; those that only a proxy may send break the protocol.
fn refuse(message: &ServiceMessage) -> Result<(), String> {
    match message {
        ServiceMessage::HandshakeRequest(_)
        | ServiceMessage::HandshakeResponse(_)
        | ServiceMessage::OpenConnection(_)
        | ServiceMessage::Ack(_) => {
            Err(format!("the app server sent {} ({}), which it must not", message.name(), message.number()))
        }
        _ => Ok(()),
    }
}

/// Each shard gets the ids that it owns; framed once.
fn send_to_connections(
    shard: &Shard,
    link: &Arc<LinkHandle>,
    ids: Vec<ByteString>,
    payloads: &Payloads,
    batch: &mut RoutedBatch,
) {
    let mut by_shard: Vec<Vec<ByteString>> = vec![Vec::new(); batch.commands.len()];
    for id in ids {
        let owner = shard.shared().routes.find(&id).and_then(|place| by_shard.get_mut(usize::from(place.shard)));
        match owner {
            Some(ids) => ids.push(id),
            None => shard.counters().unknown_receivers.increment(),
        }
    }
    let message = Framed::new(payloads);
    for (commands, ids) in batch.commands.iter_mut().zip(by_shard).filter(|(_, ids)| !ids.is_empty()) {
        let to = Audience::Connections(ids).into();
        commands.push(ShardCommand::Send { hub: link.hub(), to, message: message.clone() });
    }
}

#[derive(Debug, Clone, Copy)]
enum GroupOperation {
    Join,
    Leave,
}

impl GroupOperation {
    /// Joining no group means nothing; leaving no group means leaving all.
    fn command(self, group: Option<ByteString>) -> Option<MembershipChange> {
        match (self, group) {
            (GroupOperation::Join, group) => group.map(MembershipChange::Join),
            (GroupOperation::Leave, Some(group)) => Some(MembershipChange::Leave(group)),
            (GroupOperation::Leave, None) => Some(MembershipChange::LeaveAll),
        }
    }
}

fn change_group(
    shard: &Shard,
    link: &LinkHandle,
    GroupChange { connection_id, group, .. }: GroupChange,
    change: GroupOperation,
    ack: Option<Arc<PendingAck>>,
    batch: &mut RoutedBatch,
) {
    if let Some(change) = change.command(group) {
        batch.for_owner(shard, link, connection_id, ConnectionCommand::Group { change, ack });
    }
}

fn change_user_group(
    link: &Arc<LinkHandle>,
    UserGroupChange { user_id: user, group, .. }: UserGroupChange,
    change: GroupOperation,
    ack: Option<Arc<PendingAck>>,
    batch: &mut RoutedBatch,
) {
    if let Some(change) = change.command(group) {
        batch.for_all(ShardCommand::UserGroup { hub: link.hub(), user, change, ack });
    }
}

fn check(
    link: &Arc<LinkHandle>,
    who: Audience,
    within_group: Option<ByteString>,
    ack_id: i64,
    batch: &mut RoutedBatch,
) {
    let ack = PendingAck::new(link.clone(), ack_id);
    batch.for_all(ShardCommand::Check { hub: link.hub(), who, within_group, ack });
}

/// A page begins at one shard, which passes it on to those behind it; a number is added up by all of them.
fn query_members(shard: &Shard, link: &Arc<LinkHandle>, query: GroupMemberQuery, batch: &mut RoutedBatch) {
    if query.page_size == Some(0) {
        let tally = MemberTally::new(Arc::clone(link), query.ack_id);
        batch.for_all(ShardCommand::CountMembers { hub: link.hub(), group: query.group, tally });
    } else if let Some(listing) = MemberListing::begin(link, query, &shard.shared().boot) {
        match usize::from(listing.shard()) < batch.commands.len() {
            true => batch.for_shard(listing.shard(), ShardCommand::ListMembers(Box::new(listing))),
            false => listing.answer_last(),
        }
    }
}

fn close_many(link: &Arc<LinkHandle>, who: Audience, close: CloseWithAck, batch: &mut RoutedBatch) {
    let CloseWithAck { reason, ack_id, excluded, .. } = close;
    let to = Receivers { excluded, ..who.into() };
    let ack = PendingAck::new(link.clone(), ack_id);
    batch.for_all(ShardCommand::CloseMany { hub: link.hub(), app: link.app(), to, reason, ack });
}

/// Begins the drain of an app server that is about to stop: the connections at home there get another home.
fn drain_app(shard: &Shard, link: &LinkHandle, batch: &mut RoutedBatch) {
    let hubs = shard.shared().hubs.all();
    let pools = hubs.get(link.hub().get()).map(|hub| hub.pools()).unwrap_or_default();
    for pool in pools.iter().filter(|pool| pool.app().id == link.app() && pool.begin_drain()) {
        info!(hub = pool.hub().name(), app = %pool.app().name, "the app server stops: its clients get another one");
        batch.for_all(ShardCommand::AppShuttingDown { hub: link.hub(), app: link.app() });
    }
}

fn control_flow(shard: &Shard, link: &LinkHandle, flow: ConnectionFlowControl, batch: &mut RoutedBatch) {
    if flow.subject == FlowSubject::Server && flow.operation == FlowOperation::Offline {
        drain_app(shard, link, batch);
    } else if flow.subject == FlowSubject::Client {
        batch.for_owner(shard, link, flow.connection_id, ConnectionCommand::Flow(flow.operation));
    }
}
