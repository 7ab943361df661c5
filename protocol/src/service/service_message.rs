//! Service messages as values, in the order of their numbers.
//!
//! Names and layouts are those of the public service protocol. A list of `payloads` holds the same hub
//! message once per hub protocol; the receiver picks by what each client speaks. A send with a filter is read as
//! [`ServiceMessage::Filtered`]. Tracing ids and other extension members that we have no use for are skipped when read
//! and never written.

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use serde::Serialize;

use crate::hub::{HubMessage, HubProtocol, Invocation, PayloadError};
use crate::message_pack::{ReadError, Reader};

/// A message of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceMessage {
    /// Type 1: the app server speaks first.
    HandshakeRequest(LinkHandshakeRequest),
    /// Type 2: the proxy answers.
    HandshakeResponse(LinkHandshakeResponse),
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
    /// Type 20: the answer to a message that asks for an ack.
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
    /// Type 28: an app server that logs in with Entra ID asks for a key.
    AccessKeyRequest(AccessKeyRequest),
    /// Type 29: the answer.
    AccessKeyResponse(AccessKeyResponse),
    /// Type 30: close one connection.
    CloseConnectionWithAck(CloseWithAck),
    /// Type 31: close all connections of the hub but some.
    CloseConnectionsWithAck(CloseWithAck),
    /// Type 32: close a user's connections.
    CloseUserConnectionsWithAck(CloseWithAck),
    /// Type 33: close a group's connections.
    CloseGroupConnectionsWithAck(CloseWithAck),
    /// Type 34: a client result request of an app server.
    ClientInvocation(ClientInvocation),
    /// Type 35: a client's answer to a client result request.
    ClientCompletion(ClientCompletion),
    /// Type 36: the error of a client result request that no client will answer.
    ErrorCompletion(ErrorCompletion),
    /// Type 37: the node that holds the client of a client result request.
    ServiceMapping(ServiceMapping),
    /// Type 38: a client came back (stateful reconnect).
    ConnectionReconnect(ConnectionReconnect),
    /// Type 39: pause or resume reading of one connection.
    ConnectionFlowControl(ConnectionFlowControl),
    /// Type 40: who are the members of a group? A page at a time.
    GroupMemberQuery(GroupMemberQuery),
    /// Type 41: a client connection gets the claims and the end of a newer log-in.
    RefreshAuth(RefreshAuth),
    /// Type 42: what are the claims of a client connection?
    GetConnectionClaims(Check),
    /// Type 43: the claims of a client connection have changed.
    UpdateConnectionClaims(ConnectionClaims),
    /// Type 60, ours: a client connection is about to be served by another node.
    MoveConnection(MoveConnection),
    /// Type 61, ours: whatever follows for it goes to the other node.
    ConnectionMoved(ConnectionMoved),
    /// Type 62, ours: a send, with the epoch in which it began.
    Stamped(Stamped),
    /// Type 76: a message for the clients that a filter includes.
    Filtered(Filtered),
    /// Type 63, ours: does an app server keep what a lost client had?
    RestoreQuery(RestoreQuery),
    /// Type 64, ours: the answer.
    RestoreAnswer(RestoreAnswer),
    /// Type 70, ours: users and members of groups that have come to a shard of a node, or have left it.
    PresenceChanges(PresenceChanges),
    /// Type 71, ours: what are the connections of a user? A page at a time.
    UserConnectionQuery(UserConnectionQuery),
    /// Type 72, ours: data of a client connection that a live trace follows.
    TracedData(TracedData),
    /// Type 73, ours: how long a traced message took in the app server.
    TraceReport(TraceReport),
    /// Type 74, ours: which app servers stand for the exclusive tasks of a hub?
    TaskCandidates(TaskCandidates),
    /// Type 75, ours: a client connection that closes with its token gets more time.
    RefreshConnectionWithAck(RefreshConnection),
    /// Type 77, ours: asks for a report when a client connection has taken what was sent to it alone so far.
    DownMark(DownMark),
    /// Type 78, ours: the report.
    DownDone(DownMark),
}

/// Why a frame is no service message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("service message {kind}: {problem}")]
pub struct ServiceMessageError {
    /// The message, by number and name as far as they are known.
    pub kind: String,
    /// The field and its problem.
    pub problem: String,
}

