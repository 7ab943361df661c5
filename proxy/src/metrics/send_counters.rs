//! Counters of sends: their kinds, and how many receivers they have.

use super::{Counter, FanOutBuckets, Histogram};

/// Kind of receivers of a frame that carries a message to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SendKind {
    /// A single connection, in a frame of its own: results, stream items, messages to the caller.
    Connection,
    /// Connections by their ids.
    Connections,
    /// All connections of the hub.
    All,
    /// The members of groups.
    Groups,
    /// The connections of users.
    Users,
}

impl SendKind {
    /// All kinds with their labels.
    pub(crate) const ALL: [(Self, &'static str); 5] = [
        (Self::Connection, "connection"),
        (Self::Connections, "connections"),
        (Self::All, "all"),
        (Self::Groups, "groups"),
        (Self::Users, "users"),
    ];
}

/// Counters of the sends that one shard delivers.
#[derive(Debug, Default)]
pub(crate) struct SendCounters {
    /// Receivers on this shard of one send to many.
    pub receivers: Histogram<FanOutBuckets>,
    kinds: [Counter; SendKind::ALL.len()],
}

impl SendCounters {
    /// Returns the counter of one kind.
    #[must_use]
    pub(crate) fn of(&self, kind: SendKind) -> &Counter {
        let [connection, connections, all, groups, users] = &self.kinds;
        match kind {
            SendKind::Connection => connection,
            SendKind::Connections => connections,
            SendKind::All => all,
            SendKind::Groups => groups,
            SendKind::Users => users,
        }
    }
}
