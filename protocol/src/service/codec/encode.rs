//! Encoding of service message bodies: one function per layout, fields in wire order.

use bytes::Bytes;
use bytestring::ByteString;

use super::super::service_message::{
    AccessKeyResponse, Ack, AckStatus, Check, CheckUserInGroup, ClientCompletion, ClientInvocation, CloseConnection,
    CloseWithAck, ConnectionFlowControl, ErrorCompletion, Filtered, FlowOperation, FlowSubject, GroupBroadcastData,
    GroupChange, GroupMemberQuery, LinkHandshakeRequest, LinkHandshakeResponse, LinkKind, OpenConnection, Payloads,
    Ping, PresenceChanges, PresencePhase, RefreshConnection, ServiceError, ServiceEvent, ServiceMapping,
    ServiceMessage, Stamped, TraceReport, TracedData, UserConnectionQuery, UserGroupChange,
};
use super::fields::{extension, write_claims};
use crate::message_pack::Writer;

/// Typical size of a message without names and payloads: headers, numbers, extension map.
pub(super) const ENVELOPE_BYTES: usize = 16;

/// Whether a payload ends at a hub message boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    WithMessage,
    WithinMessage,
}

/// Estimated body length: exact for potentially large parts, otherwise just the envelope.
pub(super) fn expected_bytes(message: &ServiceMessage) -> usize {
    use ServiceMessage as M;
    let content = match message {
        M::OpenConnection(it) => {
            let headers = it.headers.iter().map(|(name, values)| name.len() + texts_bytes(values) + 4);
            let query = it.query.as_deref().map_or(0, str::len);
            it.connection_id.len() + claims_bytes(&it.claims) + headers.sum::<usize>() + query
        }
        M::RefreshAuth(it) => it.connection.len() + claims_bytes(&it.claims),
        M::UpdateConnectionClaims(it) => claims_bytes(&it.claims),
        M::ConnectionData(it) => it.connection_id.len() + it.payload.len(),
        M::MultiConnectionData(it) => texts_bytes(&it.connection_ids) + payloads_bytes(&it.payloads),
        M::UserData(it) => it.user_id.len() + payloads_bytes(&it.payloads),
        M::MultiUserData(it) => texts_bytes(&it.user_ids) + payloads_bytes(&it.payloads),
        M::BroadcastData(it) => texts_bytes(&it.excluded) + payloads_bytes(&it.payloads),
        M::GroupBroadcastData(it) => {
            it.group.len()
                + texts_bytes(&it.excluded)
                + payloads_bytes(&it.payloads)
                + texts_bytes(&it.excluded_users)
                + it.caller_user.as_deref().map_or(0, str::len)
        }
        M::MultiGroupBroadcastData(it) => texts_bytes(&it.groups) + payloads_bytes(&it.payloads),
        M::ClientInvocation(it) => it.invocation_id.len() + payloads_bytes(&it.payloads),
        M::ClientCompletion(it) => it.invocation_id.len() + it.payload.len(),
        M::Ack(it) => it.payload.as_ref().map_or(0, Bytes::len),
        M::Stamped(it) => it.body.len(),
        M::Filtered(it) => it.filter.len() + it.body.len(),
        M::TracedData(it) => it.body.len(),
        _ => 0,
    };
    ENVELOPE_BYTES + content
}

