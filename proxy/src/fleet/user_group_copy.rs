//! Memberships of users that hold for connections to come, as a new member of the fleet is told them.

use trunkline_protocol::fleet::NodeMessage;
use trunkline_protocol::service::{ServiceMessage, UserGroupChange};

use super::Fleet;
use super::node_link::NodeLink;

impl Fleet {
    /// Tells a new member all memberships of users that are kept here: its clients are to have them, too.
    pub(super) fn introduce_user_groups(&self, link: &NodeLink) {
        for kept in self.shared().user_groups.all().into_iter().filter(|kept| kept.left_s > 0) {
            let change = UserGroupChange {
                user_id: kept.user,
                group: Some(kept.group),
                ack_id: 0,
                ttl_s: Some(i64::try_from(kept.left_s).unwrap_or(i64::MAX)),
            };
            let frame = ServiceMessage::UserJoinGroup(change).to_body();
            link.tell(&NodeMessage::Relay { hub: kept.hub, frame });
        }
    }
}
