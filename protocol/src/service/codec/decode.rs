//! Decoding of service message bodies: one function per layout, fields in wire order.
//!
//! Names and payloads share the memory of the frame. Allocations are bounded by the frame's length: each list item has
//! at least a byte there and takes at most about 64 bytes of memory.

use bytestring::ByteString;

use super::super::service_message::{
    AccessKeyRequest, AccessKeyResponse, Ack, AckStatus, BroadcastData, Check, CheckUserInGroup, ClientCompletion,
    ClientInvocation, CloseConnection, CloseWithAck, ConnectionClaims, ConnectionData, ConnectionFlowControl,
    ConnectionMoved, ConnectionReconnect, DownMark, ErrorCompletion, Filtered, FlowOperation, FlowSubject,
    GroupBroadcastData, GroupChange, GroupJoin, GroupMemberQuery, LinkHandshakeRequest, LinkHandshakeResponse,
    LinkKind, MoveConnection, MultiConnectionData, MultiGroupBroadcastData, MultiUserData, OpenConnection, Ping,
    PresenceChanges, PresencePhase, RefreshAuth, RefreshConnection, ServiceError, ServiceEvent, ServiceMapping,
    ServiceMessage, Stamped, TraceReport, TracedData, UserConnectionQuery, UserData, UserGroupChange,
};
use super::fields::{FieldError, FieldResult, Fields, extension};
use crate::message_pack::Reader;

pub(super) fn message(number: i64, fields: &mut Fields) -> FieldResult<Option<ServiceMessage>> {
    use ServiceMessage as M;
    Ok(Some(match number {
        1 => M::HandshakeRequest(handshake_request(fields)?),
        2 => M::HandshakeResponse(handshake_response(fields)?),
        3 => M::Ping(Ping { pairs: fields.pairs()? }),
        4 => M::OpenConnection(open_connection(fields)?),
        5 => M::CloseConnection(close_connection(fields)?),
        6 => M::ConnectionData(connection_data(fields)?),
        7 => send(M::MultiConnectionData(multi_connection_data(fields)?), fields.filter()?),
        8 => send(M::UserData(user_data(fields)?), fields.filter()?),
        9 => send(M::MultiUserData(multi_user_data(fields)?), fields.filter()?),
        10 => send(M::BroadcastData(broadcast_data(fields)?), fields.filter()?),
        11 => M::JoinGroup(join_group(fields)?),
        12 => M::LeaveGroup(leave_group(fields)?),
        13 => group_broadcast_data(fields)?,
        14 => send(M::MultiGroupBroadcastData(multi_group_broadcast_data(fields)?), fields.filter()?),
        15 => M::ServiceError(ServiceError { error: fields.text("errorMessage")? }),
        16 => M::UserJoinGroup(user_join_group(fields)?),
        17 => M::UserLeaveGroup(user_leave_group(fields)?),
        18 => M::JoinGroupWithAck(join_group_with_ack(fields)?),
        19 => M::LeaveGroupWithAck(leave_group_with_ack(fields)?),
        20 => M::Ack(ack(fields)?),
        21 => M::CheckUserInGroupWithAck(check_user_in_group(fields)?),
        22 => M::ServiceEvent(service_event(fields)?),
        23 => M::CheckGroupExistenceWithAck(check("group", fields)?),
        24 => M::CheckConnectionExistenceWithAck(check("connectionId", fields)?),
        25 => M::CheckUserExistenceWithAck(check("userId", fields)?),
        26 => M::UserJoinGroupWithAck(user_join_group_with_ack(fields)?),
        27 => M::UserLeaveGroupWithAck(user_leave_group_with_ack(fields)?),
        28 => M::AccessKeyRequest(AccessKeyRequest {
            token: fields.optional_text("token")?,
            key_id: fields.optional_text("kid")?,
        }),
        29 => M::AccessKeyResponse(access_key_response(fields)?),
        30 => M::CloseConnectionWithAck(close_one_with_ack(fields)?),
        31 => M::CloseConnectionsWithAck(close_all_with_ack(fields)?),
        32 => M::CloseUserConnectionsWithAck(close_many_with_ack("userId", fields)?),
        33 => M::CloseGroupConnectionsWithAck(close_many_with_ack("group", fields)?),
        34 => M::ClientInvocation(client_invocation(fields)?),
        35 => M::ClientCompletion(client_completion(fields)?),
        36 => M::ErrorCompletion(error_completion(fields)?),
        37 => M::ServiceMapping(service_mapping(fields)?),
        38 => M::ConnectionReconnect(ConnectionReconnect { connection_id: fields.text("connectionId")? }),
        39 => M::ConnectionFlowControl(connection_flow_control(fields)?),
        40 => M::GroupMemberQuery(group_member_query(fields)?),
        41 => M::RefreshAuth(refresh_auth(fields)?),
        42 => M::GetConnectionClaims(check("connectionToken", fields)?),
        43 => M::UpdateConnectionClaims(ConnectionClaims {
            connection_id: fields.text("connectionId")?,
            claims: fields.claims("claims")?,
        }),
        _ => return own_message(number, fields),
    }))
}

