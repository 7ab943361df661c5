//! Rules of one hub, as its clients' readers ask them.

use std::sync::Arc;

use super::MirrorRule;

/// Verdict about an invocation of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MethodVerdict {
    Allowed,
    /// Refused by the rule of this label; the client is told this text.
    Refused {
        rule: Arc<str>,
        text: String,
    },
    /// Allowed at this rate per second and user, counted under this key (rule and method).
    Limited {
        rule: Arc<str>,
        method: Arc<str>,
        per_second: u32,
    },
}

/// Rules of one hub for the messages of its connections.
#[derive(Debug, Clone, Default)]
pub(crate) struct HubRules {
    mirrors: Vec<MirrorRule>,
}

impl HubRules {
    /// Whether any rule has to see single messages; else they go up in runs, unread.
    #[must_use]
    pub(crate) fn read_messages(&self) -> bool {
        false
    }

    /// Group that takes an invocation of this method; `None` for the connection's home.
    #[must_use]
    pub(crate) fn group_of(&self, _target: &str) -> Option<&Arc<str>> {
        None
    }

    /// Groups that take methods of this hub, each once.
    pub(crate) fn message_groups(&self) -> impl Iterator<Item = &Arc<str>> {
        std::iter::empty()
    }

    /// Judges an invocation of this method with a message of this size, in bytes.
    #[must_use]
    pub(crate) fn judge(&self, _target: &str, _bytes: usize) -> MethodVerdict {
        MethodVerdict::Allowed
    }

    /// Mirrors that get copies of this connection.
    pub(crate) fn mirrors_of(&self, _connection_id: &str) -> impl Iterator<Item = &MirrorRule> {
        self.mirrors.iter()
    }
}
