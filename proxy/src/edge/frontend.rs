//! HTTP for clients: the only module with knowledge of paths and status codes.
//!
//! ```text
//!  socket ──► listener ──► PROXY header ──► TLS ──► HTTP/1.1 or HTTP/2
//!                                                          │ request
//!         ┌────────────────────────────────────────────────┘
//!         └► normalise ──► router ─┬─ not a hub's path ──────► pass-through ─► an app server, round robin
//!                                  ├─ another node's client ─► owner hop ────► that node, marked, once
//!                                  └─ ours ─► origin check ─► authenticate (and authorize) ─► limits ─┐
//!         ┌───────────────────────────────────────────────────────────────────────────────────────────┘
//!         ├► negotiate
//!         ├► events of a record
//!         └► connect: WebSocket upgrade, or the requests of an HTTP transport
//! ```
//!
//! Each shard serves the sockets that it accepts; state shared between shards is behind an `Arc`.

mod authenticate;
mod authorize;
mod authorizer;
mod bearer;
mod connect;
mod dial_in;
mod endpoint;
mod fleet_channel;
mod forwarded_header;
mod handover_body;
mod hop_header;
mod hub_request;
mod identify;
mod listener;
mod negotiate;
mod normalise;
mod origin_check;
mod path_rule;
mod plain_response;
mod record_events;
mod refresh_request;
mod refusal;
mod release;
mod request;
mod request_context;
mod request_head;
mod request_limit;
mod request_query;
mod request_route;
mod request_trace;
mod reservation;
mod reverse_proxy;
mod router;
mod timed_body;
mod upgrade_answer;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use tokio::time::{sleep, timeout};
use tracing::info;
use trunkline_protocol::cause::Cause;

use crate::edge::frontend::plain_response::because;
use crate::engine::shard::{Reachability, Shared};
use crate::engine::upstream::{AppServer, RouteChoice, ServerGroup};
use crate::features::admission::Admission;
use crate::ground::metrics::Counter;
use crate::ground::net::address::Address;
use crate::ground::net::http_client::HttpClient;
use crate::ground::routing::Rejection;

pub(crate) use endpoint::Endpoint;
#[cfg(feature = "fuzzing")]
pub(crate) use forwarded_header::{ForwardedScheme, trusted_claims};
#[cfg(feature = "tls")]
pub(crate) use listener::TlsLayer;
#[cfg(feature = "fuzzing")]
pub(crate) use listener::{HeaderStart, header_start};
pub(crate) use listener::{Layers, ListenerGate, ListenerService, serve, serve_pipe};
pub(crate) use refusal::{MIDDLEWARE_HINT, RefusalSource};
pub(crate) use release::release_carried;
#[cfg(test)]
pub(crate) use request_context::RequestSource;
#[cfg(test)]
pub(crate) use request_head::HEADERS_MAX;
#[cfg(feature = "fuzzing")]
pub(crate) use request_query::RequestQuery;

/// Guard of a response being sent. A stopping node waits for it, as for client sockets.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<Shared>);

impl InFlight {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        shared.socket_began();
        Self(shared)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.socket_ended();
    }
}

const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Timeout for connecting to an owner, enough for one lost packet.
const REACH_TIMEOUT: Duration = Duration::from_millis(1_300);

/// Maximum number of owners dialled concurrently.
const DIALLED_AT_ONCE: usize = 32;

/// Ends forwarded GETs of lost owners, as after a machine failure: their sockets stay open, and a poll or event stream
/// would wait for its timeout.
///
/// ```text
///  owner alive ──its node links are late or closed──► its client port is dialled ──connecting times out──► its GETs end
/// ```
///
/// A frozen process is not lost: its kernel accepts connections.
pub(crate) async fn end_gets_of_lost_owners(shared: Arc<Shared>) {
    loop {
        sleep(CHECK_INTERVAL).await;
        let gets = &shared.carried_gets;
        if gets.count() > 0 {
            stream::iter(gets.owners()).for_each_concurrent(DIALLED_AT_ONCE, |owner| check(&shared, owner)).await;
        }
    }
}

async fn check(shared: &Shared, (owner, boot): (Address, Arc<str>)) {
    let is_lost = match shared.other_nodes().reachability(&boot) {
        Reachability::Alone | Reachability::Alive => false,
        Reachability::Refused => true,
        Reachability::Late | Reachability::Unknown => {
            let connector = shared.ways.connector.for_clients();
            !timeout(REACH_TIMEOUT, connector.reaches(&owner)).await.unwrap_or(false)
        }
    };
    if is_lost {
        let ended = shared.carried_gets.end_of_lost(&boot);
        info!(%owner, boot = &*boot, ended, "node lost: ending relayed polls and event streams");
    }
}

/// Timeout for connecting to another node.
const HOP_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Clients for both kinds of servers, and the round-robin state of app servers.
#[derive(Debug)]
pub(crate) struct ProxyClient {
    pub(crate) app_servers: HttpClient,
    pub(crate) nodes: HttpClient,
    /// Number of requests passed through, for round robin.
    next: AtomicUsize,
}

/// Client for requests to other nodes about connections.
pub(crate) fn client_of_nodes(shared: &Shared, admission: &Admission) -> HttpClient {
    let connect_timeout = HOP_CONNECT_TIMEOUT.min(shared.settings.relay.hop_timeout);
    let channels = shared.ways.client_port_channels.for_clients().by_names(shared.ways.node_names.clone());
    HttpClient::new(channels, connect_timeout).for_others().behind(admission.node_dials.clone())
}

impl ProxyClient {
    pub(crate) fn new(shared: &Shared, admission: &Admission, app_servers: HttpClient) -> Self {
        Self { app_servers, nodes: client_of_nodes(shared, admission), next: AtomicUsize::new(0) }
    }

    /// Returns the app servers in the order of attempts.
    pub(crate) fn in_turn(&self, mut app_servers: Vec<Arc<AppServer>>) -> Vec<Arc<AppServer>> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let first = turn.checked_rem(app_servers.len()).unwrap_or_default();
        app_servers.rotate_left(first);
        app_servers
    }
}

/// Route of a request; by default, to the default group.
#[derive(Debug)]
pub(crate) struct Routed {
    choice: RouteChoice,
    matched: Vec<Arc<Counter>>,
}

impl Default for Routed {
    fn default() -> Self {
        Self { choice: RouteChoice::Group(None), matched: Vec::new() }
    }
}

impl Routed {
    /// Group of a request; `None` for the default group.
    pub(crate) fn group(&self) -> Option<Arc<ServerGroup>> {
        match &self.choice {
            RouteChoice::Group(group) => group.clone(),
            RouteChoice::Rejected(_) => None,
        }
    }

    pub(crate) fn refusal(&self) -> Option<Response> {
        let RouteChoice::Rejected(rejection) = &self.choice else { return None };
        self.count();
        Some(refusal(rejection))
    }

    /// Increments the counters of the matching rules.
    fn count(&self) {
        self.matched.iter().for_each(|counter| counter.increment());
    }
}

fn refusal(rejection: &Rejection) -> Response {
    let body = Body::from(rejection.body.to_string());
    let mut answer = (rejection.status, body).into_response();
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(rejection.content_type));
    because(Cause::RouteRefused, answer)
}
