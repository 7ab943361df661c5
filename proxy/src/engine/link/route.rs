//! Routing of a frame from an app server or another node to commands for the shards concerned.
//!
//! A connection concerns its own shard; groups, users and broadcasts concern every shard. A frame is parsed and framed
//! once, for any number of shards.

use std::collections::HashSet;
use std::sync::Arc;
use std::vec::IntoIter;

use bytestring::ByteString;
use tracing::debug;
use trunkline_protocol::hub::HubProtocol;
use trunkline_protocol::service::{
    self, AccessKeyRequest, AccessKeyResponse, CheckUserInGroup, ClientCompletion, ClientInvocation, CloseConnection,
    ConnectionFlowControl, ConnectionMoved, DownMark, ErrorCompletion, Exclusions, Filtered, FlowOperation,
    FlowSubject, GroupChange, MessageClass, Payloads, Position, RawKind, RecordEnd, Recorded, RefreshAuth,
    RefreshConnection, ServiceMessage, Stamped, TraceReport, UserGroupChange,
};

use crate::engine::shard::{
    Audience, ConnectionCommand, Content, Framed, LARGE_BYTES, ListQuery, Location, MemberListing, MemberTally,
    MembershipChange, MembershipRefused, PendingAck, Receivers, RecordEvent, RecordedCommand, RecordedSend, SendOrigin,
    Shard, ShardCommand, Shared, SteppedFilter, WaitingResult, no_such_connection,
};
use crate::engine::transport::websocket::{Deflater, deflated_frame, payload_bytes};
use crate::engine::upstream::{AppServerId, HubIndex, ReplyTo};
use crate::ground::metrics::{Counters, SendKind};

/// Maximum number of names of groups, users or connections in a command. Longer lists are cut, so that other work of
/// the shard can run in between.
pub(crate) const NAMES_PER_COMMAND_MAX: usize = 32;

/// Maximum number of names in a frame that are not checked for duplicates.
const NAMES_UNCHECKED_MAX: usize = 16;

/// Commands of one batch of frames, by shard.
#[derive(Debug)]
pub(crate) struct RoutedBatch {
    commands: Vec<Vec<ShardCommand>>,
    has_begun: bool,
    /// Names in frames with so many that they were cut into several commands.
    names: usize,
    /// Set if the batch has such a frame or long work for many clients.
    is_cut: bool,
    /// Set if the batch has a large message.
    has_large: bool,
}

/// Commands for one shard, to be applied one list at a time: all together, or cut at commands with many names.
#[derive(Debug)]
pub(crate) enum CommandPieces {
    Whole(Vec<ShardCommand>),
    Cut(IntoIter<ShardCommand>),
}

impl CommandPieces {
    /// Pieces with their parts of the batch's bytes, so that pieces together reserve these bytes once.
    pub(crate) fn with_bytes(self, bytes: usize) -> impl Iterator<Item = (Vec<ShardCommand>, usize)> {
        let commands = match &self {
            Self::Whole(commands) => commands.len(),
            Self::Cut(rest) => rest.len(),
        };
        self.map(move |piece| {
            let part = bytes.saturating_mul(piece.len()) / commands.max(1);
            (piece, part)
        })
    }
}

impl Iterator for CommandPieces {
    type Item = Vec<ShardCommand>;

    fn next(&mut self) -> Option<Vec<ShardCommand>> {
        let piece = match self {
            Self::Whole(commands) => std::mem::take(commands),
            Self::Cut(rest) => {
                let (mut names, mut piece) = (0, Vec::new());
                while names < NAMES_PER_COMMAND_MAX
                    && rest.as_slice().first().is_some_and(|next| piece.is_empty() || next.stepped().is_none())
                    && let Some(command) = rest.next()
                {
                    names += command.names();
                    piece.push(command);
                }
                piece
            }
        };
        Some(piece).filter(|piece| !piece.is_empty())
    }
}

impl RoutedBatch {
    /// Creates an empty batch. It allocates nothing while its link waits for frames.
    pub(crate) fn for_shards(shared: &Shared) -> Self {
        Self {
            commands: vec![Vec::new(); shared.shards().len()],
            has_begun: false,
            names: 0,
            is_cut: false,
            has_large: false,
        }
    }

