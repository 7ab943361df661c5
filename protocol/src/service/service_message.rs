//! Service messages as values, in the order of their numbers.
//!
//! Names and layouts follow the public service protocol. `payloads` holds a hub message once per hub protocol, and the
//! receiver picks the client's. Sends with a filter are decoded as [`ServiceMessage::Filtered`].

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use serde::Serialize;

use super::message_table::service_messages;
use super::recorded::{RecordAct, RecordEnd, RecordedSet};
use crate::hub::{HubMessage, HubProtocol, Invocation, PayloadError};
use crate::message_pack::{ReadError, Reader};

macro_rules! message_kinds {
    ($($(#[$doc:meta])* $number:literal $name:ident($body:ident) $class:ident $layout:tt;)*) => {
        /// Message of a link.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum ServiceMessage {
            $($(#[$doc])* $name($body),)*
        }

        impl ServiceMessage {
            /// Number of this kind of message in the service protocol.
            #[must_use]
            pub fn number(&self) -> u8 {
                match self {
                    $(Self::$name(_) => $number,)*
                }
            }
        }

        /// Name of a kind of message in the service protocol. 28 and 29 are for Entra ID, which is refused.
        pub(super) fn name_of(number: i64) -> &'static str {
            match number {
                $($number => stringify!($name),)*
                _ => "Unknown",
            }
        }
    };
}

service_messages!(message_kinds);

/// Error decoding a service message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("service message {kind}: {problem}")]
pub struct ServiceMessageError {
    /// Number and name of the message, as far as known.
    pub kind: String,
    /// Field and its problem.
    pub problem: String,
}

/// Message kind of a raw connection. A Trunkline extension: Azure's service has no raw endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RawKind {
    /// Text encoded in UTF-8.
    Text,
    /// Bytes without any interpretation.
    Binary,
}

impl RawKind {
    /// Name of the kind in [`Payloads`].
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            RawKind::Text => "text",
            RawKind::Binary => "binary",
        }
    }

    /// Number in [`ConnectionData::data_type`], above the numbers of hub messages.
    #[must_use]
    pub fn data_type(self) -> i64 {
        match self {
            RawKind::Text => 16,
            RawKind::Binary => 17,
        }
    }

    /// Returns the kind with this number. Anything other than text is binary.
    #[must_use]
    pub fn from_data_type(data_type: i64) -> Self {
        if data_type == RawKind::Text.data_type() { RawKind::Text } else { RawKind::Binary }
    }
}

/// Error decoding a list of payloads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no MessagePack map of names of hub protocols to bytes: {0}")]
pub struct PayloadsError(String);

/// Encodings of one hub message: pairs of hub protocol name and framed bytes. For a raw endpoint, one message under the
/// name of its [`RawKind`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Payloads(pub Vec<(ByteString, Bytes)>);

impl Payloads {
    /// Creates a payload in one protocol.
    #[must_use]
    pub fn single(protocol: HubProtocol, bytes: Bytes) -> Self {
        Self(vec![(ByteString::from_static(protocol.name()), bytes)])
    }

    /// Creates an invocation of clients, once per hub protocol. With an id, clients return a result. Fails if an
    /// argument can't be encoded in a protocol.
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

    /// Encodes a message once per hub protocol. Fails with any error of `message`.
    pub fn encode(message: impl Fn(HubProtocol) -> Result<HubMessage, PayloadError>) -> Result<Self, PayloadError> {
        let mut payloads = Self::default();
        for protocol in HubProtocol::ALL {
            let mut encoded = BytesMut::new();
            protocol.encode(&message(protocol)?, &mut encoded);
            payloads.0.push((protocol.name().into(), encoded.freeze()));
        }
        Ok(payloads)
    }

    /// Decodes a MessagePack map from at most `max` hub protocol names to framed messages, sharing its memory. Fails if
    /// the bytes are invalid.
    pub fn from_message_pack(body: &Bytes, max: usize) -> Result<Self, PayloadsError> {
        let (mut reader, unreadable) = (Reader::new(body), |error: ReadError| PayloadsError(error.to_string()));
        let count = reader.map_len().map_err(unreadable)?;
        if count > max {
            return Err(PayloadsError(format!("it has {count} entries, but at most {max} are allowed")));
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

    /// Bytes for clients with this protocol; `None` skips them.
    #[must_use]
    pub fn get(&self, protocol: HubProtocol) -> Option<&Bytes> {
        self.named(protocol.name())
    }

    /// Bytes for connections of a raw endpoint, if of this kind.
    #[must_use]
    pub fn get_raw(&self, kind: RawKind) -> Option<&Bytes> {
        self.named(kind.name())
    }

    fn named(&self, wanted: &str) -> Option<&Bytes> {
        self.0.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, bytes)| bytes)
    }
}