/// Messages sent only by Trunkline's nodes and SDKs.
fn own_message(number: i64, fields: &mut Fields) -> FieldResult<Option<ServiceMessage>> {
    use ServiceMessage as M;
    Ok(Some(match number {
        60 => M::MoveConnection(MoveConnection { connection_id: fields.text("connectionId")? }),
        61 => M::ConnectionMoved(ConnectionMoved {
            connection_id: fields.text("connectionId")?,
            epoch: fields.integer("epoch")?,
        }),
        70 => M::PresenceChanges(presence_changes(fields)?),
        71 => M::UserConnectionQuery(user_connection_query(fields)?),
        72 => M::TracedData(TracedData { mark: fields.integer("mark")?, body: fields.binary("body")? }),
        73 => M::TraceReport(trace_report(fields)?),
        76 => M::Filtered(Filtered { filter: fields.text("filter")?, body: fields.binary("body")? }),
        75 => M::RefreshConnectionWithAck(refresh_connection(fields)?),
        77 => M::DownMark(down_mark(fields)?),
        78 => M::DownDone(down_mark(fields)?),
        62 => M::Stamped(Stamped { epoch: fields.integer("epoch")?, body: fields.binary("body")? }),
        _ => return Ok(None),
    }))
}

// Links.

fn handshake_request(fields: &mut Fields) -> FieldResult<LinkHandshakeRequest> {
    let mut it = LinkHandshakeRequest { version: fields.integer("version")?, ..LinkHandshakeRequest::default() };
    if fields.has(4) {
        it.kind = match fields.integer("connectionType")? {
            0 => LinkKind::Default,
            1 => LinkKind::OnDemand,
            2 => LinkKind::Weak,
            kind => LinkKind::Unknown(kind),
        };
        it.target = fields.optional_text("target")?.unwrap_or_default();
    }
    if fields.has(5) {
        it.migration_level = fields.integer("migrationLevel")?;
    }
    if fields.has(7) {
        fields.skip_extension()?;
        it.allow_stateful_reconnects = fields.boolean("allowStatefulReconnects")?;
    }
    Ok(it)
}

fn handshake_response(fields: &mut Fields) -> FieldResult<LinkHandshakeResponse> {
    // Nil and an empty text both accept.
    let error = fields.optional_text("errorMessage")?.filter(|error| !error.is_empty());
    let mut connection_id = None;
    if fields.has(4) {
        fields.skip_extension()?;
        connection_id = fields.optional_text("connectionId")?;
    }
    Ok(LinkHandshakeResponse { error, connection_id })
}

fn service_event(fields: &mut Fields) -> FieldResult<ServiceEvent> {
    Ok(ServiceEvent {
        object: fields.integer("objectType")?,
        id: fields.optional_text("id")?,
        kind: fields.integer("kind")?,
        message: fields.optional_text("message")?,
    })
}

fn ack(fields: &mut Fields) -> FieldResult<Ack> {
    let mut it = Ack {
        ack_id: fields.integer("ackId")?,
        status: match fields.integer("status")? {
            1 => AckStatus::Ok,
            2 => AckStatus::NotFound,
            3 => AckStatus::Timeout,
            4 => AckStatus::InternalServerError,
            5 => AckStatus::Forbidden,
            status => AckStatus::Unknown(status),
        },
        message: fields.optional_text("message")?,
        payload: None,
    };
    if fields.has(6) {
        fields.skip_extension()?;
        it.payload = fields.optional_binary("payload")?;
    }
    Ok(it)
}

fn access_key_response(fields: &mut Fields) -> FieldResult<AccessKeyResponse> {
    Ok(AccessKeyResponse {
        key_id: fields.optional_text("kid")?,
        access_key: fields.optional_text("accessKey")?,
        error_type: fields.optional_text("errorType")?,
        error: fields.optional_text("errorMessage")?,
    })
}

