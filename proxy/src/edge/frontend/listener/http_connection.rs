//! HTTP/1.1 on one connection.
//!
//! ```text
//!  accept ─► head ─► request, answer ─► idle in hyper ── 15 s ──► idle without hyper ── --keep-alive-timeout ──► half-close
//!              │ --header-timeout         │ first byte              │ first byte
//!              ▼                          └─► head                  └─► head, in a new hyper connection
//!             cut
//! ```
//!
//! hyper has a single timeout for a head and the silence before it. Only the socket that it returns shows reliably
//! whether a head has begun. So hyper returns a socket after a period of silence, and an idle socket uses no hyper
//! state or buffer.

use std::any::{Any, TypeId};
use std::cell::Cell;
use std::convert::Infallible;
use std::future::ready;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::future::Either;
use http::header::CONNECTION;
use http::uri::Scheme;
use http::{HeaderName, HeaderValue, Request, StatusCode, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1::Parts;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tower::ServiceExt;
use tracing::{debug, warn};
use trunkline_process::LinePermit;

use super::head_timer::HeadTimer;
use super::listener_gate::{ListenerGate, REFUSAL_TIMEOUT};
use super::socket_context::SocketContext;
use crate::edge::frontend::hop_header::has_word;
use crate::edge::frontend::request::wants_event_stream;
use crate::edge::frontend::request_context::RequestSource;
use crate::ground::net::socket::{
    CurrentStallLimit, RequestProgress, RequestSocket, SocketHandover, StallGuard, WriteStallLimit, half_close,
};

/// State of a socket after a timeout of the wait for a head.
#[derive(Debug, PartialEq, Eq)]
enum Silence {
    /// No byte of a request has arrived; the socket may stay silent for this much longer.
    Idle(Duration),
    /// A head started together with the previous request, and has this time left.
    Begun(Bytes, Duration),
    /// The head took too long.
    Overdue,
    /// The client does not read its response.
    Stuck,
}

/// Socket with a started first request.
pub(super) struct FirstBytes<S> {
    pub(super) stream: S,
    /// Bytes of it already read.
    pub(super) bytes: Bytes,
    /// Time left for its head.
    pub(super) left: Duration,
    /// Prepared response, if any.
    pub(super) answer: Option<Response>,
}

/// Serves HTTP/1.1 until the socket is closed or upgraded.
pub(crate) async fn serve<S>(stream: S, context: SocketContext, scheme: Scheme, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let first = FirstBytes { stream, bytes: Bytes::new(), left: context.gate.limits().header_timeout, answer: None };
    serve_from(first, context, scheme, router).await;
}

/// Serves HTTP/1.1 from the first bytes of a request until the socket is closed or upgraded.
pub(super) async fn serve_from<S>(first: FirstBytes<S>, context: SocketContext, scheme: Scheme, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let SocketContext { peer, gate, admitted: _admitted, patience, is_trusted } = context;
    let limits = gate.limits();
    let persistence = Persistence::new(gate.clone(), is_trusted);
    let (mut socket, mut head_timeout) = (RequestSocket::continued(first.stream, first.bytes), first.left);
    let answered = Cell::new(first.answer);
    loop {
        let progress = socket.progress.clone();
        let timer = HeadTimer::new(progress.clone(), limits.header_timeout, limits.keep_alive_timeout);
        let service = service_fn(|mut request: Request<Incoming>| {
            progress.note_request();
            let may_hand_over =
                is_plain_tcp::<S>() && request.version() == Version::HTTP_11 && wants_event_stream(request.headers());
            let handover = may_hand_over.then(|| SocketHandover::of(&progress));
            let is_tls = scheme == Scheme::HTTPS;
            RequestSource { is_tls, handover, ..RequestSource::from_peer(peer) }.attach(&mut request);
            let persistence = Some(&persistence).filter(|it| it.ends() || Persistence::is_wanted(&request));
            // Responses are sent one by one, so the last one's limit applies to the socket.
            let answer = match answered.take() {
                Some(answer) => Either::Left(ready(Ok(patiently(answer, &patience, limits.body_timeout)))),
                None => Either::Right(answer_request(router.clone(), request, patience.clone(), limits.body_timeout)),
            };
            async move { answer.await.map(|answer| declared(answer, persistence)) }
        });
        let http1 = gate.http1(timer, head_timeout);
        let mut connection = http1.serve_connection(TokioIo::new(socket), service).with_upgrades();
        let Err(error) = (&mut connection).await else { return };
        if let Some(taker) = progress.take_taker() {
            hand_over(connection.into_parts().map(|parts| parts.io.into_inner().into_inner()), taker);
            return;
        }
        let is_http2 = |parts: &Parts<_, _>| is_preface(&parts.read_buf);
        let kept = connection.into_parts().filter(|parts| error.is_timeout() || is_http2(parts));
        let Some(Parts { io, read_buf, .. }) = kept else {
            gate.count(&error);
            return debug!(%peer, %error, "connection closed in the middle of a request");
        };
        let stream = io.into_inner().into_inner();
        if is_preface(&read_buf) {
            gate.count(&error);
            return refuse_http2(stream, &gate, peer).await;
        }
        let (early, left) = match silence(&progress, read_buf, limits.header_timeout, limits.keep_alive_timeout) {
            Silence::Idle(left) => match wait_for_head(stream, left).await {
                Some((stream, first)) => {
                    (socket, head_timeout) = (RequestSocket::continued(stream, first), limits.header_timeout);
                    continue;
                }
                None => return,
            },
            Silence::Begun(early, left) => (early, left),
            Silence::Stuck => return debug!(%peer, "connection closed: its client does not read the response"),
            Silence::Overdue => {
                gate.count(&error);
                return debug!(%peer, "connection closed: the head of a request took too long");
            }
        };
        (socket, head_timeout) = (RequestSocket::continued(stream, early), left);
    }
}

/// Whether sockets of this type are plain TCP, which may be handed over.
fn is_plain_tcp<S: 'static>() -> bool {
    TypeId::of::<S>() == TypeId::of::<StallGuard>()
}

