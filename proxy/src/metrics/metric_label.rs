//! Labels of metrics, each with a counter for each of its values.

use super::label;

label! {
    /// Limit of the client port, as metrics name it.
    pub(crate) enum Limit as "limit", in LimitCounts {
        /// Sockets of the node.
        Connections = "connections",
        /// Sockets of one address.
        ConnectionsPerAddress = "connections_per_address",
        /// New connections per second, delayed or refused.
        Connects = "connects",
        /// Negotiations of one address without a connection so far.
        PendingPerAddress = "pending_per_address",
        /// Connections over HTTP that wait for their first GET.
        PendingPipes = "pending_pipes",
        /// Requests under way to app servers.
        PassThrough = "pass_through",
        /// Requests under way to app servers of one address.
        PassThroughPerAddress = "pass_through_per_address",
        /// Requests under way to app servers of one connection of a client.
        PassThroughPerConnection = "pass_through_per_connection",
        /// Requests under way to one app server.
        PassThroughPerUpstream = "pass_through_per_upstream",
        /// HTTP/2 requests of one connection that were taken back.
        StreamResets = "stream_resets",
        /// Time without a byte of a body.
        BodyTime = "body_time",
        /// File descriptors of the process.
        Descriptors = "descriptors",
        /// Time for the head of a request.
        HeadTime = "head_time",
        /// Size of the head of a request.
        HeadSize = "head_size",
        /// Size of all large heads that open connections keep.
        HeadTotal = "head_total",
        /// Size of the body of a request.
        BodySize = "body_size",
        /// Size of a message.
        MessageSize = "message_size",
        /// Time for a message to end.
        MessageTime = "message_time",
        /// Messages per second of one client, which is paused then.
        Messages = "messages",
        /// Bytes per second of one client, which is paused then.
        Bytes = "bytes",
        /// Groups of one client.
        Groups = "groups",
        /// Size of the name of a group.
        GroupName = "group_name",
        /// Lines of the log that clients bring about, in a second; the others are at the level `debug`.
        LogLines = "log_lines",
    }
}

label! {
    /// Outcome of a step that precedes HTTP, as a TLS handshake or a PROXY protocol header, and of reading
    /// certificates.
    pub(crate) enum Outcome as "outcome", in OutcomeCounters {
        Done = "ok",
        Timeout = "timeout",
        /// The peer closed the socket.
        Closed = "closed",
        /// The peer broke the protocol, or offered nothing that this node speaks.
        Invalid = "invalid",
        /// The peer sent a TLS alert: it may not know who signed the certificate.
        Alert = "alert",
    }
}

label! {
    /// Kind of receivers of a frame that carries a message to clients.
    pub(crate) enum SendKind as "kind", in SendCounters {
        /// A single connection, in a frame of its own: results, stream items, messages to the caller.
        Connection = "connection",
        /// Connections by their ids.
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
        /// Nobody resumed the session within the window.
        WindowPassed = "window_passed",
        /// The app server no longer knows it.
        Unknown = "unknown",
        /// Its pool was retired: another instance answers there, or this node stops.
        Retired = "retired",
        /// The app server closed it.
        Farewell = "farewell",
        /// Its socket was lost, and the app server does not resume sessions.
        NotResumable = "not_resumable",
        /// The app server broke the protocol.
        Broken = "broken",
    }
}

label! {
    /// Cause for which a client connection moves to another node.
    #[derive(Default)]
    pub(crate) enum MoveCause as "cause", in MoveCounters {
        /// Its socket broke, and the next one is at another node.
        #[default]
        Reconnect = "reconnect",
        /// Its node is about to stop.
        Drain = "drain",
        /// Its node has more clients than others.
        Rebalance = "rebalance",
    }
}

impl MoveCause {
    /// The cause of this name, which nodes give each other; one of a later version counts as a reconnect.
    #[must_use]
    pub(crate) fn from_label(label: &str) -> Self {
        Self::ALL.into_iter().find(|cause| cause.label() == label).unwrap_or_default()
    }
}

