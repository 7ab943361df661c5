//! Accept connections and serve HTTP on them: hyper, because it lets us see the socket, its time-outs and its end.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use tokio::time::sleep;
use tower::ServiceExt;
use tracing::{debug, warn};

use super::door::{Door, Entered};

/// When the process has no descriptors left, accepting again at once would only burn a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where a request came from.
#[derive(Debug, Clone, Copy)]
pub struct PeerAddress(pub SocketAddr);

/// Accepts connections for ever.
pub async fn serve(listener: TcpListener, router: Router, door: Door) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => drop(match door.enter(peer) {
                Ok(entered) => spawn_local(serve_one(stream, peer, router.clone(), door.clone(), entered)),
                Err(turned_away) => spawn_local(turned_away.tell(stream)),
            }),
            Err(error) => {
                warn!(%error, "a connection can't be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_one(stream: TcpStream, peer: SocketAddr, router: Router, door: Door, _entered: Entered) {
    if let Err(error) = stream.set_nodelay(true) {
        return debug!(%peer, %error, "a connection was gone before it was served");
    }
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(PeerAddress(peer));
        router.clone().oneshot(request.map(Body::new))
    });
    let served = door.http1().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
    if let Err(error) = served {
        door.count(&error);
        debug!(%peer, %error, "a connection ended in the middle of a request");
    }
}