/// Hands a socket to the writer of the rest of a response. Its client may be gone.
fn hand_over<S: 'static>(stream: Option<S>, taker: oneshot::Sender<TcpStream>) {
    let stream = stream.and_then(|stream| (Box::new(stream) as Box<dyn Any>).downcast::<StallGuard>().ok());
    if let Some(stream) = stream {
        drop(taker.send(stream.into_inner()));
    }
}

/// Handles a request, and sets the stall limit of its response: `body_timeout` unless the response has its own.
pub(crate) async fn answer_request(
    router: Router,
    request: Request<Incoming>,
    patience: CurrentStallLimit,
    body_timeout: Duration,
) -> Result<Response, Infallible> {
    let answer = router.oneshot(request.map(Body::new)).await?;
    Ok(patiently(answer, &patience, body_timeout))
}

fn patiently(mut answer: Response, patience: &CurrentStallLimit, body_timeout: Duration) -> Response {
    let limit = WriteStallLimit::take(&mut answer).unwrap_or_else(|| match answer.status() {
        // A client connection has a bounded outbox instead.
        StatusCode::SWITCHING_PROTOCOLS => WriteStallLimit::Unlimited,
        _ => WriteStallLimit::Idle(body_timeout),
    });
    patience.set(limit);
    answer
}

fn declared(mut answer: Response, persistence: Option<&Persistence>) -> Response {
    if let Some(persistence) = persistence {
        persistence.declare(&mut answer);
    }
    answer
}

/// Determines the state of a socket after a timeout of the wait for a head, from the bytes left by hyper.
fn silence(progress: &RequestProgress, left_over: Bytes, head: Duration, idle: Duration) -> Silence {
    let waited = HeadTimer::idle_step(head, idle);
    // Line ends between requests don't start a head.
    let has_begun = left_over.iter().any(|byte| !b"\r\n".contains(byte));
    match (progress.has_served(), has_begun) {
        (false, _) => Silence::Overdue,
        (true, false) if progress.is_stuck() => Silence::Stuck,
        (true, false) => Silence::Idle(idle.saturating_sub(waited)),
        (true, true) if progress.has_read() || progress.is_stuck() || waited >= head => Silence::Overdue,
        (true, true) => Silence::Begun(left_over, head.saturating_sub(waited)),
    }
}

