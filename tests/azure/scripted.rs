//! Test app server that dials like the SDK and sends only on request.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail, ensure};
use futures_util::stream::SplitStream;
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::AbortHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Bytes, Message};
use trunkline_tests::harness::scenario::named;

use crate::dial_in::{DialIn, server_token};
use crate::frame::{connection_data, data, frame, framed, kind, kind_of, no_ext, ping, take_frame};
use crate::layout::strictly_read;
use crate::value::{Value, list};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectionType {
    Default = 0,
    OnDemand = 1,
    Weak = 2,
}

/// Dial with everything that the SDK sends.
#[derive(Debug, Clone)]
pub(crate) struct Dial {
    pub(crate) path: String,
    pub(crate) server: String,
    pub(crate) token: String,
}

impl Dial {
    pub(crate) fn of(hub: &str, server: &str) -> Result<Self> {
        let cid = format!("{:032x}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = format!("/server/?hub={hub}&cid={cid}");
        Ok(Self { path, server: server.into(), token: server_token(hub, server)? })
    }

    /// Upgrades; the inner `Err` is the status of a refusal.
    pub(crate) async fn upgrade(&self, address: &str) -> Result<Result<WebSocketStream<TcpStream>, u16>> {
        let mut request = format!("ws://{address}{}", self.path).into_client_request()?;
        let headers = request.headers_mut();
        headers.insert("authorization", format!("Bearer {}", self.token).parse()?);
        headers.insert("x-asrs-server-id", self.server.parse()?);
        headers.insert("x-requested-with", "XMLHttpRequest".parse()?);
        headers.insert("asrs-user-agent", "Microsoft.Azure.SignalR/1.34.0 (scripted)".parse()?);
        match tokio_tungstenite::client_async(request, TcpStream::connect(address).await?).await {
            Ok((socket, _)) => Ok(Ok(socket)),
            Err(tungstenite::Error::Http(answer)) => Ok(Err(answer.status().as_u16())),
            Err(other) => Err(other.into()),
        }
    }
}

static NUMBER: AtomicUsize = AtomicUsize::new(1);

/// Handshake request of SDK 1.34.
pub(crate) fn handshake_request(of_type: ConnectionType, migration_level: i64) -> Value {
    list![kind::HANDSHAKE_REQUEST, 1, of_type as i64, "", migration_level, no_ext(), false]
}

/// Prefix of pings that only our own link ends understand.
const OUR_OWN: &str = "trunkline-";

/// Number of such pings received by any scripted app server.
pub(crate) static OWN_PINGS: AtomicUsize = AtomicUsize::new(0);

fn word_of(message: &Value) -> Option<&str> {
    if kind_of(message) == kind::PING { message.at(1).as_text() } else { None }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    Frame(Value),
    /// Bytes that no SDK should receive, with the problem.
    Wrong(String),
    /// End of the connection, with its close code.
    End(Option<u16>),
}

/// One server connection: a task reads it, answers keep-alives and `echo` as the SDK does, and reports everything else.
#[derive(Debug)]
pub(crate) struct ServerConnection {
    outgoing: UnboundedSender<Message>,
    tasks: [AbortHandle; 2],
}

impl ServerConnection {
    pub(crate) async fn open(
        address: &str,
        dial: &Dial,
        handshake: &Value,
        place: usize,
        tell: UnboundedSender<(usize, Event)>,
    ) -> Result<Self> {
        match Self::try_open(address, dial, handshake, place, tell).await? {
            Ok(connection) => Ok(connection),
            Err(error) => bail!("the handshake is refused: {error}"),
        }
    }

    /// Dials and performs the handshake; the inner `Err` is the text of a refusal.
    pub(crate) async fn try_open(
        address: &str,
        dial: &Dial,
        handshake: &Value,
        place: usize,
        tell: UnboundedSender<(usize, Event)>,
    ) -> Result<Result<Self, String>> {
        let mut socket = match dial.upgrade(address).await? {
            Ok(socket) => socket,
            Err(status) => bail!("{} is refused with {status}", dial.path),
        };
        socket.send(Message::binary(frame(handshake))).await?;
        let mut rest = Vec::new();
        let answer = loop {
            if let Some(answer) = take_frame(&mut rest)? {
                break strictly_read(&answer)?;
            }
            match socket.next().await.context("the node ends before its handshake")?? {
                Message::Binary(bytes) => rest.extend_from_slice(&bytes),
                other => bail!("{other:?} instead of a handshake"),
            }
        };
        // Like the SDK, treats anything else before it as an error.
        ensure!(kind_of(&answer) == kind::HANDSHAKE_RESPONSE, "{answer:?} before the handshake's answer");
        if let Some(error) = answer.at(1).as_text().filter(|error| !error.is_empty()) {
            return Ok(Err(error.to_owned()));
        }
        ensure!(answer.at(3).as_text().is_some_and(|id| !id.is_empty()), "{answer:?} names no id");
        let (mut sink, stream) = socket.split();
        let (outgoing, mut orders) = unbounded_channel();
        let writing = tokio::spawn(async move {
            while let Some(message) = orders.recv().await {
                if sink.send(message).await.is_err() {
                    break;
                }
            }
        });
        let reading = tokio::spawn(read(stream, rest, place, outgoing.clone(), tell));
        Ok(Ok(Self { outgoing, tasks: [writing.abort_handle(), reading.abort_handle()] }))
    }

