//! Connected clients at the far end of links: whom a send reaches, and who is in which group.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use tokio::sync::oneshot;
use trunkline_protocol::hub::HubProtocol;
use trunkline_protocol::service::{
    Ack, AckStatus, CloseConnection, GroupChange, Payloads, Ping, ServiceMessage, UserGroupChange,
};

use super::client_inbox::ClientInbox;

/// The connected clients, in a fixed order.
#[derive(Debug, Default)]
pub(super) struct FarClients {
    pub(super) all: BTreeMap<ByteString, FarClient>,
    /// App servers whose links have ended: nobody can connect there any more.
    pub(super) over: BTreeSet<usize>,
}

/// A client that is connected to the far end.
#[derive(Debug)]
pub(super) struct FarClient {
    pub(super) protocol: HubProtocol,
    pub(super) user: Option<ByteString>,
    pub(super) groups: BTreeSet<ByteString>,
    /// Place of its app server.
    pub(super) home: usize,
    /// Takes the frame that hands it over, while it is to move.
    pub(super) moving: Option<oneshot::Sender<CloseConnection>>,
    pub(super) inbox: Arc<ClientInbox>,
}

impl FarClients {
    /// Removes a client, which sees the end.
    pub(super) fn remove(&mut self, id: &str) {
        if let Some(member) = self.all.remove(id) {
            member.inbox.end();
        }
    }

    /// Removes the clients of an app server that is over.
    pub(super) fn end(&mut self, server: usize) {
        self.over.insert(server);
        let gone: Vec<_> =
            self.all.iter().filter(|(_, member)| member.home == server).map(|(id, _)| id.clone()).collect();
        gone.iter().for_each(|id| self.remove(id));
    }

    pub(super) fn hand_over(&mut self, close: CloseConnection) {
        let moving = self.all.get_mut(&close.connection_id).and_then(|member| member.moving.take());
        match moving {
            Some(moving) => drop(moving.send(close)),
            None => self.remove(&close.connection_id),
        }
    }

    /// Does what a proxy does with a send or a change of groups, and returns its answer.
    pub(super) fn handle(&mut self, message: ServiceMessage) -> Option<ServiceMessage> {
        match message {
            // Heard in answer, the near end never finds this one silent, not even on a clock that is wound forward.
            ServiceMessage::Ping(_) => return Some(ServiceMessage::Ping(Ping::default())),
            ServiceMessage::ConnectionData(data) => {
                if let Some(member) = self.all.get(&data.connection_id) {
                    member.give(&data.payload);
                }
            }
            ServiceMessage::CloseConnection(close) => self.remove(&close.connection_id),
            ServiceMessage::MultiConnectionData(to) => {
                to.connection_ids.iter().filter_map(|id| self.all.get(id)).for_each(|member| member.pick(&to.payloads));
            }
            ServiceMessage::UserData(to) => self.send(&to.payloads, |_, member| member.is_user(&to.user_id)),
            ServiceMessage::MultiUserData(to) => {
                self.send(&to.payloads, |_, member| to.user_ids.iter().any(|user| member.is_user(user)));
            }
            ServiceMessage::BroadcastData(to) => self.send(&to.payloads, |id, _| !to.excluded.contains(id)),
            ServiceMessage::GroupBroadcastData(to) => {
                let is_meant =
                    |id: &_, member: &FarClient| member.groups.contains(&to.group) && !to.excluded.contains(id);
                self.send(&to.payloads, is_meant);
            }
            ServiceMessage::MultiGroupBroadcastData(to) => {
                to.groups.iter().for_each(|group| self.send(&to.payloads, |_, member| member.groups.contains(group)));
            }
            ServiceMessage::JoinGroup(change) | ServiceMessage::JoinGroupWithAck(change) => {
                return self.change(change, FarClient::join);
            }
            ServiceMessage::LeaveGroup(change) | ServiceMessage::LeaveGroupWithAck(change) => {
                return self.change(change, FarClient::leave);
            }
            ServiceMessage::UserJoinGroup(change) | ServiceMessage::UserJoinGroupWithAck(change) => {
                return self.change_of_user(change, FarClient::join);
            }
            ServiceMessage::UserLeaveGroup(change) | ServiceMessage::UserLeaveGroupWithAck(change) => {
                return self.change_of_user(change, FarClient::leave);
            }
            // Flow control and news about the fleet mean nothing here.
            _ => {}
        }
        None
    }

    fn send(&self, payloads: &Payloads, is_meant: impl Fn(&ByteString, &FarClient) -> bool) {
        self.all.iter().filter(|(id, member)| is_meant(id, member)).for_each(|(_, member)| member.pick(payloads));
    }

    fn change(&mut self, change: GroupChange, apply: fn(&mut FarClient, Option<ByteString>)) -> Option<ServiceMessage> {
        let member = self.all.get_mut(&change.connection_id);
        let status = if member.is_some() { AckStatus::Ok } else { AckStatus::NotFound };
        if let Some(member) = member {
            apply(member, change.group);
        }
        ack(change.ack_id, status)
    }

    fn change_of_user(
        &mut self,
        change: UserGroupChange,
        apply: fn(&mut FarClient, Option<ByteString>),
    ) -> Option<ServiceMessage> {
        for member in self.all.values_mut().filter(|member| member.is_user(&change.user_id)) {
            apply(member, change.group.clone());
        }
        ack(change.ack_id, AckStatus::Ok)
    }
}

impl FarClient {
    pub(super) fn is_user(&self, user: &str) -> bool {
        self.user.as_deref() == Some(user)
    }

    fn join(&mut self, group: Option<ByteString>) {
        self.groups.extend(group);
    }

    fn leave(&mut self, group: Option<ByteString>) {
        match group {
            Some(group) => drop(self.groups.remove(&group)),
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

/// Makes the answer to a request; one without an id wants none.
pub(super) fn ack(ack_id: i64, status: AckStatus) -> Option<ServiceMessage> {
    (ack_id != 0).then(|| ServiceMessage::Ack(Ack { ack_id, status, ..Ack::default() }))
}
