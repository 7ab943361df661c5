//! Users' memberships for future connections, copied to new members of the fleet.
//!
//! ```text
//!  link opens ─► names of the users ─► one user at a time, as room permits ──┐
//!                concurrent changes: stored here first, then sent ───────────┴─► new member keeps the later one
//! ```
//!
//! The copy may be much larger than a node's queue. It uses only part of the queue, because client traffic shares the
//! link.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use trunkline_protocol::fleet::NodeMessage;
use trunkline_protocol::limits::LINK_RING_MAX_BYTES;
use trunkline_protocol::service::ServiceMessage;

use super::node_link::NodeLink;
use crate::engine::shard::Shared;
use crate::features::user_group::UserGroups;

/// Maximum queued and unacknowledged bytes at which more of the copy is queued: twice the bytes sent per
/// acknowledgement.
const COPY_RING_BYTES: usize = LINK_RING_MAX_BYTES / 2;

/// Interval between checks for room on the link.
const ROOM_INTERVAL: Duration = Duration::from_millis(20);

/// Sends all memberships stored here to a new member, whose clients need them too.
pub(super) fn introduce_user_groups(user_groups: &Arc<UserGroups>, link: &Arc<NodeLink>) {
    let users = user_groups.users();
    if users.is_empty() {
        return;
    }
    let (user_groups, link) = (user_groups.clone(), link.clone());
    tokio::spawn(async move {
        for user in users {
            while link.ring_bytes() > COPY_RING_BYTES && !link.is_over() {
                sleep(ROOM_INTERVAL).await;
            }
            if link.is_over() {
                return;
            }
            user_groups.report(&user, |told| link.notify(&NodeMessage::Membership(told)));
        }
    });
}

/// Stores a membership change before other nodes receive it, so that a concurrent copy contains or precedes it. The
/// later apply, which stores it again, reports failures.
pub(super) fn keep_first(shared: &Shared, hub: &str, message: &ServiceMessage) {
    if message.outlasts_connections() {
        drop(shared.user_groups.note(hub, message));
    }
}
