//! Metric labels, with one counter per value.

use super::label;

label! {
    /// Limit of the client port, as a metric label.
    pub(crate) enum Limit as "limit", in LimitCounts {
        /// Sockets of the node.
        Connections = "connections",
        /// Sockets per client address.
        ConnectionsPerAddress = "connections_per_address",
        /// New connections per second, delayed or refused.
        Connects = "connects",
        /// Negotiations per address that have not led to a connection.
        PendingPerAddress = "pending_per_address",
        /// Connections of HTTP transports waiting for their first GET.
        PendingPipes = "pending_pipes",
        /// Requests in flight to app servers.
        PassThrough = "pass_through",
        /// Requests in flight to app servers, per client address.
        PassThroughPerAddress = "pass_through_per_address",
        /// Requests in flight to app servers, per client connection.
        PassThroughPerConnection = "pass_through_per_connection",
        /// Requests in flight to one app server.
        PassThroughPerUpstream = "pass_through_per_upstream",
        /// Cancelled HTTP/2 requests per connection.
        StreamResets = "stream_resets",
        /// Time without a byte of a body.
        BodyTime = "body_time",
        /// File descriptors of the process.
        Descriptors = "descriptors",
        /// Time for the head of a request.
        HeadTime = "head_time",
        /// Size of the head of a request.
        HeadSize = "head_size",
        /// Total size of large request heads kept by open connections.
        HeadTotal = "head_total",
        /// Size of the body of a request.
        BodySize = "body_size",
        /// Size of a message.
        MessageSize = "message_size",
        /// Time for a message to be completed.
        MessageTime = "message_time",
        /// Messages per second of one client; exceeding it pauses reading.
        Messages = "messages",
        /// Bytes per second of one client; exceeding it pauses reading.
        Bytes = "bytes",
        /// Groups per client connection.
        Groups = "groups",
        /// Size of the name of a group.
        GroupName = "group_name",
        /// Memory of the names of groups.
        GroupNames = "group_names",
        /// Log lines per second caused by clients; further ones are logged at level `debug`.
        LogLines = "log_lines",
    }
}

label! {
    /// Result of a step before HTTP, such as a TLS handshake or a PROXY protocol header, and of loading certificates.
    pub(crate) enum Outcome as "outcome", in OutcomeCounters {
        Done = "ok",
        Timeout = "timeout",
        /// The peer closed the socket.
        Closed = "closed",
        /// The peer violated the protocol, or supports nothing that this node does.
        Invalid = "invalid",
        /// The peer sent a TLS alert, for instance because it does not trust the certificate.
        Alert = "alert",
    }
}

label! {
    /// Addressing of a message to clients.
    pub(crate) enum SendKind as "kind", in SendCounters {
        /// A single connection in its own frame: results, stream items, messages to the caller.
        Connection = "connection",
        /// Connections listed by id.
        Connections = "connections",
        /// All connections of the hub.
        All = "all",
        /// The members of groups.
        Groups = "groups",
        /// The connections of users.
        Users = "users",
    }
}

label! {
    /// Reason for the end of a link session.
    pub(crate) enum SessionCloseReason as "cause", in SessionEndCounters {
        /// The session was not resumed within the window.
        WindowPassed = "window_passed",
        /// The app server does not recognise the session.
        Unknown = "unknown",
        /// The pool was retired: another instance answers, or this node stops.
        Retired = "retired",
        /// The app server closed the session.
        Farewell = "farewell",
        /// The socket was lost, and the app server does not support resuming.
        NotResumable = "not_resumable",
        /// The app server violated the protocol.
        Broken = "broken",
    }
}

label! {
    /// Reason for moving a client connection to another node.
    #[derive(Default)]
    pub(crate) enum MoveCause as "cause", in MoveCounters {
        /// The socket broke, and the client reconnected to another node.
        #[default]
        Reconnect = "reconnect",
        /// The node is draining.
        Drain = "drain",
        /// The node has more clients than others.
        Rebalance = "rebalance",
    }
}

impl MoveCause {
    /// Parses the cause sent by another node. Unknown causes of later versions count as a reconnect.
    pub(crate) fn from_label(label: &str) -> Self {
        Self::ALL.into_iter().find(|cause| cause.label() == label).unwrap_or_default()
    }
}

