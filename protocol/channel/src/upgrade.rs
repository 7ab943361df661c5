//! HTTP exchange that starts a channel, at both ends.

use std::error::Error;
use std::io;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{
    CONNECTION, HOST, HeaderMap, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
    USER_AGENT,
};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use trunkline_protocol::key::{AccessKeys, ChannelSecret, KeyTag, PeerKind};
use trunkline_protocol::unix_time::unix_seconds;
use trunkline_protocol::wire::{AGENT, CHANNEL_PATH, HELLO_HEADER, KEY_TAG_HEADER};

use crate::handshake::{DIALLED_MAX_BYTES, HandshakeError, HelloContents, Initiator, Responder, respond};
use crate::hello_table::{HelloTable, WaitingHello};
use crate::record::Side;
use crate::stream::ChannelStream;

/// Maximum number of bytes read from a refusal, which is one line.
const REFUSAL_MAX_BYTES: usize = 1024;

/// Time from the answer to the first record.
const FIRST_RECORD_TIMEOUT: Duration = Duration::from_secs(10);

/// Response status for a hello that is not from the last minutes: the clocks differ, or it was recorded and replayed.
pub const NOT_FRESH: StatusCode = StatusCode::TOO_EARLY;

/// Reason why a channel could not be opened. The peer received no data, and its response is not authenticated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenChannelError {
    /// The address accepts no connection.
    #[error("{0}")]
    Connect(#[source] io::Error),
    /// The address accepts connections, but sends no HTTP response.
    #[error("no HTTP answer: {}", innermost(.0))]
    Http(#[source] hyper::Error),
    /// The peer responded, but opened no channel.
    #[error("{0}")]
    Refused(RefusedUpgrade),
    /// The peer did not prove that it holds the key.
    #[error("the peer does not have the fleet's key: has the address a new owner?")]
    Unproven,
    /// A key or name can't be encoded in a request.
    #[error("the request can't be written: {0}")]
    Request(#[from] http::Error),
    /// The name is longer than any host name.
    #[error(
        "a host name of {0} bytes with its port is too long for a channel: at most {DIALLED_MAX_BYTES} are allowed"
    )]
    Name(usize),
}

/// Peer as intended by its dialler. The accepting end receives both parts, and intermediaries can't change them.
#[derive(Debug, Clone, Copy)]
pub struct Dialled<'a> {
    /// Kind of the peer.
    pub peer_kind: PeerKind,
    /// Host and port, as configured by the operator or advertised by a node.
    pub name: &'a str,
}

/// Response of a peer that opens no channel.
#[derive(Debug, thiserror::Error)]
#[error("answers {status}: {reason}")]
pub struct RefusedUpgrade {
    /// Status of the response, instead of 101.
    pub status: StatusCode,
    /// Headers of the response, such as the marker of the SDK's own refusals.
    pub headers: HeaderMap,
    /// First line of the body.
    pub reason: String,
}

/// Opens a channel to the dialled peer over connections from `dial`. Tries the keys in order, each over a separate
/// connection, until the peer accepts one. Fails if there is no connection, the peer has none of the keys, or it is not
/// the dialled peer.
pub async fn open_channel<S, D>(
    mut dial: impl FnMut() -> D,
    dialled: Dialled<'_>,
    keys: &AccessKeys,
) -> Result<ChannelStream<S>, OpenChannelError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    D: Future<Output = io::Result<S>>,
{
    if dialled.name.len() > DIALLED_MAX_BYTES {
        return Err(OpenChannelError::Name(dialled.name.len()));
    }
    let mut outcome = Err(OpenChannelError::Unproven);
    for secret in keys.channel_secrets(dialled.peer_kind) {
        let socket = dial().await.map_err(OpenChannelError::Connect)?;
        outcome = open_with(socket, dialled, &secret).await;
        match &outcome {
            // A node does not reveal the reason without the key. After any other refusal, further keys would not help.
            Err(OpenChannelError::Refused(refused)) if !refused.is_of_holder() => {}
            _ => break,
        }
    }
    outcome
}

