//! Test bed for the parts of a shard: clients with in-memory sockets, a tick clock, and a hub with app servers.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::io::{AsyncRead, DuplexStream, ReadBuf, duplex};
use trunkline_protocol::cause::Cause;
use trunkline_protocol::fleet::Ownership;
use trunkline_protocol::hub::HubProtocol;
use trunkline_protocol::key::{AccessKey, AccessKeys};
use trunkline_protocol::manifest::HubManifest;
use trunkline_protocol::service::{FrameBuffer, OpenConnection, Payloads, RawKind, ServiceMessage};

use super::apply::apply;
use super::close_reason::CloseReason;
use super::command::audience::SendOrigin;
use super::command::{Audience, ConnectionCommand, ShardCommand};
use super::connection::{Client, ClientTraits, Liveness, OpeningInterner};
use super::content::Content;
use super::delivery::framed::Framed;
use super::inbox::ShardSender;
use super::shard_context::ShardContext;
use super::shard_core::ShardCore;
use super::shard_state::{ShardFeatures, ShardState, ShardTask};
use super::shared::Shared;
use super::slot::Slot;
use super::tap::{Tap, TapEvent};
use crate::engine::transport::websocket::{Unframed, unframe};
use crate::engine::upstream::{AppServer, AppServerId, AppTarget, HomeLink, Hub, LinkHandle, Pool, ServerGroup};
use crate::ground::config::Settings;
use crate::ground::net::socket::Socket;

/// Buffer size of a client's socket.
const SOCKET_BYTES: usize = 1024;

/// Shard 0 of a node with one hub.
pub(crate) struct Testbed {
    pub(crate) state: ShardState,
    pub(crate) hub: Arc<Hub>,
    clients: Vec<(Slot, DuplexStream)>,
}