    /// Starts the batch with the first frame that this shard reads, reusing the shard's spare list.
    pub(super) fn begin_batch(&mut self, shard: &Shard) {
        if !std::mem::replace(&mut self.has_begun, true)
            && let Some(own) = self.commands.get_mut(usize::from(shard.index()))
        {
            *own = shard.spare_commands();
        }
    }

    /// Whether a frame was routed.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Number of names in frames with many of them. Each name is about as much work as a frame.
    pub(super) fn names(&self) -> usize {
        self.names
    }

    /// Compresses large messages for clients that negotiated it, in pieces between which the shard serves its clients.
    pub(crate) async fn compress_large(&mut self, shared: &Shared) {
        let outbox = &shared.settings.outbox;
        if !self.has_large || !outbox.compress {
            return;
        }
        let deflate = async |payload: &[u8]| match payload.len() > LARGE_BYTES.max(outbox.compress_min_bytes) {
            true => Deflater::default().deflate_in_pieces(payload).await,
            false => None,
        };
        for command in self.commands.iter_mut().flatten() {
            if let Some((hub, message)) = command.large_send() {
                let Some(hub) = shared.hubs.at(hub) else { continue };
                for protocol in [HubProtocol::Json, HubProtocol::MessagePack, HubProtocol::BlazorPack] {
                    let content = Content::Hub(protocol);
                    if let Some(frame) = message.get(content).filter(|_| message.twin(content).is_none())
                        && hub.has_compressed(protocol)
                        && let Some(payload) = frame.get(frame.len() - payload_bytes(frame)..)
                        && let Some(packed) = deflate(payload).await
                        && let Some(twin) = deflated_frame(frame, &packed)
                    {
                        message.set_twin(content, twin);
                    }
                }
                continue;
            }
            if let ShardCommand::One { connection_id, command, .. } = command
                && let ConnectionCommand::Data { payload, packed, .. } = command
                && shared.routes.find(connection_id).is_some_and(|location| location.is_compressed)
            {
                *packed = deflate(payload).await.map(Box::new);
            }
        }
    }

    /// Commands by shard, each list to be applied in a step of its own.
    pub(crate) fn into_commands(self) -> impl Iterator<Item = CommandPieces> {
        self.commands.into_iter().map(move |commands| match self.is_cut {
            true => CommandPieces::Cut(commands.into_iter()),
            false => CommandPieces::Whole(commands),
        })
    }

    /// Gives all shards their commands, through their inboxes.
    pub(crate) async fn give(mut self, shared: &Shared, bytes: usize) {
        self.compress_large(shared).await;
        for (pieces, shard) in self.into_commands().zip(shared.shards()) {
            for (commands, bytes) in pieces.with_bytes(bytes) {
                let commands = shard.take_steps(shared, commands).await;
                shard.give(commands, bytes).await;
            }
        }
    }

    pub(crate) fn for_all(&mut self, command: ShardCommand) {
        self.is_cut |= command.stepped().is_some();
        let Some((last, others)) = self.commands.split_last_mut() else { return };
        others.iter_mut().for_each(|commands| commands.push(command.clone()));
        last.push(command);
    }

    fn for_shard(&mut self, shard: u16, command: ShardCommand) {
        if let Some(commands) = self.commands.get_mut(usize::from(shard)) {
            commands.push(command);
        }
    }

    /// Adds a command for the shard that owns a connection, or drops it if no shard does.
    pub(super) fn for_owner(&mut self, source: FrameSource<'_>, connection_id: ByteString, act: ConnectionCommand) {
        match source.shared.routes.find(&connection_id) {
            Some(Location { shard, slot, .. }) => {
                let (hub, app) = (source.hub, source.reply_to.app());
                self.for_shard(shard, ShardCommand::One { hub, app, connection_id, slot, command: act });
            }
            None => source.counters.unknown_receivers.increment(),
        }
    }
}

/// Source of a frame: its sender and hub, and the state needed for routing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrameSource<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) counters: &'a Counters,
    pub(crate) hub: HubIndex,
    pub(crate) reply_to: &'a Arc<dyn ReplyTo>,
    /// Origin of sends to several clients.
    pub(crate) origin: SendOrigin,
    pub(crate) filter: Option<&'a Arc<SteppedFilter>>,
}

