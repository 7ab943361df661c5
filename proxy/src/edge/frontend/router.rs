//! Router of the requests to one shard's endpoint, with the steps in order.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use http::header::HOST;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use tokio::time::sleep;
use tower::ServiceExt;
use tracing::warn;
use trunkline_process::LinePermit;
use trunkline_protocol::manifest::BOOT_HEADER;
use trunkline_protocol::token::UserBinding;
use trunkline_protocol::wire::{CHANNEL_PATH, RELEASE_PATH, RESERVE_PATH};

use crate::edge::frontend::bearer::mark_revocations;
use crate::edge::frontend::connect::http_transport_request::ID_REQUIRED;
use crate::edge::frontend::connect::{http_transport_request, websocket_upgrade};
use crate::edge::frontend::dial_in::{self, Visitor, visitor};
use crate::edge::frontend::endpoint::Endpoint;
use crate::edge::frontend::fleet_channel::{self, FleetChannelRoute};
use crate::edge::frontend::hub_request::{HubClient, HubRequest, NewClient};
use crate::edge::frontend::path_rule::{
    NEGOTIATE_SUFFIX, REFRESH_SUFFIX, is_path, is_private, split_history, split_negotiate, split_refresh,
};
use crate::edge::frontend::plain_response::{ResponseNotes, plain};
use crate::edge::frontend::refusal::RepeatKind;
use crate::edge::frontend::request_context::{RequestContext, RequestHead};
use crate::edge::frontend::request_query::QUERY_PAIRS_MAX;
use crate::edge::frontend::reverse_proxy::{owner_hop, pass_through};
use crate::edge::frontend::upgrade_answer::{incomplete, is_upgrade_of, lost_part};
use crate::edge::frontend::{
    Routed, authenticate, identify, negotiate, normalise, origin_check, record_events, refresh_request, refusal,
    release, request_limit, request_route, reservation,
};
use crate::edge::rest::Rest;
use crate::engine::upstream::Hub;
use crate::features::admission::ServiceAudience;
use crate::ground::clock::unix_ns;
use crate::ground::limits::SetupFault;

/// Methods of requests that name a connection, for all transports.
const CONNECTION_METHODS: [Method; 3] = [Method::GET, Method::POST, Method::DELETE];

impl Endpoint {
    /// Router of a node: serves all paths; hub paths are case-insensitive.
    pub(crate) fn into_router(self: Arc<Self>) -> Router {
        let cors = origin_check::cors(&self.shared.settings);
        let hubs = Router::new().fallback(dispatch).layer(cors).with_state(self.clone());
        let inside = Router::new().fallback(serve_all).with_state((self.clone(), hubs));
        let channel = FleetChannelRoute { endpoint: self, inside: inside.clone() };
        Router::new()
            .route(CHANNEL_PATH, get(fleet_channel::open_fleet_channel))
            .with_state(channel)
            .fallback_service(inside)
    }

    /// Router of a port for the data plane only.
    pub(crate) fn into_rest_router(self: Arc<Self>) -> Router {
        let serve = async |State(endpoint): State<Arc<Self>>, request: Request| {
            let answer = async |request, context: Box<RequestContext>| match &endpoint.rest {
                Some(rest) => answer_rest(rest, request, &context).await,
                None => plain(StatusCode::NOT_FOUND, "the data plane is not served here"),
            };
            serve(&endpoint, request, answer).await
        };
        Router::new().fallback(serve).with_state(self)
    }

    /// Routes of these hubs for the router of an app, case-sensitive, with an optional trailing slash.
    pub(crate) fn into_routes(self: Arc<Self>, paths: impl IntoIterator<Item = String>) -> Router {
        let routes = paths.into_iter().fold(Router::new(), |router, path| {
            let path = path.trim_end_matches('/');
            let hub = self.shared.hubs.find(path);
            let refresh = hub.filter(|hub| hub.settings().refreshes_authentication).map(|_| REFRESH_SUFFIX);
            let tails = ["", "/", NEGOTIATE_SUFFIX].into_iter().chain(refresh);
            let routes = tails.map(|tail| format!("{path}{tail}")).filter(|route| !route.is_empty());
            routes.fold(router, |router, route| router.route(&route, any(dispatch)))
        });
        let cors = origin_check::cors(&self.shared.settings);
        let served = middleware::from_fn_with_state(self.clone(), serve_next);
        routes.layer(cors).layer(served).with_state(self)
    }