pub(super) fn body(message: &ServiceMessage, out: &mut Writer) {
    use ServiceMessage as M;
    let number = message.number();
    match message {
        M::HandshakeRequest(it) => handshake_request(out, it),
        M::HandshakeResponse(it) => handshake_response(out, it),
        M::Ping(it) => ping(out, it),
        M::OpenConnection(it) => open_connection(out, it),
        M::CloseConnection(it) => close_connection(out, it),
        M::ConnectionData(it) => {
            let ends = if it.is_partial { Ends::WithinMessage } else { Ends::WithMessage };
            connection_data(out, &it.connection_id, &it.payload, it.data_type, ends);
        }
        M::MultiConnectionData(it) => data_to_many(out, number, &it.connection_ids, &it.payloads),
        M::UserData(it) => data_to_user(out, number, &it.user_id, &it.payloads),
        M::MultiUserData(it) => data_to_many(out, number, &it.user_ids, &it.payloads),
        M::BroadcastData(it) => data_to_many(out, number, &it.excluded, &it.payloads),
        M::GroupBroadcastData(it) => group_broadcast_data(out, it),
        M::MultiGroupBroadcastData(it) => data_to_many(out, number, &it.groups, &it.payloads),
        M::ServiceError(it) => service_error(out, it),
        M::JoinGroup(it) | M::LeaveGroup(it) => group_change(out, number, it),
        M::JoinGroupWithAck(it) | M::LeaveGroupWithAck(it) => {
            group_change_with_ack(out, number, it);
        }
        M::UserJoinGroup(it) | M::UserLeaveGroup(it) => {
            user_group_change(out, 4, number, it);
            user_group_extension(out, message, it);
        }
        M::UserJoinGroupWithAck(it) | M::UserLeaveGroupWithAck(it) => {
            user_group_change(out, 5, number, it);
            out.integer(it.ack_id);
            user_group_extension(out, message, it);
        }
        M::Ack(it) => ack(out, it),
        M::ServiceEvent(it) => service_event(out, it),
        M::CheckUserInGroupWithAck(it) => check_user_in_group(out, it),
        M::CheckGroupExistenceWithAck(it)
        | M::CheckConnectionExistenceWithAck(it)
        | M::CheckUserExistenceWithAck(it)
        | M::GetConnectionClaims(it) => check(out, number, it),
        M::AccessKeyRequest(it) => optional_texts(out, number, &[&it.token, &it.key_id]),
        M::AccessKeyResponse(it) => access_key_response(out, it),
        M::CloseConnectionWithAck(it) => close_one_with_ack(out, number, it),
        M::CloseConnectionsWithAck(it) => close_all_with_ack(out, number, it),
        M::CloseUserConnectionsWithAck(it) | M::CloseGroupConnectionsWithAck(it) => {
            close_many_with_ack(out, number, it);
        }
        M::ClientInvocation(it) => client_invocation(out, it),
        M::ClientCompletion(it) => client_completion(out, it),
        M::ErrorCompletion(it) => error_completion(out, it),
        M::ServiceMapping(it) => service_mapping(out, it),
        M::ConnectionReconnect(it) => connection_alone(out, number, &it.connection_id),
        M::ConnectionFlowControl(it) => connection_flow_control(out, it),
        M::GroupMemberQuery(it) => group_member_query(out, it),
        M::RefreshAuth(_) | M::UpdateConnectionClaims(_) => log_in(out, message),
        M::MoveConnection(it) => connection_alone(out, number, &it.connection_id),
        M::ConnectionMoved(it) => connection_number(out, number, &it.connection_id, it.epoch),
        M::DownMark(it) | M::DownDone(it) => connection_number(out, number, &it.connection_id, it.number),
        M::Stamped(it) => stamped(out, it),
        M::Filtered(it) => filtered(out, it),
        M::PresenceChanges(it) => presence_changes(out, it),
        M::UserConnectionQuery(it) => user_connection_query(out, it),
        M::TracedData(it) => traced_data(out, it),
        M::TraceReport(it) => trace_report(out, it),
        M::RefreshConnectionWithAck(it) => refresh_connection(out, it),
    }
}

// Links.

fn handshake_request(out: &mut Writer, it: &LinkHandshakeRequest) {
    begin(out, 7, 1);
    out.integer(it.version);
    out.integer(match it.kind {
        LinkKind::Default => 0,
        LinkKind::OnDemand => 1,
        LinkKind::Weak => 2,
        LinkKind::Unknown(kind) => kind,
    });
    out.text(&it.target);
    out.integer(it.migration_level);
    no_extension(out);
    out.boolean(it.allow_stateful_reconnects);
}

fn handshake_response(out: &mut Writer, it: &LinkHandshakeResponse) {
    begin(out, 4, 2);
    optional_text(out, it.error.as_ref());
    no_extension(out);
    optional_text(out, it.connection_id.as_ref());
}

fn ping(out: &mut Writer, it: &Ping) {
    begin(out, 1 + 2 * it.pairs.len(), 3);
    for (key, value) in &it.pairs {
        out.text(key);
        out.text(value);
    }
}

fn service_error(out: &mut Writer, it: &ServiceError) {
    begin(out, 2, 15);
    out.text(&it.error);
}

fn service_event(out: &mut Writer, it: &ServiceEvent) {
    begin(out, 6, 22);
    out.integer(it.object);
    optional_text(out, it.id.as_ref());
    out.integer(it.kind);
    optional_text(out, it.message.as_ref());
    no_extension(out);
}

