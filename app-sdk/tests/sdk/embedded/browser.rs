//! WebSocket client and its messages.

use std::future::pending;
use std::io;
use std::time::Duration;

use axum::serve::Listener;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use trunkline::HubProtocol;
use trunkline_protocol::hub::{HandshakeRequest, HubMessage, Invocation, next_frame};
use trunkline_protocol::service::{Ack, AckStatus, ServiceMessage};

use crate::harness::App;

const EVENT_TIMEOUT: Duration = Duration::from_secs(10);

/// Transport stream of a client.
pub(crate) trait Pipeline: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Pipeline for T {}

/// Client after its handshake.
pub(crate) struct Browser {
    socket: WebSocketStream<Box<dyn Pipeline>>,
    protocol: HubProtocol,
    waiting: Bytes,
}

impl Browser {
    /// Connects a client that skips negotiation.
    pub(crate) async fn new(app: &App, protocol: HubProtocol) -> Self {
        Self::connect(app, "/test", protocol).await
    }

    pub(crate) async fn connect(app: &App, path: &str, protocol: HubProtocol) -> Self {
        let stream = TcpStream::connect(app.address).await.unwrap();
        Self::over(stream, &format!("ws://{}{path}", app.address), protocol).await
    }

    pub(crate) async fn over(
        stream: impl Pipeline + 'static,
        request: impl IntoClientRequest + Unpin,
        protocol: HubProtocol,
    ) -> Self {
        let stream: Box<dyn Pipeline> = Box::new(stream);
        let (socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
        let mut browser = Self { socket, protocol, waiting: Bytes::new() };
        browser.send(HandshakeRequest { protocol, version: 1 }.encode()).await;
        assert_eq!(browser.message().await.as_ref(), b"{}\x1e");
        browser
    }

    pub(crate) async fn send(&mut self, bytes: Bytes) {
        self.socket.send(Message::Binary(bytes)).await.unwrap();
    }

    /// Makes a call. Returns the JSON texts of all messages up to the result.
    pub(crate) async fn call(&mut self, target: &str, arguments: &str) -> Vec<String> {
        self.send(call(self.protocol, 1, target, arguments)).await;
        let mut messages = Vec::new();
        loop {
            let message = self.next().await;
            let is_answer = completes(self.protocol, &message, 1);
            messages.push(String::from_utf8_lossy(&message).trim_end_matches('\x1e').to_owned());
            if is_answer {
                return messages;
            }
        }
    }

    /// Reads the next framed hub message. A WebSocket message may contain several.
    pub(crate) async fn next(&mut self) -> Bytes {
        if self.waiting.is_empty() {
            self.waiting = self.message().await;
        }
        let frame = next_frame(self.protocol, &self.waiting, usize::MAX).unwrap().unwrap();
        self.waiting.split_to(frame.length)
    }

    /// Waits for the WebSocket to close.
    pub(crate) async fn closed(&mut self) {
        while let Some(Ok(message)) = self.next_message().await {
            assert!(message.is_close(), "{message:?}");
        }
    }

    async fn message(&mut self) -> Bytes {
        self.next_message().await.unwrap().unwrap().into_data()
    }

    async fn next_message(&mut self) -> Option<Result<Message, tokio_tungstenite::tungstenite::Error>> {
        tokio::time::timeout(EVENT_TIMEOUT, self.socket.next()).await.expect("something comes")
    }
}

/// Encodes a call with a numeric ID and JSON arguments.
pub(crate) fn call(protocol: HubProtocol, id: usize, target: &str, arguments: &str) -> Bytes {
    let arguments: Vec<Value> = serde_json::from_str(arguments).unwrap();
    let arguments = arguments.iter().map(|argument| protocol.payload(argument).unwrap()).collect();
    let invocation = Invocation {
        invocation_id: Some(id.to_string().into()),
        target: target.into(),
        arguments,
        ..Invocation::default()
    };
    let mut bytes = bytes::BytesMut::new();
    protocol.encode(&HubMessage::Invocation(invocation), &mut bytes);
    bytes.freeze()
}

/// Whether the message is the completion of the call with this ID.
pub(crate) fn completes(protocol: HubProtocol, message: &Bytes, id: usize) -> bool {
    let frame = next_frame(protocol, message, usize::MAX).unwrap().unwrap();
    match protocol.decode(&message.slice(frame.body)).unwrap().unwrap() {
        HubMessage::Completion(completion) => completion.invocation_id == id.to_string().as_str(),
        _ => false,
    }
}

/// The acknowledgement of a group change.
pub(crate) fn done(ack_id: i64) -> ServiceMessage {
    ServiceMessage::Ack(Ack { ack_id, status: AckStatus::Ok, ..Ack::default() })
}

/// Sends a POST request. Returns status and complete response; `headers` are lines that end with CRLF.
pub(crate) async fn post(app: &App, path: &str, headers: &str) -> (u16, String) {
    let head = format!("POST {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", app.address);
    let answer = exchange(app, &format!("{head}Content-Length: 0\r\n{headers}\r\n")).await;
    (status(&answer), answer)
}

/// Sends a negotiate request and returns the response.
pub(crate) async fn negotiate(app: &App, path: &str) -> Value {
    let (status, answer) = post(app, &format!("{path}/negotiate?negotiateVersion=1"), "").await;
    assert_eq!(status, 200, "{answer}");
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

/// Status of an upgrade request from a page of this origin.
pub(crate) async fn upgrade_from(app: &App, origin: &str) -> u16 {
    let mut tcp = TcpStream::connect(app.address).await.unwrap();
    let request = format!(
        "GET /test HTTP/1.1\r\nHost: {}\r\nOrigin: {origin}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        app.address
    );
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    tcp.read_exact(&mut head).await.unwrap();
    status(&String::from_utf8_lossy(&head))
}

async fn exchange(app: &App, request: &str) -> String {
    let mut tcp = TcpStream::connect(app.address).await.unwrap();
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.unwrap();
    answer
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

/// Listener that accepts one in-memory connection.
pub(crate) struct Pipe(Option<DuplexStream>);

impl Pipe {
    pub(crate) fn new(far: DuplexStream) -> Self {
        Self(Some(far))
    }
}

impl Listener for Pipe {
    type Io = DuplexStream;
    type Addr = ();

    async fn accept(&mut self) -> (DuplexStream, ()) {
        match self.0.take() {
            Some(stream) => (stream, ()),
            None => pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}