    /// Whether the request matches a hub in the router of an app, case-sensitive, with an optional trailing slash.
    pub(crate) fn has_hub_at(&self, request: &Request) -> bool {
        let path = request.uri().path();
        let hub = self.shared.hubs.find(path);
        let without_slash = path.strip_suffix('/').unwrap_or(path);
        hub.is_some_and(|hub| hub.settings().path.trim_end_matches('/') == without_slash)
    }

    /// Handles a WebSocket request to a hub like the router, but without it; `None` for other requests.
    pub(crate) async fn connect_directly(&self, mut request: Request) -> Option<Response> {
        let uri = request.uri().clone();
        let answer = match normalise::normalise(self, &mut request) {
            Err(refusal) => refusal,
            Ok(context) if !is_connect_to_hub(self, &request, &context) => return None,
            Ok(context) => {
                let (parts, body) = request.into_parts();
                answer_request(self, (parts, context), body).await.unwrap_or_else(|refusal| refusal)
            }
        };
        Some(signed(self, &uri, answer))
    }
}

async fn serve_all(State((endpoint, hubs)): State<(Arc<Endpoint>, Router)>, request: Request) -> Response {
    serve(&endpoint, request, |request, context| route(&endpoint, hubs, request, context)).await
}

async fn serve_next(State(endpoint): State<Arc<Endpoint>>, request: Request, next: Next) -> Response {
    serve(&endpoint, request, |request, context| next.run(context.attach(request))).await
}

/// Runs the steps common to all requests: normalisation, handling, and completion of the response.
async fn serve<A: Future<Output = Response>>(
    endpoint: &Endpoint,
    mut request: Request,
    answer: impl FnOnce(Request, Box<RequestContext>) -> A,
) -> Response {
    let uri = request.uri().clone();
    let answer = match normalise::normalise(endpoint, &mut request) {
        Ok(context) => answer(request, context).await,
        // A page must be able to read that its head is too large; other refusals don't concern pages.
        Err(refusal) if refusal.status() == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            Box::pin(origin_check::with_cors(&endpoint.shared.settings, request, refusal)).await
        }
        Err(refusal) => refusal,
    };
    signed(endpoint, &uri, answer)
}

/// Routes a request to the hubs or to the app server. Our own rules, such as CORS, apply to hubs only.
///
/// Calls to other servers are boxed, so that a waiting hub request reserves no memory for them.
async fn route(endpoint: &Endpoint, hubs: Router, request: Request, context: Box<RequestContext>) -> Response {
    if let Some(rest) = endpoint.rest.as_ref().filter(|_| Rest::takes(request.uri().path())) {
        return Box::pin(answer_rest(rest, request, &context)).await;
    }
    if is_for_app(endpoint, request.uri().path(), &context) {
        return Box::pin(pass_on(endpoint, request, context)).await;
    }
    hubs.oneshot(context.attach(request)).await.into_response()
}

/// Passes a request to the app. If it names a connection, its hub no longer exists at this node.
async fn pass_on(endpoint: &Endpoint, request: Request, context: Box<RequestContext>) -> Response {
    let (parts, body) = request.into_parts();
    let kind = RepeatKind::from_request(&parts, &context.query);
    let is_of_hub = kind == RepeatKind::EventStream && refusal::connection_id(endpoint, &parts.uri).is_some();
    let answer = pass_through::pass_through(endpoint, (parts, context), body).await;
    let is_of_app = ResponseNotes::from_answer(&answer).is_counted_elsewhere;
    if is_of_hub && !is_of_app { refusal::settle_status(kind, answer) } else { answer }
}

async fn answer_rest(rest: &Rest, request: Request, context: &RequestContext) -> Response {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let origin = format!("{}://{host}", context.scheme_name());
    let mut answer = rest.answer_request(request, context.source.peer.map(|peer| peer.ip()), &origin).await;
    ResponseNotes::edit(&mut answer).is_counted_elsewhere = true;
    answer
}