fn ack(out: &mut Writer, it: &Ack) {
    begin(out, 6, 20);
    out.integer(it.ack_id);
    out.integer(match it.status {
        AckStatus::Ok => 1,
        AckStatus::NotFound => 2,
        AckStatus::Timeout => 3,
        AckStatus::InternalServerError => 4,
        AckStatus::Forbidden => 5,
        AckStatus::Unknown(status) => status,
    });
    optional_text(out, it.message.as_ref());
    no_extension(out);
    match &it.payload {
        Some(payload) => out.binary(payload),
        None => out.nil(),
    }
}

fn connection_flow_control(out: &mut Writer, it: &ConnectionFlowControl) {
    begin(out, 5, 39);
    out.text(&it.connection_id);
    out.int32(match it.subject {
        FlowSubject::Client => 1,
        FlowSubject::Server => 2,
    });
    out.int32(match it.operation {
        FlowOperation::Pause => 1,
        FlowOperation::PauseAck => 2,
        FlowOperation::Resume => 3,
        FlowOperation::Offline => 4,
        FlowOperation::ReadOn => 5,
        FlowOperation::EndInput => 6,
    });
    no_extension(out);
}

// Life cycle of a client connection.

fn open_connection(out: &mut Writer, it: &OpenConnection) {
    begin(out, 6, 4);
    out.text(&it.connection_id);
    write_claims(out, &it.claims);
    headers(out, &it.headers);
    optional_text(out, it.query.as_ref());
    match &it.protocol {
        Some(protocol) => {
            out.map_len(1);
            out.integer(extension::PROTOCOL);
            out.text(protocol);
        }
        None => no_extension(out),
    }
}

fn close_connection(out: &mut Writer, it: &CloseConnection) {
    begin(out, 5, 5);
    out.text(&it.connection_id);
    optional_text(out, it.error.as_ref());
    headers(out, &it.headers);
    no_extension(out);
}

pub(super) fn connection_data(out: &mut Writer, connection_id: &str, payload: &[u8], data_type: i64, ends: Ends) {
    begin(out, 4, 6);
    out.text(connection_id);
    out.binary(payload);
    let is_partial = ends == Ends::WithinMessage;
    out.map_len(usize::from(data_type != 0) + usize::from(is_partial));
    if data_type != 0 {
        out.integer(extension::DATA_TYPE);
        out.integer(data_type);
    }
    if is_partial {
        out.integer(extension::IS_PARTIAL);
        out.boolean(true);
    }
}

// Sends to many clients.

/// Recipients, or the exclusions of a broadcast, and the payloads.
fn data_to_many(out: &mut Writer, number: u8, names: &[ByteString], what: &Payloads) {
    begin(out, 4, number);
    texts(out, names);
    payloads(out, what);
    no_extension(out);
}

fn data_to_user(out: &mut Writer, number: u8, user_id: &str, what: &Payloads) {
    begin(out, 4, number);
    out.text(user_id);
    payloads(out, what);
    no_extension(out);
}

fn group_broadcast_data(out: &mut Writer, it: &GroupBroadcastData) {
    begin(out, 7, 13);
    out.text(&it.group);
    texts(out, &it.excluded);
    payloads(out, &it.payloads);
    no_extension(out);
    texts(out, &it.excluded_users);
    optional_text(out, it.caller_user.as_ref());
}

// Groups.

fn group_change(out: &mut Writer, number: u8, it: &GroupChange) {
    begin(out, 4, number);
    out.text(&it.connection_id);
    optional_text(out, it.group.as_ref());
    no_extension(out);
}

fn group_change_with_ack(out: &mut Writer, number: u8, it: &GroupChange) {
    begin(out, 5, number);
    out.text(&it.connection_id);
    optional_text(out, it.group.as_ref());
    out.integer(it.ack_id);
    no_extension(out);
}

fn user_group_change(out: &mut Writer, items: usize, number: u8, it: &UserGroupChange) {
    begin(out, items, number);
    out.text(&it.user_id);
    optional_text(out, it.group.as_ref());
}

/// Only joins have a time to live. Readers reject the key in other messages.
fn user_group_extension(out: &mut Writer, message: &ServiceMessage, it: &UserGroupChange) {
    let joins = matches!(message, ServiceMessage::UserJoinGroup(_) | ServiceMessage::UserJoinGroupWithAck(_));
    match it.ttl_s {
        Some(ttl_s) if joins => {
            out.map_len(1);
            out.integer(extension::TTL);
            out.integer(ttl_s);
        }
        _ => no_extension(out),
    }
}