async fn open_with<S>(
    socket: S,
    Dialled { peer_kind, name }: Dialled<'_>,
    secret: &ChannelSecret,
) -> Result<ChannelStream<S>, OpenChannelError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let unproven = |_: HandshakeError| OpenChannelError::Unproven;
    let contents = HelloContents { minute: present_minute(), dialled: name.into() };
    let (initiator, hello) = Initiator::new(&secret.secret, peer_kind, &contents).map_err(unproven)?;
    let key = generate_key();
    let request = Request::get(CHANNEL_PATH)
        .header(HOST, name)
        .header(USER_AGENT, AGENT)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, &key)
        .header(HELLO_HEADER, hello)
        .header(KEY_TAG_HEADER, secret.tag.to_string())
        .body(Empty::<Bytes>::new())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await.map_err(OpenChannelError::Http)?;
    // Ends with the response body, or with the upgraded socket.
    tokio::spawn(connection.with_upgrades());
    let answer = sender.send_request(request).await.map_err(OpenChannelError::Http)?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(OpenChannelError::Refused(RefusedUpgrade::read_refusal(answer).await));
    }
    let noise = initiator.finish(text(answer.headers(), HELLO_HEADER)).map_err(unproven)?;
    let upgraded = hyper::upgrade::on(answer).await.map_err(OpenChannelError::Http)?;
    // Always the original socket.
    let parts = upgraded.downcast::<TokioIo<S>>().map_err(|_| OpenChannelError::Unproven)?;
    Ok(ChannelStream::new(parts.io.into_inner(), noise, Side::Client, parts.read_buf))
}

impl RefusedUpgrade {
    /// Returns whether a holder of the key refuses for another reason: further keys would not help.
    fn is_of_holder(&self) -> bool {
        let of_holder = [
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::MISDIRECTED_REQUEST,
            NOT_FRESH,
        ];
        of_holder.contains(&self.status)
    }

    async fn read_refusal(answer: Response<Incoming>) -> Self {
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, REFUSAL_MAX_BYTES).collect().await.map(|body| body.to_bytes());
        let body = body.unwrap_or_default();
        let reason = String::from_utf8_lossy(&body).lines().next().unwrap_or_default().to_owned();
        Self { status: head.status, headers: head.headers, reason }
    }
}

/// Requested channel, and the response that opens it.
#[derive(Debug)]
pub struct Accepted {
    /// The response to send.
    pub response: Response<()>,
    /// Host and port dialled by the sender. An end with configured names refuses other names.
    pub dialled: Box<str>,
    noise: snow::TransportState,
    upgrade: OnUpgrade,
    waiting: WaitingHello,
}

/// Returns the key tag of a channel request; `None` if it has none.
#[must_use]
pub fn key_tag<B>(request: &Request<B>) -> Option<KeyTag> {
    KeyTag::parse(text(request.headers(), KEY_TAG_HEADER))
}

/// Answers a channel request; `None` if it is not an upgrade. A hello with a tag is tried with that key only, one
/// without a tag with all keys. `hellos` is the table of the receiving port. Before sending the response, the caller
/// must check the [dialled](Accepted::dialled) name. Fails if the sender has none of the keys, the hello is not from
/// the last minutes or was used before, or too many channels wait for their first record.
pub fn accept<B>(
    request: &Request<B>,
    keys: &AccessKeys,
    peer_kind: PeerKind,
    hellos: &HelloTable,
) -> Result<Option<Accepted>, HandshakeError> {
    let said = text(request.headers(), HELLO_HEADER);
    // Checked before any computation.
    if hellos.knows(said) {
        return Err(HandshakeError::Replayed);
    }
    let Responder { noise, answer: hello, contents } = match key_tag(request) {
        Some(tag) => respond(keys.tagged_secret(peer_kind, tag), peer_kind, said)?,
        None => respond(keys.channel_secrets(peer_kind), peer_kind, said)?,
    };
    let is_upgrade = text(request.headers(), UPGRADE.as_str()).eq_ignore_ascii_case("websocket");
    let upgrade = request.extensions().get::<OnUpgrade>().filter(|_| is_upgrade);
    let Some(upgrade) = upgrade.cloned() else { return Ok(None) };
    let minute = present_minute();
    if !contents.is_fresh(minute) {
        return Err(HandshakeError::NotFresh { ahead_min: contents.ahead_min(minute) });
    }
    let waiting = hellos.enter(said, minute)?;
    let accept = derive_accept_key(text(request.headers(), SEC_WEBSOCKET_KEY.as_str()).as_bytes());
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    if let (Ok(accept), Ok(hello)) = (HeaderValue::from_str(&accept), HeaderValue::from_str(&hello)) {
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        headers.insert(HeaderName::from_static(HELLO_HEADER), hello);
    }
    Ok(Some(Accepted { response, dialled: contents.dialled, noise, upgrade, waiting }))
}

