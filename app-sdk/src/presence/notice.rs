//! Notices: what hooks of presence are told.

use std::sync::Arc;

use crate::clients::Member;

/// Notice that a user has a first connection, at whatever proxy; for
/// [`Hub::on_user_online`](crate::Hub::on_user_online).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UserOnline {
    /// Id of the user.
    pub user_id: String,
}

/// Notice that a user's last connection has been gone for a while; for
/// [`Hub::on_user_offline`](crate::Hub::on_user_offline).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UserOffline {
    /// Id of the user.
    pub user_id: String,
}

/// Notice that connections have joined a group or left it; for [`Hub::on_group_changed`](crate::Hub::on_group_changed).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupChanged {
    /// Name of the group.
    pub group: String,
    /// Connections that are members now.
    pub joined: Vec<Member>,
    /// Connections that are no members any more.
    pub left: Vec<Member>,
    /// Number of members behind this change, as far as this app server knows: connections, not users, as
    /// [`Groups::count`](crate::Groups::count) counts.
    pub count: u64,
}

/// Notice of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Notice {
    Online(UserOnline),
    Offline(UserOffline),
    Group(GroupChanged),
}

impl GroupChanged {
    /// Nothing has changed in this group so far.
    pub(super) fn of(group: &str, count: u64) -> Self {
        Self { group: group.to_owned(), joined: Vec::new(), left: Vec::new(), count }
    }
}

impl Notice {
    /// Name of the hook that takes it.
    pub(super) fn hook_name(&self) -> &'static str {
        match self {
            Self::Online(_) => "on_user_online",
            Self::Offline(_) => "on_user_offline",
            Self::Group(_) => "on_group_changed",
        }
    }

    /// User or group that it is about.
    pub(super) fn subject(&self) -> Subject {
        match self {
            Self::Online(UserOnline { user_id }) | Self::Offline(UserOffline { user_id }) => {
                Subject::User(Arc::from(user_id.as_str()))
            }
            Self::Group(change) => Subject::Group(Arc::from(change.group.as_str())),
        }
    }
}

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