label! {
    /// Result of a refreshed sign-in for an open connection.
    pub(crate) enum RefreshOutcome as "outcome", in RefreshCounters {
        Refreshed = "refreshed",
        /// Signed in as another user than the connection's.
        OtherUser = "other_user",
        /// The token, or all tokens of the user, are revoked.
        Revoked = "revoked",
        /// The claims are too large.
        TooLarge = "too_large",
        /// The token was issued before the claims in force.
        Older = "older",
    }
}

label! {
    /// Error of a forwarded request without a response.
    #[derive(thiserror::Error)]
    pub(crate) enum RelayFailure as "cause", in RelayFailureCounters {
        /// No connection was made, so nothing was sent.
        #[error("it can't be reached")]
        Unreachable = "unreachable",
        #[error("it did not answer in time")]
        Timeout = "timeout",
        /// The connection broke, or the response is not HTTP.
        #[error("it failed")]
        Broken = "broken",
        /// The client stalled while sending the body.
        #[error("the client's body stalled")]
        ClientLate = "client_late",
        /// The client's body is malformed, or broke off.
        #[error("the client's body is malformed or incomplete")]
        ClientBroken = "client_broken",
    }
}

label! {
    /// Reason for not forwarding a request to the connection's owner.
    pub(crate) enum HopRefusal as "cause", in HopRefusalCounters {
        /// Another process start uses the owner's address.
        OwnerGone = "owner_gone",
        /// The connection token is too old for a forwarded request.
        TooOld = "too_old",
        /// The limit of requests forwarded to the owner is reached.
        OwnerFull = "owner_full",
        /// The limit of forwarded requests of the connection is reached.
        ConnectionFull = "connection_full",
    }
}

label! {
    /// Result of reserving a connection id at the owner of a token.
    pub(crate) enum ReservationOutcome as "outcome", in ReservationCounters {
        Granted = "granted",
        /// The connection is at its owner, or about to be.
        Taken = "taken",
        /// The token was already used, or is too old.
        Unknown = "unknown",
        /// The owner did not answer or is unreachable. If the app named the user, the app is asked instead.
        Unanswered = "unanswered",
    }
}

label! {
    /// Result of a request passed through to an app server.
    pub(crate) enum PassThroughOutcome as "outcome", in PassThroughCounters {
        /// The app server responded, with any status.
        Answered = "answered",
        /// Rejected by a route in the configuration file.
        Rejected = "rejected",
        /// No app server was linked.
        NoAppServer = "no_app_server",
        /// A limit of requests in flight was reached.
        Limited = "limited",
        Unreachable = "unreachable",
        Timeout = "timeout",
        Broken = "broken",
        ClientLate = "client_late",
        /// The client's body is malformed, or broke off.
        ClientBroken = "client_broken",
    }
}

impl From<RelayFailure> for PassThroughOutcome {
    fn from(failure: RelayFailure) -> Self {
        match failure {
            RelayFailure::Unreachable => Self::Unreachable,
            RelayFailure::Timeout => Self::Timeout,
            RelayFailure::Broken => Self::Broken,
            RelayFailure::ClientLate => Self::ClientLate,
            RelayFailure::ClientBroken => Self::ClientBroken,
        }
    }
}

label! {
    pub(crate) enum WebhookOutcome as "outcome", in WebhookRequestCounters {
        /// Answered with a valid response.
        Done = "ok",
        /// Answered with a status other than 200 or 204.
        Status = "status",
        /// Answered with a redirect, which is not followed.
        Redirect = "redirect",
        /// Not sent: connecting failed or timed out.
        Unreachable = "unreachable",
        /// Cut off before the response was complete.
        Broken = "broken",
        Timeout = "timeout",
        /// The response exceeds the size limit.
        TooLarge = "too_large",
        /// The response is not a completion of the call.
        Malformed = "malformed",
    }
}

label! {
    /// Result of a REST data plane request.
    pub(crate) enum RestOutcome as "outcome", in RestRequestCounters {
        Done = "done",
        /// The requested resource does not exist.
        Absent = "absent",
        /// Refused because of a client error.
        Refused = "refused",
        /// Failed because of this or another node.
        Failed = "failed",
    }
}
