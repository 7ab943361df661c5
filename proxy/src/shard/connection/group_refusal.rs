//! Reasons why a client connection does not join a group.

use crate::metrics::Limit;

/// Reason why a client connection does not join a group; its text is for the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GroupRefusal {
    #[error("the name of the group has {length} bytes, and may have {limit}: see --group-name-max-bytes of proxies")]
    NameTooLong { length: usize, limit: usize },
    #[error("the connection is in {limit} groups, and may be in no more: see --groups-per-client-max of proxies")]
    TooMany { limit: usize },
}

impl GroupRefusal {
    /// Limit that was reached, as metrics name it.
    pub(crate) fn limit(self) -> Limit {
        match self {
            Self::NameTooLong { .. } => Limit::GroupName,
            Self::TooMany { .. } => Limit::Groups,
        }
    }
}