/// Kind of link requested by an app server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LinkKind {
    /// 0: may carry clients.
    #[default]
    Default,
    /// 1: opened on request of the service.
    OnDemand,
    /// 2: send-only, must not carry clients.
    Weak,
    /// Number of an unknown kind.
    Unknown(i64),
}

/// Body of type 1, `HandshakeRequest`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkHandshakeRequest {
    /// Version of the service protocol: 1.
    pub version: i64,
    /// Whether the link may carry clients.
    pub kind: LinkKind,
    /// Instance that requested an on-demand link, otherwise empty.
    pub target: ByteString,
    /// 0 no migration, 1 on graceful shutdown, 2 also on loss.
    pub migration_level: i64,
    /// Whether the hub allows stateful reconnect.
    pub allow_stateful_reconnects: bool,
}

/// Body of type 2, `HandshakeResponse`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkHandshakeResponse {
    /// Reason for refusing; `None` (nil or an empty text on the wire) accepts.
    pub error: Option<ByteString>,
    /// Id of this link at the service.
    pub connection_id: Option<ByteString>,
}

/// Body of type 3, `Ping`: key-value pairs, or none for a simple keep-alive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ping {
    /// The pairs in order.
    pub pairs: Vec<(ByteString, ByteString)>,
}

impl Ping {
    /// Value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&ByteString> {
        self.pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }
}

/// Body of type 4, `OpenConnection`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenConnection {
    /// Public connection id of the client.
    pub connection_id: ByteString,
    /// Claims of the user in order. Names may repeat.
    pub claims: Vec<(ByteString, ByteString)>,
    /// Headers of the connect request, each name with all its values.
    pub headers: Vec<(ByteString, Vec<ByteString>)>,
    /// Raw query of the connect request, including `?`.
    pub query: Option<ByteString>,
    /// Name of the client's hub protocol; `None` at a raw endpoint.
    pub protocol: Option<ByteString>,
}

/// Body of type 5, `CloseConnection`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CloseConnection {
    /// Id of the closed connection.
    pub connection_id: ByteString,
    /// Error text; `None` or empty for a normal close.
    pub error: Option<ByteString>,
    /// Headers such as `Asrs-Migrate-To`.
    pub headers: Vec<(ByteString, Vec<ByteString>)>,
}

/// Body of type 6, `ConnectionData`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectionData {
    /// Id of the connection.
    pub connection_id: ByteString,
    /// Framed hub messages, or one message of a raw connection.
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
    /// Message, once per hub protocol.
    pub payloads: Payloads,
}

/// Body of type 8, `UserData`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserData {
    /// Id of the receiving user.
    pub user_id: ByteString,
    /// Message, once per hub protocol.
    pub payloads: Payloads,
}

/// Body of type 9, `MultiUserData`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MultiUserData {
    /// Ids of the receiving users.
    pub user_ids: Vec<ByteString>,
    /// Message, once per hub protocol.
    pub payloads: Payloads,
}

/// Body of type 10, `BroadcastData`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BroadcastData {
    /// Excluded connections, by id.
    pub excluded: Vec<ByteString>,
    /// Message, once per hub protocol.
    pub payloads: Payloads,
}

/// Body of types 11, 12, 18 and 19.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupChange {
    /// Id of the connection that joins or leaves.
    pub connection_id: ByteString,
    /// Group name; `None` to leave all groups.
    pub group: Option<ByteString>,
    /// Id for the ack; 0 for 11 and 12, which have none.
    pub ack_id: i64,
}

/// Body of type 13, `GroupBroadcastData`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupBroadcastData {
    /// Name of the receiving group.
    pub group: ByteString,
    /// Excluded connections, by id.
    pub excluded: Vec<ByteString>,
    /// Message, once per hub protocol.
    pub payloads: Payloads,
    /// Users excluded with all their connections.
    pub excluded_users: Vec<ByteString>,
    /// User who sends the message.
    pub caller_user: Option<ByteString>,
}

/// Body of type 14, `MultiGroupBroadcastData`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MultiGroupBroadcastData {
    /// Names of the receiving groups.
    pub groups: Vec<ByteString>,
    /// Message, once per hub protocol.
    pub payloads: Payloads,
}

/// Body of type 15, `ServiceError`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceError {
    /// Error text for logs.
    pub error: ByteString,
}

