//! The far end of links in memory, one to each app server: as much of a proxy as tests need, in a few maps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use bytestring::ByteString;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use trunkline_link::answer_handshake;
use trunkline_protocol::hub::HubProtocol;
use trunkline_protocol::service::{
    Ack, AckStatus, ClientInvocation, CloseConnection, ErrorCompletion, GroupChange, Payloads, Ping, ServiceMessage,
    UserGroupChange,
};
use trunkline_protocol::wire::MIGRATE_TO_HEADER;

use super::client_inbox::ClientInbox;
use crate::link::{LinkReader, LinkSocket, LinkWriter};
use crate::sync::lock;

/// The far ends of the links of one hub.
#[derive(Debug, Default)]
pub(super) struct FarEnd {
    links: Mutex<Vec<Arc<FarLink>>>,
    members: Mutex<Members>,
}

/// The far end of the link to one app server.
#[derive(Debug)]
struct FarLink {
    /// Place of the app server in the fleet.
    server: usize,
    /// Instance of the app server.
    instance: String,
    /// `None` until hands are shaken.
    up: tokio::sync::Mutex<Option<LinkWriter>>,
    /// Fires when hands are shaken, or the link has ended.
    open: CancellationToken,
}

/// The connected clients, in a fixed order.
#[derive(Debug, Default)]
struct Members {
    all: BTreeMap<ByteString, Member>,
    /// App servers whose links have ended: nobody can connect there any more.
    over: BTreeSet<usize>,
}

#[derive(Debug)]
struct Member {
    protocol: HubProtocol,
    user: Option<ByteString>,
    groups: BTreeSet<ByteString>,
    /// Place of its app server.
    home: usize,
    /// Takes the frame that hands it over, while it is to move.
    moving: Option<oneshot::Sender<CloseConnection>>,
    inbox: Arc<ClientInbox>,
}

/// A client that connects.
#[derive(Debug)]
pub(super) struct NewMember {
    pub(super) id: ByteString,
    pub(super) protocol: HubProtocol,
    pub(super) user: Option<ByteString>,
    pub(super) home: usize,
    pub(super) inbox: Arc<ClientInbox>,
}

impl FarEnd {
    /// Adds the link to the next app server, and returns the socket of its near end.
    pub(super) fn add_link(self: &Arc<Self>, instance: &str) -> LinkSocket {
        let (near, far) = LinkSocket::memory();
        let link = {
            let mut links = lock(&self.links);
            let (server, instance) = (links.len(), instance.to_owned());
            let (up, open) = (tokio::sync::Mutex::default(), CancellationToken::new());
            links.push(Arc::new(FarLink { server, instance, up, open }));
            links.last().map(Arc::clone)
        };
        if let Some(link) = link {
            tokio::spawn(Arc::clone(self).run(link, far.into()));
        }
        near
    }

    /// Adds a client, once the link to its app server is open. Its inbox ends at once when that link has.
    pub(super) async fn join(&self, new: NewMember) {
        let NewMember { id, protocol, user, home, inbox } = new;
        if let Some(link) = self.link(home) {
            link.open.cancelled().await;
        }
        let mut members = lock(&self.members);
        if members.over.contains(&home) {
            return inbox.end();
        }
        members.all.insert(id, Member { protocol, user, groups: BTreeSet::new(), home, moving: None, inbox });
    }

    /// Takes a client away.
    pub(super) fn leave(&self, id: &str) {
        lock(&self.members).remove(id);
    }

    /// Place of the app server that has the client.
    pub(super) fn home(&self, id: &str) -> Option<usize> {
        lock(&self.members).all.get(id).map(|member| member.home)
    }

    /// Gives the client another app server, from now on.
    pub(super) fn set_home(&self, id: &str, home: usize) {
        if let Some(member) = lock(&self.members).all.get_mut(id) {
            member.home = home;
        }
    }

    /// Expects the frame by which the app server hands the client over; nothing comes when the client is closed instead.
    pub(super) fn expect_hand_over(&self, id: &str) -> oneshot::Receiver<CloseConnection> {
        let (sender, receiver) = oneshot::channel();
        if let Some(member) = lock(&self.members).all.get_mut(id) {
            member.moving = Some(sender);
        }
        receiver
    }

    /// Sends a message to an app server; `false` when its link has ended.
    pub(super) async fn send(&self, server: usize, message: ServiceMessage) -> bool {
        let Some(link) = self.link(server) else { return false };
        match &mut *link.up.lock().await {
            Some(up) => up.send(message.to_frame()).await.is_ok(),
            None => false,
        }
    }

    fn link(&self, server: usize) -> Option<Arc<FarLink>> {
        lock(&self.links).get(server).map(Arc::clone)
    }

    async fn run(self: Arc<Self>, link: Arc<FarLink>, mut socket: LinkSocket) {
        if answer_handshake(&mut socket).await.is_ok() {
            *link.up.lock().await = Some(socket.writer);
            link.open.cancel();
            self.read(link.server, socket.reader).await;
        }
        // Their clients see the end.
        lock(&self.members).end(link.server);
        link.open.cancel();
    }

    async fn read(&self, server: usize, mut down: LinkReader) {
        while let Ok(message) = down.next_message().await {
            let answer = match message {
                Some(ServiceMessage::ClientInvocation(question)) => self.ask(server, question).await,
                Some(message) => self.receive(server, message),
                None => None,
            };
            if let Some((to, answer)) = answer {
                let is_sent = self.send(to, answer).await;
                if to == server && !is_sent {
                    return;
                }
            }
        }
    }

