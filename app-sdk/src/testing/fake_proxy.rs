//! Loopback server: the proxy side of in-memory links, one link per app server, with as much of a proxy as tests
//! need.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use bytestring::ByteString;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use trunkline_link::answer_handshake;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::HubProtocol;
use trunkline_protocol::manifest::PresenceScope;
use trunkline_protocol::service::{ClientInvocation, CloseConnection, ErrorCompletion, ServiceMessage, header_of};
use trunkline_protocol::wire::CAUSE_HEADER;

use super::client_inbox::ClientInbox;
use super::fake_records::FakeRecords;
use super::loopback_clients::{LoopbackClient, LoopbackClients, LoopbackPresence};
use crate::link::{LinkReader, LinkSocket, LinkWriter};
use crate::naming::{Codec, Naming};
use crate::server::LinkedHub;
use crate::sync::lock;

#[derive(Debug)]
pub(super) struct FakeProxy {
    /// Naming of the hub, which its clients use as well.
    naming: Naming,
    links: Mutex<Vec<Arc<FarLink>>>,
    members: Mutex<LoopbackClients>,
    records: Mutex<FakeRecords>,
    /// Presence last reported to app servers; `None` if the hub has no presence hooks.
    presence: Option<Mutex<LoopbackPresence>>,
    has_changed: Notify,
}

#[derive(Debug)]
struct FarLink {
    server: usize,
    instance: String,
    /// `None` until the handshake is done.
    up: tokio::sync::Mutex<Option<LinkWriter>>,
    /// Cancelled when the handshake is done or the link has closed.
    open: CancellationToken,
}

#[derive(Debug)]
pub(super) struct NewMember {
    pub(super) id: ByteString,
    pub(super) protocol: HubProtocol,
    pub(super) user: Option<ByteString>,
    pub(super) home: usize,
    pub(super) inbox: Arc<ClientInbox>,
}

impl FakeProxy {
    pub(super) fn new(naming: Naming, presence: PresenceScope) -> Self {
        let presence = presence.is_any().then(Mutex::default);
        let (links, members, records) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { naming, links, members, records, presence, has_changed: Notify::new() }
    }

    pub(super) fn codec(&self, protocol: HubProtocol) -> Codec {
        Codec::new(protocol, self.naming)
    }

