//! HTTP for clients: negotiate, connect, and what is carried on. The only room that knows paths and statuses.
//!
//! Each shard serves its own connections with this; what it shares with the others stands behind an `Arc`.

mod authenticate;
mod connect;
mod negotiate;
mod origin;
mod relay;
mod request;
mod serve;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use tower::ServiceExt;
use trunkline_protocol::manifest::NODE_HEADER;

use crate::counters::Counters;
use crate::link::Hub;
use crate::shard::{ShardSender, Shared};

use relay::Relay;

pub use authenticate::{User, sign_user_token};
pub use serve::{PeerAddress, serve};

/// When a client may ask again while there is no app server; they come back within seconds.
const RETRY_AFTER_SECONDS: &str = "2";

const NEGOTIATE_SUFFIX: &str = "/negotiate";

/// What requests are answered from.
#[derive(Debug, Clone)]
pub struct Endpoint {
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    shard: ShardSender,
    relay: Arc<Relay>,
}

/// Marks the answer of an app server, which is its own business.
#[derive(Debug, Clone)]
struct OfApp;

impl Endpoint {
    /// The endpoint of one shard.
    #[must_use]
    pub fn new(shared: Arc<Shared>, counters: Arc<Counters>, shard: ShardSender) -> Self {
        let relay = Arc::new(Relay::new(&shared.settings.relay));
        Self { shared, counters, shard, relay }
    }

    /// The router of a node: it has all paths to itself, and matches those of hubs without regard to case.
    pub fn into_router(self) -> Router {
        let cors = origin::cors(&self.shared.settings);
        let hubs = Router::new().fallback(dispatch).layer(cors).with_state(self.clone());
        let signer = middleware::from_fn_with_state(self.clone(), sign);
        Router::new().fallback(enter).layer(signer).with_state((self, hubs))
    }

    /// The routes of these hubs and nothing else, for the router of an app. Case counts there, a last slash does not.
    pub fn into_routes(self, paths: impl IntoIterator<Item = String>) -> Router {
        let routes = paths.into_iter().fold(Router::new(), |router, path| {
            let path = path.trim_end_matches('/');
            let of_hub = ["", "/", NEGOTIATE_SUFFIX].map(|tail| format!("{path}{tail}"));
            let routes = of_hub.into_iter().filter(|route| !route.is_empty());
            routes.fold(router, |router, route| router.route(&route, any(dispatch)))
        });
        let cors = origin::cors(&self.shared.settings);
        routes.layer(cors).layer(middleware::from_fn_with_state(self.clone(), sign)).with_state(self)
    }

    /// Whether a path is the app server's to answer. Before the first manifest nobody knows.
    fn is_of_app(&self, path: &str) -> bool {
        let hubs = &self.shared.hubs;
        let is_known = !hubs.is_empty() && hubs.find(split_negotiate(path).unwrap_or(path)).is_none();
        self.shared.settings.relay.pass_through && is_known && !relay::is_private(path)
    }

    /// The hub of a path; else what to answer.
    fn find_hub(&self, path: &str) -> Result<Arc<Hub>, Response> {
        if relay::is_private(path) {
            self.counters.relay.private_paths.increment();
            return Err(plain(StatusCode::NOT_FOUND, "not found"));
        }
        match self.shared.hubs.find(path) {
            _ if self.shared.is_draining() => Err(unavailable("this node is stopping: connect again, to another one")),
            Some(hub) if hub.is_served() => Ok(hub),
            Some(_) => Err(unavailable("no app server serves this hub at the moment")),
            None if self.shared.hubs.is_empty() => Err(unavailable("no app server has been reached yet")),
            None => Err(plain(StatusCode::NOT_FOUND, "no hub is served at this path")),
        }
    }
}

/// Tells what is for hubs from what is for the app server; rules of ours, such as CORS, are for hubs only.
async fn enter(State((endpoint, hubs)): State<(Endpoint, Router)>, mut request: Request) -> Response {
    relay::accept_mark(&endpoint, &mut request);
    if endpoint.is_of_app(request.uri().path()) {
        return relay::pass(&endpoint, request).await;
    }
    hubs.oneshot(request).await.into_response()
}

async fn dispatch(State(endpoint): State<Endpoint>, request: Request) -> Response {
    let path = request.uri().path();
    let (hub_path, is_negotiate) = match split_negotiate(path) {
        Some(hub_path) => (hub_path, true),
        None => (path, false),
    };
    let hub = match endpoint.find_hub(hub_path) {
        Ok(hub) => hub,
        Err(answer) => return answer,
    };
    if !is_negotiate && let Some(owner) = relay::owner(&endpoint, &request) {
        return relay::to_owner(&endpoint, &owner, request).await;
    }
    match (is_negotiate, request.method()) {
        (true, &Method::POST) => negotiate::answer(&endpoint, &hub, &request),
        (false, &Method::GET) => connect::get(&endpoint, &hub, request),
        (false, &Method::POST) => connect::post(&endpoint, &hub, &request),
        (false, &Method::DELETE) => connect::delete(&endpoint, &hub, &request),
        _ => plain(StatusCode::METHOD_NOT_ALLOWED, "this method is not allowed here"),
    }
}

/// The hub's path of a negotiate path.
fn split_negotiate(path: &str) -> Option<&str> {
    let path = path.strip_suffix('/').unwrap_or(path);
    let (head, tail) = path.split_at_checked(path.len().checked_sub(NEGOTIATE_SUFFIX.len())?)?;
    tail.eq_ignore_ascii_case(NEGOTIATE_SUFFIX).then_some(head)
}

/// Names the node on every answer, unless another node answered and has done so, and counts our own refusals.
async fn sign(State(endpoint): State<Endpoint>, request: Request, next: Next) -> Response {
    let mut answer = next.run(request).await;
    if let Ok(name) = HeaderValue::from_str(&endpoint.shared.settings.node) {
        answer.headers_mut().entry(HeaderName::from_static(NODE_HEADER)).or_insert(name);
    }
    let is_refusal = answer.status().is_client_error() || answer.status().is_server_error();
    if is_refusal && answer.extensions().get::<OfApp>().is_none() {
        endpoint.counters.refused.increment();
    }
    answer
}

/// A short answer in plain text.
fn plain(status: StatusCode, text: impl Into<Body>) -> Response {
    (status, [(CONTENT_TYPE, "text/plain")], text.into()).into_response()
}

fn unavailable(text: &'static str) -> Response {
    let headers = [(CONTENT_TYPE, "text/plain"), (RETRY_AFTER, RETRY_AFTER_SECONDS)];
    (StatusCode::SERVICE_UNAVAILABLE, headers, text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_negotiate_path_is_a_hub_path_with_a_tail_of_any_case() {
        assert_eq!(split_negotiate("/chat/negotiate"), Some("/chat"));
        assert_eq!(split_negotiate("/chat/Negotiate/"), Some("/chat"));
        assert_eq!(split_negotiate("/chat"), None);
        assert_eq!(split_negotiate("/negotiate"), Some(""));
        assert_eq!(split_negotiate("/x/negotiated"), None);
        assert_eq!(split_negotiate("/ü"), None);
    }
}