impl Testbed {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    /// Test bed with changed settings.
    pub(crate) fn with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::with_features(change, Vec::new())
    }

    /// Test bed with a feature that follows its clients.
    pub(crate) fn tapped(tap: impl Tap) -> Self {
        Self::with_features(|_| {}, vec![Box::new(tap)])
    }

    fn with_features(change: impl FnOnce(&mut Settings), taps: Vec<Box<dyn Tap>>) -> Self {
        let keys = AccessKeys::new(vec![AccessKey::random()]).unwrap();
        let mut settings = Settings::embedded(keys, Vec::new(), true);
        change(&mut settings);
        let shared = Shared::alone(settings, vec![ShardSender::new().0]);
        let hub = shared.hubs.register(HubManifest::new("chat", "/chat"), &ServerGroup::default());
        let counters = shared.counters_of(0);
        let features = ShardFeatures { taps, feeds: Vec::new() };
        let state = ShardState::new(ShardContext { index: 0, shared, counters }, features);
        Self { state, hub, clients: Vec::new() }
    }

    /// Adds an app server with one open link.
    pub(crate) fn app_server(&self, instance: &str) -> (Arc<Pool>, HomeLink) {
        let id = self.state.core.context.shared.hubs.number(instance);
        let target = AppTarget::Network("http://app".parse().unwrap());
        let server = AppServer { id, instance: instance.into(), name: String::new(), target, group: Arc::default() };
        let pool = Arc::new(Pool::new(self.hub.identity.clone(), Arc::new(server), 1, Arc::default()));
        let home = Arc::new(LinkHandle::opened(&self.hub.identity, id));
        pool.opened(0, home.clone());
        self.hub.add_pool(pool.clone());
        (pool, home)
    }

    /// Adds an app server that has dialled in with several links.
    pub(crate) fn dialled_in_server(&self, instance: &str, links: usize) -> (Arc<Pool>, Vec<HomeLink>) {
        let id = self.state.core.context.shared.hubs.number(instance);
        let server = AppServer {
            id,
            instance: instance.into(),
            name: String::new(),
            target: AppTarget::DialsIn(None),
            group: Arc::default(),
        };
        let pool = Arc::new(Pool::new(self.hub.identity.clone(), Arc::new(server), 0, Arc::default()));
        self.hub.add_pool(pool.clone());
        let links = (0..links).map(|_| self.dial_in_link(&pool, instance)).collect();
        (pool, links)
    }

    /// Adds a link of a dialled-in app server.
    pub(crate) fn dial_in_link(&self, pool: &Pool, instance: &str) -> HomeLink {
        let id = self.state.core.context.shared.hubs.number(instance);
        let link = Arc::new(LinkHandle::opened_by_dial_in(&self.hub.identity, id));
        pool.add_link(&link);
        link
    }

    /// Applies commands as one batch.
    pub(crate) fn apply(&mut self, commands: Vec<ShardCommand>) {
        apply(&mut self.state, commands, None);
        self.end_step();
    }

    /// Advances the shard by one second.
    pub(crate) fn advance(&mut self) {
        self.state.advance();
        self.end_step();
    }

    /// Ends a step like the driver. Returns the tasks that the driver would start.
    pub(super) fn end_step(&mut self) -> Vec<ShardTask> {
        self.state.end_step()
    }

    /// Applies bytes from an app server to a client.
    pub(crate) fn data(&mut self, id: &str, slot: Slot, app: AppServerId, payload: &'static str) {
        let command = ConnectionCommand::Data { payload: payload.into(), kind: RawKind::Binary, packed: None };
        let (hub, connection_id) = (self.hub.index(), whole_id(id).into());
        self.apply(vec![ShardCommand::One { hub, app, connection_id, slot, command }]);
    }

    /// Sends a text message to these clients.
    pub(crate) fn send(&mut self, to: Audience, text: &'static str) {
        let message = Framed::new(&Payloads::single(HubProtocol::Json, Bytes::from_static(text.as_bytes())));
        let (hub, origin) = (self.hub.index(), SendOrigin::Sender(AppServerId::from(7), 0));
        self.apply(vec![ShardCommand::Send { hub, to: to.into(), message, origin }]);
    }

    /// Applies an app server's request to close a client.
    pub(crate) fn close(&mut self, id: &str, slot: Slot, app: AppServerId) {
        let command = ConnectionCommand::Close { error: None, cause: None, by: None };
        let (hub, connection_id) = (self.hub.index(), whole_id(id).into());
        self.apply(vec![ShardCommand::One { hub, app, connection_id, slot, command }]);
    }

    /// Closes a client connection for this cause.
    pub(crate) fn end(&mut self, slot: Slot, cause: Cause) {
        self.state.close_client(slot, &CloseReason::by_client(cause));
    }

    /// Adds an open client of an app server without links.
    pub(crate) fn client(&mut self, id: &str) -> Slot {
        let home = Arc::new(LinkHandle::opened(&self.hub.identity, AppServerId::from(7)));
        self.client_at(id, &home)
    }

    /// Adds an open client with this primary link.
    pub(crate) fn client_at(&mut self, id: &str, home: &HomeLink) -> Slot {
        self.client_of(id, home, Content::Hub(HubProtocol::Json))
    }

    /// Adds an open client with this primary link, for a hub or a raw endpoint.
    pub(crate) fn client_of(&mut self, id: &str, home: &HomeLink, content: Content) -> Slot {
        let (socket, peer_kind) = duplex(SOCKET_BYTES);
        let serial = self.state.core.connections.next_serial();
        let mut client = Client::new(whole_id(id).into(), serial, home.clone(), content, Socket::boxed(socket));
        client.life_mut().answered();
        let open = OpenConnection { connection_id: whole_id(id).into(), ..OpenConnection::default() };
        client.cold_mut().keep_opening(Some(OpeningInterner::default().intern_opening(&open, None)), None);
        client.set_traits(ClientTraits::default(), Liveness::new(self.state.core.tick(), false));
        let slot = self.state.open_client(client, Some("ann"), None);
        self.state.core.tap_event(slot, &TapEvent::Opened);
        self.clients.push((slot, peer_kind));
        slot
    }

    /// Makes a client's connection resumable over another socket.
    pub(crate) fn make_resumable(&mut self, slot: Slot) {
        let client = self.state.core.connections.live_mut(slot).unwrap();
        client.make_resumable(Ownership::new(1000));
    }

    /// Payloads received by a client, with `close` for the end of its transport.
    pub(crate) fn received(&mut self, slot: Slot) -> Vec<String> {
        let mut cx = Context::from_waker(Waker::noop());
        self.poll_flushes(&mut cx);
        let (_, peer_kind) = self.clients.iter_mut().find(|(client, _)| *client == slot).unwrap();
        let (mut bytes, mut buffer) = (bytes::BytesMut::new(), [0; SOCKET_BYTES]);
        loop {
            let mut read = ReadBuf::new(&mut buffer);
            let polled = Pin::new(&mut *peer_kind).poll_read(&mut cx, &mut read);
            if matches!(polled, Poll::Ready(Ok(()))) && !read.filled().is_empty() {
                bytes.extend_from_slice(read.filled());
                continue;
            }
            break;
        }
        std::iter::from_fn(|| unframe(&mut bytes))
            .map(|unframed| match unframed {
                Unframed::Payload(payload) => String::from_utf8_lossy(&payload).replace('\u{1e}', ";"),
                Unframed::Close => "close".into(),
                Unframed::Other => "other".into(),
            })
            .collect()
    }

    /// Writes all outboxes until the sockets are full.
    pub(crate) fn flush(&mut self) {
        self.poll_flushes(&mut Context::from_waker(Waker::noop()));
    }

    /// Runs the work of the driver's flush tasks.
    fn poll_flushes(&mut self, cx: &mut Context<'_>) {
        let ShardCore { connections, delivery, .. } = &mut self.state.core;
        drop(delivery.take_tasks());
        for (slot, _) in connections.everyone() {
            if let Some(client) = connections.get_mut(slot).filter(|client| client.wire().is_flushing()) {
                let _: Poll<()> = delivery.poll_flush_by_task(slot, client, cx);
            }
        }
    }
}

/// Full-length id that starts with this text.
pub(crate) fn whole_id(id: &str) -> String {
    format!("{id:A<22}")
}

/// Frames queued on a link. Closes the link.
pub(crate) fn sent_over(link: &HomeLink) -> Vec<ServiceMessage> {
    let mut frames = FrameBuffer::default();
    let rest = link.outbox().close_outbox();
    rest.uncertain.chunks.into_iter().chain(rest.unsent.chunks).for_each(|chunk| frames.push(chunk));
    let bodies = std::iter::from_fn(|| frames.next_body().unwrap());
    bodies.map(|body| ServiceMessage::decode(&body).unwrap().unwrap()).collect()
}