    pub(crate) fn send(&self, message: &Value) -> Result<()> {
        self.send_bytes(frame(message))
    }

    /// Sends bytes unchanged in one WebSocket message.
    pub(crate) fn send_bytes(&self, bytes: Vec<u8>) -> Result<()> {
        self.outgoing.send(Message::binary(bytes)).context("the server connection is gone")
    }

    pub(crate) fn send_message(&self, message: Message) -> Result<()> {
        self.outgoing.send(message).context("the server connection is gone")
    }
}

impl Drop for ServerConnection {
    /// Cuts it: the socket is dropped with its two tasks.
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn read(
    mut stream: SplitStream<WebSocketStream<TcpStream>>,
    mut rest: Vec<u8>,
    place: usize,
    outgoing: UnboundedSender<Message>,
    tell: UnboundedSender<(usize, Event)>,
) {
    let mut code = None;
    'reading: loop {
        while let Some(bytes) = take_frame(&mut rest).transpose() {
            let message = match bytes.and_then(|bytes| strictly_read(&bytes)) {
                Ok(message) => message,
                Err(error) => {
                    drop(tell.send((place, Event::Wrong(format!("{error:#}")))));
                    break 'reading;
                }
            };
            if message == ping(&[]) {
                let alive = ping(&["#clientInHub", "0", "#client", "0"]);
                drop(outgoing.send(Message::Binary(Bytes::from(frame(&alive)))));
            } else if word_of(&message) == Some("echo") {
                drop(outgoing.send(Message::Binary(Bytes::from(frame(&message)))));
            } else if word_of(&message).is_some_and(|word| word.starts_with(OUR_OWN)) {
                // The SDK ignores unknown pings; the `pings` tests assert that this count stays 0.
                OWN_PINGS.fetch_add(1, Ordering::Relaxed);
            } else {
                drop(tell.send((place, Event::Frame(message))));
            }
        }
        match stream.next().await {
            Some(Ok(Message::Binary(bytes))) => rest.extend_from_slice(&bytes),
            Some(Ok(Message::Close(frame))) => code = Some(frame.map_or(1005, |frame| frame.code.into())),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => break,
        }
    }
    drop(tell.send((place, Event::End(code))));
}

/// Scripted app server: its server connections, and their events in order.
#[derive(Debug)]
pub(crate) struct Scripted {
    pub(crate) name: String,
    pub(crate) hub: String,
    pub(crate) connections: Vec<Option<ServerConnection>>,
    tell: UnboundedSender<(usize, Event)>,
    events: UnboundedReceiver<(usize, Event)>,
    kept: VecDeque<(usize, Event)>,
}

impl Scripted {
    pub(crate) fn new(hub: &str, name: &str) -> Self {
        let (tell, events) = unbounded_channel();
        Self { name: name.into(), hub: hub.into(), connections: Vec::new(), tell, events, kept: VecDeque::new() }
    }

    /// Opens this many server connections of the default type.
    pub(crate) async fn dial(dial_in: &DialIn, hub: &str, name: &str, count: usize) -> Result<Self> {
        let mut server = Self::new(hub, name);
        for _ in 0..count {
            let place = server.connect(dial_in.address(), ConnectionType::Default).await?;
            // The node first answers the handshake, then assigns clients.
            server.settle(place).await?;
        }
        Ok(server)
    }

    pub(crate) async fn connect(&mut self, address: &str, of_type: ConnectionType) -> Result<usize> {
        let dial = Dial::of(&self.hub, &self.name)?;
        self.connect_with(address, &dial, &handshake_request(of_type, 0)).await
    }