fn connection_flow_control(fields: &mut Fields) -> FieldResult<ConnectionFlowControl> {
    Ok(ConnectionFlowControl {
        connection_id: fields.text("connectionId")?,
        subject: match fields.integer("connectionType")? {
            1 => FlowSubject::Client,
            2 => FlowSubject::Server,
            other => {
                return Err(FieldError::value("connectionType", other));
            }
        },
        operation: match fields.integer("operation")? {
            1 => FlowOperation::Pause,
            2 => FlowOperation::PauseAck,
            3 => FlowOperation::Resume,
            4 => FlowOperation::Offline,
            5 => FlowOperation::ReadOn,
            6 => FlowOperation::EndInput,
            other => {
                return Err(FieldError::value("operation", other));
            }
        },
    })
}

// Life cycle of a client connection.

fn open_connection(fields: &mut Fields) -> FieldResult<OpenConnection> {
    let mut it = OpenConnection {
        connection_id: fields.text("connectionId")?,
        claims: fields.claims("claims")?,
        ..OpenConnection::default()
    };
    // Azure's SDK reads headers and query together or not at all: a fourth item alone is ignored.
    if !fields.has(5) {
        return Ok(it);
    }
    it.headers = fields.headers("headers")?;
    it.query = fields.optional_text("queryString")?;
    for _ in 0..fields.extension_len()? {
        match fields.extension_key()? {
            extension::PROTOCOL => it.protocol = fields.read("protocol", Reader::optional_text)?,
            _ => fields.skip_extension_value()?,
        }
    }
    Ok(it)
}

fn close_connection(fields: &mut Fields) -> FieldResult<CloseConnection> {
    let connection_id = fields.text("connectionId")?;
    let error = fields.optional_text("errorMessage")?;
    let headers = if fields.has(4) { fields.headers("headers")? } else { Vec::new() };
    Ok(CloseConnection { connection_id, error, headers })
}

fn connection_data(fields: &mut Fields) -> FieldResult<ConnectionData> {
    let mut it = ConnectionData {
        connection_id: fields.text("connectionId")?,
        payload: fields.binary("payload")?,
        ..ConnectionData::default()
    };
    for _ in 0..fields.extension_len()? {
        match fields.extension_key()? {
            extension::DATA_TYPE => {
                it.data_type = fields.read("dataMessageType", Reader::integer)?;
            }
            extension::IS_PARTIAL => it.is_partial = fields.read("isPartial", Reader::boolean)?,
            _ => fields.skip_extension_value()?,
        }
    }
    Ok(it)
}

fn down_mark(fields: &mut Fields) -> FieldResult<DownMark> {
    Ok(DownMark { connection_id: fields.text("connectionId")?, number: fields.integer("number")? })
}

fn trace_report(fields: &mut Fields) -> FieldResult<TraceReport> {
    Ok(TraceReport {
        connection_id: fields.text("connectionId")?,
        mark: fields.integer("mark")?,
        waited_us: fields.integer("waited")?,
        queued_us: fields.optional_integer("queued")?,
        ran_us: fields.optional_integer("ran")?,
        answered_us: fields.optional_integer("answered")?,
        has_failed: fields.boolean("hasFailed")?,
    })
}

// Sends to many clients.

/// Wraps a send that has a filter, so that code without filter support can't mistake it for an unfiltered one.
fn send(message: ServiceMessage, filter: Option<ByteString>) -> ServiceMessage {
    match filter {
        None => message,
        Some(filter) => ServiceMessage::Filtered(Filtered { filter, body: message.to_body() }),
    }
}

fn multi_connection_data(fields: &mut Fields) -> FieldResult<MultiConnectionData> {
    Ok(MultiConnectionData { connection_ids: fields.texts("connectionIds")?, payloads: fields.payloads("payloads")? })
}

fn user_data(fields: &mut Fields) -> FieldResult<UserData> {
    Ok(UserData { user_id: fields.text("userId")?, payloads: fields.payloads("payloads")? })
}

fn multi_user_data(fields: &mut Fields) -> FieldResult<MultiUserData> {
    Ok(MultiUserData { user_ids: fields.texts("userIds")?, payloads: fields.payloads("payloads")? })
}

fn broadcast_data(fields: &mut Fields) -> FieldResult<BroadcastData> {
    Ok(BroadcastData { excluded: fields.texts("excludedConnectionIds")?, payloads: fields.payloads("payloads")? })
}