impl<'a> FrameSource<'a> {
    /// Source of the frames that a shard reads from a link.
    pub(super) fn from_link(shard: &'a Shard, reply_to: &'a Arc<dyn ReplyTo>, origin: SendOrigin) -> Self {
        Self { shared: shard.shared(), counters: shard.counters(), hub: reply_to.hub(), reply_to, origin, filter: None }
    }
}

/// Routes one frame into the batch.
///
/// # Errors
/// Names a frame that app servers must not send.
pub(crate) fn route(source: FrameSource<'_>, message: ServiceMessage, batch: &mut RoutedBatch) -> Result<(), String> {
    match message {
        ServiceMessage::ConnectionData(data) => {
            source.counters.sends.of(SendKind::Connection).add_alone(1);
            let kind = RawKind::from_data_type(data.data_type);
            batch.has_large |= data.payload.len() > LARGE_BYTES;
            let command = ConnectionCommand::Data { payload: data.payload, kind, packed: None };
            batch.for_owner(source, data.connection_id, command);
        }
        ServiceMessage::MultiConnectionData(data) => {
            source.counters.sends.of(SendKind::Connections).add_alone(1);
            send_to_connections(source, data.connection_ids, &data.payloads, batch);
        }
        ServiceMessage::Stamped(stamped) => return route_stamped(source, &stamped, batch),
        ServiceMessage::Filtered(filtered) => return route_filtered(source, &filtered, batch, route),
        ServiceMessage::Recorded(recorded) => {
            let event = read_recorded(source, &recorded)?;
            give_recorded(source, recorded, event, batch);
        }
        ServiceMessage::CloseConnection(close) => close_one(source, close, batch),
        ServiceMessage::ConnectionFlowControl(flow) => control_flow(source, flow, batch),
        ServiceMessage::ConnectionMoved(ConnectionMoved { connection_id, epoch }) => {
            if let SendOrigin::Sender(from, _) = source.origin {
                batch.for_owner(source, connection_id, ConnectionCommand::Moved { from, epoch });
            }
        }
        other => match other.payloads() {
            Some(payloads) => send(source, receivers_of(source, &other), payloads, batch),
            None => return route_rare(source, other, batch),
        },
    }
    Ok(())
}

/// Routes one frame and reports the number of receiving clients to the caller.
pub(crate) fn route_counted(
    source: FrameSource<'_>,
    message: ServiceMessage,
    batch: &mut RoutedBatch,
) -> Result<(), String> {
    if let ServiceMessage::Filtered(filtered) = &message {
        return route_filtered(source, filtered, batch, route_counted);
    }
    if let ServiceMessage::Recorded(recorded) = message {
        let event = read_recorded(source, &recorded)?;
        if let RecordEvent::Message(send) = &event {
            count_receivers(source, send.to.clone(), batch);
        }
        give_recorded(source, recorded, event, batch);
        return Ok(());
    }
    if matches!(message.class(), MessageClass::Data | MessageClass::Send)
        && let Some(to) = receivers_of(source, &message)
    {
        count_receivers(source, to, batch);
    }
    route(source, message, batch)
}