    pub(crate) async fn connect_with(&mut self, address: &str, dial: &Dial, handshake: &Value) -> Result<usize> {
        let place = self.connections.len();
        let connection = ServerConnection::open(address, dial, handshake, place, self.tell.clone()).await?;
        self.connections.push(Some(connection));
        Ok(place)
    }

    /// Tries to open another one and returns the text of its refused handshake.
    pub(crate) async fn refused(&mut self, address: &str, dial: &Dial, handshake: &Value) -> Result<String> {
        let place = self.connections.len();
        match ServerConnection::try_open(address, dial, handshake, place, self.tell.clone()).await? {
            Ok(_) => bail!("{handshake:?} should be refused"),
            Err(text) => Ok(text),
        }
    }

    pub(crate) fn at(&self, place: usize) -> Result<&ServerConnection> {
        self.connections.get(place).and_then(Option::as_ref).context("that server connection is gone")
    }

    pub(crate) fn send(&self, place: usize, message: &Value) -> Result<()> {
        self.at(place)?.send(message)
    }

    pub(crate) fn cut(&mut self, place: usize) {
        if let Some(connection) = self.connections.get_mut(place) {
            *connection = None;
        }
    }

    pub(crate) async fn next(&mut self) -> Result<(usize, Event)> {
        match self.kept.pop_front() {
            Some(event) => Ok(event),
            None => self.receive().await,
        }
    }

    async fn receive(&mut self) -> Result<(usize, Event)> {
        let name = format!("the next event; nobody asked for {:?}", self.kept);
        named(name, self.events.recv()).await.context("this value keeps a sender")
    }

    pub(crate) async fn find(&mut self, mut is_it: impl FnMut(usize, &Event) -> bool) -> Result<(usize, Event)> {
        let found = self.kept.iter().position(|(place, event)| is_it(*place, event));
        if let Some(event) = found.and_then(|at| self.kept.remove(at)) {
            return Ok(event);
        }
        loop {
            let (place, event) = self.receive().await?;
            if is_it(place, &event) {
                return Ok((place, event));
            }
            self.kept.push_back((place, event));
        }
    }

    pub(crate) async fn expect(&mut self, wanted: i64) -> Result<(usize, Value)> {
        match self.next().await? {
            (place, Event::Frame(frame)) if kind_of(&frame) == wanted => Ok((place, frame)),
            other => bail!("a frame of type {wanted} should come, but {other:?} did"),
        }
    }

    pub(crate) async fn ended(&mut self, place: usize) -> Result<Option<u16>> {
        match self.find(|at, event| at == place && matches!(event, Event::End(_))).await? {
            (_, Event::End(code)) => Ok(code),
            other => bail!("just found: {other:?}"),
        }
    }

    /// Waits until everything caused over this server connection is done: the node answers a `status` ping last.
    async fn settle(&mut self, place: usize) -> Result<()> {
        self.send(place, &ping(&["status", "1"]))?;
        let is_answer = |event: &Event| matches!(event, Event::Frame(frame) if kind_of(frame) == kind::PING && frame.at(1).as_text() == Some("status"));
        self.find(|at, event| at == place && is_answer(event)).await?;
        Ok(())
    }

    /// All events until everything caused over this server connection was done.
    pub(crate) async fn fence(&mut self, place: usize) -> Result<Vec<(usize, Event)>> {
        self.settle(place).await?;
        Ok(self.kept.drain(..).collect())
    }

    pub(crate) async fn quiet(&mut self, place: usize) -> Result<()> {
        let seen = self.fence(place).await?;
        ensure!(seen.is_empty(), "nothing should have come, but {seen:?} did");
        Ok(())
    }

    /// Waits for a client and answers its handshake. Returns its id, the place of its server connection and the frame.
    pub(crate) async fn admit(&mut self) -> Result<(String, usize, Value)> {
        let (place, opened) = self.expect(kind::OPEN_CONNECTION).await?;
        let id = opened.at(1).as_text().context("an id")?.to_owned();
        let (at, handshake) = self.expect(kind::CONNECTION_DATA).await?;
        ensure!(at == place, "the handshake comes by {at}, the connection was opened by {place}");
        ensure!(handshake.at(1).as_text() == Some(&id), "{handshake:?} is of another client");
        self.send(place, &connection_data(&id, b"{}\x1e", data::HANDSHAKE))?;
        Ok((id, place, opened))
    }

    /// Sends raw bytes with a correct length.
    pub(crate) fn send_malformed(&self, place: usize, bytes: &[u8]) -> Result<()> {
        self.at(place)?.send_bytes(framed(bytes))
    }
}
