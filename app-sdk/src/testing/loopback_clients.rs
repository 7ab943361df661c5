//! Clients connected to the loopback server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use tokio::sync::oneshot;
use trunkline_protocol::hub::{Close, HubMessage, HubProtocol};
use trunkline_protocol::service::{
    Ack, AckStatus, Audience, CloseConnection, GroupJoin, GroupMember, MEMBERS_PER_PAGE_MAX, MemberPage, Payloads,
    Ping, PresenceChanges, ServiceMessage,
};

use super::client_inbox::ClientInbox;
use crate::encode;

/// Connections closed by a frame, each with the index of its app server, and the response to the frame's sender.
type Closed = (Vec<(usize, ByteString)>, Option<ServiceMessage>);

#[derive(Debug, Default)]
pub(super) struct LoopbackClients {
    pub(super) all: BTreeMap<ByteString, LoopbackClient>,
    /// App servers with closed links. Clients cannot connect to them.
    pub(super) over: BTreeSet<usize>,
}

#[derive(Debug)]
pub(super) struct LoopbackClient {
    pub(super) protocol: HubProtocol,
    pub(super) user: Option<ByteString>,
    pub(super) groups: BTreeSet<ByteString>,
    pub(super) home: usize,
    /// Receives the frame that hands the client over during a move.
    pub(super) moving: Option<oneshot::Sender<CloseConnection>>,
    pub(super) inbox: Arc<ClientInbox>,
}

impl LoopbackClients {
    pub(super) fn remove(&mut self, id: &str) {
        if let Some(member) = self.all.remove(id) {
            member.inbox.end_inbox();
        }
    }

    pub(super) fn end_server(&mut self, server: usize) {
        self.over.insert(server);
        let gone: Vec<_> =
            self.all.iter().filter(|(_, member)| member.home == server).map(|(id, _)| id.clone()).collect();
        gone.iter().for_each(|id| self.remove(id));
    }

    pub(super) fn give_away(&mut self, close: CloseConnection) {
        let moving = self.all.get_mut(&close.connection_id).and_then(|member| member.moving.take());
        match moving {
            Some(moving) => drop(moving.send(close)),
            None => self.remove(&close.connection_id),
        }
    }

    /// Handles a frame as a proxy does. Returns the connections closed by it, and the response.
    pub(super) fn handle(&mut self, message: ServiceMessage) -> Closed {
        use ServiceMessage as M;
        let (meant, ack_id, mut closed) = (self.meant_by(&message), message.ack_id(), Vec::new());
        let mut is_found = !meant.is_empty();
        match message {
            // A response to each ping keeps the app server from timing out this side, even if a paused clock jumps.
            M::Ping(_) => return (closed, Some(M::Ping(Ping::default()))),
            M::ConnectionData(data) => self.each(&meant, |client| client.give(&data.payload)),
            M::CloseConnection(close) => self.remove(&close.connection_id),
            M::JoinGroup(change) | M::JoinGroupWithAck(change) => {
                self.each(&meant, |client| client.groups.extend(change.group.clone()));
            }
            M::LeaveGroup(change) | M::LeaveGroupWithAck(change) => {
                self.each(&meant, |client| client.leave(change.group.as_ref()));
            }
            M::UserJoinGroup(change) | M::UserJoinGroupWithAck(change) => {
                self.each(&meant, |client| client.groups.extend(change.group.clone()));
                is_found = true;
            }
            M::UserLeaveGroup(change) | M::UserLeaveGroupWithAck(change) => {
                self.each(&meant, |client| client.leave(change.group.as_ref()));
                is_found = true;
            }
            M::CloseConnectionWithAck(close)
            | M::CloseConnectionsWithAck(close)
            | M::CloseUserConnectionsWithAck(close)
            | M::CloseGroupConnectionsWithAck(close) => closed = self.close_clients(meant, close.reason),
            M::CheckUserInGroupWithAck(check) => {
                let is_member = |id| self.all.get(id).is_some_and(|client| client.groups.contains(&check.group));
                is_found = meant.iter().any(is_member);
            }
            M::GroupMemberQuery(query) => {
                return (closed, Some(self.list(meant, query.ack_id, query.page_size, query.continuation_token)));
            }
            M::UserConnectionQuery(query) => {
                return (closed, Some(self.list(meant, query.ack_id, query.page_size, query.continuation_token)));
            }
            // Flow control and fleet messages have no effect here.
            other => {
                if let Some(payloads) = other.payloads() {
                    self.each(&meant, |client| client.pick(payloads));
                }
            }
        }
        let status = if is_found { AckStatus::Ok } else { AckStatus::NotFound };
        (closed, ack_id.map(|ack_id| M::Ack(Ack { ack_id, status, ..Ack::default() })))
    }

