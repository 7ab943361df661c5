//! Service messages as values, in the order of their numbers.
//!
//! Names and layouts are those of the public service protocol. A list of `payloads` holds the same hub
//! message once per hub protocol; the receiver picks by what each client speaks. Tracing ids, filters and other
//! extension members that we have no use for are skipped when read and never written.

use bytes::Bytes;
use bytestring::ByteString;

use crate::hub::HubProtocol;

/// A message of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceMessage {
    /// Type 1: the app server speaks first.
    HandshakeRequest(HandshakeRequest),
    /// Type 2: the proxy answers.
    HandshakeResponse(HandshakeResponse),
    /// Type 3: keep-alive, and pairs of texts such as acknowledgements.
    Ping(Ping),
    /// Type 4: a client connection begins.
    OpenConnection(OpenConnection),
    /// Type 5: a client connection ends.
    CloseConnection(CloseConnection),
    /// Type 6: bytes of one client connection.
    ConnectionData(ConnectionData),
    /// Type 7: to several connections.
    MultiConnectionData(MultiConnectionData),
    /// Type 8: to a user's connections.
    UserData(UserData),
    /// Type 9: to several users' connections.
    MultiUserData(MultiUserData),
    /// Type 10: to all connections of the hub but some.
    BroadcastData(BroadcastData),
    /// Type 11: join a group, without an ack.
    JoinGroup(GroupChange),
    /// Type 12: leave a group, without an ack.
    LeaveGroup(GroupChange),
    /// Type 13: to the members of a group but some.
    GroupBroadcastData(GroupBroadcastData),
    /// Type 14: to the members of several groups, once per group.
    MultiGroupBroadcastData(MultiGroupBroadcastData),
    /// Type 15: something is wrong with this link.
    ServiceError(ServiceError),
    /// Type 16: all connections of a user join a group.
    UserJoinGroup(UserGroupChange),
    /// Type 17: all connections of a user leave a group, or all groups.
    UserLeaveGroup(UserGroupChange),
    /// Type 18: join a group, acked.
    JoinGroupWithAck(GroupChange),
    /// Type 19: leave a group, or all groups, acked.
    LeaveGroupWithAck(GroupChange),
    /// Type 20: the answer to whatever asked for an ack.
    Ack(Ack),
    /// Type 21: is a user in a group?
    CheckUserInGroupWithAck(CheckUserInGroup),
    /// Type 22: news about an instance, connection, user or group.
    ServiceEvent(ServiceEvent),
    /// Type 23: has a group members?
    CheckGroupExistenceWithAck(Check),
    /// Type 24: is a connection there?
    CheckConnectionExistenceWithAck(Check),
    /// Type 25: has a user connections?
    CheckUserExistenceWithAck(Check),
    /// Type 26: as 16, acked.
    UserJoinGroupWithAck(UserGroupChange),
    /// Type 27: as 17, acked.
    UserLeaveGroupWithAck(UserGroupChange),
    /// Type 30: close one connection.
    CloseConnectionWithAck(CloseWithAck),
    /// Type 31: close all connections of the hub but some.
    CloseConnectionsWithAck(CloseWithAck),
    /// Type 32: close a user's connections.
    CloseUserConnectionsWithAck(CloseWithAck),
    /// Type 33: close a group's connections.
    CloseGroupConnectionsWithAck(CloseWithAck),
    /// Type 34: ask a client for a result.
    ClientInvocation(ClientInvocation),
    /// Type 35: what a client answered.
    ClientCompletion(ClientCompletion),
    /// Type 36: why no client will answer.
    ErrorCompletion(ErrorCompletion),
    /// Type 37: which node holds the client that was asked.
    ServiceMapping(ServiceMapping),
    /// Type 38: a client came back (stateful reconnect).
    ConnectionReconnect(ConnectionReconnect),
    /// Type 39: pause or resume reading of one connection.
    ConnectionFlowControl(ConnectionFlowControl),
}

/// What a message of a raw connection is. Between our two ends only: Azure's service has no raw endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RawKind {
    /// UTF-8.
    Text,
    /// Any bytes.
    Binary,
}

impl RawKind {
    /// Its name in [`Payloads`].
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            RawKind::Text => "text",
            RawKind::Binary => "binary",
        }
    }

    /// The number in [`ConnectionData::data_type`], beyond those of hub messages.
    #[must_use]
    pub fn data_type(self) -> i64 {
        match self {
            RawKind::Text => 16,
            RawKind::Binary => 17,
        }
    }

    /// The kind of a number; what is not marked as text is bytes.
    #[must_use]
    pub fn from_data_type(data_type: i64) -> Self {
        if data_type == RawKind::Text.data_type() { RawKind::Text } else { RawKind::Binary }
    }
}

