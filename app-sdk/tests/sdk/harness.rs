//! Test harness: a real axum server with a hub, and a fake proxy on its links.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::serve::ListenerExt;
use bytes::Bytes;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderMap, Response};
use tokio_tungstenite::{WebSocketStream, tungstenite};
use trunkline::{CloseReason, Context, Hub, HubError, InvokeError, Server, ServerHandle};
use trunkline_channel::{ChannelStream, Dialled, OpenChannelError, RefusedUpgrade};
use trunkline_link::{LinkEnd, LinkSocket, answer_handshake};
use trunkline_protocol::hub::{HandshakeRequest, HubMessage, HubProtocol, Invocation, next_frame};
use trunkline_protocol::key::{AccessKey, AccessKeys, PeerKind};
use trunkline_protocol::service::*;
use trunkline_protocol::wire::{
    BOOT_HEADER, CAPABILITIES_HEADER, INSTANCE_HEADER, LINK_PATH, NODE_HEADER, RECEIVED_HEADER, SESSION_HEADER,
    SLOT_HEADER,
};

pub(crate) const KEY: &str = "the access key of these tests";
pub(crate) const APP: Dialled<'_> = Dialled { peer_kind: PeerKind::AppServer, name: "app:5000" };
const EVENT_TIMEOUT: Duration = Duration::from_secs(10);
const MOMENT: Duration = Duration::from_millis(100);

/// State of the hub under test.
#[derive(Clone)]
pub(crate) struct Probe {
    events: mpsc::UnboundedSender<String>,
    /// Gate of `Block`, which takes a permit.
    pub(crate) gate: Arc<Semaphore>,
}

pub(crate) struct App {
    pub(crate) address: SocketAddr,
    pub(crate) handle: ServerHandle,
    pub(crate) gate: Arc<Semaphore>,
    events: mpsc::UnboundedReceiver<String>,
}

async fn connected(ctx: Context, State(probe): State<Probe>) -> Result<(), HubError> {
    if ctx.query().get("refuse").is_some() {
        return Err(HubError::named("DoorException", "not you"));
    }
    probe.report(format!("connected {}", ctx.connection_id()));
    Ok(())
}

async fn disconnected(ctx: Context, State(probe): State<Probe>, CloseReason(reason): CloseReason) {
    probe.report(format!("disconnected {} {}", ctx.connection_id(), reason.unwrap_or_default()));
}

async fn send(ctx: Context, kind: String) -> Result<usize, HubError> {
    let clients = ctx.clients();
    let receivers = match kind.as_str() {
        "all" => clients.all(),
        "all_except" => clients.all_except(["x"]),
        "caller" => clients.caller().into(),
        "others" => clients.others(),
        "client" => clients.client("stranger").into(),
        "clients" => clients.clients(["stranger", ctx.connection_id()]),
        "group" => clients.group("g"),
        "groups" => clients.groups(["g", "h"]),
        "group_except" => clients.group_except("g", ["x"]),
        "others_in_group" => clients.others_in_group("g"),
        "user" => clients.user("ann"),
        "users" => clients.users(["ann", "bob"]),
        other => return Err(HubError::new(format!("no receivers are called {other}"))),
    };
    Ok(receivers.send("M", (1,)).await?.proxies())
}

async fn mixed(ctx: Context) -> Result<&'static str, HubError> {
    let clients = ctx.clients();
    for n in 0..3 {
        clients.caller().send("M", (n,)).await?;
        clients.all().send("M", (n,)).await?;
        clients.group("g").send("M", (n,)).await?;
        clients.user("ann").send("M", (n,)).await?;
    }
    Ok("done")
}

async fn block(State(probe): State<Probe>, n: u32, _padding: String) {
    if let Ok(permit) = probe.gate.acquire().await {
        permit.forget();
    }
    probe.report(format!("unblocked {n}"));
}

async fn wait_for_end(ctx: Context, State(probe): State<Probe>) {
    probe.report("waiting".into());
    ctx.cancellation().cancelled().await;
    probe.report("cancelled".into());
}

async fn join(ctx: Context, group: String) -> Result<(), HubError> {
    Ok(ctx.join(group).await?)
}

async fn leave(ctx: Context, group: String) -> Result<(), HubError> {
    Ok(ctx.leave(group).await?)
}

