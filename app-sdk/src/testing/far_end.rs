//! The far end of a link in memory: as much of a proxy as tests need, in a few maps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use bytestring::ByteString;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use trunkline_link::answer_handshake;
use trunkline_protocol::hub::HubProtocol;
use trunkline_protocol::service::{
    Ack, AckStatus, ErrorCompletion, GroupChange, Payloads, Ping, ServiceMessage, UserGroupChange,
};

use crate::link::{LinkReader, LinkSocket, LinkWriter};
use crate::naming::Naming;
use crate::sync::lock;

/// The far end of the link of one hub.
#[derive(Debug)]
pub(super) struct FarEnd {
    naming: Naming,
    /// `None` until hands are shaken.
    up: tokio::sync::Mutex<Option<LinkWriter>>,
    members: Mutex<Members>,
    /// Fires when hands are shaken, or the link has ended.
    open: CancellationToken,
}

/// The connected clients, in a fixed order.
#[derive(Debug, Default)]
struct Members {
    all: BTreeMap<ByteString, Member>,
    /// The link has ended: nobody can connect any more.
    is_over: bool,
}

#[derive(Debug)]
struct Member {
    protocol: HubProtocol,
    user: Option<ByteString>,
    groups: BTreeSet<ByteString>,
    incoming: mpsc::UnboundedSender<Bytes>,
}

impl FarEnd {
    /// Starts it, and returns the socket of the near end.
    pub(super) fn start(naming: Naming) -> (Arc<Self>, LinkSocket) {
        let (near, far) = LinkSocket::memory();
        let far_end = Arc::new(Self {
            naming,
            up: tokio::sync::Mutex::default(),
            members: Mutex::default(),
            open: CancellationToken::new(),
        });
        tokio::spawn(Arc::clone(&far_end).run(far.into()));
        (far_end, near)
    }

    /// How the hub names fields and enums.
    pub(super) fn naming(&self) -> Naming {
        self.naming
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
            members.all.insert(id, Member { protocol, user, groups: BTreeSet::new(), incoming });
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
        *lock(&self.members) = Members { is_over: true, ..Members::default() };
        self.open.cancel();
    }

    async fn read(&self, mut down: LinkReader) {
        while let Ok(message) = down.next_message().await {
            let answer = message.and_then(|message| lock(&self.members).handle(message));
            if let Some(answer) = answer
                && !self.send(answer).await
            {
                return;
            }
        }
    }
}

impl Members {
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
        // A client that was dropped receives nothing more.
        let _ = self.incoming.send(bytes.clone());
    }
}

/// Requests without an id want no answer.
fn ack(ack_id: i64, status: AckStatus) -> Option<ServiceMessage> {
    (ack_id != 0).then(|| ServiceMessage::Ack(Ack { ack_id, status, message: None }))
}