label! {
    /// Outcome of the request of a client that begins anew and asks for what its lost connection had.
    pub(crate) enum RestoreOutcome as "outcome", in RestoreCounters {
        /// An app server keeps it, and has got the client.
        Found = "found",
        /// No app server keeps anything.
        Nothing = "nothing",
        /// The proof is not good.
        Refused = "refused",
    }
}

label! {
    /// Outcome of a newer log-in for an open client connection.
    pub(crate) enum RefreshOutcome as "outcome", in RefreshCounters {
        Refreshed = "refreshed",
        /// It is of another user than the connection.
        OtherUser = "other_user",
        /// Its token, or all of its user, are revoked.
        Revoked = "revoked",
        /// Its claims are too large.
        TooLarge = "too_large",
    }
}

label! {
    /// Error of a forwarded request that got no answer.
    #[derive(thiserror::Error)]
    pub(crate) enum RelayFailure as "cause", in RelayFailureCounters {
        /// No connection was made, so nothing was sent.
        #[error("it can't be reached")]
        Unreachable = "unreachable",
        #[error("it did not answer in time")]
        Timeout = "timeout",
        /// The connection broke off, or the answer is not HTTP.
        #[error("it broke off")]
        Broken = "broken",
        /// The client let its body stand still.
        #[error("the client's body stood still")]
        ClientLate = "client_late",
    }
}

label! {
    /// Reason why a request is not carried to the owner of its connection.
    pub(crate) enum HopRefusal as "cause", in HopRefusalCounters {
        /// Another start of a node has the owner's address.
        OwnerGone = "owner_gone",
        /// The connection token is older than any connection whose requests are carried.
        TooOld = "too_old",
        /// As many requests are being carried to the owner as may be.
        OwnerFull = "owner_full",
        /// As many requests of the connection are being carried as may be.
        ConnectionFull = "connection_full",
    }
}

label! {
    /// Outcome of asking the owner of a connection token for its id.
    pub(crate) enum ReservationOutcome as "outcome", in ReservationCounters {
        Granted = "granted",
        /// The connection is at its owner, or about to be.
        Taken = "taken",
        /// The token was used before, or is too old.
        Unknown = "unknown",
        /// The owner gave no answer, or can't be asked: the app is, where it has named the user.
        Unanswered = "unanswered",
    }
}

label! {
    /// Outcome of a request for the app server.
    pub(crate) enum PassThroughOutcome as "outcome", in PassThroughCounters {
        /// The app server answered, with any status.
        Answered = "answered",
        /// A route of the configuration file rejects it.
        Rejected = "rejected",
        /// No app server was linked.
        NoAppServer = "no_app_server",
        /// A limit of requests under way was reached.
        Limited = "limited",
        Unreachable = "unreachable",
        Timeout = "timeout",
        Broken = "broken",
        ClientLate = "client_late",
    }
}

impl From<RelayFailure> for PassThroughOutcome {
    fn from(failure: RelayFailure) -> Self {
        match failure {
            RelayFailure::Unreachable => Self::Unreachable,
            RelayFailure::Timeout => Self::Timeout,
            RelayFailure::Broken => Self::Broken,
            RelayFailure::ClientLate => Self::ClientLate,
        }
    }
}

label! {
    /// Outcome of a request to a webhook.
    pub(crate) enum WebhookOutcome as "outcome", in WebhookRequestCounters {
        /// Answered as it should be.
        Done = "ok",
        /// Answered with another status than 200 or 204.
        Status = "status",
        /// Answered with a redirect, which is not followed.
        Redirect = "redirect",
        /// Not sent: nobody listens there, or nobody accepts in time.
        Unreachable = "unreachable",
        /// Cut off before the answer was whole.
        Broken = "broken",
        Timeout = "timeout",
        /// Answered with more bytes than are allowed.
        TooLarge = "too_large",
        /// Answered with something that is no completion of the call.
        Malformed = "malformed",
    }
}

label! {
    /// Outcome of a request to the REST data plane.
    pub(crate) enum RestOutcome as "outcome", in RestRequestCounters {
        Done = "done",
        /// Nothing of that name is there.
        Absent = "absent",
        /// Refused for what the caller did.
        Refused = "refused",
        /// Refused for what this node or another one did.
        Failed = "failed",
    }
}