/// Body of types 16, 17, 26 and 27.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserGroupChange {
    /// Id of the user that joins or leaves.
    pub user_id: ByteString,
    /// Group name; `None` to leave all groups.
    pub group: Option<ByteString>,
    /// Id for the ack; 0 for 16 and 17, which have none.
    pub ack_id: i64,
    /// How long the membership applies to future connections, in seconds.
    pub ttl_s: Option<i64>,
}

/// Status of an acknowledged request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AckStatus {
    /// 1: the request was executed, or the answer is yes.
    #[default]
    Ok,
    /// 2: the subject doesn't exist, or the answer is no.
    NotFound,
    /// 3: the request timed out.
    Timeout,
    /// 4: the request failed at its receiver.
    InternalServerError,
    /// 5: the request is not allowed.
    Forbidden,
    /// Number of an unknown status.
    Unknown(i64),
}

/// Body of type 20, `Ack`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ack {
    /// Id of the request.
    pub ack_id: i64,
    /// Status of the request.
    pub status: AckStatus,
    /// Text for human readers.
    pub message: Option<ByteString>,
    /// Requested content, such as a [`MemberPage`](super::MemberPage).
    pub payload: Option<Bytes>,
}

/// Body of type 21, `CheckUserInGroupWithAck`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckUserInGroup {
    /// User to check for.
    pub user_id: ByteString,
    /// Group to check in.
    pub group: ByteString,
    /// Id for the ack.
    pub ack_id: i64,
}

/// Body of type 22, `ServiceEvent`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceEvent {
    /// 0 service instance, 1 connection, 2 user, 3 group, 4 link.
    pub object: i64,
    /// Id or name of the object.
    pub id: Option<ByteString>,
    /// 0 reloading, 1 invalid, 2 not existing, 3 buffer full.
    pub kind: i64,
    /// Text for human readers.
    pub message: Option<ByteString>,
}

/// Body of types 23, 24 and 25: checks whether a group, connection or user exists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Check {
    /// Name of the group, connection or user.
    pub subject: ByteString,
    /// Id for the ack.
    pub ack_id: i64,
}

/// Body of type 28, `AccessKeyRequest`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessKeyRequest {
    /// Token from Entra ID.
    pub token: Option<ByteString>,
    /// Id of the app server's current key.
    pub key_id: Option<ByteString>,
}

/// Body of type 29, `AccessKeyResponse`: a key, or an error.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessKeyResponse {
    /// Id of the key.
    pub key_id: Option<ByteString>,
    /// Key; `None` with an error.
    pub access_key: Option<ByteString>,
    /// Machine-readable kind of the error.
    pub error_type: Option<ByteString>,
    /// Text for the app server's log.
    pub error: Option<ByteString>,
}

/// Body of types 30 to 33.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CloseWithAck {
    /// Connection, user or group; empty for type 31, which affects all.
    pub subject: ByteString,
    /// Reason sent to the clients.
    pub reason: Option<ByteString>,
    /// Id for the ack.
    pub ack_id: i64,
    /// Excluded connections; none for type 30.
    pub excluded: Vec<ByteString>,
}

/// Body of type 34, `ClientInvocation`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientInvocation {
    /// Unique in the fleet.
    pub invocation_id: ByteString,
    /// Client connection that has to answer.
    pub connection_id: ByteString,
    /// App server that sent the request.
    pub caller_server_id: ByteString,
    /// Invocation, once per hub protocol.
    pub payloads: Payloads,
}

/// Body of type 35, `ClientCompletion`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientCompletion {
    /// Id of the client result request.
    pub invocation_id: ByteString,
    /// Client connection that had to answer.
    pub connection_id: ByteString,
    /// App server that sent the request.
    pub caller_server_id: ByteString,
    /// Hub protocol of the client.
    pub protocol: ByteString,
    /// Completion message with its framing.
    pub payload: Bytes,
}

/// Body of type 36, `ErrorCompletion`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErrorCompletion {
    /// Id of the client result request.
    pub invocation_id: ByteString,
    /// Client connection that had to answer.
    pub connection_id: ByteString,
    /// App server that sent the request.
    pub caller_server_id: ByteString,
    /// Reason for the missing answer.
    pub error: ByteString,
}

/// Body of type 37, `ServiceMapping`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceMapping {
    /// Id of the client result request.
    pub invocation_id: ByteString,
    /// Client connection that has to answer.
    pub connection_id: ByteString,
    /// Node that holds the client.
    pub instance_id: ByteString,
}