async fn dispatch(State(endpoint): State<Arc<Endpoint>>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let context = RequestContext::take_context(&mut parts);
    let (is_forwarded, kind) = (context.is_forwarded, RepeatKind::from_request(&parts, &context.query));
    let answer = answer_request(&endpoint, (parts, context), body).await.unwrap_or_else(|refusal| refusal);
    let mut answer = refusal::settle_status(kind, answer);
    if let (true, Ok(boot)) = (is_forwarded, HeaderValue::from_str(&endpoint.shared.boot)) {
        // Lets the other node check that this one still is the start that issued the connection token.
        answer.headers_mut().insert(HeaderName::from_static(BOOT_HEADER), boot);
    }
    answer
}

/// Handles a request to a hub; the error is a refusal. Calls to other servers are boxed.
async fn answer_request(endpoint: &Endpoint, (parts, context): RequestHead, body: Body) -> Result<Response, Response> {
    match parts.uri.path() {
        RESERVE_PATH if context.is_forwarded => {
            return Ok(reservation::answer_reservation(endpoint, &parts.method, &context.query));
        }
        RELEASE_PATH if context.is_forwarded => {
            return Ok(release::answer_release(endpoint, &parts.method, &context.query));
        }
        _ => {}
    }
    let arrived_ns = endpoint.shared.tracer.as_ref().map(|_| unix_ns());
    if context.query.has_too_many_pairs() {
        return Err(plain(StatusCode::BAD_REQUEST, too_many_pairs()));
    }
    let ((hub, is_negotiate), dial_in) = match visitor(endpoint, parts.uri.path(), &context.query) {
        Some(Visitor::AppServer) => {
            let opened = match refuse_incomplete_upgrade(endpoint, &parts, &context) {
                Ok(()) => Box::pin(dial_in::open_link(endpoint, (parts, context), body)).await,
                Err(refusal) => Err(refusal),
            };
            return opened.map_err(|mut refusal| {
                ResponseNotes::edit(&mut refusal).is_for_app_server = true;
                refusal
            });
        }
        Some(Visitor::Client { is_negotiate }) => {
            let (hub, client, _) = dial_in::enter(endpoint, (&parts, &context), ServiceAudience::Client)?;
            ((hub, is_negotiate), Some(client))
        }
        None => (find_hub(endpoint, parts.uri.path())?, None),
    };
    let of_history = split_history(parts.uri.path());
    let is_history = of_history.is_some_and(|base| dial_in.is_some() || is_path(base, &hub.settings().path));
    let is_connect = !is_negotiate && !is_history;
    let request = Box::new(HubRequest {
        is_negotiate,
        is_upgrade: is_connect && is_upgrade_of(&parts),
        is_history,
        is_of_connection: is_connect && context.query.connection_token().is_some(),
        verified_at: dial_in.as_ref().map(|client| client.verified_at),
        routed: Routed::default(),
        hub,
        parts,
        context,
        arrived_ns,
        dial_in,
    });
    answer_hub(endpoint, request, body).await
}

/// Handles a request after its hub was found.
async fn answer_hub(endpoint: &Endpoint, mut request: Box<HubRequest>, body: Body) -> Result<Response, Response> {
    wait(admit(endpoint, &mut request)?).await;
    if request.dial_in.is_none() && refreshed_hub(endpoint, request.parts.uri.path()).is_some() {
        return Ok(Box::pin(refresh_request::answer_refresh(endpoint, &request)).await);
    }
    let mut client = find_client(endpoint, &mut request).await?;
    let body = request_limit::bound_body(endpoint, &request.parts.headers, body)?;
    if let HubClient::Connecting(client) = &client
        && let Some(owner) = owner_hop::find_owner(endpoint, &request, client)
    {
        return Ok(Box::pin(owner_hop::forward(endpoint, &owner, (request, body), client)).await);
    }
    request.routed = request_route::route(endpoint, &request, &mut client);
    if request.is_negotiate || request.is_upgrade {
        endpoint.wait_for_link(&request.hub, request.routed.group()).await;
    }
    Ok(match (client, &request.parts.method) {
        (HubClient::New(client), _) if request.is_history => {
            match endpoint.refuse_new_client(&request.hub, &request.routed) {
                Some(refusal) => refusal,
                None => Box::pin(record_events::answer_events(endpoint, &request, *client)).await,
            }
        }
        (HubClient::New(client), _) if request.is_negotiate => {
            negotiate::answer_negotiation(endpoint, &request, *client)
        }
        (client, &Method::GET) if request.is_upgrade => {
            websocket_upgrade::answer_upgrade(endpoint, request, client).await
        }
        (HubClient::New(_), _) => plain(StatusCode::BAD_REQUEST, ID_REQUIRED),
        (HubClient::Connecting(client), &Method::GET) => http_transport_request::get(endpoint, request, client).await,
        (HubClient::Connecting(client), &Method::POST) => {
            http_transport_request::post(endpoint, (request, body), client).await
        }
        (HubClient::Connecting(client), &Method::DELETE) => http_transport_request::delete(endpoint, &client),
        _ => not_allowed(),
    })
}

