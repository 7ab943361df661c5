//! Subject of a notice of presence.

use std::sync::Arc;

/// User or group that a notice is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Subject {
    User(Arc<str>),
    Group(Arc<str>),
}

impl Subject {
    /// The name by which its app server is chosen.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::User(name) | Self::Group(name) => name,
        }
    }
}
