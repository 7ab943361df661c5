//! A scripted app server. It answers handshakes and pings of links automatically; the test controls everything else.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use ::http::{Request, Response, StatusCode};
use axum::body::Body;
use bytes::Bytes;
use bytestring::ByteString;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{AbortHandle, spawn_local};
use trunkline_protocol::access_token::User;
use trunkline_protocol::hub::HubProtocol;
use trunkline_protocol::manifest::{HubManifest, Manifest};
use trunkline_protocol::negotiate::{ANSWER_HEADER, DECISION, Decision, REFUSAL};
use trunkline_protocol::service::*;
use trunkline_protocol::wire::USER_HEADER;

use crate::engine::shard::Shared;
use crate::engine::upstream::{AppTarget, MemoryDialler, MemoryLink, Pool};
use crate::ground::routing::DEFAULT_GROUP;
use crate::node::upstream_watcher::open_pools;

pub(super) struct App {
    links: mpsc::UnboundedReceiver<(String, usize, MemoryLink)>,
    pools: Vec<Arc<Pool>>,
    shared: Arc<Shared>,
    pub(super) dialler: Arc<Dialler>,
}

/// Negotiate handler of the app, and receiver of the app server's link ends.
#[derive(Debug)]
pub(super) struct Dialler {
    links: mpsc::UnboundedSender<(String, usize, MemoryLink)>,
    /// Decision for each client; `None` refuses the client.
    pub(super) decision: Mutex<Option<Decision>>,
    /// Hub for which the app never answers.
    pub(super) hanging: Mutex<Option<&'static str>>,
    /// Verified user of each handler call.
    pub(super) known: Mutex<Vec<Option<User>>>,
}

pub(super) struct AppLink {
    pub(super) slot: usize,
    to_node: mpsc::Sender<Bytes>,
    from_node: mpsc::UnboundedReceiver<ServiceMessage>,
    updates: mpsc::UnboundedReceiver<PresenceChanges>,
    /// Boot ids of crashed nodes, as reported by the node.
    crashes: mpsc::UnboundedReceiver<String>,
    reader: AbortHandle,
    is_reading: watch::Sender<bool>,
    next_ack: Cell<i64>,
}

impl MemoryDialler for Dialler {
    fn supports_traces(&self) -> bool {
        true
    }

    fn dial(&self, hub: &str, _node: &str, _boot: &str, slot: usize, link: MemoryLink) {
        // Fails after the end of the test.
        drop(self.links.send((hub.to_owned(), slot, link)));
    }

    fn ask(&self, request: Request<Body>) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> {
        let decision = self.decision.lock().unwrap().clone();
        let is_hanging =
            self.hanging.lock().unwrap().is_some_and(|hub| request.uri().query() == Some(&format!("hub={hub}")));
        if is_hanging {
            return Box::pin(std::future::pending());
        }
        let mut known = request.headers().get_all(USER_HEADER).iter();
        let user = known.next().map(|user| User::from_header(user.to_str().unwrap()).unwrap());
        assert_eq!(known.next(), None);
        self.known.lock().unwrap().push(user);
        Box::pin(async move {
            let (status, kind, body) = match decision {
                Some(decision) => (StatusCode::OK, DECISION, serde_json::to_string(&decision).unwrap()),
                None => (StatusCode::IM_A_TEAPOT, REFUSAL, "not today".to_owned()),
            };
            Response::builder().status(status).header(ANSWER_HEADER, kind).body(body.into()).unwrap()
        })
    }
}

impl App {
    pub(super) fn start(shared: &Arc<Shared>, instance: &str, hubs: Vec<HubManifest>) -> Self {
        Self::start_in(shared, DEFAULT_GROUP, instance, hubs)
    }

    pub(super) fn start_in(shared: &Arc<Shared>, group: &str, instance: &str, hubs: Vec<HubManifest>) -> Self {
        let group = shared.hubs.groups.find(group).unwrap_or_else(|| shared.hubs.groups.default_one());
        let (sender, links) = mpsc::unbounded_channel();
        let dialler = Arc::new(Dialler {
            links: sender,
            decision: Mutex::new(Some(Decision::default())),
            hanging: Mutex::default(),
            known: Mutex::default(),
        });
        let manifest = Manifest { instance: instance.into(), name: instance.into(), version: String::new(), hubs };
        let changed = Arc::new(Notify::new());
        let pools = open_pools(shared, (AppTarget::Memory(dialler.clone()), &group), manifest, &changed);
        Self { links, pools, shared: shared.clone(), dialler }
    }