fn hub(probe: Probe) -> Hub {
    Hub::new("/test")
        .on_connected(connected)
        .on_disconnected(disconnected)
        .method("Echo", async |x: Value| x)
        .method("Add", async |a: i64, b: i64| a + b)
        .method("Nothing", async || ())
        .method("Fail", async || Err::<(), _>(HubError::new("as asked")))
        .method("Break", async || Ok::<_, HubError>(u8::try_from(256)?))
        .method("Panic", panics)
        .method("Abort", async |ctx: Context| ctx.abort())
        .method("Send", send)
        .method("Mixed", mixed)
        .method("Block", block)
        .method("WaitForEnd", wait_for_end)
        .method("Join", join)
        .method("Leave", leave)
        .with_state(probe)
}

async fn panics() {
    panic!("on purpose");
}

impl Probe {
    fn report(&self, event: String) {
        self.events.send(event).unwrap();
    }
}

impl App {
    pub(crate) async fn start() -> Self {
        Self::start_hub(|hub| hub).await
    }

    /// Starts an app server with an extended hub.
    pub(crate) async fn start_hub(hub_with: impl FnOnce(Hub) -> Hub) -> Self {
        Self::start_with(hub_with, |server| server).await
    }

    /// Starts an app server, with the first link of proxy `a` and a JSON client `c1` on it.
    pub(crate) async fn start_with_client() -> (Self, ProxyLink, ScriptedClient) {
        let app = Self::start().await;
        let (link, client) = ProxyLink::open_with_client(&app).await;
        (app, link, client)
    }

    pub(crate) async fn start_with(
        hub_with: impl FnOnce(Hub) -> Hub,
        server_with: impl FnOnce(Server) -> Server,
    ) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let gate = Arc::new(Semaphore::new(0));
        let probe = Probe { events: sender, gate: Arc::clone(&gate) };
        let server = server_with(Server::new().name("app").access_key(KEY).hub(hub_with(hub(probe))));
        let handle = server.handle();
        let app: Router = Router::new().merge(server.into_router().unwrap());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let listener = listener.tap_io(|tcp| tcp.set_nodelay(true).unwrap());
        let service = app.into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, service).await });
        Self { address, handle, gate, events }
    }

    /// Begins a shutdown of the app server.
    pub(crate) fn begin_shutdown(&self) -> JoinHandle<()> {
        let handle = self.handle.clone();
        tokio::spawn(async move { handle.shutdown().await })
    }

    /// Invokes the method `Ask` of a client, from outside any method of the hub.
    pub(crate) fn ask(&self, id: &str) -> JoinHandle<Result<u32, InvokeError>> {
        let receiver = self.handle.hub("test").unwrap().clients().client(id);
        tokio::spawn(async move { receiver.invoke::<u32>("Ask", ()).await })
    }

    /// Waits for the next event reported by the hub's hooks and methods.
    pub(crate) async fn event(&mut self) -> String {
        tokio::time::timeout(EVENT_TIMEOUT, self.events.recv()).await.expect("an event of the hub").unwrap()
    }

    pub(crate) async fn no_event(&mut self) {
        let event = tokio::time::timeout(MOMENT, self.events.recv()).await;
        assert!(event.is_err(), "{event:?}");
    }

    /// Sends a GET request inside a channel with this key. Returns status and body.
    pub(crate) async fn get(&self, path: &str, key: &str) -> (u16, String) {
        let answer = self.exchange("GET", path, &[], key).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// Sends a request inside a channel with this key. Returns the complete response, or the response to a refused
    /// channel.
    pub(crate) async fn exchange(&self, method: &str, target: &str, headers: &[(&str, &str)], key: &str) -> String {
        let mut channel = match self.channel(key).await {
            Ok(channel) => channel,
            Err(refused) => {
                let headers: String = refused
                    .headers
                    .iter()
                    .map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap()))
                    .collect();
                return format!("HTTP/1.1 {}\r\n{headers}\r\n{}", refused.status, refused.reason);
            }
        };
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let request = format!("{method} {target} HTTP/1.1\r\nHost: app\r\nConnection: close\r\n{headers}\r\n");
        channel.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        channel.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// Sends a request outside any channel. Returns the complete response.
    pub(crate) async fn exchange_in_the_open(&self, method: &str, target: &str, header: (&str, &str)) -> String {
        let mut tcp = TcpStream::connect(self.address).await.unwrap();
        let (name, value) = header;
        let head = format!("{method} {target} HTTP/1.1\r\nHost: app\r\nConnection: close\r\n{name}: {value}\r\n\r\n");
        tcp.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// Opens a channel with this key.
    pub(crate) async fn channel(&self, key: &str) -> Result<ChannelStream<TcpStream>, RefusedUpgrade> {
        let keys = AccessKeys::new(vec![AccessKey::new(key).unwrap()]).unwrap();
        let dial = async || {
            let socket = TcpStream::connect(self.address).await?;
            socket.set_nodelay(true)?;
            Ok(socket)
        };
        match trunkline_channel::open_channel(dial, APP, &keys).await {
            Ok(channel) => Ok(channel),
            Err(OpenChannelError::Refused(refused)) => Err(refused),
            Err(other) => panic!("{other}"),
        }
    }

    pub(crate) fn metric(&self, line: &str) -> bool {
        self.handle.metrics_text().lines().any(|found| found == line)
    }
}