/// Kind of a raw connection's message. Between our two ends only: Azure's service has no raw endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RawKind {
    /// A text in UTF-8.
    Text,
    /// Bytes without any meaning here.
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

    /// The kind of a number; without the mark of a text it is bytes.
    #[must_use]
    pub fn from_data_type(data_type: i64) -> Self {
        if data_type == RawKind::Text.data_type() { RawKind::Text } else { RawKind::Binary }
    }
}

/// Bytes that are no list of payloads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no MessagePack map of names of hub protocols to bytes: {0}")]
pub struct PayloadsError(String);

/// Encodings of one hub message, one per hub protocol: pairs of the protocol's name and the framed bytes. Of a raw
/// endpoint one message, under the name of its [`RawKind`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Payloads(pub Vec<(ByteString, Bytes)>);

impl Payloads {
    /// Creates a payload in one protocol.
    #[must_use]
    pub fn single(protocol: HubProtocol, bytes: Bytes) -> Self {
        Self(vec![(ByteString::from_static(protocol.name()), bytes)])
    }

    /// Creates an invocation of clients, once per hub protocol; with an id they are to answer.
    ///
    /// # Errors
    /// When an argument can't be written in one of them.
    pub fn invocation<T: Serialize>(id: Option<&str>, target: &str, arguments: &[T]) -> Result<Self, PayloadError> {
        Self::encode(|protocol| {
            let arguments = arguments.iter().map(|argument| protocol.payload(argument));
            Ok(HubMessage::Invocation(Invocation {
                invocation_id: id.map(Into::into),
                target: target.into(),
                arguments: arguments.collect::<Result<_, _>>()?,
                ..Invocation::default()
            }))
        })
    }

    /// Encodes a message once per hub protocol, as it is made for each.
    ///
    /// # Errors
    /// Those of making it.
    pub fn encode(message: impl Fn(HubProtocol) -> Result<HubMessage, PayloadError>) -> Result<Self, PayloadError> {
        let mut payloads = Self::default();
        for protocol in HubProtocol::ALL {
            let mut encoded = BytesMut::new();
            protocol.encode(&message(protocol)?, &mut encoded);
            payloads.0.push((protocol.name().into(), encoded.freeze()));
        }
        Ok(payloads)
    }

    /// Reads a MessagePack map of the names of at most `max` hub protocols to framed messages, whose memory is shared.
    ///
    /// # Errors
    /// When the bytes are something else.
    pub fn from_message_pack(body: &Bytes, max: usize) -> Result<Self, PayloadsError> {
        let (mut reader, unreadable) = (Reader::new(body), |error: ReadError| PayloadsError(error.to_string()));
        let count = reader.map_len().map_err(unreadable)?;
        if count > max {
            return Err(PayloadsError(format!("it has {count} entries, at most {max} are taken")));
        }
        let pair = |_| Ok((reader.shared_text()?, reader.binary()?));
        let pairs: Result<Vec<_>, ReadError> = (0..count).map(pair).collect();
        pairs.map(Self).map_err(unreadable)
    }

    /// Creates a message for connections of a raw endpoint.
    #[must_use]
    pub fn raw(kind: RawKind, bytes: Bytes) -> Self {
        Self(vec![(ByteString::from_static(kind.name()), bytes)])
    }

    /// Returns the bytes for clients of this protocol; `None` leaves them out.
    #[must_use]
    pub fn get(&self, protocol: HubProtocol) -> Option<&Bytes> {
        self.named(protocol.name())
    }

    /// Returns the bytes for connections of a raw endpoint, if they are of this kind.
    #[must_use]
    pub fn get_raw(&self, kind: RawKind) -> Option<&Bytes> {
        self.named(kind.name())
    }

    fn named(&self, wanted: &str) -> Option<&Bytes> {
        self.0.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, bytes)| bytes)
    }
}

/// Kind of link that an app server asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LinkKind {
    /// 0: may carry clients.
    #[default]
    Default,
    /// 1: opened because the service asked for it.
    OnDemand,
    /// 2: sends messages, must not be given clients.
    Weak,
    /// A number without a meaning here.
    Unknown(i64),
}

