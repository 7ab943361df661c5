//! The far end of a link in memory: as much of a proxy as tests need, in a few maps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use bytestring::ByteString;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use trunkline_link::answer_handshake;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::{Close, HubMessage, HubProtocol};
use trunkline_protocol::service::{
    Ack, AckStatus, CloseConnection, CloseWithAck, ErrorCompletion, GroupChange, GroupMember, GroupMemberQuery,
    MEMBERS_PER_PAGE_MAX, MemberPage, Payloads, Ping, ServiceMessage, UserGroupChange,
};
use trunkline_protocol::wire::CAUSE_HEADER;

use crate::encode;
use crate::link::{LinkReader, LinkSocket, LinkWriter};
use crate::sync::lock;

/// The far end of the link of one hub.
#[derive(Debug)]
pub(super) struct FarEnd {
    /// `None` until hands are shaken.
    up: tokio::sync::Mutex<Option<LinkWriter>>,
    members: Mutex<FarClients>,
    /// Fires when hands are shaken, or the link has ended.
    open: CancellationToken,
}

/// The connected clients, in a fixed order.
#[derive(Debug, Default)]
struct FarClients {
    all: BTreeMap<ByteString, FarClient>,
    /// The link has ended: nobody can connect any more.
    is_over: bool,
}

#[derive(Debug)]
struct FarClient {
    protocol: HubProtocol,
    user: Option<ByteString>,
    groups: BTreeSet<ByteString>,
    incoming: mpsc::UnboundedSender<Bytes>,
}

impl FarEnd {
    /// Starts it, and returns the socket of the near end.
    pub(super) fn start() -> (Arc<Self>, LinkSocket) {
        let (near, far) = LinkSocket::memory();
        let far_end = Arc::new(Self {
            up: tokio::sync::Mutex::default(),
            members: Mutex::default(),
            open: CancellationToken::new(),
        });
        tokio::spawn(Arc::clone(&far_end).run(far.into()));
        (far_end, near)
    }

    /// Adds a client, once the link is open, and returns what will come for it; nothing when the link has ended.
    pub(super) async fn join(
        &self,
        id: ByteString,
        protocol: HubProtocol,
        user: Option<ByteString>,
    ) -> mpsc::UnboundedReceiver<Bytes> {
        self.open.cancelled().await;
        let (incoming, received) = mpsc::unbounded_channel();
        let mut members = lock(&self.members);
        if !members.is_over {
            members.all.insert(id, FarClient { protocol, user, groups: BTreeSet::new(), incoming });
        }
        received
    }

    /// Takes a client away.
    pub(super) fn leave(&self, id: &str) {
        lock(&self.members).all.remove(id);
    }

    /// Sends a message to the hub; `false` when the link has ended.
    pub(super) async fn send(&self, message: ServiceMessage) -> bool {
        match &mut *self.up.lock().await {
            Some(up) => up.send(message.to_frame()).await.is_ok(),
            None => false,
        }
    }

    async fn run(self: Arc<Self>, mut socket: LinkSocket) {
        if answer_handshake(&mut socket).await.is_ok() {
            *self.up.lock().await = Some(socket.writer);
            self.open.cancel();
            self.read(socket.reader).await;
        }
        // Their clients see the end.
        *lock(&self.members) = FarClients { is_over: true, ..FarClients::default() };
        self.open.cancel();
    }

    async fn read(&self, mut down: LinkReader) {
        while let Ok(message) = down.next_message().await {
            let Some(message) = message else { continue };
            let (closed, answer) = lock(&self.members).receive(message);
            for message in closed.into_iter().map(close_notice).chain(answer) {
                if !self.send(message).await {
                    return;
                }
            }
        }
    }
}

impl FarClients {
    /// Does what a proxy does with a frame, and returns the connections that it closed for it, and its answer.
    fn receive(&mut self, message: ServiceMessage) -> (Vec<ByteString>, Option<ServiceMessage>) {
        match message {
            ServiceMessage::CloseConnectionWithAck(close) => {
                let id = close.subject.clone();
                self.close(close, |other, _| *other == id)
            }
            ServiceMessage::CloseConnectionsWithAck(close) => self.close(close, |_, _| true),
            ServiceMessage::CloseUserConnectionsWithAck(close) => {
                let user = close.subject.clone();
                self.close(close, |_, member| member.is_user(&user))
            }
            ServiceMessage::CloseGroupConnectionsWithAck(close) => {
                let group = close.subject.clone();
                self.close(close, |_, member| member.groups.contains(&group))
            }
            ServiceMessage::CheckConnectionExistenceWithAck(check) => {
                (Vec::new(), self.check(check.ack_id, |id, _| *id == check.subject))
            }
            ServiceMessage::CheckUserExistenceWithAck(check) => {
                (Vec::new(), self.check(check.ack_id, |_, member| member.is_user(&check.subject)))
            }
            ServiceMessage::CheckGroupExistenceWithAck(check) => {
                (Vec::new(), self.check(check.ack_id, |_, member| member.groups.contains(&check.subject)))
            }
            ServiceMessage::CheckUserInGroupWithAck(check) => {
                let is_meant = |_: &ByteString, member: &FarClient| {
                    member.is_user(&check.user_id) && member.groups.contains(&check.group)
                };
                (Vec::new(), self.check(check.ack_id, is_meant))
            }
            ServiceMessage::GroupMemberQuery(query) => (Vec::new(), Some(self.list(query))),
            other => (Vec::new(), self.handle(other)),
        }
    }

