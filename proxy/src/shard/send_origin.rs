//! Origin of a send: two nodes that get copies of it tell by this which of them delivers it.

use trunkline_protocol::fleet;

use crate::upstream::AppServerId;

/// Origin of a send to many. By dial-in the sender is the node at which it entered the fleet, by the number of its boot
/// id.
pub(crate) type SendOrigin = fleet::SendOrigin<AppServerId>;
