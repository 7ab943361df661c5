//! HTTP/2 on one connection, supported only by TLS listeners.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use http::header::COOKIE;
use http::{HeaderValue, Request};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::spawn_local;
use tokio::time::timeout;
use tracing::debug;

use super::http_connection::answer_request;
use super::open_stream::{OpenStreams, StreamBody, StreamProgress};
use super::socket_context::SocketContext;
use crate::edge::frontend::request_context::RequestSource;
use crate::ground::metrics::Limit;
use crate::ground::net::socket::{CurrentStallLimit, WriteStallLimit};

/// Maximum number of concurrent requests per connection, the minimum recommended by RFC 9113. Each event stream of a
/// page counts as one.
const STREAMS_MAX: u32 = 100;

/// Maximum bytes buffered for sending per stream. More would only delay the reader's next request.
const STREAM_SEND_BUFFER_BYTES: usize = 32 * 1024;

/// Flow-control window of a request body in bytes; Envoy's recommendation for the edge.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;

/// Flow-control window of a whole connection in bytes.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// Maximum number of streams reset by the client before they were processed; h2's default. Beyond it, h2 closes the
/// connection.
const UNSEEN_RESETS_MAX: usize = 20;

/// Maximum number of protocol errors in streams of one connection. Beyond it, the connection is closed.
const STREAM_ERRORS_MAX: usize = 100;

/// Maximum excess of requests cancelled by a client over those it lets complete. Each may have cost a dial to an app
/// server. Beyond it, the client is asked to reconnect; at twice the number, it is cut off.
const TAKEN_BACK_MAX: u32 = 100;

/// Multiple of `--body-timeout` for a stalled stream, because all streams share one socket.
const STREAM_SHARE: u32 = 4;

/// Interval of pings to a silent client, and the timeout for its answer.
const ALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// Time for a client to leave after GOAWAY.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(5);

tokio::task_local! {
    /// State of the current task's stream.
    static STREAM: StreamState;
}

/// State of one stream, shared by its task and response.
#[derive(Debug, Clone, Default)]
struct StreamState {
    patience: CurrentStallLimit,
    progress: StreamProgress,
    is_answered: Rc<Cell<bool>>,
}

/// Executor that runs the streams of a connection on the accepting shard.
#[derive(Debug, Clone)]
struct ShardExecutor(OpenStreams);

impl<F: Future + 'static> Executor<F> for ShardExecutor {
    fn execute(&self, future: F) {
        let open = self.0.begin_stream();
        let state = StreamState { is_answered: open.is_answered(), ..StreamState::default() };
        let stream = STREAM.scope(state.clone(), while_needed(future, state));
        spawn_local(async move {
            stream.await;
            drop(open);
        });
    }
}

/// Runs a stream until its response is no longer needed. A client that reads other streams but not this one keeps it
/// stalled like a full socket. Dropping a stream resets it.
async fn while_needed<F: Future>(stream: F, state: StreamState) {
    let mut stream = pin!(stream);
    let mut running_out: Option<LocalBoxFuture<'static, ()>> = None;
    poll_fn(|cx: &mut Context<'_>| {
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if running_out.is_none() {
            running_out = match state.patience.get() {
                WriteStallLimit::Unlimited => None,
                // After the connection's close, the stream ends on its own if it makes progress.
                over @ WriteStallLimit::UntilClosed(_) => Some(over.reached().boxed_local()),
                WriteStallLimit::Idle(limit) => {
                    Some(state.progress.clone().stalled(limit * STREAM_SHARE).boxed_local())
                }
                WriteStallLimit::IdleUnless(limit, displaced) => {
                    let stalled = state.progress.clone().stalled(limit * STREAM_SHARE);
                    Some(async move { displaced.run_until_cancelled(stalled).await.unwrap_or_default() }.boxed_local())
                }
            };
        }
        running_out.as_mut().map_or(Poll::Pending, |running_out| running_out.poll_unpin(cx))
    })
    .await;
}