/// Body of type 1, `HandshakeRequest`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkHandshakeRequest {
    /// Version of the service protocol: 1.
    pub version: i64,
    /// Whether the link may carry clients.
    pub kind: LinkKind,
    /// The instance that asked for an on-demand link, else empty.
    pub target: ByteString,
    /// 0 no migration, 1 on graceful shutdown, 2 also on loss.
    pub migration_level: i64,
    /// Whether the hub allows stateful reconnect.
    pub allow_stateful_reconnects: bool,
}

/// Body of type 2, `HandshakeResponse`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkHandshakeResponse {
    /// Reason of a refusal; `None` (on the wire nil or an empty text) accepts.
    pub error: Option<ByteString>,
    /// The service's id of this link.
    pub connection_id: Option<ByteString>,
}

/// Body of type 3, `Ping`: pairs of key and value; none is a bare keep-alive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ping {
    /// The pairs in their order.
    pub pairs: Vec<(ByteString, ByteString)>,
}

impl Ping {
    /// Returns the value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&ByteString> {
        self.pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }
}

/// Body of type 4, `OpenConnection`.
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

/// Body of type 5, `CloseConnection`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CloseConnection {
    /// The connection that is closed.
    pub connection_id: ByteString,
    /// Error text; `None` or empty for a normal close.
    pub error: Option<ByteString>,
    /// Headers such as `Asrs-Migrate-To`.
    pub headers: Vec<(ByteString, Vec<ByteString>)>,
}

/// Body of type 6, `ConnectionData`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectionData {
    /// The connection that the bytes are of.
    pub connection_id: ByteString,
    /// Hub messages, framed; one message of a raw connection.
    pub payload: Bytes,
    /// Number of a [`DataType`](super::DataType).
    pub data_type: i64,
    /// Whether the payload ends within a message.
    pub is_partial: bool,
}

/// Body of type 7, `MultiConnectionData`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MultiConnectionData {
    /// Receivers; unknown ones are skipped.
    pub connection_ids: Vec<ByteString>,
    /// The message, once per hub protocol.
    pub payloads: Payloads,
}

/// Body of type 8, `UserData`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserData {
    /// Users whose connections receive it.
    pub user_id: ByteString,
    /// The message, once per hub protocol.
    pub payloads: Payloads,
}

/// Body of type 9, `MultiUserData`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MultiUserData {
    /// Users whose connections receive it.
    pub user_ids: Vec<ByteString>,
    /// The message, once per hub protocol.
    pub payloads: Payloads,
}

/// Body of type 10, `BroadcastData`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BroadcastData {
    /// Connections that are left out.
    pub excluded: Vec<ByteString>,
    /// The message, once per hub protocol.
    pub payloads: Payloads,
}

/// Body of types 11, 12, 18 and 19.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupChange {
    /// The connection that joins or leaves.
    pub connection_id: ByteString,
    /// The group; `None` to leave all.
    pub group: Option<ByteString>,
    /// To be answered with this id; 0 for 11 and 12, which ask for no answer.
    pub ack_id: i64,
}

/// Body of type 13, `GroupBroadcastData`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupBroadcastData {
    /// The group whose members receive it.
    pub group: ByteString,
    /// Connections that are left out.
    pub excluded: Vec<ByteString>,
    /// The message, once per hub protocol.
    pub payloads: Payloads,
    /// Users whose connections are left out.
    pub excluded_users: Vec<ByteString>,
    /// The user who sends it.
    pub caller_user: Option<ByteString>,
}

/// Body of type 14, `MultiGroupBroadcastData`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MultiGroupBroadcastData {
    /// Groups whose members receive it, once per group.
    pub groups: Vec<ByteString>,
    /// The message, once per hub protocol.
    pub payloads: Payloads,
}

/// Body of type 15, `ServiceError`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceError {
    /// The error text, for logs.
    pub error: ByteString,
}

/// Body of types 16, 17, 26 and 27.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserGroupChange {
    /// The user whose connections join or leave.
    pub user_id: ByteString,
    /// The group; `None` to leave all.
    pub group: Option<ByteString>,
    /// To be answered with this id; 0 for 16 and 17, which ask for no answer.
    pub ack_id: i64,
    /// How long the membership holds for connections to come, in seconds.
    pub ttl_s: Option<i64>,
}

