//! Accept connections and serve HTTP on them: hyper, because it lets us see the socket, its time-outs and its end.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use tokio::time::sleep;
use tower::ServiceExt;
use tracing::{debug, warn};

use crate::counters::Counters;

/// A client that connects and says nothing is not waited for any longer.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);

/// Largest head of a request: Azure's limit for headers is 16 KiB, and tokens travel in the URL.
const HEAD_MAX_BYTES: usize = 32 * 1024;

/// When the process has no descriptors left, accepting again at once would only burn a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where a request came from.
#[derive(Debug, Clone, Copy)]
pub struct PeerAddress(pub SocketAddr);

/// Accepts connections for ever.
pub async fn serve(listener: TcpListener, router: Router, counters: std::sync::Arc<Counters>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                counters.accepted.increment();
                spawn_local(serve_one(stream, peer, router.clone()));
            }
            Err(error) => {
                warn!(%error, "a connection can't be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_one(stream: TcpStream, peer: SocketAddr, router: Router) {
    if let Err(error) = stream.set_nodelay(true) {
        return debug!(%peer, %error, "a connection was gone before it was served");
    }
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(PeerAddress(peer));
        router.clone().oneshot(request.map(Body::new))
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEAD_MAX_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        debug!(%peer, %error, "a connection ended in the middle of a request");
    }
}