/// Body of type 38, `ConnectionReconnect`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectionReconnect {
    /// Client connection that has reconnected.
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
    /// 2: reading has stopped, as requested.
    PauseAck,
    /// 3: resume reading from the connection.
    Resume,
    /// 4: stop writing on this link.
    Offline,
    /// 5, ours: keep reading from a client that is about to be reassigned, because its app server waits for its data.
    ReadOn,
    /// 6, ours: stop reading again, and confirm with another handover request.
    EndInput,
}

/// Body of type 39, `ConnectionFlowControl`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectionFlowControl {
    /// Connection id or link id.
    pub connection_id: ByteString,
    /// Whether the message concerns a client or a link.
    pub subject: FlowSubject,
    /// Requested or acknowledged operation.
    pub operation: FlowOperation,
}

/// Body of type 40, `GroupMemberQuery`. The answer is an [`Ack`] with a
/// [`MemberPage`](super::MemberPage) as its payload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupMemberQuery {
    /// Group to list members of.
    pub group: ByteString,
    /// Id for the ack.
    pub ack_id: i64,
    /// Maximum number of members in the answer; 0, supported only by Trunkline, requests just the number.
    pub page_size: Option<i64>,
    /// Maximum total number of members; `None` for no maximum.
    pub top: Option<i64>,
    /// Token from the previous page; `None` for the first page.
    pub continuation_token: Option<ByteString>,
}

/// Body of type 60, `MoveConnection`, from a connection's node to each app server of its hub.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MoveConnection {
    /// Id of the moving connection.
    pub connection_id: ByteString,
}

/// Body of type 61, `ConnectionMoved`: the answer, queued after all sends of earlier epochs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectionMoved {
    /// Id of the moving connection.
    pub connection_id: ByteString,
    /// First epoch of the app server's sends that the other node delivers.
    pub epoch: i64,
}

/// Body of type 62, `Stamped`. Sends without a stamp belong to epoch 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stamped {
    /// Epoch of the send's start, equal in all its copies.
    pub epoch: i64,
    /// The send, encoded by [`ServiceMessage::to_body`].
    pub body: Bytes,
}

/// Body of type 76, `Filtered`, from node to node; also the decoded form of a send with a filter.
///
/// The inner message is a send, a close for all clients, or a group change without a connection id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filtered {
    /// Filter in [`ClientFilter`](super::ClientFilter) syntax.
    pub filter: ByteString,
    /// Message encoded by [`ServiceMessage::to_body`].
    pub body: Bytes,
}

/// Phase of a presence stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PresencePhase {
    /// 0: changes since the previous update.
    #[default]
    Changes,
    /// 1: also a part of the snapshot at the start of the stream; more follows.
    Snapshot,
    /// 2: also the last part of the snapshot. Entries missing from it do not exist.
    SnapshotEnd,
}

/// Body of type 70, `PresenceChanges`, from a node to each app server of a hub that uses presence.
///
/// Each shard has its own streams. Within a stream, updates are ordered and complete. A stream with a higher number
/// replaces the previous one and starts with a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PresenceChanges {
    /// Index of the shard in its node.
    pub shard: i64,
    /// Number of the stream in its shard.
    pub stream: i64,
    /// Whether a snapshot is in progress.
    pub phase: PresencePhase,
    /// Instances that receive the changes after this update, if the set has changed. A single one reports to the app.
    pub app_servers: Option<Vec<ByteString>>,
    /// Lost instances that may not have reported all received changes to the app.
    pub lost: Vec<ByteString>,
    /// Users with their first connection here.
    pub online: Vec<ByteString>,
    /// Users without any remaining connection here.
    pub offline: Vec<ByteString>,
    /// Connections that have joined a group.
    pub joined: Vec<GroupJoin>,
    /// Connections that have left a group: pairs of group and connection id.
    pub left: Vec<(ByteString, ByteString)>,
}

/// Member of a group in a [`PresenceChanges`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupJoin {
    /// Name of the group.
    pub group: ByteString,
    /// Public connection id of the member.
    pub connection_id: ByteString,
    /// User of the connection, if authenticated.
    pub user_id: Option<ByteString>,
}

/// Body of type 71, `UserConnectionQuery`. The answer is an [`Ack`] with a
/// [`MemberPage`](super::MemberPage) as its payload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserConnectionQuery {
    /// User to list the connections of.
    pub user_id: ByteString,
    /// Id for the ack.
    pub ack_id: i64,
    /// Maximum number of connections in the answer; 0 requests just the number.
    pub page_size: Option<i64>,
    /// Token from the previous page; `None` for the first page.
    pub continuation_token: Option<ByteString>,
}