/// Waits for the next request of an idle socket and returns its first byte; closes the socket at the timeout.
async fn wait_for_head<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, limit: Duration) -> Option<(S, Bytes)> {
    let mut first = [0];
    let read = tokio::select! {
        // A request that has arrived is served, even if this task notices late.
        biased;
        read = stream.read(&mut first) => Some(read),
        () = sleep(limit) => None,
    };
    match read {
        Some(Ok(1)) => return Some((stream, Bytes::copy_from_slice(&first))),
        // The client has closed it.
        Some(_) => {}
        // Fails if the client is gone.
        None => drop(half_close(stream).await),
    }
    None
}

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// Persistence of one HTTP/1 connection, as announced by its responses.
///
/// With the idle timeout, .NET's and Node's clients stop using the connection earlier, so that no request races the
/// close. Neither repeats a POST that does.
#[derive(Debug, Clone)]
pub(super) struct Persistence {
    gate: ListenerGate,
    /// Value of `Keep-Alive`; `None` for a load balancer, which might forward it to its clients.
    keep_alive: Option<HeaderValue>,
}

impl Persistence {
    pub(super) fn new(gate: ListenerGate, is_trusted: bool) -> Self {
        let seconds = gate.limits().keep_alive_timeout.as_secs();
        let keep_alive = HeaderValue::from_str(&format!("timeout={seconds}")).ok().filter(|_| !is_trusted);
        Self { gate, keep_alive }
    }

    /// Whether the client keeps the connection after this request.
    pub(super) fn is_wanted<B>(request: &Request<B>) -> bool {
        request.version() == Version::HTTP_11 && !has_word(request.headers(), &CONNECTION, "close")
    }

    /// Whether the connection ends after the next response in any case.
    pub(super) fn ends(&self) -> bool {
        self.gate.is_stopping()
    }

    /// Announces the future of the connection, unless the response already does.
    pub(super) fn declare(&self, answer: &mut Response) {
        let is_upgrade = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
        let headers = answer.headers_mut();
        if is_upgrade || headers.contains_key(CONNECTION) {
            return;
        }
        if self.ends() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        } else if let Some(keep_alive) = &self.keep_alive {
            headers.insert(CONNECTION, HeaderValue::from_static("keep-alive"));
            headers.insert(KEEP_ALIVE, keep_alive.clone());
        }
    }
}

/// First bytes of an HTTP/2 client (RFC 9113, 3.4), up to the end of the request line.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// Text in the frame, for logs of load balancers.
const TEXT: &[u8; 52] = b"this node serves HTTP/1.1, or HTTP/2 behind TLS only";

/// Empty SETTINGS, the first frame of every server.
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

/// GOAWAY with the length of the text plus 8 bytes: no stream processed, HTTP_1_1_REQUIRED.
const GO_AWAY: [u8; 17] = [0, 0, 8 + 52, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xd];

fn is_preface(bytes: &[u8]) -> bool {
    bytes.starts_with(PREFACE)
}

