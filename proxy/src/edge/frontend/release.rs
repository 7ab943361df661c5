//! Release: a stopping node asks the owners of connections to end the GETs that it forwards.
//!
//! ```text
//!  poll, forwarded by A ────────► A: POST /.trunkline/release ──► B ends the poll, empty: the client polls another node
//!  event stream, forwarded by A ► likewise ──► B asks its client to reconnect, between two calls, and the stream ends
//! ```
//!
//! Only the owner can do this without losing messages: it knows about running calls and written data.

use std::time::Duration;

use axum::response::Response;
use futures_util::{StreamExt, stream};
use http::{Method, StatusCode};
use tokio::time::{Instant, sleep};
use tracing::debug;
use trunkline_protocol::manifest::Transport;
use trunkline_protocol::wire::RELEASE_PATH;

use crate::edge::frontend::client_of_nodes;
use crate::edge::frontend::endpoint::Endpoint;
use crate::edge::frontend::identify::UNKNOWN_ID;
use crate::edge::frontend::plain_response::plain;
use crate::edge::frontend::request_query::RequestQuery;
use crate::edge::frontend::reverse_proxy::owner_head;
use crate::engine::shard::Shared;
use crate::engine::shard::drain::leave_carried;
use crate::engine::transport::http_transport::CarriedGet;
use crate::features::admission::Admission;
use crate::ground::net::http_client::HttpClient;

/// Interval of these steps on a stopping node. A poll that arrives meanwhile waits up to this long.
const STEP: Duration = Duration::from_millis(500);

/// Maximum number of owners queried concurrently.
const ASKED_AT_ONCE: usize = 32;

pub(crate) fn answer_release(endpoint: &Endpoint, method: &Method, query: &RequestQuery) -> Response {
    let shared = &endpoint.shared;
    if method != Method::POST {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "");
    }
    let own = query.open_token(&shared.settings.keys).filter(|(token, _)| token.boot == shared.boot);
    let found = own.and_then(|(_, id)| shared.http_transports.find(&id));
    let Some(outer) = found else { return plain(StatusCode::NOT_FOUND, UNKNOWN_ID) };
    match (outer.transport(), shared.routes.find(&outer.id)) {
        (Some(Transport::ServerSentEvents), Some(at)) => {
            if let Some(shard) = shared.shards().get(usize::from(at.shard)) {
                let id = outer.id.clone();
                shard.post(move |state| leave_carried(state, &id, Instant::now()));
            }
        }
        (Some(Transport::LongPolling), _) => outer.release_poll(),
        _ => {}
    }
    plain(StatusCode::NO_CONTENT, "")
}

/// Asks the owners to end GETs forwarded by this node, event streams spread over this time. Never returns, because more
/// may arrive over kept-alive connections.
pub(crate) async fn release_carried(shared: &Shared, admission: &Admission, spread: Duration) {
    let (nodes, last) = (client_of_nodes(shared, admission), Instant::now() + spread);
    loop {
        let now = Instant::now();
        let steps = last.saturating_duration_since(now).as_millis() / STEP.as_millis();
        let due = shared.carried_gets.take_due(now, usize::try_from(steps).unwrap_or(usize::MAX));
        stream::iter(due).for_each_concurrent(ASKED_AT_ONCE, |get| release(shared, &nodes, get)).await;
        sleep(STEP).await;
    }
}

async fn release(shared: &Shared, nodes: &HttpClient, get: CarriedGet) {
    let limit = shared.settings.relay.hop_timeout;
    match owner_head::ask(&shared.settings, (nodes, &get.owner), (RELEASE_PATH, &get.token), limit).await {
        Ok(answer) => debug!(owner = %get.owner, status = %answer.status(), "asked an owner node to end a GET"),
        Err(error) => debug!(owner = %get.owner, %error, "cannot ask the owner node to end a GET"),
    }
}
