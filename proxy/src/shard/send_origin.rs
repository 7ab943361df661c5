//! Origin of a send: two nodes that get copies of it tell by this which of them delivers it.

use trunkline_protocol::fleet;

use crate::upstream::AppServerId;

/// Origin of a send to many.
pub(crate) type SendOrigin = fleet::SendOrigin<AppServerId>;

/// Origin of a send of an app server, or of another node, in this epoch.
#[must_use]
pub(crate) fn origin_of(app: AppServerId, epoch: i64) -> SendOrigin {
    if app == AppServerId::OTHER_NODE { SendOrigin::OtherNode } else { SendOrigin::App(app, epoch) }
}