/// Routes a frame stamped with its sender's epoch.
fn route_stamped(source: FrameSource<'_>, stamped: &Stamped, batch: &mut RoutedBatch) -> Result<(), String> {
    let origin = match source.origin {
        SendOrigin::Sender(sender, _) => SendOrigin::Sender(sender, stamped.epoch),
        SendOrigin::OtherNode => SendOrigin::OtherNode,
    };
    match ServiceMessage::decode(&stamped.body) {
        Ok(Some(ServiceMessage::Stamped(_))) => Err("the app server sent a stamp in a stamp".into()),
        Ok(Some(inner)) => route(FrameSource { origin, ..source }, inner, batch),
        Ok(None) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

fn count_receivers(source: FrameSource<'_>, to: Receivers, batch: &mut RoutedBatch) {
    let tally = MemberTally::new(source.reply_to.clone(), 0);
    batch.for_all(ShardCommand::CountReceivers { hub: source.hub, to, tally });
}

/// Reads the event of a record. Fails if a message of the record is not a send.
fn read_recorded(source: FrameSource<'_>, recorded: &Recorded) -> Result<RecordEvent, String> {
    match recorded.end {
        Some(RecordEnd::Finished) => return Ok(RecordEvent::Finished),
        Some(RecordEnd::Deleted) => return Ok(RecordEvent::Deleted),
        None => {}
    }
    let send = ServiceMessage::decode(&recorded.body).map_err(|error| error.to_string())?;
    let send = send.filter(|send| send.class() == MessageClass::Send);
    let read = send.as_ref().and_then(|send| Some((receivers_of(source, send)?, send.payloads()?.clone())));
    let (to, payloads) = read.ok_or("a record contains a message that is not a send")?;
    Ok(RecordEvent::Message(Box::new(RecordedSend { to, message: Framed::new(&payloads), payloads })))
}

/// Gives the event of a record to all shards.
fn give_recorded(source: FrameSource<'_>, recorded: Recorded, event: RecordEvent, batch: &mut RoutedBatch) {
    if let RecordEvent::Message(send) = &event {
        let kind = if recorded.set.is_user { SendKind::Users } else { SendKind::Groups };
        source.counters.sends.of(kind).add_alone(1);
        batch.has_large |= send.message.is_large();
    }
    let position = Position { epoch: recorded.epoch, number: recorded.number };
    let command = RecordedCommand { hub: source.hub, set: recorded.set, position, event, origin: source.origin };
    batch.for_all(ShardCommand::Recorded(Arc::new(command)));
}

fn route_filtered(
    source: FrameSource<'_>,
    filtered: &Filtered,
    batch: &mut RoutedBatch,
    route: fn(FrameSource<'_>, ServiceMessage, &mut RoutedBatch) -> Result<(), String>,
) -> Result<(), String> {
    let (filter, inner) = read_filtered(filtered)?;
    route(FrameSource { filter: Some(&SteppedFilter::new(filter)), ..source }, inner, batch)
}

/// Parses a filter and the message that it wraps. Fails if the filter is invalid, or the wrapped message can't have
/// one.
pub(crate) fn read_filtered(filtered: &Filtered) -> Result<(service::ClientFilter, ServiceMessage), String> {
    let filter = service::ClientFilter::parse(&filtered.filter).map_err(|error| format!("the filter {error}"))?;
    match ServiceMessage::decode(&filtered.body) {
        // Otherwise stamps and filters could alternate up to the end of the stack.
        Ok(Some(inner @ (ServiceMessage::Filtered(_) | ServiceMessage::Stamped(_)))) => {
            Err(format!("a filtered message contains {}", inner.name()))
        }
        Ok(Some(inner)) => Ok((filter, inner)),
        Ok(None) => Err("a filter is around a message of an unknown type".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// Sends a message to clients on every shard, framed once.
fn send(source: FrameSource<'_>, to: Option<Receivers>, payloads: &Payloads, batch: &mut RoutedBatch) {
    let Some(to) = to else { return };
    let kind = match to.who {
        Audience::Everyone => SendKind::All,
        Audience::Connections(_) => SendKind::Connections,
        Audience::Groups(_) => SendKind::Groups,
        Audience::Users(_) => SendKind::Users,
    };
    source.counters.sends.of(kind).add_alone(1);
    let (hub, message, origin) = (source.hub, Framed::new(payloads), source.origin);
    batch.has_large |= message.is_large();
    if to.who.names().len() <= NAMES_PER_COMMAND_MAX {
        return batch.for_all(ShardCommand::Send { hub, to, message, origin });
    }
    batch.names += to.who.names().len();
    batch.is_cut = true;
    for names in to.who.names().chunks(NAMES_PER_COMMAND_MAX) {
        // Frames with many names exclude nobody.
        let to = Receivers { filter: to.filter.clone(), ..to.who.with_names(names).into() };
        batch.for_all(ShardCommand::Send { hub, to, message: message.clone(), origin });
    }
}

/// Names of a frame, each once if there are many.
fn distinct(names: &[ByteString]) -> Vec<ByteString> {
    if names.len() <= NAMES_UNCHECKED_MAX {
        return names.to_vec();
    }
    let mut seen = HashSet::new();
    names.iter().filter(|name| seen.insert(&***name)).cloned().collect()
}

fn receivers_of(source: FrameSource<'_>, message: &ServiceMessage) -> Option<Receivers> {
    let who = match message.audience()? {
        service::Audience::Everyone => Audience::Everyone,
        service::Audience::Connections(ids) => Audience::Connections(distinct(ids)),
        service::Audience::Groups(groups) => Audience::Groups(distinct(groups)),
        service::Audience::Users(users) => Audience::Users(distinct(users)),
    };
    let Exclusions { connections, users } = message.exclusions();
    let (excluded, excluded_users) = (distinct(connections), distinct(users));
    Some(Receivers { who, excluded, excluded_users, filter: source.filter.cloned() })
}

/// Closes a connection, or hands it over to another app server.
fn close_one(source: FrameSource<'_>, close: CloseConnection, batch: &mut RoutedBatch) {
    let act = if !close.is_reassignment() {
        let cause = close.reason().cause.filter(|cause| cause.closes());
        ConnectionCommand::Close { error: close.error, cause, by: source.reply_to.dial_in_link() }
    } else if source.shared.routes.find(&close.connection_id).is_some() {
        ConnectionCommand::HandOver { headers: close.headers }
    } else {
        let (hub, app, connection_id) = (source.hub, source.reply_to.app(), close.connection_id);
        return batch.for_all(ShardCommand::HandedOver { hub, app, connection_id });
    };
    batch.for_owner(source, close.connection_id, act);
}

/// Routes infrequent frame types.
fn route_rare(source: FrameSource<'_>, message: ServiceMessage, batch: &mut RoutedBatch) -> Result<(), String> {
    use ServiceMessage as M;
    let ack_id = message.ack_id();
    let ack = || ack_id.map(|ack_id| PendingAck::new(source.reply_to.clone(), ack_id));
    let ack_of_join = |group: Option<&ByteString>| {
        let interest = source.shared.interest.as_ref();
        ack_id.map(|ack_id| PendingAck::of_join(source.reply_to.clone(), ack_id, interest, group))
    };
    let refusal = note_user_groups(source, &message).err();
    match message {
        M::JoinGroup(change) | M::JoinGroupWithAck(change) => {
            let ack = ack_of_join(change.group.as_ref());
            change_group(source, change, GroupOperation::Join, ack, batch);
        }
        M::LeaveGroup(change) | M::LeaveGroupWithAck(change) => {
            change_group(source, change, GroupOperation::Leave, ack(), batch);
        }
        M::UserJoinGroup(change) | M::UserJoinGroupWithAck(change) => {
            let ack = ack_of_join(change.group.as_ref());
            // Existing connections join even if the membership is not stored.
            ack.iter().zip(&refusal).for_each(|(ack, refusal)| ack.failed(refusal.to_string()));
            change_user_group(source, change, GroupOperation::Join, ack, batch);
        }
        M::UserLeaveGroup(change) | M::UserLeaveGroupWithAck(change) => {
            change_user_group(source, change, GroupOperation::Leave, ack(), batch);
        }
        M::RefreshConnectionWithAck(refresh) => refresh_connection(source, refresh, batch),
        M::RefreshAuth(refresh) => refresh_auth(source, refresh, batch),
        M::DownMark(mark) => mark_data(source, mark, batch),
        M::GetConnectionClaims(question) => {
            let ack = PendingAck::new(source.reply_to.clone(), question.ack_id);
            batch.for_owner(source, question.subject, ConnectionCommand::GetClaims { ack });
        }
        M::CheckUserInGroupWithAck(check) if is_kept(source, &check) => {
            PendingAck::new(source.reply_to.clone(), check.ack_id).found();
        }
        M::CheckUserInGroupWithAck(_)
        | M::CheckConnectionExistenceWithAck(_)
        | M::CheckGroupExistenceWithAck(_)
        | M::CheckUserExistenceWithAck(_) => check(source, &message, ack(), batch),
        M::GroupMemberQuery(query) => query_members(source, query.into(), batch),
        M::UserConnectionQuery(query) => query_members(source, query.into(), batch),
        M::CloseConnectionWithAck(ref close)
        | M::CloseConnectionsWithAck(ref close)
        | M::CloseUserConnectionsWithAck(ref close)
        | M::CloseGroupConnectionsWithAck(ref close) => {
            let (hub, app, reason) = (source.hub, source.reply_to.app(), close.reason.clone());
            if let (Some(to), Some(ack)) = (receivers_of(source, &message), ack()) {
                batch.for_all(ShardCommand::CloseMany { hub, app, to, reason, ack });
            }
        }
        M::ClientInvocation(question) => invoke_client(source, question, batch),
        M::ClientCompletion(answer) => route_result(source, answer),
        M::ErrorCompletion(answer) => route_error(source, answer),
        M::AccessKeyRequest(AccessKeyRequest { key_id, .. }) => source.reply_to.answer(&no_access_keys(key_id)),
        M::TraceReport(report) => report_trace(source, report, batch),
        // Only for proxies.
        M::HandshakeRequest(_) | M::HandshakeResponse(_) | M::OpenConnection(_) | M::Ack(_) => {
            return Err(format!("the app server sent {} ({}), which it must not", message.name(), message.number()));
        }
        // Other messages have no effect here.
        _ => {}
    }
    Ok(())
}

fn route_error(source: FrameSource<'_>, mut answer: ErrorCompletion) {
    let waiting = waiting_for(source, &answer.invocation_id, &answer.connection_id);
    waiting.iter().for_each(|waiting| answer.caller_server_id = waiting.caller.clone());
    let caller = answer.caller_server_id.clone();
    pass_result(source, waiting.as_ref(), &caller, &ServiceMessage::ErrorCompletion(answer));
}

fn refresh_connection(source: FrameSource<'_>, refresh: RefreshConnection, batch: &mut RoutedBatch) {
    let expires_s = refresh.expires_s.try_into().unwrap_or_default();
    let ack = PendingAck::new(source.reply_to.clone(), refresh.ack_id);
    batch.for_owner(source, refresh.connection_id, ConnectionCommand::Refresh { expires_s, ack });
}

fn refresh_auth(source: FrameSource<'_>, refresh: RefreshAuth, batch: &mut RoutedBatch) {
    let (id, ack) = (refresh.connection.clone(), PendingAck::new(source.reply_to.clone(), refresh.ack_id));
    batch.for_owner(source, id, ConnectionCommand::RefreshAuth { refresh: Box::new(refresh), ack });
}

/// Marks the position in a client's data. No app server waits for a disconnected client.
fn mark_data(source: FrameSource<'_>, mark: DownMark, batch: &mut RoutedBatch) {
    if source.shared.routes.find(&mark.connection_id).is_some() {
        let (number, reply_to) = (mark.number, Arc::clone(source.reply_to));
        batch.for_owner(source, mark.connection_id, ConnectionCommand::Mark { number, reply_to });
    }
}

/// Reply to an app server that authenticates with Entra ID.
fn no_access_keys(key_id: Option<ByteString>) -> ServiceMessage {
    let error = "Entra ID (AuthType=azure) is not supported by this service: write AccessKey=… into the connection \
                 string, with the node's --access-key or the app's --app-key";
    ServiceMessage::AccessKeyResponse(AccessKeyResponse {
        key_id,
        error_type: Some(ByteString::from_static("NotSupported")),
        error: Some(ByteString::from_static(error)),
        access_key: None,
    })
}

/// Stores or removes a user's memberships. Cheap for most messages, which change none.
fn note_user_groups(source: FrameSource<'_>, message: &ServiceMessage) -> Result<(), MembershipRefused> {
    match source.shared.user_groups.are_changed_by(message) {
        true => source.shared.note_user_groups(&hub_key(source), message),
        false => Ok(()),
    }
}

/// Whether a stored membership puts the user in the group.
fn is_kept(source: FrameSource<'_>, check: &CheckUserInGroup) -> bool {
    let kept = &source.shared.user_groups;
    !kept.is_empty() && kept.contain(&hub_key(source), &check.user_id, &check.group)
}

fn hub_key(source: FrameSource<'_>) -> String {
    source.shared.hubs.at(source.hub).map(|hub| hub.key().to_owned()).unwrap_or_default()
}

/// Passes a trace report to its connection, if the connection is still here.
fn report_trace(source: FrameSource<'_>, report: TraceReport, batch: &mut RoutedBatch) {
    let id = report.connection_id.clone();
    if source.shared.routes.find(&id).is_some() {
        batch.for_owner(source, id, ConnectionCommand::Traced(Box::new(report)));
    }
}

fn invoke_client(source: FrameSource<'_>, question: ClientInvocation, batch: &mut RoutedBatch) {
    let id = question.connection_id.clone();
    if source.shared.routes.find(&id).is_none() {
        return source.reply_to.answer(&no_such_connection(question));
    }
    let (reply_to, origin) = (source.reply_to.clone(), source.origin);
    batch.for_owner(source, id, ConnectionCommand::Invoke { reply_to, request: question, origin });
}

fn route_result(source: FrameSource<'_>, mut answer: ClientCompletion) {
    // Without content it is only an acknowledgement of the caller.
    let waiting = match answer.payload.is_empty() {
        true => None,
        false => waiting_for(source, &answer.invocation_id, &answer.connection_id),
    };
    waiting.iter().for_each(|waiting| answer.caller_server_id = waiting.caller.clone());
    let caller = answer.caller_server_id.clone();
    pass_result(source, waiting.as_ref(), &caller, &ServiceMessage::ClientCompletion(answer));
}

/// Removes the pending invocation that a result answers.
fn waiting_for(source: FrameSource<'_>, invocation_id: &str, connection_id: &str) -> Option<WaitingResult> {
    source.shared.client_results.take_waiting(invocation_id, connection_id, source.reply_to.app())
}

/// Forwards a client result to the app server or node that invoked the client. Dropped if the caller is gone.
fn pass_result(source: FrameSource<'_>, waiting: Option<&WaitingResult>, caller: &str, answer: &ServiceMessage) {
    let Some(hub) = source.shared.hubs.at(source.hub) else { return };
    if let Some(waiting) = waiting {
        // The link may have closed while its app server is still connected.
        return match hub.pool_of(waiting.reply_to.app()) {
            Some(pool) => pool.any_link().iter().for_each(|link| link.send(answer)),
            None => waiting.reply_to.answer(answer),
        };
    }
    let (pools, names_callers) = (hub.pools(), hub.capabilities().names_callers);
    match pools.iter().find(|pool| pool.app.instance == caller) {
        // A dialled-in app server also reports results of its own clients, which have no other caller.
        _ if !names_callers && is_over(answer) => {}
        _ if !names_callers && source.reply_to.app() == AppServerId::OTHER_NODE => {}
        Some(pool) if names_callers => pool.any_link().iter().for_each(|link| link.send(answer)),
        _ => source.shared.other_nodes().pass_result(hub.key(), caller, answer),
    }
}

/// Whether a result has no content, which means that the caller acknowledges it.
fn is_over(answer: &ServiceMessage) -> bool {
    matches!(answer, ServiceMessage::ClientCompletion(answer) if answer.payload.is_empty())
}

/// Sends each shard the ids that it owns; framed once.
fn send_to_connections(source: FrameSource<'_>, ids: Vec<ByteString>, payloads: &Payloads, batch: &mut RoutedBatch) {
    let mut by_shard: Vec<Vec<ByteString>> = vec![Vec::new(); batch.commands.len()];
    let ids = if ids.len() > NAMES_UNCHECKED_MAX { distinct(&ids) } else { ids };
    for id in ids {
        let owner = source.shared.routes.find(&id).and_then(|place| by_shard.get_mut(usize::from(place.shard)));
        match owner {
            Some(ids) => ids.push(id),
            None => source.counters.unknown_receivers.increment(),
        }
    }
    let message = Framed::new(payloads);
    batch.has_large |= message.is_large();
    batch.is_cut |= source.filter.is_some();
    for (commands, ids) in batch.commands.iter_mut().zip(by_shard) {
        let mut send = |ids| {
            let to = Receivers { filter: source.filter.cloned(), ..Audience::Connections(ids).into() };
            commands.push(ShardCommand::Send { hub: source.hub, to, message: message.clone(), origin: source.origin });
        };
        match ids.len() {
            0 => {}
            1..=NAMES_PER_COMMAND_MAX => send(ids),
            names => {
                batch.names += names;
                ids.chunks(NAMES_PER_COMMAND_MAX).for_each(|ids| send(ids.to_vec()));
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum GroupOperation {
    Join,
    Leave,
}

impl GroupOperation {
    /// Joining needs a group; leaving without one leaves all.
    fn command(self, group: Option<ByteString>) -> Option<MembershipChange> {
        match (self, group) {
            (GroupOperation::Join, group) => group.map(MembershipChange::Join),
            (GroupOperation::Leave, Some(group)) => Some(MembershipChange::Leave(group)),
            (GroupOperation::Leave, None) => Some(MembershipChange::LeaveAll),
        }
    }
}

fn change_group(
    source: FrameSource<'_>,
    GroupChange { connection_id, group, .. }: GroupChange,
    change: GroupOperation,
    ack: Option<Arc<PendingAck>>,
    batch: &mut RoutedBatch,
) {
    let Some(change) = change.command(group) else { return };
    if let Some(filter) = source.filter {
        let to = Receivers { filter: Some(filter.clone()), ..Audience::Everyone.into() };
        batch.for_all(ShardCommand::ChangeGroups { hub: source.hub, to, change, ack });
    } else {
        batch.for_owner(source, connection_id, ConnectionCommand::Group { change, ack });
    }
}

fn change_user_group(
    source: FrameSource<'_>,
    UserGroupChange { user_id: user, group, .. }: UserGroupChange,
    change: GroupOperation,
    ack: Option<Arc<PendingAck>>,
    batch: &mut RoutedBatch,
) {
    if let Some(change) = change.command(group) {
        let to = Audience::Users(vec![user]).into();
        batch.for_all(ShardCommand::ChangeGroups { hub: source.hub, to, change, ack });
    }
}

/// Checks on all shards whether any client of a query is connected.
fn check(source: FrameSource<'_>, question: &ServiceMessage, ack: Option<Arc<PendingAck>>, batch: &mut RoutedBatch) {
    let within_group = match question {
        ServiceMessage::CheckUserInGroupWithAck(check) => Some(check.group.clone()),
        _ => None,
    };
    if let (Some(Receivers { who, .. }), Some(ack)) = (receivers_of(source, question), ack) {
        batch.for_all(ShardCommand::Check { hub: source.hub, who, within_group, ack });
    }
}

/// A page starts at one shard, which forwards it to the following ones; a count is the sum over all shards.
fn query_members(source: FrameSource<'_>, query: ListQuery, batch: &mut RoutedBatch) {
    if query.is_count() {
        let tally = MemberTally::new(Arc::clone(source.reply_to), query.ack_id);
        batch.for_all(ShardCommand::CountMembers { hub: source.hub, set: query.set, tally });
    } else if let Some(listing) = MemberListing::begin_listing(source.reply_to, query, &source.shared.boot) {
        match usize::from(listing.shard()) < batch.commands.len() {
            true => batch.for_shard(listing.shard(), ShardCommand::ListMembers(Box::new(listing))),
            false => listing.answer_last(),
        }
    }
}

/// Starts the drain of an app server that is shutting down: its connections are reassigned.
fn drain_app(source: FrameSource<'_>, batch: &mut RoutedBatch) {
    let (hub, app) = (source.hub, source.reply_to.app());
    let pools = source.shared.hubs.at(hub).map(|hub| hub.pools()).unwrap_or_default();
    for pool in pools.iter().filter(|pool| pool.app.id == app && pool.begin_drain()) {
        // The upstream watcher logs this for dialled app servers, once for all hubs.
        let (hub_name, app_name) = (pool.hub.name(), &pool.app.name);
        debug!(hub = hub_name, app = %app_name, "app server stops: reassigning its clients");
        batch.for_all(ShardCommand::AppShuttingDown { hub, app });
    }
}

pub(super) fn control_flow(source: FrameSource<'_>, flow: ConnectionFlowControl, batch: &mut RoutedBatch) {
    if flow.subject == FlowSubject::Server && flow.operation == FlowOperation::Offline {
        drain_app(source, batch);
    } else if flow.subject == FlowSubject::Client {
        let by = source.reply_to.dial_in_link();
        batch.for_owner(source, flow.connection_id, ConnectionCommand::Flow { operation: flow.operation, by });
    }
}