/// Status of an acked request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AckStatus {
    /// 1: done, or yes.
    #[default]
    Ok,
    /// 2: its subject is not here, or no.
    NotFound,
    /// 3: it took too long.
    Timeout,
    /// 4: the request failed at its receiver.
    InternalServerError,
    /// 5: the request is not allowed.
    Forbidden,
    /// A number without a meaning here.
    Unknown(i64),
}

/// Body of type 20, `Ack`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ack {
    /// The id of the request.
    pub ack_id: i64,
    /// Status of the request.
    pub status: AckStatus,
    /// Text for people to read.
    pub message: Option<ByteString>,
    /// Content that was asked for, such as a [`MemberPage`](super::MemberPage).
    pub payload: Option<Bytes>,
}

/// Body of type 21, `CheckUserInGroupWithAck`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckUserInGroup {
    /// The user that is checked.
    pub user_id: ByteString,
    /// The group that is checked.
    pub group: ByteString,
    /// To be answered with this id.
    pub ack_id: i64,
}

/// Body of type 22, `ServiceEvent`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceEvent {
    /// 0 service instance, 1 connection, 2 user, 3 group, 4 link.
    pub object: i64,
    /// Its id or name.
    pub id: Option<ByteString>,
    /// 0 reloading, 1 invalid, 2 not existing, 3 buffer full.
    pub kind: i64,
    /// Text for people to read.
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

/// Body of type 28, `AccessKeyRequest`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessKeyRequest {
    /// Token of Entra ID.
    pub token: Option<ByteString>,
    /// Id of the key that the app server has.
    pub key_id: Option<ByteString>,
}

/// Body of type 29, `AccessKeyResponse`: a key, or an error.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessKeyResponse {
    /// Id of the key.
    pub key_id: Option<ByteString>,
    /// The key itself; `None` with an error.
    pub access_key: Option<ByteString>,
    /// Kind of the error, for programs.
    pub error_type: Option<ByteString>,
    /// Text for the log of the app server.
    pub error: Option<ByteString>,
}

/// Body of types 30 to 33.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CloseWithAck {
    /// The connection, user or group; empty for type 31, which is about all.
    pub subject: ByteString,
    /// The reason that the clients are told.
    pub reason: Option<ByteString>,
    /// To be answered with this id.
    pub ack_id: i64,
    /// Connections that are spared; type 30 has none.
    pub excluded: Vec<ByteString>,
}

/// Body of type 34, `ClientInvocation`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientInvocation {
    /// Unique in the fleet.
    pub invocation_id: ByteString,
    /// The client connection that is asked.
    pub connection_id: ByteString,
    /// The app server that asks.
    pub caller_server_id: ByteString,
    /// The invocation, once per hub protocol.
    pub payloads: Payloads,
}

/// Body of type 35, `ClientCompletion`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientCompletion {
    /// The id of the client result request.
    pub invocation_id: ByteString,
    /// The client connection that was asked.
    pub connection_id: ByteString,
    /// The app server that asked.
    pub caller_server_id: ByteString,
    /// The client's hub protocol.
    pub protocol: ByteString,
    /// The completion message with its framing.
    pub payload: Bytes,
}

/// Body of type 36, `ErrorCompletion`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErrorCompletion {
    /// The id of the client result request.
    pub invocation_id: ByteString,
    /// The client connection that was asked.
    pub connection_id: ByteString,
    /// The app server that asked.
    pub caller_server_id: ByteString,
    /// Why there is no answer.
    pub error: ByteString,
}

/// Body of type 37, `ServiceMapping`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceMapping {
    /// The id of the client result request.
    pub invocation_id: ByteString,
    /// The client connection that was asked.
    pub connection_id: ByteString,
    /// The node that holds it.
    pub instance_id: ByteString,
}

/// Body of type 38, `ConnectionReconnect`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectionReconnect {
    /// The client connection that came back.
    pub connection_id: ByteString,
}

/// Subject of flow control.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FlowSubject {
    /// 1: a client connection.
    #[default]
    Client,
    /// 2: a whole link.
    Server,
}

/// Operation of flow control.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FlowOperation {
    /// 1: stop reading from the connection.
    #[default]
    Pause,
    /// 2: reading has stopped, as asked.
    PauseAck,
    /// 3: resume reading from the connection.
    Resume,
    /// 4: stop writing on this link.
    Offline,
    /// 5, ours: read a client on that is about to be reassigned, because something of it is waited for.
    ReadOn,
    /// 6, ours: stop reading it again, and say so by another request to hand it over.
    EndInput,
}