    /// Does what a proxy does with a frame of an app server; returns a message, and the app server that it is for.
    fn receive(&self, from: usize, message: ServiceMessage) -> Option<(usize, ServiceMessage)> {
        match message {
            ServiceMessage::ClientCompletion(answer) => {
                let asker = self.server_of(&answer.caller_server_id)?;
                Some((asker, ServiceMessage::ClientCompletion(answer)))
            }
            ServiceMessage::ErrorCompletion(refusal) => {
                let asker = self.server_of(&refusal.caller_server_id)?;
                Some((asker, ServiceMessage::ErrorCompletion(refusal)))
            }
            ServiceMessage::CloseConnection(close) if is_hand_over(&close) => {
                lock(&self.members).hand_over(close);
                None
            }
            other => Some((from, lock(&self.members).handle(other)?)),
        }
    }

    /// Asks a client. Its own app server has to know the question of another one, before the answer comes.
    async fn ask(&self, from: usize, question: ClientInvocation) -> Option<(usize, ServiceMessage)> {
        let Some(home) = self.home(&question.connection_id) else {
            let refusal = ErrorCompletion {
                error: format!("Connection '{}' does not exist.", question.connection_id).into(),
                invocation_id: question.invocation_id,
                connection_id: question.connection_id,
                caller_server_id: question.caller_server_id,
            };
            return Some((from, ServiceMessage::ErrorCompletion(refusal)));
        };
        if home != from {
            self.send(home, ServiceMessage::ClientInvocation(question.clone())).await;
        }
        if let Some(member) = lock(&self.members).all.get(&question.connection_id) {
            member.pick(&question.payloads);
        }
        None
    }

    fn server_of(&self, instance: &str) -> Option<usize> {
        lock(&self.links).iter().position(|link| link.instance == instance)
    }
}

fn is_hand_over(close: &CloseConnection) -> bool {
    close.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(MIGRATE_TO_HEADER))
}

impl Members {
    /// Removes a client, which sees the end.
    fn remove(&mut self, id: &str) {
        if let Some(member) = self.all.remove(id) {
            member.inbox.end();
        }
    }

    /// Removes the clients of an app server that is over.
    fn end(&mut self, server: usize) {
        self.over.insert(server);
        let gone: Vec<_> =
            self.all.iter().filter(|(_, member)| member.home == server).map(|(id, _)| id.clone()).collect();
        gone.iter().for_each(|id| self.remove(id));
    }

    fn hand_over(&mut self, close: CloseConnection) {
        let moving = self.all.get_mut(&close.connection_id).and_then(|member| member.moving.take());
        match moving {
            Some(moving) => drop(moving.send(close)),
            None => self.remove(&close.connection_id),
        }
    }

    /// Does what a proxy does with a frame, and returns its answer.
    fn handle(&mut self, message: ServiceMessage) -> Option<ServiceMessage> {
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
                let is_meant = |id: &_, member: &Member| member.groups.contains(&to.group) && !to.excluded.contains(id);
                self.send(&to.payloads, is_meant);
            }
            ServiceMessage::MultiGroupBroadcastData(to) => {
                to.groups.iter().for_each(|group| self.send(&to.payloads, |_, member| member.groups.contains(group)));
            }
            ServiceMessage::JoinGroup(change) | ServiceMessage::JoinGroupWithAck(change) => {
                return self.change(change, Member::join);
            }
            ServiceMessage::LeaveGroup(change) | ServiceMessage::LeaveGroupWithAck(change) => {
                return self.change(change, Member::leave);
            }
            ServiceMessage::UserJoinGroup(change) | ServiceMessage::UserJoinGroupWithAck(change) => {
                return self.change_of_user(change, Member::join);
            }
            ServiceMessage::UserLeaveGroup(change) | ServiceMessage::UserLeaveGroupWithAck(change) => {
                return self.change_of_user(change, Member::leave);
            }
            // Flow control and news about the fleet mean nothing here.
            _ => {}
        }
        None
    }

    fn send(&self, payloads: &Payloads, is_meant: impl Fn(&ByteString, &Member) -> bool) {
        self.all.iter().filter(|(id, member)| is_meant(id, member)).for_each(|(_, member)| member.pick(payloads));
    }

    fn change(&mut self, change: GroupChange, apply: fn(&mut Member, Option<ByteString>)) -> Option<ServiceMessage> {
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
        apply: fn(&mut Member, Option<ByteString>),
    ) -> Option<ServiceMessage> {
        for member in self.all.values_mut().filter(|member| member.is_user(&change.user_id)) {
            apply(member, change.group.clone());
        }
        ack(change.ack_id, AckStatus::Ok)
    }
}

impl Member {
    fn is_user(&self, user: &str) -> bool {
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

    fn pick(&self, payloads: &Payloads) {
        if let Some(bytes) = payloads.get(self.protocol) {
            self.give(bytes);
        }
    }

    fn give(&self, bytes: &Bytes) {
        self.inbox.deliver(bytes);
    }
}

/// Requests without an id want no answer.
fn ack(ack_id: i64, status: AckStatus) -> Option<ServiceMessage> {
    (ack_id != 0).then(|| ServiceMessage::Ack(Ack { ack_id, status, message: None }))
}
