//! HTTP for clients: negotiate, connect, and what is carried on. The only room that knows paths and statuses.
//!
//! Each shard serves its own connections with this; what it shares with the others stands behind an `Arc`.

mod answers;
mod arrival;
mod ask;
mod authenticate;
mod carry;
mod connect;
mod door;
mod forwarded;
mod limits;
mod negotiate;
mod origin;
mod refusal;
mod relay;
mod request;
mod serve;
mod upgrade;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use tokio::time::sleep;
use tower::ServiceExt;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::manifest::NODE_HEADER;

use crate::metrics::Counters;
use crate::net::connector::HttpClient;
use crate::shard::{ShardSender, Shared};
use crate::upstream::{Authorizer, Hub};

use refusal::because;
use relay::Relay;

pub(crate) use door::Door;
#[cfg(feature = "tls")]
pub(crate) use serve::TlsLayer;
pub(crate) use serve::{Layers, PeerAddress, serve};

/// When a client may ask again while there is no app server; they come back within seconds.
const RETRY_AFTER_SECONDS: &str = "2";

const STOPPING: &str = "this node is stopping: connect again, to another one";

const NEGOTIATE_SUFFIX: &str = "/negotiate";

/// What requests are answered from.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    shard: ShardSender,
    authorizer: Authorizer,
    relay: Arc<Relay>,
}

/// Marks the answer of an app server, which is its own business.
#[derive(Debug, Clone)]
struct OfApp;

impl Endpoint {
    /// The endpoint of one shard.
    #[must_use]
    pub(crate) fn new(shared: Arc<Shared>, counters: Arc<Counters>, shard: ShardSender) -> Self {
        let connect_timeout = shared.settings.relay.upstream_connect_timeout;
        let app_servers = HttpClient::new(shared.connector.clone(), connect_timeout);
        let authorizer = Authorizer::new(app_servers.clone(), shared.settings.negotiate_timeout);
        let relay = Arc::new(Relay::new(&shared, app_servers));
        Self { shared, counters, shard, authorizer, relay }
    }

    /// The router of a node: it has all paths to itself, and matches those of hubs without regard to case.
    pub(crate) fn into_router(self) -> Router {
        let cors = origin::cors(&self.shared.settings);
        let hubs = Router::new().fallback(dispatch).layer(cors).with_state(self.clone());
        self.guard(Router::new().fallback(enter)).with_state((self, hubs))
    }

    /// The routes of these hubs and nothing else, for the router of an app. Case counts there, a last slash does not.
    pub(crate) fn into_routes(self, paths: impl IntoIterator<Item = String>) -> Router {
        let routes = paths.into_iter().fold(Router::new(), |router, path| {
            let path = path.trim_end_matches('/');
            let of_hub = ["", "/", NEGOTIATE_SUFFIX].map(|tail| format!("{path}{tail}"));
            let routes = of_hub.into_iter().filter(|route| !route.is_empty());
            routes.fold(router, |router, route| router.route(&route, any(dispatch)))
        });
        let cors = origin::cors(&self.shared.settings);
        self.guard(routes.layer(cors)).with_state(self)
    }

    /// Puts in front of a router what every request meets, first of all the last one.
    fn guard<S: Clone + Send + Sync + 'static>(&self, router: Router<S>) -> Router<S> {
        router
            .layer(middleware::from_fn_with_state(self.clone(), arrival::settle))
            .layer(middleware::from_fn_with_state(self.clone(), sign))
    }

    /// What to answer to a client that comes now, if it can't be taken in.
    fn refuse_newcomer(&self, hub: &Hub) -> Option<Response> {
        if self.shared.is_draining() {
            return Some(unavailable(Cause::Drained, STOPPING));
        }
        let may_come = hub.is_served() || self.shared.settings.homes.holds_new;
        (!may_come).then(|| unavailable(Cause::NoAppServer, "no app server serves this hub at the moment"))
    }

    /// Whether a request is the app server's to answer. Before the first manifest nobody knows. What another node has
    /// carried here goes no further.
    fn is_of_app(&self, request: &Request) -> bool {
        let (hubs, path) = (&self.shared.hubs, request.uri().path());
        let is_known = !hubs.is_empty() && hubs.find(split_negotiate(path).unwrap_or(path)).is_none();
        let may_leave = self.shared.settings.relay.pass_through && !relay::is_carried(request);
        may_leave && is_known && !relay::is_private(path)
    }

    /// The hub of a path; else what to answer.
    fn find_hub(&self, path: &str) -> Result<Arc<Hub>, Response> {
        if relay::is_private(path) {
            self.counters.relay.private_paths.increment();
            return Err(because(Cause::PathUnknown, plain(StatusCode::NOT_FOUND, "not found")));
        }
        match self.shared.hubs.find(path) {
            Some(hub) => Ok(hub),
            None if self.shared.is_draining() => Err(unavailable(Cause::Drained, STOPPING)),
            None if self.shared.hubs.is_empty() => {
                Err(unavailable(Cause::NoAppServer, "no app server has been reached yet"))
            }
            None => {
                let answer = plain(StatusCode::NOT_FOUND, "no hub is served at this path");
                Err(because(Cause::PathUnknown, answer))
            }
        }
    }
}