    /// Adds the link to the next app server. Returns the app server's socket.
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
            if link.server == 0 && self.presence.is_some() {
                tokio::spawn(Arc::clone(self).notify_presence());
            }
            tokio::spawn(Arc::clone(self).run(link, far.into()));
        }
        near
    }

    /// Adds a client once the link to its app server is open. If the link has closed, ends the client's inbox.
    pub(super) async fn join(&self, new: NewMember) {
        let NewMember { id, protocol, user, home, inbox } = new;
        if let Some(link) = self.link(home) {
            link.open.cancelled().await;
        }
        let mut members = lock(&self.members);
        if members.over.contains(&home) {
            return inbox.end_inbox();
        }
        members.all.insert(id, LoopbackClient { protocol, user, groups: BTreeSet::new(), home, moving: None, inbox });
        drop(members);
        self.has_changed.notify_one();
    }

    pub(super) fn leave(&self, id: &str) {
        lock(&self.members).remove(id);
        self.has_changed.notify_one();
    }

    pub(super) fn home(&self, id: &str) -> Option<usize> {
        lock(&self.members).all.get(id).map(|member| member.home)
    }

    pub(super) fn set_home(&self, id: &str, home: usize) {
        if let Some(member) = lock(&self.members).all.get_mut(id) {
            member.home = home;
        }
    }

    /// Receives the frame that hands the client over. The sender is dropped if the client is closed instead.
    pub(super) fn expect_reassignment(&self, id: &str) -> oneshot::Receiver<CloseConnection> {
        let (sender, receiver) = oneshot::channel();
        if let Some(member) = lock(&self.members).all.get_mut(id) {
            member.moving = Some(sender);
        }
        receiver
    }

    /// Sends a message to an app server. Returns `false` if its link has closed.
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
            self.read_link(link.server, socket.reader).await;
        }
        // Its clients see the close.
        lock(&self.members).end_server(link.server);
        link.open.cancel();
        self.has_changed.notify_one();
    }

    /// Reports presence changes to app servers until none is left.
    async fn notify_presence(self: Arc<Self>) {
        loop {
            self.has_changed.notified().await;
            let Some(presence) = &self.presence else { return };
            let (update, servers) = {
                let (links, members) = (lock(&self.links).clone(), lock(&self.members));
                let is_there = |link: &&Arc<FarLink>| !members.over.contains(&link.server);
                let there: Vec<_> = links.iter().filter(is_there).collect();
                let instances = there.iter().map(|link| link.instance.as_str().into()).collect();
                let servers: Vec<_> = there.iter().map(|link| link.server).collect();
                let update = lock(presence).update(&members, instances);
                (update, servers)
            };
            if servers.is_empty() {
                return;
            }
            for server in servers {
                if let Some(link) = self.link(server) {
                    link.open.cancelled().await;
                }
                self.send(server, ServiceMessage::PresenceChanges(update.clone())).await;
            }
        }
    }

    async fn read_link(&self, server: usize, mut down: LinkReader) {
        while let Ok(message) = down.next_message().await {
            let answers = match message {
                Some(ServiceMessage::ClientInvocation(question)) => self.ask(server, question).await,
                Some(message) => self.receive(server, message),
                None => Vec::new(),
            };
            for (to, answer) in answers {
                let is_sent = self.send(to, answer).await;
                if to == server && !is_sent {
                    return;
                }
            }
        }
    }

    /// Handles a frame from an app server as a proxy does. Returns messages with the app servers to send them to.
    fn receive(&self, from: usize, message: ServiceMessage) -> Vec<(usize, ServiceMessage)> {
        let to_asker = |instance: &str, message| self.server_of(instance).map(|asker| (asker, message));
        match message {
            ServiceMessage::ClientCompletion(answer) => {
                let asker = answer.caller_server_id.clone();
                to_asker(&asker, ServiceMessage::ClientCompletion(answer)).into_iter().collect()
            }
            ServiceMessage::ErrorCompletion(refusal) => {
                let asker = refusal.caller_server_id.clone();
                to_asker(&asker, ServiceMessage::ErrorCompletion(refusal)).into_iter().collect()
            }
            ServiceMessage::CloseConnection(close) if close.is_reassignment() => {
                lock(&self.members).give_away(close);
                self.has_changed.notify_one();
                Vec::new()
            }
            ServiceMessage::RecordRequest(request) => {
                let (message, answer) = lock(&self.records).handle(request);
                message.map(|message| lock(&self.members).handle(message));
                vec![(from, answer)]
            }
            other => {
                let (closed, answer) = lock(&self.members).handle(other);
                self.has_changed.notify_one();
                let notices = closed.into_iter().map(|(home, id)| (home, close_notice(id)));
                notices.chain(answer.map(|answer| (from, answer))).collect()
            }
        }
    }

    /// Invokes a client. Its app server is notified before the answer, if another app server makes the request.
    async fn ask(&self, from: usize, question: ClientInvocation) -> Vec<(usize, ServiceMessage)> {
        let Some(home) = self.home(&question.connection_id) else {
            let refusal = ErrorCompletion {
                error: format!("Connection '{}' does not exist.", question.connection_id).into(),
                invocation_id: question.invocation_id,
                connection_id: question.connection_id,
                caller_server_id: question.caller_server_id,
            };
            return vec![(from, ServiceMessage::ErrorCompletion(refusal))];
        };
        if home != from {
            self.send(home, ServiceMessage::ClientInvocation(question.clone())).await;
        }
        if let Some(member) = lock(&self.members).all.get(&question.connection_id) {
            member.pick(&question.payloads);
        }
        Vec::new()
    }

    fn server_of(&self, instance: &str) -> Option<usize> {
        lock(&self.links).iter().position(|link| link.instance == instance)
    }
}

fn close_notice(connection_id: ByteString) -> ServiceMessage {
    let headers = vec![header_of(CAUSE_HEADER, Cause::AppClosed.label())];
    ServiceMessage::CloseConnection(CloseConnection { connection_id, error: None, headers })
}

#[derive(Debug)]
pub(super) struct TestHub {
    pub(super) path: String,
    pub(super) requires_user: bool,
    pub(super) fake_proxy: Arc<FakeProxy>,
    /// The hub on each app server, in the order of the links.
    pub(super) servers: Vec<LinkedHub>,
}
