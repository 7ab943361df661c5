//! Table of the service messages, in the order of their numbers.
//!
//! [`ServiceMessage`](super::ServiceMessage), the names, classes and acks, and the codec are generated from it, each by
//! a macro that gets all rows.
//!
//! ```text
//!  number Name(Body) Class [field as form "name in errors", …];    an array: number, fields, empty extension map
//!  number Name(Body) Class [field, … | field, …];                  fields after the map, which older ends omit
//!  number Name(Body) Class irregular;                              written and read by hand, in `codec/irregular.rs`
//! ```
//!
//! - The type of a field decides its encoding, unless `as` names another [form](crate::fields::Form). With `..Default`,
//!   further fields of the body have no place on the wire.
//! - The name in errors is the one of the public protocol, if it differs from the field's.
//! - The extension map of a [`Send`](super::MessageClass::Send) may have a filter.
//! - An [`Order`](super::MessageClass::Order) or a [`Question`](super::MessageClass::Question) is acknowledged: it has
//!   an `ack_id`.

/// Passes the table to a macro.
macro_rules! service_messages {
    ($generate:ident) => {
        $generate! {
            /// Type 1: first message of the app server.
            1 HandshakeRequest(LinkHandshakeRequest) Service irregular; // Has three older, shorter layouts.
            /// Type 2: answer of the proxy.
            2 HandshakeResponse(LinkHandshakeResponse) Service
                [error as NonEmpty "errorMessage" | connection_id "connectionId"];
            /// Type 3: keep-alive, or key-value pairs such as acknowledgements.
            3 Ping(Ping) Control irregular; // Has any number of items, and no extension map.
            /// Type 4: opens a client connection.
            4 OpenConnection(OpenConnection) Service irregular; // The hub protocol is in the extension map.
            /// Type 5: closes a client connection.
            5 CloseConnection(CloseConnection) Change irregular; // Older ends omit the headers.
            /// Type 6: bytes of one client connection.
            6 ConnectionData(ConnectionData) Data irregular; // The kind of data is in the extension map.
            /// Type 7: sends to several connections.
            7 MultiConnectionData(MultiConnectionData) Send [connection_ids "connectionIds", payloads];
            /// Type 8: sends to a user's connections.
            8 UserData(UserData) Send [user_id "userId", payloads];
            /// Type 9: sends to several users' connections.
            9 MultiUserData(MultiUserData) Send [user_ids "userIds", payloads];
            /// Type 10: sends to all connections of the hub, with exclusions.
            10 BroadcastData(BroadcastData) Send [excluded "excludedConnectionIds", payloads];
            // Joining requires a group name; leaving may refer to all groups.

            /// Type 11: joins a group, without an ack.
            11 JoinGroup(GroupChange) Change [connection_id "connectionId", group as Required, ..Default];
            /// Type 12: leaves a group, without an ack.
            12 LeaveGroup(GroupChange) Change [connection_id "connectionId", group, ..Default];
            /// Type 13: sends to a group, with exclusions.
            13 GroupBroadcastData(GroupBroadcastData) Send
                [group, excluded "excludedConnectionIds", payloads
                 | excluded_users "excludedUserIds", caller_user "callerUserId"];
            /// Type 14: sends to several groups, once per group.
            14 MultiGroupBroadcastData(MultiGroupBroadcastData) Send [groups, payloads];
            /// Type 15: error of this link.
            15 ServiceError(ServiceError) Service irregular; // Has no extension map.
            /// Type 16: adds all connections of a user to a group.
            16 UserJoinGroup(UserGroupChange) Change irregular; // The time to live is in the extension map.
            /// Type 17: removes all connections of a user from a group, or from all groups.
            17 UserLeaveGroup(UserGroupChange) Change [user_id "userId", group, ..Default];
            /// Type 18: joins a group, with an ack.
            18 JoinGroupWithAck(GroupChange) Order [connection_id "connectionId", group as Required, ack_id "ackId"];
            /// Type 19: leaves a group, or all groups, with an ack.
            19 LeaveGroupWithAck(GroupChange) Order [connection_id "connectionId", group, ack_id "ackId"];
            /// Type 20: acknowledges a request.
            20 Ack(Ack) Service [ack_id "ackId", status, message | payload];
            /// Type 21: checks whether a user is in a group.
            21 CheckUserInGroupWithAck(CheckUserInGroup) Question [user_id "userId", group, ack_id "ackId"];
            /// Type 22: event of an instance, connection, user or group.
            22 ServiceEvent(ServiceEvent) Service [object "objectType", id, kind, message];
            /// Type 23: checks whether a group has members.
            23 CheckGroupExistenceWithAck(Check) Question [subject "group", ack_id "ackId"];
            /// Type 24: checks whether a connection exists.
            24 CheckConnectionExistenceWithAck(Check) Question [subject "connectionId", ack_id "ackId"];
            /// Type 25: checks whether a user has connections.
            25 CheckUserExistenceWithAck(Check) Question [subject "userId", ack_id "ackId"];
            /// Type 26: like 16, with an ack.
            26 UserJoinGroupWithAck(UserGroupChange) Order irregular; // As for 16.
            /// Type 27: like 17, with an ack.
            27 UserLeaveGroupWithAck(UserGroupChange) Order [user_id "userId", group, ack_id "ackId", ..Default];
            /// Type 28: an app server with Entra ID requests a key.
            28 AccessKeyRequest(AccessKeyRequest) Report [token, key_id "kid"];
            /// Type 29: answer with the key.
            29 AccessKeyResponse(AccessKeyResponse) Service
                [key_id "kid", access_key "accessKey", error_type "errorType", error "errorMessage"];
            /// Type 30: closes one connection.
            30 CloseConnectionWithAck(CloseWithAck) Order [subject "connectionId", reason, ack_id "ackId", ..Default];
            /// Type 31: closes all connections of the hub, with exclusions.
            31 CloseConnectionsWithAck(CloseWithAck) Order
                [reason, ack_id "ackId", excluded "excludedConnectionIds", ..Default];
            /// Type 32: closes a user's connections.
            32 CloseUserConnectionsWithAck(CloseWithAck) Order
                [subject "userId", reason, ack_id "ackId", excluded "excludedConnectionIds"];
            /// Type 33: closes a group's connections.
            33 CloseGroupConnectionsWithAck(CloseWithAck) Order
                [subject "group", reason, ack_id "ackId", excluded "excludedConnectionIds"];
            /// Type 34: client result request of an app server.
            34 ClientInvocation(ClientInvocation) ClientResult
                [invocation_id "invocationId", connection_id "connectionId", caller_server_id "callerServerId",
                 payloads];
            /// Type 35: client's answer to a client result request.
            35 ClientCompletion(ClientCompletion) ClientResult irregular; // Azure's SDK writes the hub protocol twice.
            /// Type 36: error of a client result request that no client will answer.
            36 ErrorCompletion(ErrorCompletion) ClientResult
                [invocation_id "invocationId", connection_id "connectionId", caller_server_id "callerServerId", error];
            /// Type 37: node that holds the client of a client result request.
            37 ServiceMapping(ServiceMapping) Service
                [invocation_id "invocationId", connection_id "connectionId", instance_id "instanceId"];
            /// Type 38: a client has reconnected (stateful reconnect).
            38 ConnectionReconnect(ConnectionReconnect) Service [connection_id "connectionId"];
            /// Type 39: pauses or resumes reading of a connection.
            39 ConnectionFlowControl(ConnectionFlowControl) Control
                [connection_id "connectionId", subject "connectionType", operation];
            /// Type 40: lists the members of a group, page by page.
            40 GroupMemberQuery(GroupMemberQuery) Question irregular; // Begins with the map, and has two layouts.
            /// Type 41: gives a client connection the claims and expiry of a newer log-in.
            41 RefreshAuth(RefreshAuth) Order
                [connection "connectionToken", claims as Map, expires_s as Timestamp "expireTime", ack_id "ackId"];
            /// Type 42: queries the claims of a client connection.
            42 GetConnectionClaims(Check) Question [subject "connectionToken", ack_id "ackId"];
            /// Type 43: replaces the claims of a client connection.
            43 UpdateConnectionClaims(ConnectionClaims) Notice [connection_id "connectionId", claims as Map];

            // Sent only by Trunkline's nodes and SDKs.

            /// Type 60, ours: a client connection is about to move to another node.
            60 MoveConnection(MoveConnection) Service [connection_id "connectionId"];
            /// Type 61, ours: further messages for the connection go to the other node.
            61 ConnectionMoved(ConnectionMoved) Report [connection_id "connectionId", epoch];
            /// Type 62, ours: a send with the epoch of its start.
            62 Stamped(Stamped) Report [epoch, body];
            /// Type 70, ours: users and group members that have come to or left a shard.
            70 PresenceChanges(PresenceChanges) Notice
                [shard, stream, phase, app_servers "appServers", lost, online, offline, joined, left];
            /// Type 71, ours: lists the connections of a user, page by page.
            71 UserConnectionQuery(UserConnectionQuery) Question irregular; // Begins with the map.
            /// Type 72, ours: data of a client connection in a live trace.
            72 TracedData(TracedData) Notice [mark, body];
            /// Type 73, ours: durations of a traced message in the app server.
            73 TraceReport(TraceReport) Report
                [connection_id "connectionId", mark, waited_us "waited", queued_us "queued", ran_us "ran",
                 answered_us "answered", has_failed "hasFailed"];
            /// Type 75, ours: extends a client connection that closes with its token.
            75 RefreshConnectionWithAck(RefreshConnection) Order
                [connection_id "connectionId", expires_s "expiresS", ack_id "ackId"];
            /// Type 76: message for the clients that match a filter.
            76 Filtered(Filtered) Report [filter, body];
            /// Type 77, ours: requests a report when a client has received everything sent to it alone so far.
            77 DownMark(DownMark) Control [connection_id "connectionId", number];
            /// Type 78, ours: report of a `DownMark`.
            78 DownDone(DownMark) Control [connection_id "connectionId", number];
            /// Type 80: message or end of a record.
            80 Recorded(Recorded) Service [set, epoch, number, end, body];
            /// Type 81: appends to a record, or reads or ends it.
            81 RecordRequest(RecordRequest) Service
                [set, act, id, start, body, ack_id "ackId", nodes];
        }
    };
}

pub(super) use service_messages;
