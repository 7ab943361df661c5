//! Origin of a send: two nodes that get copies of it tell by this which of them delivers it.

use crate::upstream::AppServerId;

/// Origin of a send to many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SendOrigin {
    pub app: AppServerId,
    /// Epoch of the app server in which the send began.
    pub epoch: i64,
}

impl SendOrigin {
    /// Origin of what no app server of this node's links has sent.
    pub(crate) const OTHER: Self = Self { app: AppServerId::OTHER_NODE, epoch: 0 };
}