    pub(super) async fn link(&mut self) -> AppLink {
        let (_, slot, MemoryLink { reader, writer }) = self.links.recv().await.unwrap();
        AppLink::open(slot, reader, writer).await
    }

    /// Accepts the next new link, skipping earlier dials, which are closed or closing.
    pub(super) async fn link_anew(&mut self) -> AppLink {
        while self.links.try_recv().is_ok() {}
        self.link().await
    }

    /// Sets the user that the app returns from now on, if any.
    pub(super) fn decide(&self, user: Option<&str>) {
        let decision = Decision { user: user.map(Into::into), ..Decision::default() };
        *self.dialler.decision.lock().unwrap() = Some(decision);
    }

    pub(super) fn retire(&self) {
        for pool in &self.pools {
            self.shared.hubs.of_pool(pool).unwrap().remove_pool(pool);
            pool.retire();
        }
    }
}

impl AppLink {
    async fn open(slot: usize, mut pieces: mpsc::Receiver<Bytes>, to_node: mpsc::Sender<Bytes>) -> Self {
        let request = LinkHandshakeRequest { version: 1, ..LinkHandshakeRequest::default() };
        to_node.send(ServiceMessage::HandshakeRequest(request).to_frame()).await.unwrap();
        let (received, from_node) = mpsc::unbounded_channel();
        let (updated, updates) = mpsc::unbounded_channel();
        let (crashed, crashes) = mpsc::unbounded_channel();
        let answers = to_node.clone();
        let (is_reading, mut may_read) = watch::channel(true);
        let reader = spawn_local(async move {
            let mut frames = FrameBuffer::default();
            while let Some(piece) = pieces.recv().await {
                // Fails after the end of the test.
                drop(may_read.wait_for(|may_read| *may_read).await);
                frames.push(piece);
                while let Some(body) = frames.next_body().unwrap() {
                    match ServiceMessage::decode(&body).unwrap() {
                        // Echo the ping, as `echo` requires; any response proves that the link is alive.
                        Some(ServiceMessage::Ping(ping)) => {
                            if let Some(boot) = ping.get(CRASHED_NODE_KEY) {
                                drop(crashed.send(boot.to_string()));
                            }
                            drop(answers.try_send(ServiceMessage::Ping(ping).to_frame()))
                        }
                        Some(ServiceMessage::PresenceChanges(update)) => drop(updated.send(update)),
                        Some(message) => drop(received.send(message)),
                        None => panic!("a frame of an unknown type"),
                    }
                }
            }
        });
        let reader = reader.abort_handle();
        let mut link =
            Self { slot, to_node, from_node, updates, crashes, reader, is_reading, next_ack: Cell::new(1_000_000) };
        assert!(matches!(link.next().await, ServiceMessage::HandshakeResponse(answer) if answer.error.is_none()));
        link
    }

    /// Receives the next presence update. Updates have their own queue, because they arrive at any time.
    pub(super) async fn update(&mut self) -> PresenceChanges {
        self.updates.recv().await.expect("the link has ended")
    }