/// One hub message, once per hub protocol: pairs of the protocol's name and the framed bytes. Of a raw endpoint one
/// message, under the name of its [`RawKind`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Payloads(pub Vec<(ByteString, Bytes)>);

impl Payloads {
    /// A payload in one protocol.
    #[must_use]
    pub fn single(protocol: HubProtocol, bytes: Bytes) -> Self {
        Self(vec![(ByteString::from_static(protocol.name()), bytes)])
    }

    /// A message for connections of a raw endpoint.
    #[must_use]
    pub fn raw(kind: RawKind, bytes: Bytes) -> Self {
        Self(vec![(ByteString::from_static(kind.name()), bytes)])
    }

    /// The bytes for clients that speak this protocol; `None` if they are to be left out.
    #[must_use]
    pub fn get(&self, protocol: HubProtocol) -> Option<&Bytes> {
        self.named(protocol.name())
    }

    /// The bytes for connections of a raw endpoint, if they are of this kind.
    #[must_use]
    pub fn get_raw(&self, kind: RawKind) -> Option<&Bytes> {
        self.named(kind.name())
    }

    fn named(&self, wanted: &str) -> Option<&Bytes> {
        self.0.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, bytes)| bytes)
    }
}

/// What kind of link an app server asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LinkKind {
    /// 0: may carry clients.
    #[default]
    Default,
    /// 1: opened because the service asked for it.
    OnDemand,
    /// 2: sends messages, must not be given clients.
    Weak,
    /// Any other number.
    Unknown(i64),
}

/// Body of type 1.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HandshakeRequest {
    /// Version of the service protocol: 1.
    pub version: i64,
    /// What the link is for.
    pub kind: LinkKind,
    /// The instance that asked for an on-demand link, else empty.
    pub target: ByteString,
    /// 0 no migration, 1 on graceful shutdown, 2 also on loss.
    pub migration_level: i64,
    /// Whether the hub allows stateful reconnect.
    pub allow_stateful_reconnects: bool,
}

/// Body of type 2.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HandshakeResponse {
    /// Why not; `None` (on the wire nil or an empty text) is a welcome.
    pub error: Option<ByteString>,
    /// The service's id of this link.
    pub connection_id: Option<ByteString>,
}

/// Body of type 3: pairs of key and value; none is a bare keep-alive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ping {
    /// The pairs in their order.
    pub pairs: Vec<(ByteString, ByteString)>,
}

impl Ping {
    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&ByteString> {
        self.pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }
}

/// Body of type 4.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenConnection {
    /// The public connection id.
    pub connection_id: ByteString,
    /// Claims of the user in their order; names may repeat.
    pub claims: Vec<(ByteString, ByteString)>,
    /// Headers of the connect request, each name with all its values.
    pub headers: Vec<(ByteString, Vec<ByteString>)>,
    /// Raw query of the connect request, with its `?`.
    pub query: Option<ByteString>,
    /// Name of the hub protocol that the client chose; `None` at a raw endpoint.
    pub protocol: Option<ByteString>,
}

/// Body of type 5.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CloseConnection {
    /// Whose end it is.
    pub connection_id: ByteString,
    /// Why; `None` or empty when all is well.
    pub error: Option<ByteString>,
    /// `Asrs-Migrate-To` and the like.
    pub headers: Vec<(ByteString, Vec<ByteString>)>,
}

/// Body of type 6.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectionData {
    /// Whose bytes these are.
    pub connection_id: ByteString,
    /// Hub messages, framed; one message of a raw connection.
    pub payload: Bytes,
    /// What the payload is: 0 unknown, 1 handshake, 2 invocation, 3 other, 4 close; else a [`RawKind`].
    pub data_type: i64,
    /// Whether the payload ends within a message.
    pub is_partial: bool,
}

/// Body of type 7.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MultiConnectionData {
    /// Receivers; unknown ones are skipped.
    pub connection_ids: Vec<ByteString>,
    /// What they get.
    pub payloads: Payloads,
}

/// Body of type 8.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserData {
    /// Whose connections get it.
    pub user_id: ByteString,
    /// What they get.
    pub payloads: Payloads,
}

/// Body of type 9.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MultiUserData {
    /// Whose connections get it.
    pub user_ids: Vec<ByteString>,
    /// What they get.
    pub payloads: Payloads,
}

/// Body of type 10.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BroadcastData {
    /// Who is left out.
    pub excluded: Vec<ByteString>,
    /// What the others get.
    pub payloads: Payloads,
}

/// Body of types 11, 12, 18 and 19.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupChange {
    /// Who joins or leaves.
    pub connection_id: ByteString,
    /// The group; `None` to leave all.
    pub group: Option<ByteString>,
    /// To be answered with this id; 0 for 11 and 12, which ask for no answer.
    pub ack_id: i64,
}

