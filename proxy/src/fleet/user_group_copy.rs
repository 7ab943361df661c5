//! Memberships of users that hold for connections to come, as a new member of the fleet is told them.
//!
//! ```text
//!  link opens ─► names of the users ─► one user after the other, as there is room ──┐
//!                      changes meanwhile: kept here first, then told ───────────────┴─► the new member keeps the later one
//! ```
//!
//! The copy may be far larger than what may wait for a node, and what clients wait for goes over the same link. So it
//! has but a part of the room, and takes its time.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use trunkline_protocol::fleet::NodeMessage;
use trunkline_protocol::limits::LINK_RING_MAX_BYTES;
use trunkline_protocol::service::ServiceMessage;

use super::node_link::NodeLink;
use crate::shard::Shared;

/// Bytes that may wait for a node, or for its acknowledgement, when more of the copy is queued: twice of what is sent
/// before an acknowledgement comes.
const COPY_RING_BYTES: usize = LINK_RING_MAX_BYTES / 2;

/// Interval at which the room of a link is looked at, where there is none for the copy.
const ROOM_INTERVAL: Duration = Duration::from_millis(20);

/// Tells a new member all memberships of users that are kept here: its clients are to have them, too.
pub(super) fn introduce_user_groups(shared: &Arc<Shared>, link: &Arc<NodeLink>) {
    let users = shared.user_groups.users();
    if users.is_empty() {
        return;
    }
    let (shared, link) = (shared.clone(), link.clone());
    tokio::spawn(async move {
        for user in users {
            while link.ring_bytes() > COPY_RING_BYTES && !link.is_over() {
                sleep(ROOM_INTERVAL).await;
            }
            if link.is_over() {
                return;
            }
            shared.user_groups.tell(&user, |told| link.tell(&NodeMessage::Membership(told)));
        }
    });
}

/// Keeps a change of a user's memberships before other nodes are told. A copy for a new member then has the change, or
/// goes before it; nobody minds that it is kept a second time where it is applied, which also says why it can't be.
pub(super) fn keep_first(shared: &Shared, hub: &str, message: &ServiceMessage) {
    if message.outlasts_connections() {
        drop(shared.user_groups.note(hub, message));
    }
}
