//! Make one client connection: socket, negotiation if wanted, WebSocket upgrade, hub handshake.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use memchr::memmem;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use trunkline_protocol::hub::{HandshakeRequest, HandshakeResponse, HubProtocol};

use crate::target::Target;
use crate::wire::frame::{self, Opcode};

/// An answer to the upgrade or the handshake that is longer is none.
const ANSWER_MAX_BYTES: usize = 16 * 1024;

/// How to connect; the same for all clients of a run.
#[derive(Debug, Clone)]
pub(crate) struct How {
    pub(crate) protocol: HubProtocol,
    pub(crate) start: Start,
    pub(crate) patience: Duration,
}

/// How a connection begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// Ask for a connection token first.
    Negotiate,
    /// Upgrade at once.
    Skip,
}

/// Why a client could not connect; the text is the cause under which it is counted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("no free port or file")]
    Exhausted,
    #[error("connection refused")]
    Refused,
    #[error("connection reset")]
    Reset,
    #[error("timed out")]
    TimedOut,
    #[error("closed by the server while connecting")]
    Closed,
    #[error("negotiate answered {0}")]
    Negotiate(String),
    #[error("upgrade answered {0}")]
    Upgrade(String),
    #[error("hub handshake refused: {0}")]
    Handshake(String),
    #[error("socket: {0}")]
    Socket(io::ErrorKind),
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Reset,
            io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::UnexpectedEof => Self::Closed,
            io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable => Self::Exhausted,
            // Too many open files has no kind of its own: EMFILE, ENFILE.
            _ if matches!(error.raw_os_error(), Some(23 | 24)) => Self::Exhausted,
            kind => Self::Socket(kind),
        }
    }
}

/// An open connection: its socket, and what came behind the handshake's answer.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) stream: TcpStream,
    pub(crate) rest: Vec<u8>,
}

/// Connects a client from `source` with an access token, if there is one.
pub(crate) async fn connect(
    target: &Target,
    source: Option<IpAddr>,
    token: Option<&str>,
    how: &How,
) -> Result<Opened, ConnectError> {
    let whole = async {
        let id = match how.start {
            Start::Negotiate => Some(negotiate(target, source, token).await?),
            Start::Skip => None,
        };
        upgrade(target, source, token, id.as_deref(), how.protocol).await
    };
    tokio::time::timeout(how.patience, whole).await.unwrap_or(Err(ConnectError::TimedOut))
}

async fn open(target: &Target, source: Option<IpAddr>) -> Result<TcpStream, ConnectError> {
    let socket = if target.address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if let Some(source) = source {
        // Ports of sockets that have ended, but that the system still holds, are as good as new ones.
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let stream = socket.connect(target.address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// What we read of a negotiate answer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Negotiated {
    connection_token: Option<String>,
    connection_id: Option<String>,
    error: Option<String>,
    url: Option<String>,
}

/// Returns the connection token.
async fn negotiate(target: &Target, source: Option<IpAddr>, token: Option<&str>) -> Result<String, ConnectError> {
    let failed = |what: String| ConnectError::Negotiate(what);
    let stream = open(target, source).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|_| ConnectError::Closed)?;
    let serving = tokio::task::spawn_local(connection);
    let mut request = Request::builder().method(Method::POST).uri(negotiate_path(&target.path));
    request = request.header(header::HOST, &target.authority).header(header::CONTENT_LENGTH, 0);
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Full::<Bytes>::default()).map_err(|error| failed(error.to_string()))?;
    let answer = sender.send_request(request).await.map_err(|_| ConnectError::Closed)?;
    let status = answer.status();
    if !status.is_success() {
        return Err(failed(status.as_u16().to_string()));
    }
    let body = answer.into_body().collect().await.map_err(|_| ConnectError::Closed)?.to_bytes();
    serving.abort();
    let answer: Negotiated = serde_json::from_slice(&body).map_err(|_| failed("no JSON".into()))?;
    match answer {
        Negotiated { error: Some(error), .. } => Err(failed(error)),
        Negotiated { url: Some(_), .. } => Err(failed("a redirect, which is not followed".into())),
        Negotiated { connection_token, connection_id, .. } => {
            connection_token.or(connection_id).ok_or_else(|| failed("neither token nor id".into()))
        }
    }
}

fn negotiate_path(path: &str) -> String {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let join = if query.is_empty() { "" } else { "&" };
    format!("{}/negotiate?{query}{join}negotiateVersion=1", path.trim_end_matches('/'))
}