// Acknowledged queries and commands.

fn check_user_in_group(out: &mut Writer, it: &CheckUserInGroup) {
    begin(out, 5, 21);
    out.text(&it.user_id);
    out.text(&it.group);
    out.integer(it.ack_id);
    no_extension(out);
}

fn group_member_query(out: &mut Writer, it: &GroupMemberQuery) {
    begin(out, 7, 40);
    no_extension(out);
    out.text(&it.group);
    out.integer(it.ack_id);
    optional_integer(out, it.top);
    optional_text(out, it.continuation_token.as_ref());
    optional_integer(out, it.page_size);
}

fn connection_alone(out: &mut Writer, number: u8, connection_id: &ByteString) {
    begin(out, 3, number);
    out.text(connection_id);
    no_extension(out);
}

fn connection_number(out: &mut Writer, kind: u8, connection_id: &ByteString, number: i64) {
    begin(out, 4, kind);
    out.text(connection_id);
    out.integer(number);
    no_extension(out);
}

fn stamped(out: &mut Writer, it: &Stamped) {
    begin(out, 4, 62);
    out.integer(it.epoch);
    out.binary(&it.body);
    no_extension(out);
}

fn filtered(out: &mut Writer, it: &Filtered) {
    begin(out, 4, 76);
    out.text(&it.filter);
    out.binary(&it.body);
    no_extension(out);
}

fn presence_changes(out: &mut Writer, it: &PresenceChanges) {
    begin(out, 11, 70);
    out.integer(it.shard);
    out.integer(it.stream);
    out.integer(match it.phase {
        PresencePhase::Changes => 0,
        PresencePhase::Snapshot => 1,
        PresencePhase::SnapshotEnd => 2,
    });
    match &it.app_servers {
        Some(instances) => texts(out, instances),
        None => out.nil(),
    }
    texts(out, &it.lost);
    texts(out, &it.online);
    texts(out, &it.offline);
    out.array_len(it.joined.len());
    for join in &it.joined {
        out.array_len(3);
        out.text(&join.group);
        out.text(&join.connection_id);
        optional_text(out, join.user_id.as_ref());
    }
    out.array_len(it.left.len());
    for (group, connection_id) in &it.left {
        out.array_len(2);
        out.text(group);
        out.text(connection_id);
    }
    no_extension(out);
}

fn user_connection_query(out: &mut Writer, it: &UserConnectionQuery) {
    begin(out, 6, 71);
    no_extension(out);
    out.text(&it.user_id);
    out.integer(it.ack_id);
    optional_integer(out, it.page_size);
    optional_text(out, it.continuation_token.as_ref());
}

fn traced_data(out: &mut Writer, it: &TracedData) {
    begin(out, 4, 72);
    out.integer(it.mark);
    out.binary(&it.body);
    no_extension(out);
}

fn trace_report(out: &mut Writer, it: &TraceReport) {
    begin(out, 9, 73);
    out.text(&it.connection_id);
    out.integer(it.mark);
    out.integer(it.waited_us);
    for duration in [it.queued_us, it.ran_us, it.answered_us] {
        match duration {
            Some(duration) => out.integer(duration),
            None => out.nil(),
        }
    }
    out.boolean(it.has_failed);
    no_extension(out);
}

fn refresh_connection(out: &mut Writer, it: &RefreshConnection) {
    begin(out, 5, 75);
    out.text(&it.connection_id);
    out.integer(it.expires_s);
    out.integer(it.ack_id);
    no_extension(out);
}

/// Refreshed log-in of a client connection, or only its claims.
fn log_in(out: &mut Writer, message: &ServiceMessage) {
    match message {
        ServiceMessage::RefreshAuth(it) => {
            begin(out, 6, 41);
            out.text(&it.connection);
            write_claims(out, &it.claims);
            out.timestamp(it.expires_s);
            out.integer(it.ack_id);
        }
        ServiceMessage::UpdateConnectionClaims(it) => {
            begin(out, 4, 43);
            out.text(&it.connection_id);
            write_claims(out, &it.claims);
        }
        _ => return,
    }
    no_extension(out);
}