/// Query of a link request.
#[derive(Clone)]
pub(crate) struct LinkRequest {
    pub(crate) hub: &'static str,
    pub(crate) node: &'static str,
    pub(crate) boot: &'static str,
    pub(crate) slot: u32,
    pub(crate) key: &'static str,
    pub(crate) instance: Option<String>,
    /// Session to resume: number, received frames and window; `None` for a link without resumption.
    pub(crate) session: Option<(u64, Option<u64>, u64)>,
    /// Whether the proxy supports member queries of groups.
    pub(crate) lists_members: bool,
    /// Further capabilities of the proxy.
    pub(crate) can: &'static str,
}

impl LinkRequest {
    pub(crate) fn of(node: &'static str, slot: u32) -> Self {
        let (instance, session, lists_members, can) = (None, None, true, "");
        Self { hub: "test", node, slot, key: KEY, instance, boot: "boot", session, lists_members, can }
    }

    /// Request of a proxy that supports moves.
    pub(crate) fn that_moves(node: &'static str, slot: u32) -> Self {
        Self { can: "moves", ..Self::of(node, slot) }
    }

    pub(crate) async fn dial(self, app: &App) -> Result<(ProxySocket, HeaderMap), Response<Option<Vec<u8>>>> {
        let mut request = format!("ws://{}{LINK_PATH}?hub={}", app.address, self.hub).into_client_request().unwrap();
        let instance = self.instance.unwrap_or_else(|| app.handle.instance().to_owned());
        let members = if self.lists_members { ", members" } else { "" };
        let (session, received, capabilities) = match self.session {
            None => ("session".to_owned(), Some(0), format!("{}{members}", self.can)),
            Some((session, received, window_ms)) => {
                (session.to_string(), received, format!("resume=65536, window={window_ms}{members}"))
            }
        };
        let headers = [
            (NODE_HEADER, self.node.to_owned()),
            (BOOT_HEADER, self.boot.to_owned()),
            (INSTANCE_HEADER, instance),
            (SLOT_HEADER, self.slot.to_string()),
            (SESSION_HEADER, session),
            (CAPABILITIES_HEADER, capabilities),
        ];
        for (name, value) in headers {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        if let Some(received) = received {
            request.headers_mut().insert(RECEIVED_HEADER, received.into());
        }
        let channel = match app.channel(self.key).await {
            Ok(channel) => channel,
            Err(refused) => return Err(Response::builder().status(refused.status).body(None).unwrap()),
        };
        match tokio_tungstenite::client_async(request, channel).await {
            Ok((socket, response)) => Ok((socket, response.headers().clone())),
            Err(tungstenite::Error::Http(response)) => Err(*response),
            Err(other) => panic!("{other}"),
        }
    }
}

type ProxySocket = WebSocketStream<ChannelStream<TcpStream>>;

/// Proxy side of a link.
pub(crate) struct ProxyLink {
    socket: LinkSocket<ProxySocket>,
    /// Whether it acknowledges the app server's fences automatically.
    pub(crate) answers_fences: bool,
}

impl ProxyLink {
    /// Opens a link, and waits until the app server has opened it too.
    pub(crate) async fn open(app: &App, node: &'static str, slot: u32) -> Self {
        let mut link = Self::open_as(app, LinkRequest::of(node, slot)).await.0;
        link.fence().await;
        link
    }

    /// Opens the first link of proxy `a`, and a JSON client `c1` on it.
    pub(crate) async fn open_with_client(app: &App) -> (Self, ScriptedClient) {
        let mut link = Self::open(app, "a", 0).await;
        let client = link.client("c1", HubProtocol::Json).await;
        (link, client)
    }

    /// Opens a link with these settings. Also returns how many frames the app server has received.
    pub(crate) async fn open_as(app: &App, ask: LinkRequest) -> (Self, u64) {
        let (socket, headers) = ask.dial(app).await.unwrap();
        let received = headers.get(RECEIVED_HEADER).unwrap().to_str().unwrap().parse().unwrap();
        let mut link = Self::new(socket);
        answer_handshake(&mut link.socket).await.unwrap();
        (link, received)
    }