/// Body of type 13.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupBroadcastData {
    /// Whose members get it.
    pub group: ByteString,
    /// Who is left out.
    pub excluded: Vec<ByteString>,
    /// What the others get.
    pub payloads: Payloads,
    /// Users whose connections are left out.
    pub excluded_users: Vec<ByteString>,
    /// The user who sends it.
    pub caller_user: Option<ByteString>,
}

/// Body of type 14.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MultiGroupBroadcastData {
    /// Whose members get it, once per group.
    pub groups: Vec<ByteString>,
    /// What they get.
    pub payloads: Payloads,
}

/// Body of type 15.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceError {
    /// What is wrong.
    pub error: ByteString,
}

/// Body of types 16, 17, 26 and 27.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserGroupChange {
    /// Whose connections join or leave.
    pub user_id: ByteString,
    /// The group; `None` to leave all.
    pub group: Option<ByteString>,
    /// To be answered with this id; 0 for 16 and 17, which ask for no answer.
    pub ack_id: i64,
    /// How long the membership holds for connections to come, in seconds.
    pub ttl_s: Option<i64>,
}

/// What an acked request came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AckStatus {
    /// 1: done, or yes.
    #[default]
    Ok,
    /// 2: whom it is about is not here, or no.
    NotFound,
    /// 3: it took too long.
    Timeout,
    /// 4: it failed.
    InternalServerError,
    /// Any other number.
    Unknown(i64),
}

/// Body of type 20.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ack {
    /// The id of the request.
    pub ack_id: i64,
    /// What came of it.
    pub status: AckStatus,
    /// For people.
    pub message: Option<ByteString>,
}

/// Body of type 21.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckUserInGroup {
    /// The user.
    pub user_id: ByteString,
    /// The group.
    pub group: ByteString,
    /// To be answered with this id.
    pub ack_id: i64,
}

/// Body of type 22.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceEvent {
    /// 0 service instance, 1 connection, 2 user, 3 group, 4 link.
    pub object: i64,
    /// Which of them.
    pub id: Option<ByteString>,
    /// 0 reloading, 1 invalid, 2 not existing, 3 buffer full.
    pub kind: i64,
    /// For people.
    pub message: Option<ByteString>,
}

/// Body of types 23, 24 and 25: is there a group, connection or user of this name?
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Check {
    /// The group, connection id or user.
    pub subject: ByteString,
    /// To be answered with this id.
    pub ack_id: i64,
}

/// Body of types 30 to 33.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CloseWithAck {
    /// The connection, user or group; empty for type 31, which is about all.
    pub subject: ByteString,
    /// What the clients are told.
    pub reason: Option<ByteString>,
    /// To be answered with this id.
    pub ack_id: i64,
    /// Connections that are spared; type 30 has none.
    pub excluded: Vec<ByteString>,
}

/// Body of type 34.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientInvocation {
    /// Unique in the fleet.
    pub invocation_id: ByteString,
    /// Who is asked.
    pub connection_id: ByteString,
    /// The app server that asks.
    pub caller_server_id: ByteString,
    /// The question.
    pub payloads: Payloads,
}

/// Body of type 35.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientCompletion {
    /// The question's id.
    pub invocation_id: ByteString,
    /// Who was asked.
    pub connection_id: ByteString,
    /// The app server that asked.
    pub caller_server_id: ByteString,
    /// The client's hub protocol.
    pub protocol: ByteString,
    /// The completion, framed.
    pub payload: Bytes,
}

/// Body of type 36.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErrorCompletion {
    /// The question's id.
    pub invocation_id: ByteString,
    /// Who was asked.
    pub connection_id: ByteString,
    /// The app server that asked.
    pub caller_server_id: ByteString,
    /// Why there is no answer.
    pub error: ByteString,
}

/// Body of type 37.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceMapping {
    /// The question's id.
    pub invocation_id: ByteString,
    /// Who was asked.
    pub connection_id: ByteString,
    /// The node that holds it.
    pub instance_id: ByteString,
}

/// Body of type 38.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectionReconnect {
    /// Who came back.
    pub connection_id: ByteString,
}

/// Whose flow is controlled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FlowSubject {
    /// 1: a client connection.
    #[default]
    Client,
    /// 2: a link.
    Server,
}

/// What shall happen to the flow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FlowOperation {
    /// 1: stop.
    #[default]
    Pause,
    /// 2: stopped.
    PauseAck,
    /// 3: go on.
    Resume,
    /// 4: stop writing on this link.
    Offline,
}

/// Body of type 39.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectionFlowControl {
    /// The connection id, or the link's id.
    pub connection_id: ByteString,
    /// Which of the two.
    pub subject: FlowSubject,
    /// What shall happen.
    pub operation: FlowOperation,
}