/// Body of type 39, `ConnectionFlowControl`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectionFlowControl {
    /// The connection id, or the link's id.
    pub connection_id: ByteString,
    /// Whether it is about a client or a link.
    pub subject: FlowSubject,
    /// Operation that is asked for or acknowledged.
    pub operation: FlowOperation,
}

/// Body of type 40, `GroupMemberQuery`. It is answered by an [`Ack`] whose payload is a
/// [`MemberPage`](super::MemberPage).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupMemberQuery {
    /// The group whose members are listed.
    pub group: ByteString,
    /// To be answered with this id.
    pub ack_id: i64,
    /// Maximum number of members in the answer; 0 asks for their number alone, which only our ends know.
    pub page_size: Option<i64>,
    /// Maximum number of members that the asker wants in all; `None` for no maximum.
    pub top: Option<i64>,
    /// Token of the page before; `None` for the first page.
    pub continuation_token: Option<ByteString>,
}

/// Body of type 60, `MoveConnection`, from the node that has the connection to each app server of its hub.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MoveConnection {
    /// The connection that moves.
    pub connection_id: ByteString,
}

/// Body of type 61, `ConnectionMoved`: the answer, behind every send that began in an earlier epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectionMoved {
    /// The connection that moves.
    pub connection_id: ByteString,
    /// Epoch from which on the other node delivers what the app server sends to the connection.
    pub epoch: i64,
}

/// Body of type 62, `Stamped`. A send that is not stamped is of the epoch 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stamped {
    /// Epoch of the app server in which the send began, the same in all its copies.
    pub epoch: i64,
    /// The send, as [`ServiceMessage::to_body`] writes it.
    pub body: Bytes,
}

/// Body of type 76, `Filtered`, from a node to another one; and what a send with a filter is read as.
///
/// The message inside is a send, a close for all clients, or a change of groups without a connection id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filtered {
    /// Filter in the syntax of [`ClientFilter`](super::ClientFilter).
    pub filter: ByteString,
    /// The message, as [`ServiceMessage::to_body`] writes it.
    pub body: Bytes,
}

/// Body of type 63, `RestoreQuery`, from a node to each app server of a hub that restores lost clients.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoreQuery {
    /// Id of the lost connection.
    pub connection_id: ByteString,
    /// User of the client that asks for it; nobody else's is kept for it.
    pub user_id: Option<ByteString>,
    /// To be answered with this id.
    pub query_id: i64,
}

/// Body of type 64, `RestoreAnswer`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoreAnswer {
    /// The id of the query.
    pub query_id: i64,
    /// Whether the app server keeps what the client had, or still holds its connection for open.
    pub is_kept: bool,
}

/// Part of a presence stream that an update is of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PresencePhase {
    /// 0: changes since the update before.
    #[default]
    Changes,
    /// 1: also a part of what is there, because the stream has begun; more follows.
    Snapshot,
    /// 2: also the last part of that. What was not in it is not there.
    SnapshotEnd,
}

/// Body of type 70, `PresenceChanges`, from a node to each app server of a hub that wants presence.
///
/// Each shard has streams of its own. Within one, updates come in order and none is lost; a stream with a higher number
/// takes the place of the one before, and begins with all that is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PresenceChanges {
    /// Index of the shard in its node.
    pub shard: i64,
    /// Number of the stream in its shard.
    pub stream: i64,
    /// Whether a snapshot is under way.
    pub phase: PresencePhase,
    /// Instances that hear of the changes that follow this update, if that has changed: one of them tells the app.
    pub app_servers: Option<Vec<ByteString>>,
    /// Instances that were lost and have not told the app, it may be, what they had heard.
    pub lost: Vec<ByteString>,
    /// Users who have their first connection here.
    pub online: Vec<ByteString>,
    /// Users who have no connection here any more.
    pub offline: Vec<ByteString>,
    /// Connections that have joined a group.
    pub joined: Vec<GroupJoin>,
    /// Connections that have left a group: pairs of group and connection id.
    pub left: Vec<(ByteString, ByteString)>,
}