impl Accepted {
    /// Returns the response to send, and the stream, ready after the sender's first record, which a replayed hello
    /// can't produce.
    pub fn into_parts(
        self,
    ) -> (Response<()>, impl Future<Output = io::Result<ChannelStream<TokioIo<Upgraded>>>> + Send + 'static) {
        let Self { response, noise, upgrade, waiting, .. } = self;
        let stream = async move {
            let proven = async {
                let socket = TokioIo::new(upgrade.await.map_err(io::Error::other)?);
                let mut stream = ChannelStream::new(socket, noise, Side::Server, Bytes::new());
                stream.first_record().await?;
                Ok(stream)
            };
            let stream = timeout(FIRST_RECORD_TIMEOUT, proven).await?;
            drop(waiting);
            stream
        };
        (response, stream)
    }
}

fn present_minute() -> u64 {
    unix_seconds(SystemTime::now()) / 60
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn innermost(error: &(dyn Error + 'static)) -> String {
    std::iter::successors(Some(error), |&error| error.source()).last().map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use hyper::server::conn::http1 as server;
    use hyper::service::service_fn;
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream, duplex};
    use trunkline_protocol::key::AccessKey;

    use super::*;

    const OLD: &str = "the old key of the fleet";
    const NEW: &str = "the new key of the fleet";
    const NODE: Dialled<'_> = Dialled { peer_kind: PeerKind::NodeAdmin, name: "node:8090" };

    fn keys(texts: &[&str]) -> AccessKeys {
        AccessKeys::new(texts.iter().map(|text| AccessKey::new(text).unwrap()).collect()).unwrap()
    }

    /// Peer with the old key that echoes inside channels and responds to other requests with this status. Counts its
    /// sockets.
    fn echo(refusal: u16, dials: Arc<AtomicUsize>) -> impl FnMut() -> std::future::Ready<io::Result<DuplexStream>> {
        let hellos = HelloTable::default();
        move || {
            dials.fetch_add(1, Ordering::Relaxed);
            let (near, far) = duplex(4096);
            let hellos = hellos.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = match accept(&request, &keys(&[OLD]), PeerKind::NodeAdmin, &hellos) {
                    Ok(Some(accepted)) if &*accepted.dialled != NODE.name => {
                        Response::builder().status(421).body(Empty::new()).unwrap()
                    }
                    Ok(Some(accepted)) => {
                        let (response, stream) = accepted.into_parts();
                        tokio::spawn(async move {
                            // Fails for a replayed hello.
                            let Ok(stream) = stream.await else { return };
                            let (mut reader, mut writer) = tokio::io::split(stream);
                            tokio::io::copy(&mut reader, &mut writer).await.unwrap();
                        });
                        response.map(|()| Empty::<Bytes>::new())
                    }
                    Err(HandshakeError::NotFresh { .. }) => {
                        Response::builder().status(NOT_FRESH).body(Empty::new()).unwrap()
                    }
                    _ => Response::builder().status(refusal).body(Empty::new()).unwrap(),
                };
                std::future::ready(Ok::<_, http::Error>(answer))
            });
            tokio::spawn(server::Builder::new().serve_connection(TokioIo::new(far), service).with_upgrades());
            std::future::ready(Ok(near))
        }
    }

    #[tokio::test]
    async fn each_key_is_tried_on_a_separate_connection_until_the_peer_accepts_one() {
        let dials = Arc::new(AtomicUsize::new(0));
        let opened = open_channel(echo(404, dials.clone()), NODE, &keys(&[NEW, OLD])).await;
        let mut stream = opened.unwrap();
        stream.write_all(b"hello").await.unwrap();
        stream.flush().await.unwrap();
        let mut echoed = [0; 5];
        stream.read_exact(&mut echoed).await.unwrap();
        assert_eq!((&echoed, dials.load(Ordering::Relaxed)), (b"hello", 2));
    }

    #[tokio::test]
    async fn a_status_distinguishes_a_missing_key_from_other_refusals() {
        for (status, tried) in [(404, 2), (503, 1), (429, 1), (425, 1)] {
            let dials = Arc::new(AtomicUsize::new(0));
            let strangers = keys(&["a key of strangers", "and one more of theirs"]);
            let refused = open_channel(echo(status, dials.clone()), NODE, &strangers).await.unwrap_err();
            assert!(matches!(&refused, OpenChannelError::Refused(refused) if refused.status == status), "{refused}");
            assert_eq!(dials.load(Ordering::Relaxed), tried);
        }
    }

    #[tokio::test]
    async fn a_peer_with_another_name_refuses_any_key() {
        let dials = Arc::new(AtomicUsize::new(0));
        let other = Dialled { name: "other:8090", ..NODE };
        let refused = open_channel(echo(404, dials.clone()), other, &keys(&[OLD, NEW])).await.unwrap_err();
        assert!(matches!(&refused, OpenChannelError::Refused(refused) if refused.status == 421), "{refused}");
        assert_eq!(dials.load(Ordering::Relaxed), 1, "another key would not help");
        let (name, none) = ("a".repeat(300), || std::future::pending::<io::Result<DuplexStream>>());
        let long = open_channel(none, Dialled { name: &name, ..NODE }, &keys(&[OLD])).await.unwrap_err();
        assert!(matches!(long, OpenChannelError::Name(300)), "{long}");
    }

    /// Sends a channel request with this hello, and returns the first line of the response.
    async fn exchange(socket: DuplexStream, hello: &str) -> String {
        let head = format!(
            "GET {CHANNEL_PATH} HTTP/1.1\r\nhost: node\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
             {HELLO_HEADER}: {hello}\r\n\r\n"
        );
        let mut socket = BufReader::new(socket);
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut line = String::new();
        socket.read_line(&mut line).await.unwrap();
        line
    }

    fn hello_made(minute: u64) -> String {
        let secret = keys(&[OLD]).channel_secrets(NODE.peer_kind).next().unwrap();
        let contents = HelloContents { minute, dialled: NODE.name.into() };
        Initiator::new(&secret.secret, NODE.peer_kind, &contents).unwrap().1
    }

    #[tokio::test]
    async fn a_recorded_hello_opens_nothing_when_it_is_played_again() {
        let mut dial = echo(404, Arc::default());
        let hello = hello_made(present_minute());
        let mut answers = Vec::new();
        for _ in 0..2 {
            answers.push(exchange(dial().await.unwrap(), &hello).await);
        }
        assert_eq!(answers, ["HTTP/1.1 101 Switching Protocols\r\n", "HTTP/1.1 404 Not Found\r\n"]);
    }

    #[tokio::test]
    async fn hellos_of_another_time_open_nothing() {
        let mut dial = echo(404, Arc::default());
        for minute in [0, present_minute() - 60, present_minute() + 60] {
            let line = exchange(dial().await.unwrap(), &hello_made(minute)).await;
            assert_eq!(line, "HTTP/1.1 425 Too Early\r\n", "{minute}");
        }
        let line = exchange(dial().await.unwrap(), &hello_made(present_minute())).await;
        assert_eq!(line, "HTTP/1.1 101 Switching Protocols\r\n");
    }
}
