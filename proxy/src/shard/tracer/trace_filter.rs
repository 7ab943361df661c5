//! Choice of the messages of a trace. Pure.

use trunkline_protocol::id::ID_CHARS;

use crate::upstream::HubIndex;

/// Choice of the messages of a trace.
#[derive(Debug, Clone)]
pub(crate) struct TraceFilter {
    pub hub: Option<HubIndex>,
    pub subject: TraceSubject,
    pub with_payloads: bool,
}

/// Subject that a trace follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TraceSubject {
    /// Connections whose ids begin like this.
    Connection(String),
    /// All connections of a user.
    User(String),
    /// The members of a group, while they are.
    Group(String),
    /// Calls of a method, by clients or of clients, with their answers. Case does not count.
    Method(String),
}

impl TraceSubject {
    /// Whether it names the connection of this id. Of that the first part is shown; the rest may be secret, so nobody finds it out
    /// letter by letter.
    pub(super) fn is_connection(&self, id: &str) -> bool {
        let shown = id.get(..ID_CHARS).unwrap_or(id);
        matches!(self, Self::Connection(wanted) if shown.starts_with(wanted.as_str()) || id == wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_named_by_the_beginning_of_its_shown_id_or_by_all_of_it() {
        let (shown, secret) = ("0123456789abcdefghijkl", "0123456789abcdefghijkl-secret");
        let names = |wanted: &str, id| TraceSubject::Connection(wanted.into()).is_connection(id);
        assert!(names("0123", shown) && names(shown, shown) && names(shown, secret) && names(secret, secret));
        assert!(!names("0123456789abcdefghijkl-s", secret) && !names("123", shown));
        assert!(!TraceSubject::User(shown.into()).is_connection(shown));
    }
}