    pub(crate) fn new(socket: ProxySocket) -> Self {
        Self { socket: LinkSocket::network(socket), answers_fences: true }
    }

    /// Waits until the app server has read everything sent before.
    pub(crate) async fn fence(&mut self) {
        let echo = Ping { pairs: vec![("echo".into(), "1".into())] };
        self.send(ServiceMessage::Ping(echo.clone())).await;
        while self.next_of_any_kind().await != ServiceMessage::Ping(echo.clone()) {}
    }

    /// Like [`fence`](Self::fence), and checks that nothing arrives meanwhile.
    pub(crate) async fn fence_quietly(&mut self) {
        let echo = Ping { pairs: vec![("echo".into(), "1".into())] };
        self.send(ServiceMessage::Ping(echo.clone())).await;
        loop {
            match self.next_of_any_kind().await {
                ServiceMessage::Ping(ping) if ping == echo => return,
                ServiceMessage::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    pub(crate) async fn send(&mut self, message: ServiceMessage) {
        self.send_all(&[message]).await;
    }

    /// Calls `Block` repeatedly: all calls but the first one wait behind it, with nearly 500 bytes each.
    pub(crate) async fn block(&mut self, client: &ScriptedClient, calls: u32) {
        for n in 0..calls {
            self.send(client.call(None, "Block", &format!("[{n},\"{}\"]", "x".repeat(420)))).await;
        }
    }

    /// Sends several frames in one WebSocket message.
    pub(crate) async fn send_all(&mut self, messages: &[ServiceMessage]) {
        self.socket.writer.send_messages(messages).await.unwrap();
    }

    /// Sends a WebSocket message with arbitrary bytes. May fail if the link is already closed.
    pub(crate) async fn send_bytes(&mut self, bytes: &'static [u8]) -> Result<(), LinkEnd> {
        self.socket.writer.send(Bytes::from_static(bytes)).await
    }

    /// Reads the next frame, skipping pings.
    pub(crate) async fn next(&mut self) -> ServiceMessage {
        loop {
            match self.next_of_any_kind().await {
                ServiceMessage::Ping(_) => {}
                other => return other,
            }
        }
    }

    pub(crate) async fn next_of_any_kind(&mut self) -> ServiceMessage {
        loop {
            let next = tokio::time::timeout(EVENT_TIMEOUT, self.socket.reader.next_message()).await;
            match next.expect("a frame comes").unwrap().unwrap() {
                ServiceMessage::CheckGroupExistenceWithAck(fence) if self.is_answered(&fence) => {
                    self.acknowledge(&fence).await;
                }
                other => return other,
            }
        }
    }

    /// Reads the next frame, which must announce that the app server stops.
    pub(crate) async fn stop_of_app(&mut self) {
        let ServiceMessage::ConnectionFlowControl(leaving) = self.next().await else { panic!() };
        assert_eq!((leaving.subject, leaving.operation), (FlowSubject::Server, FlowOperation::Offline));
    }

    /// Reads the next frame, which must be a fence, for the test to answer.
    pub(crate) async fn fence_of_app(&mut self) -> Check {
        match self.next().await {
            ServiceMessage::CheckGroupExistenceWithAck(fence) if fence.subject.is_empty() => fence,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn acknowledge(&mut self, fence: &Check) {
        let ack = Ack { ack_id: fence.ack_id, status: AckStatus::NotFound, ..Ack::default() };
        self.send(ServiceMessage::Ack(ack)).await;
    }

    fn is_answered(&self, check: &Check) -> bool {
        self.answers_fences && check.subject.is_empty()
    }

    /// Closes the link with the code for the end of its session.
    pub(crate) async fn end_session(&mut self) {
        self.socket.writer.close_socket(LinkEnd::goodbye()).await;
    }

    /// Waits until the app server has closed the link.
    pub(crate) async fn closed(&mut self) {
        let closed = async {
            while let Ok(message) = self.socket.reader.next_message().await {
                match message {
                    Some(ServiceMessage::CheckGroupExistenceWithAck(fence)) if self.is_answered(&fence) => {
                        self.acknowledge(&fence).await;
                    }
                    _ => {}
                }
            }
        };
        tokio::time::timeout(EVENT_TIMEOUT, closed).await.expect("the link is closed");
    }

    /// Checks that only pings arrive.
    pub(crate) async fn quiet(&mut self) {
        let next = tokio::time::timeout(MOMENT, self.next()).await;
        assert!(next.is_err(), "{next:?}");
    }

    /// Opens a client connection, and reads the response to its handshake.
    pub(crate) async fn client(&mut self, id: &'static str, protocol: HubProtocol) -> ScriptedClient {
        let client = ScriptedClient { id, protocol };
        self.send_all(&[client.opening(""), client.handshake()]).await;
        let answer = self.data(id).await;
        assert_eq!((answer.data_type, &answer.payload[..]), (1, &b"{}\x1e"[..]));
        client
    }

    /// Reads the next frame, which must be data for this connection.
    pub(crate) async fn data(&mut self, id: &str) -> ConnectionData {
        match self.next().await {
            ServiceMessage::ConnectionData(data) if data.connection_id == id => data,
            other => panic!("{other:?}"),
        }
    }

    /// Reads the next frame, which must be one JSON hub message for this connection.
    pub(crate) async fn json(&mut self, id: &str) -> Value {
        json_of(&self.data(id).await)
    }

    /// Reads the next frame, which must call a client. Returns ID, method and arguments.
    pub(crate) async fn called(&mut self, id: &str) -> Invocation {
        match self.next().await {
            ServiceMessage::MultiConnectionData(data) if data.connection_ids == [id] => {
                invocation(HubProtocol::Json, data.payloads.get(HubProtocol::Json).unwrap())
            }
            other => panic!("{other:?}"),
        }
    }

    /// Reads the next frame, which must pause or resume this client.
    pub(crate) async fn flow(&mut self, id: &str) -> FlowOperation {
        match self.next().await {
            ServiceMessage::ConnectionFlowControl(flow) if flow.connection_id == id => flow.operation,
            other => panic!("{other:?}"),
        }
    }

    /// Calls a method, and reads the result as JSON text.
    pub(crate) async fn call(&mut self, client: &ScriptedClient, target: &str, arguments: &str) -> String {
        self.send(client.call(Some("7"), target, arguments)).await;
        let data = self.data(client.id).await;
        assert_eq!(data.data_type, 2);
        String::from_utf8(data.payload.to_vec()).unwrap()
    }
}

pub(crate) struct ScriptedClient {
    pub(crate) id: &'static str,
    pub(crate) protocol: HubProtocol,
}

impl ScriptedClient {
    pub(crate) fn opening(&self, query: &str) -> ServiceMessage {
        ServiceMessage::OpenConnection(OpenConnection {
            connection_id: self.id.into(),
            claims: vec![("asrs.s.uid".into(), "ann".into())],
            headers: vec![("x-trunkline-remote".into(), vec!["1.2.3.4:5".into()])],
            query: Some(query.into()),
            protocol: Some(self.protocol.name().into()),
        })
    }

    pub(crate) fn handshake(&self) -> ServiceMessage {
        self.bytes(HandshakeRequest { protocol: self.protocol, version: 1 }.encode())
    }

    pub(crate) fn bytes(&self, payload: Bytes) -> ServiceMessage {
        ServiceMessage::ConnectionData(ConnectionData {
            connection_id: self.id.into(),
            payload,
            ..ConnectionData::default()
        })
    }

    /// Encodes an invocation of a JSON client.
    pub(crate) fn call(&self, id: Option<&str>, target: &str, arguments: &str) -> ServiceMessage {
        let id = id.map(|id| format!("\"invocationId\":\"{id}\",")).unwrap_or_default();
        let text = format!("{{{id}\"arguments\":{arguments},\"target\":\"{target}\",\"type\":1}}\x1e");
        self.bytes(text.into())
    }

    /// Encodes a message of a JSON client.
    pub(crate) fn json(&self, message: &Value) -> ServiceMessage {
        self.bytes(format!("{message}\x1e").into())
    }

    pub(crate) fn left(&self, error: Option<&str>) -> ServiceMessage {
        ServiceMessage::CloseConnection(CloseConnection {
            connection_id: self.id.into(),
            error: error.map(Into::into),
            ..CloseConnection::default()
        })
    }
}

/// The only hub message in data for a JSON client.
pub(crate) fn json_of(data: &ConnectionData) -> Value {
    let text = data.payload.strip_suffix(b"\x1e").expect("one whole message");
    serde_json::from_slice(text).unwrap()
}

/// The invocation in a payload of this protocol.
pub(crate) fn invocation(protocol: HubProtocol, bytes: &Bytes) -> Invocation {
    let frame = next_frame(protocol, bytes, usize::MAX).unwrap().unwrap();
    assert_eq!(frame.length, bytes.len());
    match protocol.decode(&bytes.slice(frame.body)).unwrap().unwrap() {
        HubMessage::Invocation(invocation) => invocation,
        other => panic!("{other:?}"),
    }
}