fn group_broadcast_data(fields: &mut Fields) -> FieldResult<ServiceMessage> {
    let mut it = GroupBroadcastData {
        group: fields.text("group")?,
        excluded: fields.texts("excludedConnectionIds")?,
        payloads: fields.payloads("payloads")?,
        ..GroupBroadcastData::default()
    };
    let filter = fields.filter()?;
    if fields.has(7) {
        it.excluded_users = fields.texts("excludedUserIds")?;
        it.caller_user = fields.optional_text("callerUserId")?;
    }
    Ok(send(ServiceMessage::GroupBroadcastData(it), filter))
}

fn multi_group_broadcast_data(fields: &mut Fields) -> FieldResult<MultiGroupBroadcastData> {
    Ok(MultiGroupBroadcastData { groups: fields.texts("groups")?, payloads: fields.payloads("payloads")? })
}

// Groups. Joining requires a group name; leaving may refer to all groups.

fn join_group(fields: &mut Fields) -> FieldResult<GroupChange> {
    let connection_id = fields.text("connectionId")?;
    Ok(GroupChange { connection_id, group: Some(fields.text("group")?), ack_id: 0 })
}

fn leave_group(fields: &mut Fields) -> FieldResult<GroupChange> {
    let connection_id = fields.text("connectionId")?;
    Ok(GroupChange { connection_id, group: fields.optional_text("group")?, ack_id: 0 })
}

fn join_group_with_ack(fields: &mut Fields) -> FieldResult<GroupChange> {
    let change = join_group(fields)?;
    Ok(GroupChange { ack_id: fields.integer("ackId")?, ..change })
}

fn leave_group_with_ack(fields: &mut Fields) -> FieldResult<GroupChange> {
    let change = leave_group(fields)?;
    Ok(GroupChange { ack_id: fields.integer("ackId")?, ..change })
}

fn user_join_group(fields: &mut Fields) -> FieldResult<UserGroupChange> {
    let user_id = fields.text("userId")?;
    let group = Some(fields.text("group")?);
    Ok(UserGroupChange { user_id, group, ack_id: 0, ttl_s: ttl_s(fields)? })
}

fn user_join_group_with_ack(fields: &mut Fields) -> FieldResult<UserGroupChange> {
    let user_id = fields.text("userId")?;
    let group = Some(fields.text("group")?);
    let ack_id = fields.integer("ackId")?;
    Ok(UserGroupChange { user_id, group, ack_id, ttl_s: ttl_s(fields)? })
}

fn user_leave_group(fields: &mut Fields) -> FieldResult<UserGroupChange> {
    let user_id = fields.text("userId")?;
    Ok(UserGroupChange { user_id, group: fields.optional_text("group")?, ack_id: 0, ttl_s: None })
}

fn user_leave_group_with_ack(fields: &mut Fields) -> FieldResult<UserGroupChange> {
    let change = user_leave_group(fields)?;
    Ok(UserGroupChange { ack_id: fields.integer("ackId")?, ..change })
}

fn ttl_s(fields: &mut Fields) -> FieldResult<Option<i64>> {
    let mut ttl_s = None;
    for _ in 0..fields.extension_len()? {
        match fields.extension_key()? {
            extension::TTL => ttl_s = Some(fields.read("ttl", Reader::integer)?),
            _ => fields.skip_extension_value()?,
        }
    }
    Ok(ttl_s)
}

// Acknowledged queries and commands.

fn check_user_in_group(fields: &mut Fields) -> FieldResult<CheckUserInGroup> {
    Ok(CheckUserInGroup {
        user_id: fields.text("userId")?,
        group: fields.text("group")?,
        ack_id: fields.integer("ackId")?,
    })
}

fn refresh_connection(fields: &mut Fields) -> FieldResult<RefreshConnection> {
    Ok(RefreshConnection {
        connection_id: fields.text("connectionId")?,
        expires_s: fields.integer("expiresS")?,
        ack_id: fields.integer("ackId")?,
    })
}

fn refresh_auth(fields: &mut Fields) -> FieldResult<RefreshAuth> {
    Ok(RefreshAuth {
        connection: fields.text("connectionToken")?,
        claims: fields.claims("claims")?,
        expires_s: fields.timestamp("expireTime")?,
        ack_id: fields.integer("ackId")?,
    })
}

fn check(subject: &'static str, fields: &mut Fields) -> FieldResult<Check> {
    Ok(Check { subject: fields.text(subject)?, ack_id: fields.integer("ackId")? })
}