    /// Closes connections with a close message, and returns their ids and the answer.
    fn close(
        &mut self,
        close: CloseWithAck,
        is_meant: impl Fn(&ByteString, &FarClient) -> bool,
    ) -> (Vec<ByteString>, Option<ServiceMessage>) {
        let message = HubMessage::Close(Close { error: close.reason, allow_reconnect: false });
        let is_meant = |id: &ByteString, member: &FarClient| is_meant(id, member) && !close.excluded.contains(id);
        let closed: Vec<_> =
            self.all.iter().filter(|(id, member)| is_meant(id, member)).map(|(id, _)| id).cloned().collect();
        for member in closed.iter().filter_map(|id| self.all.remove(id)) {
            member.give(&encode::message(member.protocol, &message));
        }
        let status = if closed.is_empty() { AckStatus::NotFound } else { AckStatus::Ok };
        (closed, ack(close.ack_id, status))
    }

    fn check(&self, ack_id: i64, is_meant: impl Fn(&ByteString, &FarClient) -> bool) -> Option<ServiceMessage> {
        let is_found = self.all.iter().any(|(id, member)| is_meant(id, member));
        ack(ack_id, if is_found { AckStatus::Ok } else { AckStatus::NotFound })
    }

    /// Lists the members of a group by their ids; the token is the last one of the page before.
    fn list(&self, query: GroupMemberQuery) -> ServiceMessage {
        let members: Vec<_> = self.all.iter().filter(|(_, member)| member.groups.contains(&query.group)).collect();
        let page_size = query.page_size.and_then(|size| usize::try_from(size).ok()).unwrap_or(MEMBERS_PER_PAGE_MAX);
        let page = if page_size == 0 {
            MemberPage::counted(members.len() as u64)
        } else {
            let is_next = |id: &ByteString| query.continuation_token.as_ref().is_none_or(|last| id > last);
            let rest: Vec<_> = members.into_iter().filter(|(id, _)| is_next(id)).collect();
            let page = rest.iter().take(page_size.min(MEMBERS_PER_PAGE_MAX));
            let members: Vec<_> = page
                .map(|(id, member)| GroupMember { connection_id: (*id).clone(), user_id: member.user.clone() })
                .collect();
            let last = members.last().filter(|_| members.len() < rest.len());
            let continuation_token = last.map(|member| member.connection_id.clone());
            MemberPage { members, continuation_token, count: None }
        };
        let payload = Some(page.to_payload());
        ServiceMessage::Ack(Ack { ack_id: query.ack_id, status: AckStatus::Ok, message: None, payload })
    }

    /// Does what a proxy does with one of the other frames, and returns its answer.
    fn handle(&mut self, message: ServiceMessage) -> Option<ServiceMessage> {
        match message {
            // Heard in answer, the near end never finds this one silent, not even on a clock that is wound forward.
            ServiceMessage::Ping(_) => return Some(ServiceMessage::Ping(Ping::default())),
            ServiceMessage::ConnectionData(data) => {
                if let Some(member) = self.all.get(&data.connection_id) {
                    member.give(&data.payload);
                }
            }
            ServiceMessage::CloseConnection(close) => drop(self.all.remove(&close.connection_id)),
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
            ServiceMessage::ClientInvocation(question) => {
                if let Some(member) = self.all.get(&question.connection_id) {
                    member.pick(&question.payloads);
                    return None;
                }
                return Some(ServiceMessage::ErrorCompletion(ErrorCompletion {
                    error: format!("Connection '{}' does not exist.", question.connection_id).into(),
                    invocation_id: question.invocation_id,
                    connection_id: question.connection_id,
                    caller_server_id: question.caller_server_id,
                }));
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
        // A client that was dropped receives nothing more.
        let _ = self.incoming.send(bytes.clone());
    }
}

/// Notice to the hub that a connection was closed as it ordered.
fn close_notice(connection_id: ByteString) -> ServiceMessage {
    let cause = (CAUSE_HEADER.into(), vec![Cause::AppClosed.label().into()]);
    ServiceMessage::CloseConnection(CloseConnection { connection_id, error: None, headers: vec![cause] })
}

/// Requests without an id want no answer.
fn ack(ack_id: i64, status: AckStatus) -> Option<ServiceMessage> {
    (ack_id != 0).then(|| ServiceMessage::Ack(Ack { ack_id, status, ..Ack::default() }))
}