/// Serves HTTP/2 without WebSockets, which use HTTP/1.1. h2 limits continuation frames to the size of a head, limits
/// empty and tiny data frames, and answers one ping and one settings change before reading the next.
///
/// GOAWAY is sent to a connection without streams after the idle time of HTTP/1.1, and to every connection when the
/// node is about to stop. It names the last stream served, so clients know which requests they may repeat.
pub(crate) async fn serve<S>(stream: S, context: SocketContext, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let SocketContext { peer, gate, admitted: _admitted, patience, is_trusted } = context;
    // A load balancer's connection carries many clients.
    let relays = (!is_trusted).then(|| gate.relay_connection());
    let (streams, body_timeout) = (OpenStreams::new(), gate.limits().body_timeout);
    // A client that reads nothing does not answer pings. If pings can't be sent, this limit applies instead.
    patience.set(WriteStallLimit::Idle(2 * ALIVE_INTERVAL));
    let service = service_fn(move |mut request: Request<Incoming>| {
        join_cookies(&mut request);
        RequestSource { is_tls: true, relays: relays.clone(), ..RequestSource::from_peer(peer) }.attach(&mut request);
        let router = router.clone();
        async move {
            // Runs in the task of its stream.
            let state = STREAM.try_with(Clone::clone).unwrap_or_default();
            let answer = answer_request(router, request, state.patience, body_timeout).await?;
            state.is_answered.set(true);
            Ok::<_, Infallible>(answer.map(|body| StreamBody::new(body, state.progress)))
        }
    });
    let connection = http2::Builder::new(ShardExecutor(streams.clone()))
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(gate.head_max_bytes()).unwrap_or(u32::MAX))
        .max_send_buf_size(STREAM_SEND_BUFFER_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_pending_accept_reset_streams(UNSEEN_RESETS_MAX)
        .max_local_error_reset_streams(STREAM_ERRORS_MAX)
        .keep_alive_interval(ALIVE_INTERVAL)
        .keep_alive_timeout(ALIVE_INTERVAL)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let served = tokio::select! {
        served = &mut connection => Some(served),
        () = streams.idle(gate.limits().header_timeout, gate.limits().keep_alive_timeout) => None,
        // A new connection is served once, as with HTTP/1.1.
        () = async { gate.stopping().await; streams.first().await } => None,
        () = streams.taken_back(TAKEN_BACK_MAX) => {
            gate.count_refused(Limit::StreamResets);
            debug!(%peer, "HTTP/2 connection closed: its client resets too many requests");
            None
        }
    };
    let served = match served {
        Some(served) => served,
        None => {
            connection.as_mut().graceful_shutdown();
            send_goodbye(connection, &streams).await
        }
    };
    if let Err(error) = served {
        gate.count(&error);
        debug!(%peer, %error, "HTTP/2 connection closed in the middle of a request");
    }
}

/// Runs a connection after GOAWAY. Serves requests in flight, but does not wait for silent clients and those that keep
/// cancelling requests.
async fn send_goodbye(connection: impl Future<Output = hyper::Result<()>>, streams: &OpenStreams) -> hyper::Result<()> {
    let mut connection = pin!(connection);
    loop {
        let served = tokio::select! {
            served = timeout(GOODBYE_TIMEOUT, &mut connection) => served,
            () = streams.taken_back(2 * TAKEN_BACK_MAX) => return Ok(()),
        };
        match served {
            Ok(served) => return served,
            Err(_) if streams.is_empty() => return Ok(()),
            Err(_) => {}
        }
    }
}