/// Starts with the extension map. After the ack id there are two layouts:
///
/// | items | fields | written by |
/// |---|---|---|
/// | 7 | `top`, `continuationToken`, `maxPageSize` | Azure's SDK, and ours |
/// | 6 | `maxPageSize`, `continuationToken` | Azure's first revision, which calls the size `max` |
fn group_member_query(fields: &mut Fields) -> FieldResult<GroupMemberQuery> {
    fields.skip_extension()?;
    let mut it = GroupMemberQuery {
        group: fields.text("group")?,
        ack_id: fields.integer("ackId")?,
        ..GroupMemberQuery::default()
    };
    let first = if fields.has(5) { fields.optional_integer("top")? } else { None };
    if !fields.has(7) {
        it.page_size = first;
        it.continuation_token = if fields.has(6) { fields.optional_text("continuationToken")? } else { None };
    } else {
        (it.top, it.continuation_token) = (first, fields.optional_text("continuationToken")?);
        it.page_size = fields.optional_integer("maxPageSize")?;
    }
    Ok(it)
}

fn presence_changes(fields: &mut Fields) -> FieldResult<PresenceChanges> {
    Ok(PresenceChanges {
        shard: fields.integer("shard")?,
        stream: fields.integer("stream")?,
        phase: match fields.integer("phase")? {
            0 => PresencePhase::Changes,
            1 => PresencePhase::Snapshot,
            2 => PresencePhase::SnapshotEnd,
            phase => return Err(FieldError::value("phase", phase)),
        },
        app_servers: fields.optional_texts("appServers")?,
        lost: fields.texts("lost")?,
        online: fields.texts("online")?,
        offline: fields.texts("offline")?,
        joined: fields.lists("joined", 3, |fields| {
            Ok(GroupJoin {
                group: fields.read("group", Reader::shared_text)?,
                connection_id: fields.read("connectionId", Reader::shared_text)?,
                user_id: fields.read("userId", Reader::optional_text)?,
            })
        })?,
        left: fields.lists("left", 2, |fields| {
            Ok((fields.read("group", Reader::shared_text)?, fields.read("connectionId", Reader::shared_text)?))
        })?,
    })
}

fn user_connection_query(fields: &mut Fields) -> FieldResult<UserConnectionQuery> {
    fields.skip_extension()?;
    Ok(UserConnectionQuery {
        user_id: fields.text("userId")?,
        ack_id: fields.integer("ackId")?,
        page_size: fields.optional_integer("maxPageSize")?,
        continuation_token: fields.optional_text("continuationToken")?,
    })
}

fn close_one_with_ack(fields: &mut Fields) -> FieldResult<CloseWithAck> {
    Ok(CloseWithAck {
        subject: fields.text("connectionId")?,
        reason: fields.optional_text("reason")?,
        ack_id: fields.integer("ackId")?,
        excluded: Vec::new(),
    })
}

fn close_all_with_ack(fields: &mut Fields) -> FieldResult<CloseWithAck> {
    Ok(CloseWithAck {
        subject: ByteString::new(),
        reason: fields.optional_text("reason")?,
        ack_id: fields.integer("ackId")?,
        excluded: fields.texts("excludedConnectionIds")?,
    })
}

fn close_many_with_ack(subject: &'static str, fields: &mut Fields) -> FieldResult<CloseWithAck> {
    Ok(CloseWithAck {
        subject: fields.text(subject)?,
        reason: fields.optional_text("reason")?,
        ack_id: fields.integer("ackId")?,
        excluded: fields.texts("excludedConnectionIds")?,
    })
}

// Client results.

fn client_invocation(fields: &mut Fields) -> FieldResult<ClientInvocation> {
    Ok(ClientInvocation {
        invocation_id: fields.text("invocationId")?,
        connection_id: fields.text("connectionId")?,
        caller_server_id: fields.text("callerServerId")?,
        payloads: fields.payloads("payloads")?,
    })
}

fn client_completion(fields: &mut Fields) -> FieldResult<ClientCompletion> {
    Ok(ClientCompletion {
        invocation_id: fields.text("invocationId")?,
        connection_id: fields.text("connectionId")?,
        caller_server_id: fields.text("callerServerId")?,
        protocol: fields.text("protocol")?,
        payload: fields.binary("payload")?,
    })
}

fn error_completion(fields: &mut Fields) -> FieldResult<ErrorCompletion> {
    Ok(ErrorCompletion {
        invocation_id: fields.text("invocationId")?,
        connection_id: fields.text("connectionId")?,
        caller_server_id: fields.text("callerServerId")?,
        error: fields.text("error")?,
    })
}

fn service_mapping(fields: &mut Fields) -> FieldResult<ServiceMapping> {
    Ok(ServiceMapping {
        invocation_id: fields.text("invocationId")?,
        connection_id: fields.text("connectionId")?,
        instance_id: fields.text("instanceId")?,
    })
}