    /// IDs of the clients in a message's audience, in order; once per group for several groups.
    fn meant_by(&self, message: &ServiceMessage) -> Vec<ByteString> {
        let excluded = message.exclusions();
        let is_out = |id: &ByteString, user: Option<&ByteString>| {
            excluded.connections.contains(id) || user.is_some_and(|user| excluded.users.contains(user))
        };
        let those = |is_meant: &dyn Fn(&LoopbackClient) -> bool| -> Vec<ByteString> {
            let clients = self.all.iter().filter(|(id, client)| is_meant(client) && !is_out(id, client.user.as_ref()));
            clients.map(|(id, _)| id.clone()).collect()
        };
        match message.audience() {
            None => Vec::new(),
            Some(Audience::Everyone) => those(&|_| true),
            Some(Audience::Connections(ids)) => ids.iter().filter(|id| self.all.contains_key(*id)).cloned().collect(),
            Some(Audience::Groups(groups)) => {
                groups.iter().flat_map(|group| those(&|client| client.groups.contains(group))).collect()
            }
            Some(Audience::Users(users)) => {
                those(&|client| client.user.as_ref().is_some_and(|user| users.contains(user)))
            }
        }
    }

    fn each(&mut self, ids: &[ByteString], mut act: impl FnMut(&mut LoopbackClient)) {
        ids.iter().for_each(|id| self.all.get_mut(id).into_iter().for_each(&mut act));
    }

    fn close_clients(&mut self, ids: Vec<ByteString>, reason: Option<ByteString>) -> Vec<(usize, ByteString)> {
        let message = HubMessage::Close(Close { error: reason, allow_reconnect: false });
        let mut closed = Vec::new();
        for id in ids {
            if let Some(client) = self.all.get(&id) {
                client.give(&encode::message(client.protocol, &message));
                closed.push((client.home, id.clone()));
            }
            self.remove(&id);
        }
        closed
    }

    /// Lists clients by ID. The token is the last ID of the previous page.
    fn list(
        &self,
        ids: Vec<ByteString>,
        ack_id: i64,
        page_size: Option<i64>,
        continuation_token: Option<ByteString>,
    ) -> ServiceMessage {
        let page_size = page_size.and_then(|size| usize::try_from(size).ok()).unwrap_or(MEMBERS_PER_PAGE_MAX);
        let page = if page_size == 0 {
            MemberPage::counted(ids.len() as u64)
        } else {
            let is_next = |id: &ByteString| continuation_token.as_ref().is_none_or(|last| id > last);
            let rest: Vec<_> = ids.into_iter().filter(is_next).collect();
            let page = rest.iter().take(page_size.min(MEMBERS_PER_PAGE_MAX));
            let user = |id| self.all.get(id).and_then(|client| client.user.clone());
            let members: Vec<_> = page.map(|id| GroupMember { connection_id: id.clone(), user_id: user(id) }).collect();
            let last = members.last().filter(|_| members.len() < rest.len());
            let continuation_token = last.map(|member| member.connection_id.clone());
            MemberPage { members, continuation_token, count: None }
        };
        let payload = Some(page.to_payload());
        ServiceMessage::Ack(Ack { ack_id, status: AckStatus::Ok, message: None, payload })
    }
}

impl LoopbackClient {
    fn leave(&mut self, group: Option<&ByteString>) {
        match group {
            Some(group) => drop(self.groups.remove(group)),
            None => self.groups.clear(),
        }
    }

    pub(super) fn pick(&self, payloads: &Payloads) {
        if let Some(bytes) = payloads.get(self.protocol) {
            self.give(bytes);
        }
    }

    pub(super) fn give(&self, bytes: &Bytes) {
        self.inbox.deliver(bytes);
    }
}

/// Users and group members last reported to app servers.
#[derive(Debug, Default)]
pub(super) struct LoopbackPresence {
    users: BTreeSet<ByteString>,
    members: BTreeSet<(ByteString, ByteString)>,
    listed: Vec<ByteString>,
}

impl LoopbackPresence {
    pub(super) fn update(&mut self, clients: &LoopbackClients, app_servers: Vec<ByteString>) -> PresenceChanges {
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