/// Refuses HTTP/2 without TLS from load balancers configured for h2c, with an HTTP/2 frame, because they can't read an
/// HTTP/1.1 response.
async fn refuse_http2<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, gate: &ListenerGate, peer: SocketAddr) {
    if let Some(LinePermit { left_out }) = gate.pass_plain_http2() {
        warn!(%peer, left_out, "HTTP/2 without TLS refused: the load balancer has to send HTTP/1.1");
    }
    let refused = async {
        stream.write_all(&[&SETTINGS[..], &GO_AWAY, TEXT].concat()).await?;
        half_close(stream).await
    };
    // Fails only for a client that is gone.
    drop(timeout(REFUSAL_TIMEOUT, refused).await);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::Extension;
    use axum::routing::get;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;
    use tokio::task::LocalSet;
    use trunkline_protocol::key::{AccessKey, AccessKeys};

    use super::super::listener_gate::ListenerGate;
    use super::*;
    use crate::edge::frontend::handover_body::HandoverBody;
    use crate::engine::shard::{ShardSender, Shared};
    use crate::ground::config::Settings;

    const HEAD: Duration = Duration::from_secs(15);

    /// Requests a response that is only started, without TLS; returns the body as read by the client, and whether the
    /// socket was handed over.
    async fn begin_answer(accept: &str, version: &str) -> (String, bool) {
        let settings = Settings::embedded(AccessKeys::new(vec![AccessKey::random()]).unwrap(), Vec::new(), true);
        let shared = Shared::alone(settings, vec![ShardSender::new().0]);
        let (taker, socket) = oneshot::channel();
        let taker = Arc::new(std::sync::Mutex::new(Some(taker)));
        let answer = async move |Extension(source): Extension<RequestSource>| match source.handover {
            Some(handover) => {
                let taker = taker.lock().unwrap().take().unwrap();
                Body::new(HandoverBody::new(Bytes::from_static(b"begun "), handover, taker))
            }
            None => Body::from("whole"),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        let gate = ListenerGate::new(shared.clone(), shared.counters_of(0));
        let context = SocketContext::new(peer, gate.clone(), gate.admit(peer).unwrap());
        let stream = context.patient(stream);
        let head = format!("GET / HTTP/{version}\r\nhost: a\r\naccept: {accept}\r\nconnection: close\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        let router = Router::new().route("/", get(answer));
        let (is_handed_over, ()) = tokio::join!(
            async {
                let Ok(mut socket) = socket.await else { return false };
                socket.write_all(b"and ended").await.unwrap();
                true
            },
            serve(stream, context, Scheme::HTTP, router),
        );
        let mut read = String::new();
        client.read_to_string(&mut read).await.unwrap();
        (read.split_once("\r\n\r\n").unwrap().1.to_owned(), is_handed_over)
    }

    #[tokio::test]
    async fn the_socket_of_an_event_stream_is_handed_over_behind_what_the_server_has_written() {
        let test = async {
            let begun = "6\r\nbegun \r\nand ended".to_owned();
            assert_eq!(begin_answer("text/event-stream", "1.1").await, (begun, true));
            for (accept, version) in [("*/*", "1.1"), ("text/event-stream", "1.0")] {
                assert_eq!(begin_answer(accept, version).await, ("whole".to_owned(), false), "{accept} {version}");
            }
        };
        LocalSet::new().run_until(test).await;
    }

    #[test]
    fn only_a_served_socket_without_a_byte_of_a_head_is_idle() {
        let progress = RequestProgress::default();
        let silence = |bytes: &'static [u8], idle_s| {
            silence(&progress, Bytes::from_static(bytes), HEAD, Duration::from_secs(idle_s))
        };
        assert_eq!(silence(b"", 130), Silence::Overdue, "the first request has not come");
        progress.note_request();
        assert_eq!(silence(b"", 130), Silence::Idle(Duration::from_secs(115)));
        assert_eq!(silence(b"\r\n", 130), Silence::Idle(Duration::from_secs(115)));
        assert_eq!(silence(b"", 5), Silence::Idle(Duration::ZERO));
        assert_eq!(silence(b"GET / HT", 130), Silence::Overdue);
        let begun = Silence::Begun(Bytes::from_static(b"GET / HT"), Duration::from_secs(10));
        assert_eq!(silence(b"GET / HT", 5), begun, "its timeout is longer than that of an idle socket");
    }

    #[test]
    fn only_an_http_1_1_request_without_close_keeps_the_connection() {
        let request = |version, connection: &'static str| {
            Request::builder().version(version).header(CONNECTION, connection).body(()).unwrap()
        };
        assert!(Persistence::is_wanted(&request(Version::HTTP_11, "keep-alive, te")));
        assert!(!Persistence::is_wanted(&request(Version::HTTP_11, "te, Close")));
        assert!(!Persistence::is_wanted(&request(Version::HTTP_10, "keep-alive")));
    }
}