/// Member of a group in a [`PresenceChanges`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupJoin {
    /// The group that was joined.
    pub group: ByteString,
    /// The public connection id.
    pub connection_id: ByteString,
    /// User of the connection, if it is authenticated.
    pub user_id: Option<ByteString>,
}

/// Body of type 71, `UserConnectionQuery`. It is answered by an [`Ack`] whose payload is a
/// [`MemberPage`](super::MemberPage).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserConnectionQuery {
    /// The user whose connections are listed.
    pub user_id: ByteString,
    /// To be answered with this id.
    pub ack_id: i64,
    /// Maximum number of connections in the answer; 0 asks for their number alone.
    pub page_size: Option<i64>,
    /// Token of the page before; `None` for the first page.
    pub continuation_token: Option<ByteString>,
}

/// Body of type 72, `TracedData`: a frame of type 6 in a cover, so that the frames that nobody follows stay as they
/// are. For app servers alone that have said that they know it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TracedData {
    /// Mark of the first hub message in the data; that of each other one is higher by one.
    pub mark: i64,
    /// A [`ConnectionData`] without its length prefix.
    pub body: Bytes,
}

/// Body of type 73, `TraceReport`: durations by the clock of the app server alone, because its time of day is another
/// one.
///
/// A call that waits for something is reported twice: when it has begun, and when it has been answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TraceReport {
    /// The connection that the message is of.
    pub connection_id: ByteString,
    /// Mark of the message.
    pub mark: i64,
    /// Microseconds from the link's reader to the connection's worker.
    pub waited_us: i64,
    /// Microseconds until the method began; `None` for a message that calls none.
    pub queued_us: Option<i64>,
    /// Microseconds that the method ran; `None` while it does.
    pub ran_us: Option<i64>,
    /// Microseconds until its answer was queued for the link; `None` where there is none.
    pub answered_us: Option<i64>,
    /// Whether the call was answered with an error.
    pub has_failed: bool,
}

/// Body of type 41, `RefreshAuth`: the newer log-in of a client connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RefreshAuth {
    /// Connection token from an app server; connection id between nodes.
    pub connection: ByteString,
    /// All claims of the newer log-in; names may repeat.
    pub claims: Vec<(ByteString, ByteString)>,
    /// End of the newer log-in, in seconds since 1970; from the year 9999 on the connection keeps its end.
    pub expires_s: i64,
    /// Number of the acknowledgement.
    pub ack_id: i64,
}

impl RefreshAuth {
    /// End by which a connection keeps its own: the beginning of the year 9999.
    pub const NO_END_S: i64 = 253_370_764_800;
}

/// Body of type 43, `UpdateConnectionClaims`, to the app servers of a client connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectionClaims {
    /// Id of the client connection.
    pub connection_id: ByteString,
    /// All its claims from now on; names may repeat.
    pub claims: Vec<(ByteString, ByteString)>,
}

/// Body of type 75, `RefreshConnectionWithAck`, from one node to another. The answer says whether the connection is
/// there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RefreshConnection {
    /// Id of the client connection.
    pub connection_id: ByteString,
    /// Seconds since 1970 at which it closes from now on, if it closes with its token.
    pub expires_s: i64,
    /// Number of the acknowledgement.
    pub ack_id: i64,
}

/// Body of type 77, `DownMark`, from an app server to the node of a connection, in line with the data for it; and of
/// type 78, `DownDone`, back to the same app server. For ends alone that have announced `client-flow`.
///
/// A report confirms its mark and all lower ones: the client has taken most of the data before them. A mark may come
/// again, at the same node or at the one to which the connection has moved, and is reported again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DownMark {
    /// The connection that the data is for.
    pub connection_id: ByteString,
    /// Number of the mark; higher than all that the app server has sent before.
    pub number: i64,
}

/// Body of type 74, `TaskCandidates`, from a node to each app server that has said in its manifest that it stands for
/// exclusive tasks. It takes the place of the one before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskCandidates {
    /// The app servers that are linked with the node and not about to stop, once for each of their tasks.
    pub candidates: Vec<TaskCandidate>,
}

/// App server that stands for one exclusive task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskCandidate {
    /// Name of the task.
    pub task: ByteString,
    /// Instance of the app server.
    pub instance: ByteString,
    /// Milliseconds since 1970 at which the app server began, by its own clock.
    pub since_ms: i64,
}
