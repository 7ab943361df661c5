//! Names of the messages, for logs, metrics and errors.

/// Names of the messages by number. 28 and 29 are about Entra ID, which has no use here.
const NAMES: [&str; 41] = [
    "Unknown",
    "HandshakeRequest",
    "HandshakeResponse",
    "Ping",
    "OpenConnection",
    "CloseConnection",
    "ConnectionData",
    "MultiConnectionData",
    "UserData",
    "MultiUserData",
    "BroadcastData",
    "JoinGroup",
    "LeaveGroup",
    "GroupBroadcastData",
    "MultiGroupBroadcastData",
    "ServiceError",
    "UserJoinGroup",
    "UserLeaveGroup",
    "JoinGroupWithAck",
    "LeaveGroupWithAck",
    "Ack",
    "CheckUserInGroupWithAck",
    "ServiceEvent",
    "CheckGroupExistenceWithAck",
    "CheckConnectionExistenceWithAck",
    "CheckUserExistenceWithAck",
    "UserJoinGroupWithAck",
    "UserLeaveGroupWithAck",
    "AccessKeyRequest",
    "AccessKeyResponse",
    "CloseConnectionWithAck",
    "CloseConnectionsWithAck",
    "CloseUserConnectionsWithAck",
    "CloseGroupConnectionsWithAck",
    "ClientInvocation",
    "ClientCompletion",
    "ErrorCompletion",
    "ServiceMapping",
    "ConnectionReconnect",
    "ConnectionFlowControl",
    "GroupMemberQuery",
];

/// Returns the name of a number.
pub(super) fn name_of(number: i64) -> &'static str {
    match number {
        60 => "MoveConnection",
        61 => "ConnectionMoved",
        62 => "Stamped",
        63 => "RestoreQuery",
        64 => "RestoreAnswer",
        _ => usize::try_from(number).ok().and_then(|number| NAMES.get(number)).copied().unwrap_or("Unknown"),
    }
}