/// Body of type 72, `TracedData`: a wrapper around type 6, which leaves untraced frames unchanged. Only for app servers
/// that announce support.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TracedData {
    /// Mark of the first hub message in the data. Each further message increments it by one.
    pub mark: i64,
    /// A [`ConnectionData`] without its length prefix.
    pub body: Bytes,
}

/// Body of type 73, `TraceReport`: durations only, because the app server's clock may differ.
///
/// A call that waits is reported twice: when it has started and when it has been answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TraceReport {
    /// Connection of the message.
    pub connection_id: ByteString,
    /// Mark of the message.
    pub mark: i64,
    /// Microseconds from the link's reader to the connection's worker.
    pub waited_us: i64,
    /// Microseconds until the method started; `None` if the message calls none.
    pub queued_us: Option<i64>,
    /// Run time of the method in microseconds; `None` while it runs.
    pub ran_us: Option<i64>,
    /// Microseconds until the answer was queued for the link; `None` without an answer.
    pub answered_us: Option<i64>,
    /// Whether the call was answered with an error.
    pub has_failed: bool,
}

/// Body of type 41, `RefreshAuth`: the newer log-in of a client connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RefreshAuth {
    /// Connection token from an app server; connection id between nodes.
    pub connection: ByteString,
    /// All claims of the newer log-in. Names may repeat.
    pub claims: Vec<(ByteString, ByteString)>,
    /// Expiry of the newer log-in, in seconds since 1970. From the year 9999 on the connection keeps its expiry.
    pub expires_s: i64,
    /// Id for the ack.
    pub ack_id: i64,
}

impl RefreshAuth {
    /// Expiry that leaves a connection's expiry unchanged: the beginning of the year 9999.
    pub const NO_END_S: i64 = 253_370_764_800;
}

/// Body of type 43, `UpdateConnectionClaims`, to the app servers of a client connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectionClaims {
    /// Id of the client connection.
    pub connection_id: ByteString,
    /// All claims of the client from now on. Names may repeat.
    pub claims: Vec<(ByteString, ByteString)>,
}

/// Body of type 75, `RefreshConnectionWithAck`, from node to node. The answer states whether the connection exists
/// there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RefreshConnection {
    /// Id of the client connection.
    pub connection_id: ByteString,
    /// New expiry in seconds since 1970, if the connection closes with its token.
    pub expires_s: i64,
    /// Id for the ack.
    pub ack_id: i64,
}

/// Body of type 77, `DownMark`, from an app server to a connection's node, in order with the connection's data; and of
/// type 78, `DownDone`, back to that app server. Only for ends that announce `client-flow`.
///
/// A report confirms its mark and all lower ones: the client has received most of the data before them. A mark may be
/// sent again, to the same node or to the one to which the connection has moved, and is reported again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DownMark {
    /// Connection that the data is for.
    pub connection_id: ByteString,
    /// Number of the mark, higher than all previous ones from the app server.
    pub number: i64,
}

/// Body of type 80, `Recorded`, from the recorder of a set to each node with members or followers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Group or user of the record.
    pub set: RecordedSet,
    /// Epoch of the record.
    pub epoch: u64,
    /// Number of the message, or of the last one before the end.
    pub number: u64,
    /// Reason of the record's end; `None` for a message.
    pub end: Option<RecordEnd>,
    /// The send, encoded by [`ServiceMessage::to_body`]; empty for an end.
    pub body: Bytes,
}

/// Body of type 81, `RecordRequest`, from an app server to a node, or from node to node. The answer is an [`Ack`] with
/// a [`RecordReply`](super::RecordReply) as its payload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordRequest {
    /// Group or user of the record.
    pub set: RecordedSet,
    /// Kind of the request.
    pub act: RecordAct,
    /// Id of an appended send, which is recorded once; for a [`Yield`](RecordAct::Yield) the boot id of its sender.
    pub id: Option<ByteString>,
    /// Text of the [`RecordStart`](super::RecordStart) of a read.
    pub start: ByteString,
    /// Appended send, encoded by [`ServiceMessage::to_body`]; a given part as a [`RecordReply`](super::RecordReply).
    pub body: Bytes,
    /// Number for the ack to an app server; 0 between nodes.
    pub ack_id: i64,
    /// Boot ids of the nodes with links to the app server. All must deliver the message; empty between nodes.
    pub nodes: Vec<ByteString>,
}
