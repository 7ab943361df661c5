//! Presence at the far end of links: what has changed since app servers were told last.

use std::collections::BTreeSet;

use bytestring::ByteString;
use trunkline_protocol::service::{GroupJoin, PresenceChanges};

use super::far_clients::FarClients;

/// Users and members of groups that app servers were told of.
#[derive(Debug, Default)]
pub(super) struct FarPresence {
    users: BTreeSet<ByteString>,
    members: BTreeSet<(ByteString, ByteString)>,
    listed: Vec<ByteString>,
}

impl FarPresence {
    /// Takes the changes for these app servers.
    pub(super) fn update(&mut self, clients: &FarClients, app_servers: Vec<ByteString>) -> PresenceChanges {
        let users: BTreeSet<_> = clients.all.values().filter_map(|client| client.user.clone()).collect();
        let in_groups =
            clients.all.iter().flat_map(|(id, client)| client.groups.iter().map(|group| (group.clone(), id.clone())));
        let members: BTreeSet<_> = in_groups.collect();
        let join = |(group, id): &(ByteString, ByteString)| GroupJoin {
            group: group.clone(),
            connection_id: id.clone(),
            user_id: clients.all.get(id).and_then(|client| client.user.clone()),
        };
        let update = PresenceChanges {
            stream: 1,
            online: users.difference(&self.users).cloned().collect(),
            offline: self.users.difference(&users).cloned().collect(),
            joined: members.difference(&self.members).map(join).collect(),
            left: self.members.difference(&members).cloned().collect(),
            lost: self.listed.iter().filter(|instance| !app_servers.contains(instance)).cloned().collect(),
            app_servers: Some(app_servers.clone()),
            ..PresenceChanges::default()
        };
        (self.users, self.members, self.listed) = (users, members, app_servers);
        update
    }
}
