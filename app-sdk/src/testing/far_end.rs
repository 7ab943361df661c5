//! The far end of links in memory, one to each app server: as much of a proxy as tests need, in a few maps.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use bytestring::ByteString;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use trunkline_link::answer_handshake;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::HubProtocol;
use trunkline_protocol::manifest::{ExclusiveTasks, PresenceScope};
use trunkline_protocol::service::{
    ClientInvocation, CloseConnection, ErrorCompletion, ServiceMessage, TaskCandidate, TaskCandidates, header_of,
};
use trunkline_protocol::wire::CAUSE_HEADER;

use super::client_inbox::ClientInbox;
use super::far_clients::{FarClient, FarClients, FarPresence};
use crate::link::{LinkReader, LinkSocket, LinkWriter};
use crate::naming::{Codec, Naming};
use crate::server::LinkedHub;
use crate::sync::lock;

/// The far ends of the links of one hub.
#[derive(Debug)]
pub(super) struct FarEnd {
    /// Names of fields and enums at the hub, which its clients write, too.
    naming: Naming,
    links: Mutex<Vec<Arc<FarLink>>>,
    members: Mutex<FarClients>,
    /// Presence as app servers were told it; `None` where no hook wants to know.
    presence: Option<Mutex<FarPresence>>,
    /// Notified when clients come, go, or change groups.
    has_changed: Notify,
}

/// The far end of the link to one app server.
#[derive(Debug)]
struct FarLink {
    /// Place of the app server in the fleet.
    server: usize,
    /// Instance of the app server.
    instance: String,
    /// Exclusive tasks that the app server stands for.
    tasks: Option<ExclusiveTasks>,
    /// `None` until hands are shaken.
    up: tokio::sync::Mutex<Option<LinkWriter>>,
    /// Fires when hands are shaken, or the link has ended.
    open: CancellationToken,
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
    pub(super) fn new(naming: Naming, presence: PresenceScope) -> Self {
        let presence = presence.is_any().then(Mutex::default);
        Self { naming, links: Mutex::default(), members: Mutex::default(), presence, has_changed: Notify::new() }
    }

    /// The encoding of values for the hub's clients that speak this protocol.
    pub(super) fn codec(&self, protocol: HubProtocol) -> Codec {
        Codec::new(protocol, self.naming)
    }

    /// Adds the link to the next app server, and returns the socket of its near end.
    pub(super) fn add_link(self: &Arc<Self>, instance: &str, tasks: Option<ExclusiveTasks>) -> LinkSocket {
        let (near, far) = LinkSocket::memory();
        let link = {
            let mut links = lock(&self.links);
            let (server, instance) = (links.len(), instance.to_owned());
            let (up, open) = (tokio::sync::Mutex::default(), CancellationToken::new());
            links.push(Arc::new(FarLink { server, instance, tasks, up, open }));
            links.last().map(Arc::clone)
        };
        if let Some(link) = link {
            if link.server == 0 && self.presence.is_some() {
                tokio::spawn(Arc::clone(self).tell_presence());
            }
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
        members.all.insert(id, FarClient { protocol, user, groups: BTreeSet::new(), home, moving: None, inbox });
        drop(members);
        self.has_changed.notify_one();
    }

    /// Takes a client away.
    pub(super) fn leave(&self, id: &str) {
        lock(&self.members).remove(id);
        self.has_changed.notify_one();
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

    /// Expects the frame by which the app server gives the client away; nothing comes when the client is closed
    /// instead.
    pub(super) fn expect_reassignment(&self, id: &str) -> oneshot::Receiver<CloseConnection> {
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
            self.tell_candidates().await;
            self.read(link.server, socket.reader).await;
        }
        // Their clients see the end.
        lock(&self.members).end(link.server);
        link.open.cancel();
        self.has_changed.notify_one();
        self.tell_candidates().await;
    }

    /// Tells app servers who comes and goes, until none is left.
    async fn tell_presence(self: Arc<Self>) {
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

    /// Tells app servers that stand for exclusive tasks which of them there are.
    async fn tell_candidates(&self) {
        let standing: Vec<_> = {
            let (links, members) = (lock(&self.links), lock(&self.members));
            let is_there = |link: &&Arc<FarLink>| link.open.is_cancelled() && !members.over.contains(&link.server);
            links.iter().filter(is_there).filter(|link| link.tasks.is_some()).cloned().collect()
        };
        let candidates = |link: &Arc<FarLink>| {
            let (instance, tasks) = (ByteString::from(link.instance.as_str()), link.tasks.clone());
            tasks.into_iter().flat_map(move |ExclusiveTasks { since_ms, names }| {
                let instance = instance.clone();
                names.into_iter().map(move |task| TaskCandidate {
                    task: task.into(),
                    instance: instance.clone(),
                    since_ms,
                })
            })
        };
        let told = TaskCandidates { candidates: standing.iter().flat_map(candidates).collect() };
        for link in &standing {
            self.send(link.server, ServiceMessage::TaskCandidates(told.clone())).await;
        }
    }

    async fn read(&self, server: usize, mut down: LinkReader) {
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

    /// Does what a proxy does with a frame of an app server; returns messages, and the app servers that they are for.
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
            other => {
                let (closed, answer) = lock(&self.members).handle(other);
                self.has_changed.notify_one();
                let notices = closed.into_iter().map(|(home, id)| (home, close_notice(id)));
                notices.chain(answer.map(|answer| (from, answer))).collect()
            }
        }
    }

    /// Asks a client. Its own app server has to know the question of another one, before the answer comes.
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

/// Notice to the hub that a connection was closed as it ordered.
fn close_notice(connection_id: ByteString) -> ServiceMessage {
    let headers = vec![header_of(CAUSE_HEADER, Cause::AppClosed.label())];
    ServiceMessage::CloseConnection(CloseConnection { connection_id, error: None, headers })
}

/// Hub under test, with the far ends of its links.
#[derive(Debug)]
pub(super) struct TestHub {
    pub(super) path: String,
    pub(super) requires_user: bool,
    pub(super) far_end: Arc<FarEnd>,
    /// The hub at each app server, in the order of the links.
    pub(super) servers: Vec<LinkedHub>,
}
