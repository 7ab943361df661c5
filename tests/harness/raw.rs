//! Client that sends exactly the given bytes: for invalid input, and for many idle connections.

use anyhow::{Context, Result, bail};
use futures_util::{SinkExt, StreamExt};
use http::HeaderMap;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Bytes, Message};

/// Terminator of each JSON message and of the hub handshake.
pub const RECORD_SEPARATOR: char = '\u{1e}';

/// Hub handshake accepted by every hub.
pub const JSON_HANDSHAKE: &str = "{\"protocol\":\"json\",\"version\":1}\u{1e}";

/// Hub handshake of a MessagePack client.
pub const MESSAGE_PACK_HANDSHAKE: &str = "{\"protocol\":\"messagepack\",\"version\":1}\u{1e}";

/// Hub protocol ping in JSON.
const PING: &str = "{\"type\":6}";

/// Data and close code from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// All text frames, joined, without pings.
    pub text: String,
    /// All binary frames, joined.
    pub binary: Vec<u8>,
    /// Code of the close frame; `None` if the socket ended without one.
    pub code: Option<u16>,
}

impl Ending {
    /// JSON messages in the text.
    pub fn messages(&self) -> Result<Vec<Value>> {
        let records = self.text.split(RECORD_SEPARATOR).filter(|record| !record.is_empty() && *record != PING);
        records.map(|record| serde_json::from_str(record).with_context(|| format!("not JSON: {record:?}"))).collect()
    }
}

/// Open WebSocket without a client library.
#[derive(Debug)]
pub struct RawClient<S = TcpStream> {
    socket: WebSocketStream<S>,
    answer_headers: HeaderMap,
    records: Vec<Value>,
    calls: usize,
}

/// Response that refused a WebSocket.
#[derive(Debug)]
pub struct Refusal {
    /// Status of the response.
    pub status: u16,
    /// Headers of the response.
    pub headers: HeaderMap,
    /// Body of the response.
    pub body: String,
}

impl RawClient {
    /// Opens a WebSocket at a proxy's path.
    pub async fn open(address: &str, path: &str) -> Result<Self> {
        match Self::try_open(address, path).await? {
            Ok(client) => Ok(client),
            Err(refusal) => bail!("{path} is refused: {refusal:?}"),
        }
    }

    /// Tries to open a WebSocket that the proxy may refuse.
    pub async fn try_open(address: &str, path: &str) -> Result<Result<Self, Refusal>> {
        Self::try_open_with(address, path, &[]).await
    }

