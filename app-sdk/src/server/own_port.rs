//! Clients that connect to the app server instead of a proxy: the response explains where to connect.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use trunkline_protocol::wire::NEGOTIATE_SUFFIX;

use super::handle::ServerHandle;
use crate::log_limit::LinePermit;

/// Response to a client that negotiates here. Official clients show it as the reason of the failed connection.
const NOT_HERE: &str = "this is an app server, which does not serve clients: connect to a proxy that has this app \
                        server as an --upstream, or let the app serve clients by Server::embedded (feature `embedded`)";

/// Middleware that explains the 404 of a hub's negotiate request. Routes of the app take precedence.
pub(super) async fn lead_to_proxies(State(handle): State<ServerHandle>, request: Request, next: Next) -> Response {
    let path = request.uri().path().strip_suffix(NEGOTIATE_SUFFIX);
    let hub = path.and_then(|path| handle.hub_of_proxies(path));
    let answer = next.run(request).await;
    let Some(hub) = hub.filter(|_| answer.status() == StatusCode::NOT_FOUND) else { return answer };
    if let Some(LinePermit { left_out }) = hub.outbound.mistake_limit.take() {
        tracing::info!(hub = hub.name(), left_out, "client refused: it negotiates with the app server. {NOT_HERE}");
    }
    (StatusCode::NOT_FOUND, NOT_HERE).into_response()
}
