//! Notices passed to presence hooks.

use std::sync::Arc;

use crate::clients::Member;

/// A user's first connection, on any proxy, for [`Hub::on_user_online`](crate::Hub::on_user_online).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UserOnline {
    /// ID of the user.
    pub user_id: String,
}

/// A user without connections for the grace period, for [`Hub::on_user_offline`](crate::Hub::on_user_offline).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UserOffline {
    /// ID of the user.
    pub user_id: String,
}

/// Connections have joined or left a group, for [`Hub::on_group_changed`](crate::Hub::on_group_changed).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupChanged {
    /// Name of the group.
    pub group: String,
    /// Connections that have joined.
    pub joined: Vec<Member>,
    /// Connections that have left.
    pub left: Vec<Member>,
    /// Number of members after this change, as known to this app server: connections, not users, as in
    /// [`Groups::count`](crate::Groups::count).
    pub count: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Notice {
    Online(UserOnline),
    Offline(UserOffline),
    Group(GroupChanged),
}

impl GroupChanged {
    pub(super) fn of(group: &str, count: u64) -> Self {
        Self { group: group.to_owned(), joined: Vec::new(), left: Vec::new(), count }
    }
}

impl Notice {
    pub(super) fn hook_name(&self) -> &'static str {
        match self {
            Self::Online(_) => "on_user_online",
            Self::Offline(_) => "on_user_offline",
            Self::Group(_) => "on_group_changed",
        }
    }

    pub(super) fn subject(&self) -> Subject {
        match self {
            Self::Online(UserOnline { user_id }) | Self::Offline(UserOffline { user_id }) => {
                Subject::User(Arc::from(user_id.as_str()))
            }
            Self::Group(change) => Subject::Group(Arc::from(change.group.as_str())),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Subject {
    User(Arc<str>),
    Group(Arc<str>),
}

impl Subject {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::User(name) | Self::Group(name) => name,
        }
    }
}
