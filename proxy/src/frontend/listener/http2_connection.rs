//! HTTP/2 on one connection, which only TLS listeners speak.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use http::header::COOKIE;
use http::uri::Scheme;
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

use super::http_connection::answer;
use super::open_stream::OpenStreams;
use super::socket_context::SocketContext;
use crate::frontend::request_extension::PeerAddress;
use crate::net::socket::{CurrentStallLimit, WriteStallLimit};

/// Maximum of concurrent requests on one connection. Each event stream of a page is one, for as long as it lives.
const STREAMS_MAX: u32 = 256;

/// Bytes that wait to be sent on one stream; more only stand in front of what the reader asks for next.
const STREAM_SEND_BUFFER_BYTES: usize = 64 * 1024;

/// Interval of the pings to a silent client, which has as long to answer.
const ALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// Time that a client has to go when it was told to.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(5);

tokio::task_local! {
    /// WriteStallLimit of the stream whose task this is.
    static PATIENCE: CurrentStallLimit;
}

/// Executor that runs the streams of a connection on the shard that accepted it.
#[derive(Debug, Clone)]
struct ShardExecutor(OpenStreams);

impl<F: Future + 'static> Executor<F> for ShardExecutor {
    fn execute(&self, future: F) {
        let (patience, open) = (CurrentStallLimit::default(), self.0.begin());
        let stream = PATIENCE.scope(patience.clone(), while_needed(future, patience));
        spawn_local(async move {
            stream.await;
            drop(open);
        });
    }
}

/// Runs a stream until its answer is no longer needed: a client that reads all else on its connection, but not this
/// stream, keeps it as full as one whose socket is full. A stream that is dropped is reset.
async fn while_needed<F: Future>(stream: F, patience: CurrentStallLimit) {
    let mut stream = pin!(stream);
    let mut running_out: Option<LocalBoxFuture<'static, ()>> = None;
    poll_fn(|cx: &mut Context<'_>| {
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        // Whether its bytes move can't be seen from here; but once its connection is over it ends by itself if they do.
        if let (None, over @ WriteStallLimit::UntilClosed(_)) = (&running_out, patience.get()) {
            running_out = Some(over.reached().boxed_local());
        }
        running_out.as_mut().map_or(Poll::Pending, |running_out| running_out.poll_unpin(cx))
    })
    .await;
}

/// Serves HTTP/2, without WebSockets: those go by HTTP/1.1. Against floods of resets hyper has its own bounds.
///
/// A connection without a stream is told to go away as an idle HTTP/1.1 connection is closed; GOAWAY names the last stream
/// that is served, so a client knows what it may repeat.
pub(crate) async fn serve<S>(stream: S, context: SocketContext, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let SocketContext { peer, gate, admitted: _admitted, patience, .. } = context;
    let streams = OpenStreams::new();
    // A client that reads nothing does not answer to pings either; but where they can't even leave, nobody counts that.
    patience.set(WriteStallLimit::Idle(2 * ALIVE_INTERVAL));
    let service = service_fn(move |mut request: Request<Incoming>| {
        join_cookies(&mut request);
        request.extensions_mut().insert(PeerAddress(peer));
        request.extensions_mut().insert(Scheme::HTTPS);
        let router = router.clone();
        // It runs in the task of its stream.
        async move { answer(router, request, PATIENCE.try_with(Clone::clone).unwrap_or_default()).await }
    });
    let connection = http2::Builder::new(ShardExecutor(streams.clone()))
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(gate.head_max_bytes()).unwrap_or(u32::MAX))
        .max_send_buf_size(STREAM_SEND_BUFFER_BYTES)
        .keep_alive_interval(ALIVE_INTERVAL)
        .keep_alive_timeout(ALIVE_INTERVAL)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let served = tokio::select! {
        served = &mut connection => served,
        () = streams.idle(gate.header_timeout(), gate.keep_alive_timeout()) => {
            connection.as_mut().graceful_shutdown();
            say_goodbye(connection, &streams).await
        }
    };
    if let Err(error) = served {
        gate.count(&error);
        debug!(%peer, %error, "an HTTP/2 connection ended in the middle of a request");
    }
}

/// Runs a connection that was told to go away: requests that were on their way are served, a silent client is not
/// waited for.
async fn say_goodbye(connection: impl Future<Output = hyper::Result<()>>, streams: &OpenStreams) -> hyper::Result<()> {
    let mut connection = pin!(connection);
    loop {
        match timeout(GOODBYE_TIMEOUT, &mut connection).await {
            Ok(served) => return served,
            Err(_) if streams.is_empty() => return Ok(()),
            Err(_) => {}
        }
    }
}

/// Gives a request all cookies in one line, as HTTP/1.1 has them. Its host and target are settled with those of HTTP/1.1.
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

    use axum::body::Body;
    use hyper::client::conn::http2::{SendRequest, handshake};
    use tokio::io::duplex;
    use tokio::task::{JoinHandle, LocalSet};
    use tokio::time::{Instant, sleep};
    use tokio_util::sync::CancellationToken;
    use trunkline_protocol::key::{AccessKey, AccessKeys};

    use super::super::listener_gate::ListenerGate;
    use super::*;
    use crate::config::Settings;
    use crate::shard::{Connectors, ShardSender, Shared};

    const SECOND: Duration = Duration::from_secs(1);

    /// A client's end of a connection whose requests each take 200 s, and its time-outs 15 s and 130 s.
    async fn client() -> (SendRequest<Body>, JoinHandle<hyper::Result<()>>) {
        let settings = Settings::embedded(AccessKeys::new(vec![AccessKey::random()]).unwrap(), Vec::new(), true);
        let shared = Shared::new(settings, Connectors::default(), vec![ShardSender::new().0]);
        let gate = ListenerGate::new(shared.clone(), shared.counters_of(0));
        let peer = ([192, 0, 2, 1], 40_000).into();
        let context = SocketContext::new(peer, gate.clone(), gate.admit(peer).unwrap());
        // sleep: time is paused, and passing it is what the test is about.
        let router = Router::new().fallback(async || sleep(200 * SECOND).await);
        let (near, far) = duplex(64 * 1024);
        spawn_local(serve(near, context, router));
        let (sender, connection) = handshake(ShardExecutor(OpenStreams::new()), TokioIo::new(far)).await.unwrap();
        (sender, spawn_local(connection))
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_told_to_go_away_after_its_last_stream() {
        let test = async {
            let ((mut sender, connection), began) = (client().await, Instant::now());
            sender.send_request(Request::get("https://node.example/").body(Body::empty()).unwrap()).await.unwrap();
            assert_eq!(began.elapsed().as_secs(), 200, "a stream is cut by no time-out");
            connection.await.unwrap().unwrap();
            assert_eq!(began.elapsed().as_secs(), 330);
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
    async fn an_unread_stream_ends_a_while_after_its_connection_has_closed() {
        let (patience, over) = (CurrentStallLimit::default(), CancellationToken::new());
        while_needed(ready(()), patience.clone()).await;
        let stuck = async {
            patience.set(WriteStallLimit::until_closed(over.clone()));
            pending::<()>().await;
        };
        let began = Instant::now();
        tokio::join!(while_needed(stuck, patience.clone()), async {
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