/// Checks method, origin and rate of a request, before the client's authorization, so that refusals here cost the app
/// nothing. Returns its delay in a burst.
fn admit(endpoint: &Endpoint, request: &mut HubRequest) -> Result<Duration, Response> {
    let HubRequest { parts, context, is_negotiate, is_upgrade, is_history, is_of_connection, .. } = request;
    refuse_incomplete_upgrade(endpoint, parts, context)?;
    let methods = match (*is_negotiate, *is_history) {
        (true, _) => &[Method::POST][..],
        (_, true) => &[Method::GET],
        _ => &CONNECTION_METHODS,
    };
    if !methods.contains(&parts.method) {
        return Err(not_allowed());
    }
    let (settings, headers) = (&endpoint.shared.settings, &mut parts.headers);
    if request.dial_in.is_some() {
        origin_check::drop_foreign_credentials(settings, headers, context.scheme);
    } else if !origin_check::may_connect(settings, headers, context.scheme)
        && (*is_negotiate || *is_upgrade || *is_history || *is_of_connection)
    {
        // A page is counted once per attempt to connect.
        endpoint.counters.refused_origins.add(u64::from(!*is_negotiate));
        return Err(origin_check::refuse(endpoint, parts, context.scheme));
    }
    match (*is_negotiate || *is_history, *is_upgrade, *is_of_connection) {
        (true, ..) => request_limit::throttle_negotiate(endpoint, &context.source),
        (_, true, _) => request_limit::throttle_connect(endpoint, &context.query),
        (.., true) => Ok(Duration::ZERO),
        _ => Err(plain(StatusCode::BAD_REQUEST, ID_REQUIRED)),
    }
}

/// Identifies or authenticates the client of a request.
async fn find_client(endpoint: &Endpoint, request: &mut HubRequest) -> Result<HubClient, Response> {
    let HubRequest { context, verified_at, .. } = request;
    verified_at.get_or_insert_with(|| mark_revocations(endpoint, context));
    if request.is_of_connection {
        return identify::identify(endpoint, request).await.map(HubClient::Connecting);
    }
    let Some(client) = &request.dial_in else {
        return authenticate::authenticate(endpoint, request, request.is_negotiate).await.map(HubClient::New);
    };
    // Each later request carries the token again.
    let (user, binding) = (client.user.clone(), UserBinding::AccessToken);
    let client = NewClient { user, binding, ..NewClient::default() };
    let client = match request.hub.settings().asks_app {
        true => Box::pin(authenticate::authorize_visitor(endpoint, request, client)).await?,
        false => Box::new(client),
    };
    Ok(HubClient::New(client))
}

/// Refuses a WebSocket request with an incomplete upgrade, before its token is used.
fn refuse_incomplete_upgrade(endpoint: &Endpoint, parts: &Parts, context: &RequestContext) -> Result<(), Response> {
    let Some(lost) = lost_part(parts) else { return Ok(()) };
    if let Some(LinePermit { left_out }) = endpoint.shared.limits.setup_faults.of(SetupFault::Upgrade).take_line() {
        warn!(
            path = parts.uri.path(),
            peer = context.source.peer.map(tracing::field::display),
            lost,
            left_out,
            "WebSocket upgrade refused"
        );
    }
    Err(incomplete(lost, parts.version))
}

