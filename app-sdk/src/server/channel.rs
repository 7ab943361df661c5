//! Channels of proxies. Private routes are served only inside channels, so only holders of the fleet's key reach them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::response::Response;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use trunkline_channel::{HandshakeError, HelloTable, accept};
use trunkline_protocol::key::PeerKind;

use super::access::AccessError;
use super::routes::RouteRefusal;
use super::server_core::ServerCore;

/// Maximum idle time of a proxy between two requests, and timeout of a request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// State of the route: core, accepted hellos, and the routes inside a channel.
#[derive(Clone)]
pub(super) struct ChannelRoute {
    pub(super) core: Arc<ServerCore>,
    pub(super) hellos: HelloTable,
    pub(super) inside: Router,
}

/// Route `GET /.trunkline/channel`: opens a channel for a holder of a key.
pub(super) async fn channel(
    State(ChannelRoute { core, hellos, inside }): State<ChannelRoute>,
    peer: Option<Extension<ConnectInfo<SocketAddr>>>,
    request: Request,
) -> Result<Response, RouteRefusal> {
    let access = core.access.get().filter(|_| !core.shutdown.is_cancelled()).ok_or(RouteRefusal::Shutdown)?;
    access.check_peer(peer.map(|Extension(ConnectInfo(address))| address))?;
    let accepted = match accept(&request, &access.keys, PeerKind::AppServer, &hellos) {
        Err(HandshakeError::Busy) => return Err(RouteRefusal::Busy),
        Err(error @ HandshakeError::NotFresh { .. }) => return Err(RouteRefusal::NotFresh(error)),
        other => other.map_err(|_| AccessError::Key)?,
    };
    let accepted = accepted.ok_or(RouteRefusal::NoUpgrade)?;
    access.check_name(&accepted.dialled).inspect_err(|_| {
        tracing::warn!(
            dialled = &*accepted.dialled,
            "channel refused: a proxy dialled a name that is not this app server's"
        );
    })?;
    let (response, stream) = accepted.into_parts();
    let shutdown = core.shutdown.clone();
    tokio::spawn(core.tasks.track_future(async move {
        let stream = tokio::select! {
            // Fails if the proxy is gone, or if the hello was replayed.
            stream = stream => stream.ok(),
            () = shutdown.cancelled() => None,
        };
        if let Some(stream) = stream {
            serve(stream, inside, shutdown).await;
        }
    }));
    Ok(response.map(|()| Body::empty()))
}

/// Serves requests inside a channel until it ends or becomes a link.
async fn serve(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    inside: Router,
    shutdown: CancellationToken,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(inside))
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let served = tokio::select! {
        served = &mut connection => served,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "channel closed in the middle of a request");
    }
}