    /// Boot ids of nodes reported as crashed since the last call.
    pub(super) fn crashes(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.crashes.try_recv().ok()).collect()
    }

    pub(super) fn has_update(&self) -> bool {
        !self.updates.is_empty()
    }

    /// Receives the next message, skipping pings.
    pub(super) async fn next(&mut self) -> ServiceMessage {
        self.from_node.recv().await.expect("the link has ended")
    }

    pub(super) async fn ended(&mut self) {
        while self.from_node.recv().await.is_some() {}
    }

    pub(super) async fn send(&self, message: ServiceMessage) {
        self.to_node.send(message.to_frame()).await.expect("the link has ended");
    }

    /// Sends several messages as one chunk, so that the node reads them as one batch.
    pub(super) async fn send_together(&self, messages: impl IntoIterator<Item = ServiceMessage>) {
        let piece: Vec<u8> = messages.into_iter().flat_map(|message| message.to_frame()).collect();
        self.to_node.send(piece.into()).await.expect("the link has ended");
    }

    pub(super) fn set_reading(&self, is_reading: bool) {
        let _ = self.is_reading.send(is_reading);
    }

    /// Cuts the link without a close.
    pub(super) fn cut(self) {
        self.reader.abort();
    }

    pub(super) async fn opening(&mut self) -> OpenConnection {
        match self.next().await {
            ServiceMessage::OpenConnection(open) => open,
            other => panic!("{other:?} instead of an opening"),
        }
    }

    pub(super) async fn data(&mut self) -> (String, ConnectionData) {
        match self.next().await {
            ServiceMessage::ConnectionData(data) => (String::from_utf8_lossy(&data.payload).into_owned(), data),
            other => panic!("{other:?} instead of data"),
        }
    }

    pub(super) async fn close(&mut self) -> CloseConnection {
        match self.next().await {
            ServiceMessage::CloseConnection(close) => close,
            other => panic!("{other:?} instead of a close"),
        }
    }

    pub(super) async fn ack(&mut self) -> (i64, AckStatus) {
        let ack = self.whole_ack().await;
        (ack.ack_id, ack.status)
    }

    pub(super) async fn whole_ack(&mut self) -> Ack {
        match self.next().await {
            ServiceMessage::Ack(ack) => ack,
            other => panic!("{other:?} instead of an acknowledgement"),
        }
    }

    /// Proves that no other message is in flight to the app server: the response to a request sent now must come next.
    /// Earlier input has then been processed by all shards that it concerned.
    pub(super) async fn fence(&mut self) {
        let ack_id = self.next_ack.replace(self.next_ack.get() + 1);
        let check = Check { subject: "no such group".into(), ack_id };
        self.send(ServiceMessage::CheckGroupExistenceWithAck(check)).await;
        let (answered, _) = self.ack().await;
        assert_eq!(answered, ack_id);
    }

    pub(super) async fn write(&self, id: &str, payload: impl Into<Bytes>) {
        self.send(data_for(id, payload)).await;
    }

    pub(super) async fn join(&mut self, id: &str, group: &str) {
        let ack_id = self.next_ack.replace(self.next_ack.get() + 1);
        self.send(ServiceMessage::JoinGroupWithAck(membership(id, group, ack_id))).await;
        assert_eq!(self.ack().await, (ack_id, AckStatus::Ok));
    }
}

pub(super) fn data_for(id: &str, payload: impl Into<Bytes>) -> ServiceMessage {
    ServiceMessage::ConnectionData(ConnectionData {
        connection_id: id.into(),
        payload: payload.into(),
        ..ConnectionData::default()
    })
}

pub(super) fn broadcast(text: &str) -> ServiceMessage {
    ServiceMessage::BroadcastData(BroadcastData { payloads: json(text), ..BroadcastData::default() })
}

pub(super) fn to_group(group: &str, text: &str) -> ServiceMessage {
    ServiceMessage::GroupBroadcastData(GroupBroadcastData {
        group: group.into(),
        payloads: json(text),
        ..GroupBroadcastData::default()
    })
}

pub(super) fn to_user(user: &str, text: &str) -> ServiceMessage {
    ServiceMessage::UserData(UserData { user_id: user.into(), payloads: json(text) })
}

/// Message to one connection, as Microsoft's SDK sends to a caller.
pub(super) fn to_connection(id: &str, text: &str) -> ServiceMessage {
    ServiceMessage::MultiConnectionData(MultiConnectionData { connection_ids: vec![id.into()], payloads: json(text) })
}

/// JSON payload of a hub message; appends the record separator.
pub(super) fn json(text: &str) -> Payloads {
    Payloads::single(HubProtocol::Json, format!("{text}\u{1e}").into())
}

pub(super) fn membership(id: &str, group: &str, ack_id: i64) -> GroupChange {
    GroupChange { connection_id: id.into(), group: Some(ByteString::from(group)), ack_id }
}
