//! Limits of the client port.

/// Limit of the client port, as metrics name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Sockets of the node.
    Connections,
    /// Sockets of one address.
    ConnectionsPerAddress,
    /// New connections per second, delayed or refused.
    Connects,
    /// Negotiations of one address without a connection so far.
    PendingPerAddress,
    /// Connections over HTTP that wait for their first GET.
    PendingPipes,
    /// Requests under way to app servers.
    PassThrough,
    /// Requests under way to app servers of one address.
    PassThroughPerAddress,
    /// Requests under way to one app server.
    PassThroughPerUpstream,
    /// HTTP/2 requests of one connection that were taken back.
    StreamResets,
    /// Time without a byte of a body.
    BodyTime,
    /// File descriptors of the process.
    Descriptors,
    /// Time for the head of a request.
    HeadTime,
    /// Size of the head of a request.
    HeadSize,
    /// Size of the body of a request.
    BodySize,
    /// Size of a message.
    MessageSize,
    /// Messages per second of one client, which is paused then.
    Messages,
    /// Bytes per second of one client, which is paused then.
    Bytes,
    /// Groups of one client.
    Groups,
    /// Size of the name of a group.
    GroupName,
    /// Lines of the log that clients bring about, in a second; the others are at the level `debug`.
    LogLines,
}

impl Limit {
    /// All limits with their labels.
    pub(crate) const ALL: [(Limit, &'static str); 20] = [
        (Limit::Connections, "connections"),
        (Limit::ConnectionsPerAddress, "connections_per_address"),
        (Limit::Connects, "connects"),
        (Limit::PendingPerAddress, "pending_per_address"),
        (Limit::PendingPipes, "pending_pipes"),
        (Limit::PassThrough, "pass_through"),
        (Limit::PassThroughPerAddress, "pass_through_per_address"),
        (Limit::PassThroughPerUpstream, "pass_through_per_upstream"),
        (Limit::StreamResets, "stream_resets"),
        (Limit::BodyTime, "body_time"),
        (Limit::Descriptors, "descriptors"),
        (Limit::HeadTime, "head_time"),
        (Limit::HeadSize, "head_size"),
        (Limit::BodySize, "body_size"),
        (Limit::MessageSize, "message_size"),
        (Limit::Messages, "messages"),
        (Limit::Bytes, "bytes"),
        (Limit::Groups, "groups"),
        (Limit::GroupName, "group_name"),
        (Limit::LogLines, "log_lines"),
    ];
}