/// Whether a WebSocket request is a client's connect to a hub, not sent by a node.
fn is_connect_to_hub(endpoint: &Endpoint, request: &Request, context: &RequestContext) -> bool {
    let path = request.uri().path();
    let is_rest = endpoint.rest.is_some() && Rest::takes(path);
    if is_rest || is_private(path) || context.is_forwarded {
        return false;
    }
    match visitor(endpoint, path, &context.query) {
        Some(visitor) => visitor == Visitor::Client { is_negotiate: false },
        None => split_negotiate(path).is_none() && endpoint.shared.hubs.find(path).is_some(),
    }
}

/// Finds the hub of a path, and whether the checks of a negotiation apply, as they also do for a refresh.
fn find_hub(endpoint: &Endpoint, path: &str) -> Result<(Arc<Hub>, bool), Response> {
    if let Some(hub) = refreshed_hub(endpoint, path) {
        return Ok((hub, true));
    }
    if let Some(hub) = history_hub(endpoint, path) {
        return Ok((hub, false));
    }
    match split_negotiate(path) {
        Some(hub_path) => Ok((endpoint.find_hub(hub_path)?, true)),
        None => Ok((endpoint.find_hub(path)?, false)),
    }
}

/// Finds the hub of a refresh path; `None` for other paths, and for hubs without authentication refresh.
fn refreshed_hub(endpoint: &Endpoint, path: &str) -> Option<Arc<Hub>> {
    let hub = endpoint.shared.hubs.find(split_refresh(path)?)?;
    Some(hub).filter(|hub| hub.settings().refreshes_authentication)
}

/// Finds the hub of a path for event streams of records; `None` for other paths, and for hubs without records.
fn history_hub(endpoint: &Endpoint, path: &str) -> Option<Arc<Hub>> {
    endpoint.shared.hubs.find(split_history(path)?).filter(|hub| hub.has_history())
}

fn too_many_pairs() -> String {
    format!("the query has more than {QUERY_PAIRS_MAX} pairs, the limit for hubs")
}

fn not_allowed() -> Response {
    plain(StatusCode::METHOD_NOT_ALLOWED, "this method is not allowed here")
}

async fn wait(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}

/// Whether a request is for the app server. Not before the first manifest, when hubs are unknown, and not if another
/// node has forwarded it.
fn is_for_app(endpoint: &Endpoint, path: &str, context: &RequestContext) -> bool {
    if visitor(endpoint, path, &context.query).is_some() {
        return false;
    }
    let hubs = &endpoint.shared.hubs;
    let is_of_hub = hubs.find(split_negotiate(path).unwrap_or(path)).is_some()
        || refreshed_hub(endpoint, path).is_some()
        || history_hub(endpoint, path).is_some();
    let is_known = !hubs.is_empty() && !is_of_hub;
    let may_leave = endpoint.shared.settings.relay.pass_through && !context.is_forwarded;
    may_leave && is_known && !is_private(path)
}

/// Adds the node's name to a response, and counts our own refusals.
fn signed(endpoint: &Endpoint, uri: &Uri, mut answer: Response) -> Response {
    endpoint.name_on(&mut answer);
    let is_refusal = answer.status().is_client_error() || answer.status().is_server_error();
    if is_refusal && !ResponseNotes::from_answer(&answer).is_counted_elsewhere {
        refusal::record(endpoint, uri, &answer);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Size of the future returned by a function.
    fn size<A>(_: impl FnOnce(&'static Endpoint, Request, Box<RequestContext>) -> A) -> usize {
        size_of::<A>()
    }

    #[test]
    fn a_request_to_a_hub_holds_no_room_for_ways_to_other_servers_while_it_waits() {
        // A poll waits for minutes, and each layer moves the future inside it.
        for (size, most) in [
            (
                size(|endpoint, request, context| {
                    answer_request(endpoint, (request.into_parts().0, context), Body::empty())
                }),
                3_072,
            ),
            (size(|endpoint, request, context| route(endpoint, Router::new(), request, context)), 1_024),
        ] {
            assert!(size <= most, "{size} bytes");
        }
    }
}
