//! HTTP/1.1 on one connection.

use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http::Request;
use http::uri::Scheme;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tower::ServiceExt;
use tracing::debug;

use super::socket_context::SocketContext;
use crate::frontend::request_extension::PeerAddress;
use crate::net::socket::CurrentStallLimit;

/// Serves HTTP/1.1 until the socket is closed or upgraded.
pub(crate) async fn serve<S>(stream: S, context: SocketContext, scheme: Scheme, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let SocketContext { peer, gate, admitted: _admitted, patience } = context;
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(PeerAddress(peer));
        request.extensions_mut().insert(scheme.clone());
        // One answer after the other leaves here, so the socket may go by what the last one says.
        answer(router.clone(), request, patience.clone())
    });
    let served = gate.http1().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
    if let Err(error) = served {
        gate.count(&error);
        debug!(%peer, %error, "a connection ended in the middle of a request");
    }
}

/// Answers a request, and records how long its answer may stand still.
pub(crate) async fn answer(
    router: Router,
    request: Request<Incoming>,
    patience: CurrentStallLimit,
) -> Result<Response, Infallible> {
    let mut answer = router.oneshot(request.map(Body::new)).await?;
    patience.set(answer.extensions_mut().remove().unwrap_or_default());
    Ok(answer)
}