async fn upgrade(
    target: &Target,
    source: Option<IpAddr>,
    token: Option<&str>,
    id: Option<&str>,
    protocol: HubProtocol,
) -> Result<Opened, ConnectError> {
    let mut stream = open(target, source).await?;
    stream.write_all(upgrade_request(target, token, id).as_bytes()).await?;
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = memmem::find(&bytes, b"\r\n\r\n") {
            break bytes.drain(..end + 4).collect::<Vec<u8>>();
        }
        read_more(&mut stream, &mut bytes).await?;
    };
    let head = String::from_utf8_lossy(&head);
    let status = head.split(' ').nth(1).unwrap_or("nothing");
    if status != "101" {
        return Err(ConnectError::Upgrade(status.to_owned()));
    }
    let mut handshake = Vec::new();
    frame::put(Opcode::Text, &HandshakeRequest { protocol, version: 1 }.encode(), &mut handshake);
    stream.write_all(&handshake).await?;
    let rest = handshake_answer(&mut stream, bytes).await?;
    Ok(Opened { stream, rest })
}

/// Waits for the hub's welcome; returns the frames behind it.
async fn handshake_answer(stream: &mut TcpStream, mut bytes: Vec<u8>) -> Result<Vec<u8>, ConnectError> {
    let refused = |text: &str| ConnectError::Handshake(text.to_owned());
    loop {
        match frame::split(&bytes).map_err(|_| refused("no WebSocket frame"))? {
            None => read_more(stream, &mut bytes).await?,
            Some(found) if matches!(found.opcode, Opcode::Text | Opcode::Binary) => {
                let answer = HandshakeResponse::read(found.payload, ANSWER_MAX_BYTES);
                let answer = answer.map_err(|error| refused(&error.to_string()))?;
                let (answer, length) = answer.ok_or_else(|| refused("half an answer"))?;
                if let Some(error) = answer.error {
                    return Err(refused(&error));
                }
                // Hub messages may share the frame of the answer: they get one of their own.
                let more = found.payload.get(length..).unwrap_or_default();
                return Ok(reframed(more, found.rest));
            }
            Some(found) if found.opcode == Opcode::Close => return Err(ConnectError::Closed),
            Some(found) => bytes = found.rest.to_vec(),
        }
    }
}

/// Bytes of a server that hold these messages, and then these frames.
fn reframed(messages: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for chunk in messages.chunks(125) {
        let length = u8::try_from(chunk.len()).unwrap_or(0);
        bytes.extend_from_slice(&[0x82, length]);
        bytes.extend_from_slice(chunk);
    }
    bytes.extend_from_slice(rest);
    bytes
}

fn upgrade_request(target: &Target, token: Option<&str>, id: Option<&str>) -> String {
    let Target { authority, path, .. } = target;
    let query = id.map_or_else(String::new, |id| {
        let join = if path.contains('?') { '&' } else { '?' };
        format!("{join}id={id}")
    });
    let bearer = token.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
    format!(
        "GET {path}{query} HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         User-Agent: trunkline-load\r\n{bearer}Sec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

async fn read_more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Result<(), ConnectError> {
    let mut scratch = [0; 1024];
    let count = stream.read(&mut scratch).await?;
    if count == 0 || bytes.len() > ANSWER_MAX_BYTES {
        return Err(ConnectError::Closed);
    }
    bytes.extend_from_slice(scratch.get(..count).unwrap_or_default());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negotiation_keeps_the_query_of_the_hub() {
        assert_eq!(negotiate_path("/chat"), "/chat/negotiate?negotiateVersion=1");
        assert_eq!(negotiate_path("/chat/?a=b"), "/chat/negotiate?a=b&negotiateVersion=1");
    }

    #[test]
    fn messages_behind_the_welcome_come_first() {
        assert_eq!(reframed(b"{}\x1e", b"\x81\x00"), b"\x82\x03{}\x1e\x81\x00");
        assert_eq!(reframed(b"", b"\x81\x00"), b"\x81\x00");
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_client_comes_from_the_address_that_it_was_given() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target::parse(&listener.local_addr().unwrap().to_string(), "/hub").unwrap();
        let source = target.source(10_000);
        let _client = open(&target, source).await.unwrap();
        let (_, from) = listener.accept().await.unwrap();
        assert_eq!(Some(from.ip()), source);
    }

    #[test]
    fn causes_are_told_apart() {
        let cause = |kind| ConnectError::from(io::Error::from(kind)).to_string();
        assert_eq!(cause(io::ErrorKind::ConnectionRefused), "connection refused");
        assert_eq!(ConnectError::from(io::Error::from_raw_os_error(24)).to_string(), "no free port or file");
    }
}
