//! Channels of other nodes: what they forward is served inside them, as requests of the fleet.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use http::uri::Scheme;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tower::ServiceExt;
use tracing::debug;
use trunkline_channel::{HandshakeError, accept};
use trunkline_protocol::key::FarEnd;

use crate::frontend::endpoint::Endpoint;
use crate::frontend::plain_response::plain;
use crate::frontend::request_extension::{FromFleet, PeerAddress, peer_address};
use crate::net::socket::WriteStallLimit;

/// Time that the other node may be silent between two requests, and take for a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Time after which a node that takes no byte of an answer loses the channel.
const STALLED_TIMEOUT: Duration = Duration::from_secs(60);

/// Route that opens channels, and the routes inside them.
#[derive(Debug, Clone)]
pub(crate) struct FleetChannelRoute {
    pub(crate) endpoint: Endpoint,
    pub(crate) inside: Router,
}

/// Opens a channel to a node that has one of our keys. Others learn that there is nothing.
pub(crate) async fn open(State(route): State<FleetChannelRoute>, mut request: Request) -> Response {
    let FleetChannelRoute { endpoint, inside } = route;
    let relay = &endpoint.counters.relay;
    let accepted = match accept(&mut request, &endpoint.shared.settings.keys, FarEnd::Node) {
        Ok(Some(accepted)) => accepted,
        Err(HandshakeError::Busy) => {
            relay.private_paths.increment();
            return plain(StatusCode::SERVICE_UNAVAILABLE, "too many channels wait for their first request");
        }
        Ok(None) | Err(_) => {
            relay.private_paths.increment();
            return plain(StatusCode::NOT_FOUND, "not found");
        }
    };
    let (peer, scheme) = (peer_address(request.extensions()), request.extensions().get::<Scheme>().cloned());
    let (response, stream) = accepted.into_parts();
    tokio::spawn(async move {
        // It fails when the other node is gone, or when who sent the hello had only recorded it.
        if let Ok(stream) = stream.await {
            serve(stream, inside, peer.map(PeerAddress), scheme).await;
        }
    });
    let mut response = response.map(|()| Body::empty());
    response.extensions_mut().insert(WriteStallLimit::Idle(STALLED_TIMEOUT));
    response
}

/// Serves the requests inside a channel until it ends.
async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    inside: Router,
    peer: Option<PeerAddress>,
    scheme: Option<Scheme>,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(FromFleet);
        request.extensions_mut().extend(extensions_of(peer, scheme.clone()));
        inside.clone().oneshot(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        debug!(%error, "a channel ended in the middle of a request");
    }
}

fn extensions_of(peer: Option<PeerAddress>, scheme: Option<Scheme>) -> http::Extensions {
    let mut extensions = http::Extensions::new();
    if let Some(peer) = peer {
        extensions.insert(peer);
    }
    if let Some(scheme) = scheme {
        extensions.insert(scheme);
    }
    extensions
}
