//! What kinds of sends app servers make, and how many they reach.

use super::{Counter, FanOut, Histogram};

/// To whom a frame of an app server goes that carries a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SendKind {
    /// The connection that called, or is otherwise its own: results, items, the hub's own messages.
    Connection,
    /// Connections by their ids.
    Connections,
    /// All of the hub.
    All,
    /// The members of groups.
    Groups,
    /// The connections of users.
    Users,
}

impl SendKind {
    /// All of them, with their labels.
    pub(crate) const ALL: [(Self, &'static str); 5] = [
        (Self::Connection, "connection"),
        (Self::Connections, "connections"),
        (Self::All, "all"),
        (Self::Groups, "groups"),
        (Self::Users, "users"),
    ];
}

/// What one shard counts of sends.
#[derive(Debug, Default)]
pub(crate) struct Sends {
    /// Receivers of one send to many, here.
    pub receivers: Histogram<FanOut>,
    kinds: [Counter; SendKind::ALL.len()],
}

impl Sends {
    /// Frames of this kind, read by this shard.
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
