//! Listener of the admin port: limits the time for a head, a body, a response and idle periods.
//!
//! axum's server has no such limits: a thousand unfinished heads would use up all descriptors, and a supervisor's
//! probes would fail.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::middleware::AddExtension;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::DuplexStream;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tower::{Layer, ServiceExt};
use tracing::{debug, warn};
use trunkline_protocol::wire::CHANNEL_PATH;

use super::access::AdminCaller;
use super::exposition::AdminCounters;
use crate::ground::bounded::{Lease, LeaseTable, Leases};
use crate::ground::net::socket::{CurrentStallLimit, StallGuard, WriteStallLimit};

/// Timeout for the head of a request and the preceding idle time. Probes and scrapers then reconnect.
const HEAD_TIMEOUT: Duration = Duration::from_secs(20);

/// Timeout until the response begins. Queries to other nodes take up to 5 s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// Maximum stall of a response that is not being read.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum size of a request head: the longest id, plus a browser's headers.
const HEAD_MAX_BYTES: usize = 64 * 1024;

const LATE: &str = "the request did not arrive completely, or its response took too long\n";

/// Pause after a failed accept. Without free descriptors, retrying immediately would only use CPU.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

pub(super) async fn serve(listener: TcpListener, router: Router, counters: Arc<AdminCounters>) {
    let table = ConnectionTable::default();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => match table.take_permit(peer.ip()) {
                Some(place) => {
                    tokio::spawn(serve_connection(stream, peer, place, router.clone(), counters.clone()));
                    // Starts the new task before the next accept, so that a probe is answered before it could be
                    // displaced.
                    tokio::task::yield_now().await;
                }
                None => counters.turned_away.increment(),
            },
            Err(error) => {
                warn!(%error, "cannot accept a connection to the admin port");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves sockets of other nodes through a broker: only channels.
pub(super) async fn serve_pipes(mut pipes: mpsc::Receiver<DuplexStream>, router: Router) {
    let router = Extension(AdminCaller(None)).layer(router);
    while let Some(pipe) = pipes.recv().await {
        let router = router.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let router = router.clone();
            async move {
                Ok::<_, Infallible>(match request.uri().path() {
                    CHANNEL_PATH => answer_request(router, request).await,
                    _ => StatusCode::NOT_FOUND.into_response(),
                })
            }
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_MAX_BYTES);
        let connection = http.serve_connection(TokioIo::new(pipe), service).with_upgrades();
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "connection of a node closed");
            }
        });
    }
}

