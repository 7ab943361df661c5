//! Order of a watch: a subject, a detail, and the bounds of that. Pure.
//!
//! ```text
//!  subject: connection, user, group, method, whole hub  ×  detail: summaries, bytes, times
//! ```

use trunkline_protocol::id::ID_CHARS;

use crate::upstream::HubIndex;

/// Order to watch what passes for some clients.
#[derive(Debug, Clone)]
pub(crate) struct WatchOrder {
    /// Hub of the clients; `None` for all hubs.
    pub hub: Option<HubIndex>,
    /// Conditions on the clients: all hold, and all clients are followed without any.
    pub subjects: Vec<WatchSubject>,
    pub detail: WatchDetail,
    /// Summaries have their payloads, without secrets.
    pub with_payloads: bool,
}

/// Condition on what a watch follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WatchSubject {
    /// Connections whose ids begin like this.
    Connection(String),
    /// All connections of a user.
    User(String),
    /// The members of a group, while they are.
    Group(String),
    /// Calls of a method, by clients or of clients, with their answers. Case does not count.
    Method(String),
}

/// Detail in which a watch copies what passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WatchDetail {
    /// A tap: summaries of the messages of one client, the newest of them.
    Summaries,
    /// A recording: all bytes as they are, from the opening to the close.
    Bytes,
    /// A trace: summaries, with the time at each hop.
    Times,
}

/// Bounds of the watches of one detail, in one shard.
#[derive(Debug, Clone, Copy)]
pub(super) struct WatchBounds {
    /// Maximum number of watches.
    pub(super) watches: usize,
    /// Maximum number of clients that one follows at a time: each send to many looks for all of them.
    pub(super) followed: usize,
    /// Maximum number of messages that one copies in a second.
    pub(super) per_second: u32,
    /// Limit of the unread bytes of one.
    pub(super) unread_bytes: usize,
    /// Bytes that a piece costs beside its payload.
    pub(super) piece_bytes: usize,
    /// Maximum number of unread pieces, where new ones push old ones out.
    pub(super) newest: Option<usize>,
}

/// Reason why a watch does not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WatchRefused {
    #[error("there is no such connection")]
    Unknown,
    #[error("{}", too_many(*.0))]
    TooMany(WatchDetail),
}

impl WatchDetail {
    pub(super) const fn bounds(self) -> WatchBounds {
        const MIB: usize = 1024 * 1024;
        const UNBOUND: WatchBounds = WatchBounds {
            watches: 4,
            followed: 1,
            per_second: u32::MAX,
            unread_bytes: usize::MAX,
            piece_bytes: 160,
            newest: None,
        };
        match self {
            Self::Summaries => WatchBounds { watches: 16, newest: Some(200), ..UNBOUND },
            // At hundreds of megabits this lasts until it is read.
            Self::Bytes => WatchBounds { followed: 2_048, unread_bytes: 8 * MIB, ..UNBOUND },
            Self::Times => {
                WatchBounds { followed: 256, per_second: 500, unread_bytes: 4 * MIB, piece_bytes: 200, ..UNBOUND }
            }
        }
    }
}

fn too_many(detail: WatchDetail) -> String {
    let most = detail.bounds().watches;
    match detail {
        WatchDetail::Summaries => {
            format!("{most} clients of its shard are watched already, and no more can be: end one of these watches")
        }
        WatchDetail::Bytes => format!("{most} recordings run already, and no more can: end one of them"),
        WatchDetail::Times => format!("{most} traces run already, and no more can: end one of them"),
    }
}

impl WatchOrder {
    /// Name of the method whose calls it follows, at all clients.
    pub(super) fn method(&self) -> Option<&str> {
        self.subjects.iter().find_map(|subject| match subject {
            WatchSubject::Method(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// Name of the group whose members it follows.
    pub(super) fn group(&self) -> Option<&str> {
        self.subjects.iter().find_map(|subject| match subject {
            WatchSubject::Group(name) => Some(name.as_str()),
            _ => None,
        })
    }

    pub(super) fn is_at(&self, hub: HubIndex) -> bool {
        self.hub.is_none_or(|wanted| wanted == hub)
    }

    /// Whether it follows the client of this id and user.
    pub(super) fn follows(&self, id: &str, user: Option<&str>, is_member: impl Fn(&str) -> bool) -> bool {
        self.subjects.iter().all(|subject| match subject {
            WatchSubject::Connection(wanted) => is_connection(wanted, id),
            WatchSubject::User(wanted) => user == Some(wanted),
            WatchSubject::Group(name) => is_member(name),
            WatchSubject::Method(_) => false,
        })
    }
}

/// Whether `wanted` names the connection of this id. Of that the first part is shown; the rest may be secret, so nobody
/// finds it out letter by letter.
fn is_connection(wanted: &str, id: &str) -> bool {
    let shown = id.get(..ID_CHARS).unwrap_or(id);
    shown.starts_with(wanted) || id == wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_named_by_the_beginning_of_its_shown_id_or_by_all_of_it() {
        let (shown, secret) = ("0123456789abcdefghijkl", "0123456789abcdefghijkl-secret");
        assert!(is_connection("0123", shown) && is_connection(shown, shown));
        assert!(is_connection(shown, secret) && is_connection(secret, secret));
        assert!(!is_connection("0123456789abcdefghijkl-s", secret) && !is_connection("123", shown));
    }

    #[test]
    fn all_conditions_of_an_order_hold() {
        let order = |subjects| WatchOrder { hub: None, subjects, detail: WatchDetail::Bytes, with_payloads: false };
        let (ann, one) = (WatchSubject::User("ann".into()), WatchSubject::Connection("1".into()));
        let follows = |subjects, user| order(subjects).follows("12", user, |_| false);
        assert!(follows(Vec::new(), None) && follows(vec![ann.clone(), one], Some("ann")));
        assert!(!follows(vec![ann.clone()], None) && !follows(vec![ann], Some("eve")));
        assert!(!follows(vec![WatchSubject::Connection("2".into())], Some("ann")));
    }
}