/// Joins all cookies of a request in one line, as in HTTP/1.1. Host and target are normalised together with those of
/// HTTP/1.1.
fn join_cookies<B>(request: &mut Request<B>) {
    let cookies: Vec<&[u8]> = request.headers().get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if cookies.len() > 1
        && let Ok(all) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        request.headers_mut().insert(COOKIE, all);
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use axum::body::Body;
    use http_body_util::BodyExt;
    use hyper::client::conn::http2::{self as http2_client, SendRequest};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::task::{JoinHandle, LocalSet, yield_now};
    use tokio::time::{Instant, sleep};
    use tokio_util::sync::CancellationToken;
    use trunkline_protocol::key::{AccessKey, AccessKeys};

    use super::super::listener_gate::ListenerGate;
    use super::*;
    use crate::engine::shard::{ShardSender, Shared};
    use crate::ground::config::Settings;

    const SECOND: Duration = Duration::from_secs(1);

    /// Node with timeouts of 15 s, 130 s and 60 s.
    fn node() -> Arc<Shared> {
        let settings = Settings::embedded(AccessKeys::new(vec![AccessKey::random()]).unwrap(), Vec::new(), true);
        Shared::alone(settings, vec![ShardSender::new().0])
    }

    /// Client end of a connection to a node that uses this router.
    fn dial(shared: &Arc<Shared>, router: Router) -> DuplexStream {
        let gate = ListenerGate::new(shared.clone(), shared.counters_of(0));
        let peer = ([192, 0, 2, 1], 40_000).into();
        let context = SocketContext::new(peer, gate.clone(), gate.admit(peer).unwrap());
        let (near, far) = duplex(64 * 1024);
        spawn_local(serve(near, context, router));
        far
    }

    /// Client with this flow-control window per stream.
    async fn client_of(router: Router, window: u32) -> (SendRequest<Body>, JoinHandle<hyper::Result<()>>) {
        client_at(&node(), router, window).await
    }

    /// Client of this node.
    async fn client_at(
        shared: &Arc<Shared>,
        router: Router,
        window: u32,
    ) -> (SendRequest<Body>, JoinHandle<hyper::Result<()>>) {
        let mut builder = http2_client::Builder::new(ShardExecutor(OpenStreams::new()));
        builder.initial_stream_window_size(window).initial_connection_window_size(1024 * 1024);
        let (sender, connection) = builder.handshake(TokioIo::new(dial(shared, router))).await.unwrap();
        (sender, spawn_local(connection))
    }

    /// Client of a node where each request takes 200 s.
    async fn client() -> (SendRequest<Body>, JoinHandle<hyper::Result<()>>) {
        // sleep: time is paused, and passing it is what the test is about.
        client_of(Router::new().fallback(async || sleep(200 * SECOND).await), 64 * 1024).await
    }

    fn get() -> Request<Body> {
        Request::get("https://node.example/").body(Body::empty()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_gets_goaway_after_its_last_stream() {
        let test = async {
            let ((mut sender, connection), began) = (client().await, Instant::now());
            sender.send_request(get()).await.unwrap();
            assert_eq!(began.elapsed().as_secs(), 200, "a stream is cut by no timeout");
            connection.await.unwrap().unwrap();
            assert_eq!(began.elapsed().as_secs(), 330);
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_stopping_node_sends_goaway_after_the_streams_of_each_connection() {
        let test = async {
            let (shared, began) = (node(), Instant::now());
            // sleep: time is paused, and passing it is what the test is about.
            let router = Router::new().fallback(async || sleep(200 * SECOND).await);
            let (mut busy, of_busy) = client_at(&shared, router.clone(), 64 * 1024).await;
            let asked = spawn_local(async move { busy.send_request(get()).await });
            // sleep: the same.
            sleep(SECOND).await;
            shared.begin_drain();
            // A later connection is served once.
            let (mut late, of_late) = client_at(&shared, router, 64 * 1024).await;
            assert!(late.send_request(get()).await.is_ok() && asked.await.unwrap().is_ok());
            of_busy.await.unwrap().unwrap();
            of_late.await.unwrap().unwrap();
            assert_eq!(began.elapsed().as_secs(), 201, "with the last answer, and not when it has been idle");
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_first_stream_ends_after_the_header_time_out() {
        let test = async {
            let ((_sender, connection), began) = (client().await, Instant::now());
            connection.await.unwrap().unwrap();
            assert_eq!(began.elapsed().as_secs(), 15);
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_begins_no_stream_ends_whatever_else_it_sends() {
        const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
        // Head whose continuation never arrives.
        const HALF_A_HEAD: &[u8] = &[0, 0, 1, 1, 0, 0, 0, 0, 1, 0x82];
        let test = async {
            for sent in [&[] as &[&[u8]], &[PREFACE], &[PREFACE, SETTINGS], &[PREFACE, SETTINGS, HALF_A_HEAD]] {
                let (mut far, began) = (dial(&node(), Router::new()), Instant::now());
                far.write_all(&sent.concat()).await.unwrap();
                // Fails if the node has cut it off.
                drop(far.read_to_end(&mut Vec::new()).await);
                let ended_s = began.elapsed().as_secs();
                assert!((15..=20).contains(&ended_s), "{ended_s} s after {} bytes", sent.concat().len());
            }
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_is_not_read_is_reset_and_one_that_is_read_slowly_is_not() {
        const BYTES: usize = 1024 * 1024;
        let test = async {
            let router = Router::new().fallback(async || vec![0_u8; BYTES]);
            // No room for a single byte.
            let ((mut sender, _connection), began) = (client_of(router.clone(), 0).await, Instant::now());
            let unread = sender.send_request(get()).await.unwrap();
            assert!(unread.into_body().collect().await.is_err());
            assert_eq!(began.elapsed().as_secs(), 240);

            let (mut sender, _connection) = client_of(router, 16 * 1024).await;
            let (mut body, mut read) = (sender.send_request(get()).await.unwrap().into_body(), 0);
            while let Some(frame) = body.frame().await {
                read += frame.unwrap().data_ref().map_or(0, |data| data.len());
                // sleep: time is paused, and passing it is what the test is about.
                sleep(30 * SECOND).await;
            }
            assert_eq!(read, BYTES);
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_its_requests_back_does_so_a_bounded_number_of_times() {
        const REQUESTS: u32 = 10_000;
        let test = async {
            let begun = Rc::new(Cell::new(0));
            let seen = Arc::new(AtomicU32::new(0));
            let counter = seen.clone();
            let router = Router::new().fallback(move || {
                counter.fetch_add(1, Ordering::Relaxed);
                pending::<()>()
            });
            let (sender, connection) = client_of(router, 64 * 1024).await;
            while begun.get() < REQUESTS && !connection.is_finished() {
                let before = seen.load(Ordering::Relaxed);
                let mut sender = sender.clone();
                // The router sees the request, which is then dropped and its stream reset.
                let mut request = pin!(sender.send_request(get()));
                while seen.load(Ordering::Relaxed) == before && !connection.is_finished() {
                    if (&mut request).now_or_never().is_some() {
                        break;
                    }
                    yield_now().await;
                }
                begun.set(begun.get() + 1);
                if sender.ready().now_or_never().is_some_and(|ready| ready.is_err()) {
                    break;
                }
            }
            let seen = seen.load(Ordering::Relaxed);
            assert!((TAKEN_BACK_MAX..=2 * TAKEN_BACK_MAX).contains(&seen), "{seen} of {REQUESTS} requests");
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_unread_stream_ends_a_while_after_its_connection_has_closed() {
        let (state, over) = (StreamState::default(), CancellationToken::new());
        while_needed(ready(()), state.clone()).await;
        let stuck = async {
            state.patience.set(WriteStallLimit::until_closed(over.clone()));
            pending::<()>().await;
        };
        let began = Instant::now();
        tokio::join!(while_needed(stuck, state.clone()), async {
            // sleep: time is paused, and passing it is what the test is about.
            sleep(Duration::from_secs(3600)).await;
            over.cancel();
        });
        assert_eq!(began.elapsed().as_secs(), 3605);
    }

    #[test]
    fn cookies_stand_in_one_line() {
        let mut request = Request::builder().header(COOKIE, "a=1").header(COOKIE, "b=2").body(()).unwrap();
        join_cookies(&mut request);
        assert_eq!(request.headers().get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2"]);
    }
}