async fn serve_connection(
    stream: TcpStream,
    peer: SocketAddr,
    place: ConnectionPermit,
    router: Router,
    counters: Arc<AdminCounters>,
) {
    // Each response is waited for. A failure only makes responses slower.
    let _ = stream.set_nodelay(true);
    let limit = CurrentStallLimit::default();
    limit.set(WriteStallLimit::Idle(STALL_TIMEOUT));
    let (place, guarded) = (Arc::new(place), limit.clone());
    let router = Extension(AdminCaller(Some(peer.ip().to_canonical()))).layer(router);
    let service = service_fn(|request: Request<Incoming>| {
        place.enter(Phase::Asking);
        let (place, router, limit) = (place.clone(), router.clone(), limit.clone());
        async move {
            let mut answer = answer_request(router, request).await;
            if let Some(stall) = WriteStallLimit::take(&mut answer) {
                limit.set(stall);
            }
            place.enter(Phase::Answering);
            let guard = AnswerGuard(place);
            Ok::<_, Infallible>(answer.map(|body| body.inspect_frame(move |_| _ = &guard)))
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_MAX_BYTES);
    // A channel of another node is authenticated and leaves this table, so it can't be displaced.
    let connection = http.serve_connection(TokioIo::new(StallGuard::new(stream, guarded)), service).with_upgrades();
    tokio::select! {
        // A request that has arrived is served, however many connections follow.
        biased;
        served = connection => if let Err(error) = served {
            if error.is_timeout() {
                counters.overdue.increment();
            }
            debug!(%peer, %error, "admin connection closed");
        },
        () = place.revoked() => {
            counters.displaced.increment();
            debug!(%peer, "admin connection closed in favour of a newer one");
        }
    }
}

/// Guard of a response body. Once it is sent, the connection waits for the next request.
struct AnswerGuard(Arc<ConnectionPermit>);

impl Drop for AnswerGuard {
    fn drop(&mut self) {
        self.0.enter(Phase::Waiting);
    }
}

async fn answer_request(router: AddExtension<Router, AdminCaller>, request: Request<Incoming>) -> Response {
    match timeout(REQUEST_TIMEOUT, router.oneshot(request.map(Body::new))).await {
        Ok(Ok(answer)) => answer,
        Err(_) => (StatusCode::REQUEST_TIMEOUT, LATE).into_response(),
    }
}

/// Maximum number of connections to the admin port.
pub(super) const CONNECTIONS_MAX: usize = 256;

/// Maximum number of connections per address. This leaves room for other addresses, and suffices for a browser with
/// several pages.
pub(super) const PER_ADDRESS_MAX: usize = 64;

/// Phase of a connection, in order of displacement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Waiting for the first or next request.
    Waiting,
    /// A request is in flight, possibly without its body.
    Asking,
    /// The response has begun, possibly an event stream.
    Answering,
}

/// Connections of the admin port, limited in total and per address, with priority for new ones.
///
/// ```text
///  accepted ─► waits for a request ─► request in flight ─► response being sent ─► waits …
///                 ▲ displaced first       ▲ second              ▲ never
/// ```
///
/// Probes send their request immediately after connecting. A full table therefore closes the longest waiting
/// connection, so that incomplete heads only affect their senders.
#[derive(Debug, Clone, Default)]
pub(super) struct ConnectionTable(Leases<AdminConnection>);

#[derive(Debug)]
pub(super) struct AdminConnection {
    address: IpAddr,
    phase: Phase,
    since: Instant,
}

/// Permit of one connection, returned on drop.
pub(super) type ConnectionPermit = Lease<AdminConnection>;

impl ConnectionTable {
    /// Takes a permit for a new connection, displacing another if needed. `None` if none can be displaced.
    pub(super) fn take_permit(&self, address: IpAddr) -> Option<ConnectionPermit> {
        let address = address.to_canonical();
        let new = AdminConnection { address, phase: Phase::Waiting, since: Instant::now() };
        let is_of_address = |open: &AdminConnection| open.address == address;
        let of_address = self.0.lock().iter().filter(|(_, open)| is_of_address(open)).count();
        match of_address >= PER_ADDRESS_MAX {
            true => self.0.take_or_revoke(0, new, |connections, _| least_needed(connections, is_of_address)),
            false => self.0.take_or_revoke(CONNECTIONS_MAX, new, |connections, _| least_needed(connections, |_| true)),
        }
    }
}

/// The connection to displace first; `None` if all are sending responses.
fn least_needed(connections: &LeaseTable<AdminConnection>, of: impl Fn(&AdminConnection) -> bool) -> Option<u64> {
    let candidates = connections.iter().filter(|(_, open)| open.phase != Phase::Answering && of(open));
    candidates.min_by_key(|(_, open)| (open.phase, open.since)).map(|(number, _)| number)
}

impl ConnectionPermit {
    pub(super) fn enter(&self, phase: Phase) {
        self.update(|open| (open.phase, open.since) = (phase, Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::{get, post};
    use bytes::Bytes;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn started() -> (SocketAddr, Arc<AdminCounters>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, counters) = (listener.local_addr().unwrap(), Arc::<AdminCounters>::default());
        let router = Router::new()
            .route("/healthz", get(|| async { "ok" }))
            .route("/body", post(async |body: Bytes| body.len().to_string()));
        tokio::spawn(serve(listener, router, counters.clone()));
        (address, counters)
    }

    async fn sent(address: SocketAddr, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }

    async fn answer_on(stream: &mut TcpStream) -> String {
        let mut buffer = [0; 1024];
        let read = stream.read(&mut buffer).await.unwrap();
        String::from_utf8(buffer[..read].to_vec()).unwrap()
    }

    const PROBE: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";

    #[tokio::test]
    async fn behind_a_thousand_half_sent_heads_every_probe_is_answered() {
        let (address, counters) = started().await;
        let mut halves = Vec::new();
        for number in 0..1_000 {
            halves.push(sent(address, "GET /healthz HTTP/1.1\r\nHost: lo").await);
            if number % 100 == 99 {
                let answer = answer_on(&mut sent(address, PROBE).await).await;
                assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("ok"), "{number}: {answer}");
            }
        }
        let displaced = usize::try_from(counters.displaced.get()).unwrap();
        assert!(displaced >= 1_000 - PER_ADDRESS_MAX, "{displaced}");
        assert_eq!(counters.turned_away.get(), 0);
    }

    #[tokio::test]
    async fn a_kept_connection_is_served_again_and_an_answer_has_its_length() {
        let (address, _) = started().await;
        let mut stream = sent(address, PROBE).await;
        for _ in 0..3 {
            let answer = answer_on(&mut stream).await;
            assert!(answer.contains("content-length: 2"), "{answer}");
            stream.write_all(PROBE.as_bytes()).await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn heads_and_bodies_that_do_not_come_are_given_up() {
        let (address, counters) = started().await;
        let began = tokio::time::Instant::now();
        let mut head = sent(address, "GET /healthz HT").await;
        let _ = head.read_to_end(&mut Vec::new()).await;
        assert_eq!((began.elapsed().as_secs(), counters.overdue.get()), (HEAD_TIMEOUT.as_secs(), 1));
        let mut body = sent(address, "POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx").await;
        assert!(answer_on(&mut body).await.starts_with("HTTP/1.1 408"));
        assert_eq!(began.elapsed().as_secs(), (HEAD_TIMEOUT + REQUEST_TIMEOUT).as_secs());
    }

    fn ip(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    fn is_displaced(place: &ConnectionPermit) -> bool {
        place.token().is_cancelled()
    }

    #[test]
    fn of_a_thousand_half_sent_heads_of_one_address_the_oldest_go_and_others_keep_their_places() {
        let table = ConnectionTable::default();
        let other = table.take_permit(ip(1)).unwrap();
        let permits: Vec<_> = (0..1_000).map(|_| table.take_permit(ip(7)).unwrap()).collect();
        let left: Vec<_> =
            permits.iter().enumerate().filter(|(_, place)| !is_displaced(place)).map(|(at, _)| at).collect();
        assert_eq!(left, (1_000 - PER_ADDRESS_MAX..1_000).collect::<Vec<_>>());
        assert!(!is_displaced(&other));
    }

    #[test]
    fn of_many_addresses_the_one_that_has_waited_longest_makes_room() {
        let table = ConnectionTable::default();
        let permits: Vec<_> = (0..1_000).map(|number| table.take_permit(ip(number)).unwrap()).collect();
        assert_eq!(permits.iter().filter(|place| !is_displaced(place)).count(), CONNECTIONS_MAX);
        drop(permits);
        assert!(table.0.lock().len() == 0);
    }

    #[test]
    fn answers_are_never_displaced_and_requests_only_when_nothing_waits() {
        let table = ConnectionTable::default();
        let permits: Vec<_> = (0..PER_ADDRESS_MAX).map(|_| table.take_permit(ip(7)).unwrap()).collect();
        permits.iter().for_each(|place| place.enter(Phase::Answering));
        assert!(table.take_permit(ip(7)).is_none());
        assert!(table.take_permit(ip(8)).is_some(), "others have room");
        permits[5].enter(Phase::Asking);
        permits[9].enter(Phase::Waiting);
        let new = table.take_permit(ip(7)).unwrap();
        new.enter(Phase::Answering);
        assert!(is_displaced(&permits[9]) && !is_displaced(&permits[5]));
        assert!(table.take_permit(ip(7)).is_some() && is_displaced(&permits[5]));
    }
}