    /// Tries to open a WebSocket with additional headers.
    pub async fn try_open_with(
        address: &str,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Result<Self, Refusal>> {
        Self::try_over_with(TcpStream::connect(address).await?, address, path, headers).await
    }

    /// Opens a WebSocket and performs the JSON handshake.
    pub async fn join(address: &str, path: &str) -> Result<Self> {
        Self::join_over(TcpStream::connect(address).await?, address, path).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> RawClient<S> {
    /// Tries to open a WebSocket over an existing connection.
    pub async fn try_over(stream: S, address: &str, path: &str) -> Result<Result<Self, Refusal>> {
        Self::try_over_with(stream, address, path, &[]).await
    }

    async fn try_over_with(
        stream: S,
        address: &str,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Result<Self, Refusal>> {
        let mut request = format!("ws://{address}{path}").into_client_request()?;
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse()?);
        }
        match tokio_tungstenite::client_async(request, stream).await {
            Ok((socket, answer)) => {
                Ok(Ok(Self { socket, answer_headers: answer.headers().clone(), records: Vec::new(), calls: 0 }))
            }
            Err(tungstenite::Error::Http(answer)) => Ok(Err(Refusal {
                status: answer.status().as_u16(),
                headers: answer.headers().clone(),
                body: String::from_utf8_lossy(answer.body().as_deref().unwrap_or_default()).into_owned(),
            })),
            Err(other) => Err(other.into()),
        }
    }

    /// Opens a WebSocket over an existing connection and performs the JSON handshake.
    pub async fn join_over(stream: S, address: &str, path: &str) -> Result<Self> {
        let mut client = match Self::try_over(stream, address, path).await? {
            Ok(client) => client,
            Err(refusal) => bail!("{path} is refused: {refusal:?}"),
        };
        client.shake_hands().await?;
        Ok(client)
    }

    /// Performs the JSON handshake.
    pub async fn shake_hands(&mut self) -> Result<()> {
        self.send_text(JSON_HANDSHAKE).await?;
        let answer = self.next_record().await?;
        if answer != json!({}) {
            bail!("the handshake is answered with {answer}");
        }
        Ok(())
    }

    /// Headers of the upgrade response.
    #[must_use]
    pub fn answer_headers(&self) -> &HeaderMap {
        &self.answer_headers
    }

    /// Sends a text frame.
    pub async fn send_text(&mut self, text: impl Into<String>) -> Result<()> {
        self.socket.send(Message::text(text.into())).await.context("sending text")
    }

    /// Sends a binary frame.
    pub async fn send_binary(&mut self, bytes: impl Into<Bytes>) -> Result<()> {
        self.socket.send(Message::binary(bytes)).await.context("sending bytes")
    }

    /// Sends any message.
    ///
    /// # Errors
    /// If the socket is gone.
    pub async fn send(&mut self, message: Message) -> Result<()> {
        self.socket.send(message).await.context("sending a message")
    }

    /// Sends a close frame without a code, like browsers, and reads to the end.
    pub async fn close(mut self) -> Result<Ending> {
        self.socket.close(None).await?;
        self.ending().await
    }

    /// Next JSON message other than a ping.
    pub async fn next_record(&mut self) -> Result<Value> {
        loop {
            if !self.records.is_empty() {
                return Ok(self.records.remove(0));
            }
            match self.socket.next().await.context("the server closed instead")?? {
                Message::Text(text) => {
                    let ending = Ending { text: text.to_string(), binary: Vec::new(), code: None };
                    self.records.extend(ending.messages()?);
                }
                Message::Ping(_) | Message::Pong(_) => {}
                other => bail!("a text frame should come, but {other:?} did"),
            }
        }
    }

    /// Calls a hub method and waits for its completion, discarding earlier messages.
    pub async fn call(&mut self, target: &str, arguments: Value) -> Result<Value> {
        self.calls += 1;
        let id = self.calls.to_string();
        let call = json!({ "type": 1, "invocationId": id, "target": target, "arguments": arguments });
        self.send_text(format!("{call}{RECORD_SEPARATOR}")).await?;
        loop {
            let record = self.next_record().await?;
            if record.get("type") == Some(&json!(7)) {
                bail!("{target} is answered with {record}");
            }
            if record.get("invocationId").is_some_and(|answered| *answered == id) {
                return Ok(record);
            }
        }
    }

    /// Next text or binary message.
    pub async fn next_message(&mut self) -> Result<Message> {
        loop {
            match self.socket.next().await.context("the server closed instead")?? {
                Message::Close(frame) => bail!("the server closed instead: {frame:?}"),
                Message::Ping(_) | Message::Pong(_) => {}
                message => return Ok(message),
            }
        }
    }

    /// Waits for the next hub protocol ping without other messages.
    pub async fn next_ping(&mut self) -> Result<()> {
        match self.socket.next().await.context("the server closed instead")?? {
            Message::Text(text) if text.trim_end_matches(RECORD_SEPARATOR) == PING => Ok(()),
            other => bail!("a ping should come, but {other:?} did"),
        }
    }

    /// Reads until the server has closed, and returns everything it sent.
    ///
    /// # Errors
    /// Never: a broken socket is also an ending.
    pub async fn ending(mut self) -> Result<Ending> {
        let mut ending = Ending { text: String::new(), binary: Vec::new(), code: None };
        while let Some(Ok(frame)) = self.socket.next().await {
            match frame {
                Message::Text(text) => ending.text.push_str(&text),
                Message::Binary(bytes) => ending.binary.extend_from_slice(&bytes),
                Message::Close(frame) => {
                    ending.code = Some(frame.map_or(1005, |frame| frame.code.into()));
                }
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
        Ok(ending)
    }
}

/// Performs a WebSocket upgrade manually and returns the socket after the response.
pub async fn upgraded_socket(address: &str, path: &str) -> Result<TcpStream> {
    let mut socket = TcpStream::connect(address).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.context("the answer to the upgrade is not whole")?);
    }
    let head = String::from_utf8_lossy(&head);
    if !head.starts_with("HTTP/1.1 101") {
        bail!("the upgrade is refused: {head}");
    }
    Ok(socket)
}

/// Writes bytes to a new TCP connection and returns everything until the server closes it.
pub async fn answer_to_garbage(address: &str, bytes: &[u8]) -> Result<Vec<u8>> {
    let socket = TcpStream::connect(address).await?;
    rest_after(socket, bytes).await
}

/// Writes bytes and returns everything until the server closes the socket.
///
/// # Errors
/// Never: a broken socket is also an ending.
pub async fn rest_after(mut socket: TcpStream, bytes: &[u8]) -> Result<Vec<u8>> {
    // The server may close or reset at the first invalid byte.
    drop(socket.write_all(bytes).await);
    let mut rest = Vec::new();
    drop(socket.read_to_end(&mut rest).await);
    Ok(rest)
}
