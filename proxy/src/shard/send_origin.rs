//! Origin of a send: two nodes that get copies of it tell by this which of them delivers it.

use crate::upstream::AppServerId;

/// Origin of a send to many: who numbers its epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SendOrigin {
    /// The app server; at the door the node at which the send entered the fleet, by its boot id.
    pub app: AppServerId,
    /// Its epoch in which the send began.
    pub epoch: i64,
}

impl SendOrigin {
    /// Origin of what comes from another node, and is delivered by the owner that a connection had before.
    pub(crate) const OTHER: Self = Self { app: AppServerId::OTHER_NODE, epoch: 0 };
}
