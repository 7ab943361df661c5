//! Order for a watch: a subject, a detail, and the limits of the detail. Pure.
//!
//! ```text
//!  subject: connection, user, group, method, whole hub  ×  detail: summaries, times
//! ```

use trunkline_protocol::id::ID_CHARS;

use crate::engine::upstream::HubIndex;

#[derive(Debug, Clone)]
pub(crate) struct WatchOrder {
    /// Hub of the clients; `None` for all hubs.
    pub hub: Option<HubIndex>,
    /// Conditions on the clients, which must all hold. Empty for all clients.
    pub subjects: Vec<WatchSubject>,
    pub detail: WatchDetail,
    /// Includes payloads in summaries, without secrets.
    pub with_payloads: bool,
}

/// Condition on the followed clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WatchSubject {
    /// Connections with this id prefix.
    Connection(String),
    User(String),
    /// Current members of a group.
    Group(String),
    /// Calls of a method, by clients or to clients, with their replies. Case-insensitive.
    Method(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WatchDetail {
    /// Tap: summaries of one client's newest messages.
    Summaries,
    /// Trace: summaries, with the time at each hop.
    Times,
}

/// Limits of watches with one detail, per shard.
#[derive(Debug, Clone, Copy)]
pub(super) struct WatchBounds {
    /// Maximum number of watches.
    pub(super) watches: usize,
    /// Maximum number of clients followed simultaneously. Each broadcast checks all of them.
    pub(super) followed: usize,
    /// Maximum number of messages copied per second.
    pub(super) per_second: u32,
    /// Maximum number of unread bytes.
    pub(super) unread_bytes: usize,
    /// Bytes of an event without its payload.
    pub(super) piece_bytes: usize,
    /// Maximum number of unread events if new ones replace the oldest.
    pub(super) newest: Option<usize>,
}

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
            format!("{most} clients of its shard are already watched, which is the limit: end one of these watches")
        }
        WatchDetail::Times => format!("{most} traces are already running, which is the limit: end one"),
    }
}

impl WatchOrder {
    /// Name of the followed method, for all clients.
    pub(super) fn method(&self) -> Option<&str> {
        self.subjects.iter().find_map(|subject| match subject {
            WatchSubject::Method(name) => Some(name.as_str()),
            _ => None,
        })
    }

    pub(super) fn group(&self) -> Option<&str> {
        self.subjects.iter().find_map(|subject| match subject {
            WatchSubject::Group(name) => Some(name.as_str()),
            _ => None,
        })
    }

    pub(super) fn is_at(&self, hub: HubIndex) -> bool {
        self.hub.is_none_or(|wanted| wanted == hub)
    }

    /// Whether the watch includes a client with this id and user.
    pub(super) fn follows(&self, id: &str, user: Option<&str>, is_member: impl Fn(&str) -> bool) -> bool {
        self.subjects.iter().all(|subject| match subject {
            WatchSubject::Connection(wanted) => is_connection(wanted, id),
            WatchSubject::User(wanted) => user == Some(wanted),
            WatchSubject::Group(name) => is_member(name),
            WatchSubject::Method(_) => false,
        })
    }
}

/// Whether `wanted` identifies the connection with this id. Prefixes match only in the displayed part, so that the
/// rest, perhaps a secret, can't be guessed letter by letter.
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
        let order = |subjects| WatchOrder { hub: None, subjects, detail: WatchDetail::Times, with_payloads: false };
        let (ann, one) = (WatchSubject::User("ann".into()), WatchSubject::Connection("1".into()));
        let follows = |subjects, user| order(subjects).follows("12", user, |_| false);
        assert!(follows(Vec::new(), None) && follows(vec![ann.clone(), one], Some("ann")));
        assert!(!follows(vec![ann.clone()], None) && !follows(vec![ann], Some("eve")));
        assert!(!follows(vec![WatchSubject::Connection("2".into())], Some("ann")));
    }
}