fn check(out: &mut Writer, number: u8, it: &Check) {
    begin(out, 4, number);
    out.text(&it.subject);
    out.integer(it.ack_id);
    no_extension(out);
}

fn close_one_with_ack(out: &mut Writer, number: u8, it: &CloseWithAck) {
    begin(out, 5, number);
    out.text(&it.subject);
    optional_text(out, it.reason.as_ref());
    out.integer(it.ack_id);
    no_extension(out);
}

fn close_all_with_ack(out: &mut Writer, number: u8, it: &CloseWithAck) {
    begin(out, 5, number);
    optional_text(out, it.reason.as_ref());
    out.integer(it.ack_id);
    texts(out, &it.excluded);
    no_extension(out);
}

fn close_many_with_ack(out: &mut Writer, number: u8, it: &CloseWithAck) {
    begin(out, 6, number);
    out.text(&it.subject);
    optional_text(out, it.reason.as_ref());
    out.integer(it.ack_id);
    texts(out, &it.excluded);
    no_extension(out);
}

// Client results.

fn client_invocation(out: &mut Writer, it: &ClientInvocation) {
    begin(out, 6, 34);
    out.text(&it.invocation_id);
    out.text(&it.connection_id);
    out.text(&it.caller_server_id);
    payloads(out, &it.payloads);
    no_extension(out);
}

fn client_completion(out: &mut Writer, it: &ClientCompletion) {
    begin(out, 7, 35);
    out.text(&it.invocation_id);
    out.text(&it.connection_id);
    out.text(&it.caller_server_id);
    out.text(&it.protocol);
    out.binary(&it.payload);
    // Azure's SDK writes the protocol twice.
    out.map_len(1);
    out.integer(extension::PROTOCOL);
    out.text(&it.protocol);
}

fn error_completion(out: &mut Writer, it: &ErrorCompletion) {
    begin(out, 6, 36);
    out.text(&it.invocation_id);
    out.text(&it.connection_id);
    out.text(&it.caller_server_id);
    out.text(&it.error);
    no_extension(out);
}

fn service_mapping(out: &mut Writer, it: &ServiceMapping) {
    begin(out, 5, 37);
    out.text(&it.invocation_id);
    out.text(&it.connection_id);
    out.text(&it.instance_id);
    no_extension(out);
}

fn access_key_response(out: &mut Writer, it: &AccessKeyResponse) {
    optional_texts(out, 29, &[&it.key_id, &it.access_key, &it.error_type, &it.error]);
}

fn optional_texts(out: &mut Writer, number: u8, texts: &[&Option<ByteString>]) {
    begin(out, texts.len() + 2, number);
    texts.iter().for_each(|text| optional_text(out, text.as_ref()));
    no_extension(out);
}

// Helpers.

fn begin(out: &mut Writer, items: usize, number: u8) {
    out.array_len(items);
    out.integer(i64::from(number));
}

fn no_extension(out: &mut Writer) {
    out.map_len(0);
}

fn optional_integer(out: &mut Writer, value: Option<i64>) {
    match value {
        Some(value) => out.integer(value),
        None => out.nil(),
    }
}

fn optional_text(out: &mut Writer, text: Option<&ByteString>) {
    match text {
        Some(text) => out.text(text),
        None => out.nil(),
    }
}

fn texts(out: &mut Writer, texts: &[ByteString]) {
    out.array_len(texts.len());
    texts.iter().for_each(|text| out.text(text));
}

fn headers(out: &mut Writer, headers: &[(ByteString, Vec<ByteString>)]) {
    out.map_len(headers.len());
    for (name, values) in headers {
        out.text(name);
        texts(out, values);
    }
}

fn payloads(out: &mut Writer, payloads: &Payloads) {
    out.map_len(payloads.0.len());
    for (protocol, bytes) in &payloads.0 {
        out.text(protocol);
        out.binary(bytes);
    }
}

/// Assumes two bytes of header per text, as for ids and names of usual length.
fn texts_bytes(texts: &[ByteString]) -> usize {
    texts.iter().map(|text| text.len() + 2).sum()
}

fn claims_bytes(claims: &[(ByteString, ByteString)]) -> usize {
    claims.iter().map(|(name, value)| name.len() + value.len() + 4).sum()
}

fn payloads_bytes(payloads: &Payloads) -> usize {
    payloads.0.iter().map(|(protocol, bytes)| protocol.len() + bytes.len() + 6).sum()
}