/// Tells what is for hubs from what is for the app server; rules of ours, such as CORS, are for hubs only.
async fn enter(State((endpoint, hubs)): State<(Endpoint, Router)>, request: Request) -> Response {
    if endpoint.is_of_app(&request) {
        return relay::pass(&endpoint, request).await;
    }
    hubs.oneshot(request).await.into_response()
}

async fn dispatch(State(endpoint): State<Endpoint>, request: Request) -> Response {
    answer(&endpoint, request).await.unwrap_or_else(|refusal| refusal)
}

/// The answer to a request; what is refused on the way is an answer too.
async fn answer(endpoint: &Endpoint, mut request: Request) -> Result<Response, Response> {
    let path = request.uri().path();
    let (hub_path, is_negotiate) = match split_negotiate(path) {
        Some(hub_path) => (hub_path, true),
        None => (path, false),
    };
    let hub = endpoint.find_hub(hub_path)?;
    if !is_negotiate && let Some(owner) = relay::owner(endpoint, &request) {
        return Ok(relay::to_owner(endpoint, &owner, request).await);
    }
    let is_upgrade = upgrade::is_upgrade(request.headers());
    if !origin::may_connect(&endpoint.shared.settings, &mut request) && is_upgrade {
        endpoint.counters.refused_origins.increment();
        return Err(plain(StatusCode::FORBIDDEN, "pages of this origin may not connect: see --allow-origin"));
    }
    authenticate::authenticate(endpoint, &hub, &mut request, is_negotiate).await?;
    let request = limits::bound_body(endpoint, request)?;
    Ok(match (is_negotiate, request.method()) {
        (true, &Method::POST) => {
            let wait = limits::hold_negotiate(endpoint, &request)?;
            take_turn(wait).await;
            negotiate::answer(endpoint, &hub, &request)
        }
        (false, &Method::GET) if is_upgrade => {
            let wait = limits::hold_connect(endpoint, &request)?;
            take_turn(wait).await;
            upgrade::answer(endpoint, &hub, request)
        }
        (false, &Method::GET) => carry::get(endpoint, &hub, request).await,
        (false, &Method::POST) => carry::post(endpoint, &hub, request).await,
        (false, &Method::DELETE) => carry::delete(endpoint, &hub, &request),
        _ => plain(StatusCode::METHOD_NOT_ALLOWED, "this method is not allowed here"),
    })
}

async fn take_turn(wait: Duration) {
    if !wait.is_zero() {
        sleep(wait).await;
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
    let uri = request.uri().clone();
    let mut answer = next.run(request).await;
    if let Ok(name) = HeaderValue::from_str(&endpoint.shared.settings.node) {
        answer.headers_mut().entry(HeaderName::from_static(NODE_HEADER)).or_insert(name);
    }
    let is_refusal = answer.status().is_client_error() || answer.status().is_server_error();
    if is_refusal && answer.extensions().get::<OfApp>().is_none() {
        refusal::note(&endpoint, &uri, &answer);
    }
    answer
}

/// A short answer in plain text.
fn plain(status: StatusCode, text: impl Into<Body>) -> Response {
    (status, [(CONTENT_TYPE, "text/plain")], text.into()).into_response()
}

fn unavailable(cause: Cause, text: &'static str) -> Response {
    let headers = [(CONTENT_TYPE, "text/plain"), (RETRY_AFTER, RETRY_AFTER_SECONDS)];
    because(cause, (StatusCode::SERVICE_UNAVAILABLE, headers, text).into_response())
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
