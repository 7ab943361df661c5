//! Negotiation decided by the app: the client as its hub's policies see it, the result, and calls of the handler, by
//! proxies over HTTP or by an embedded node in memory.
//!
//! Additions of the proxy are removed first, so that the handler sees the client's request. Responses of the handler
//! are marked, to distinguish them from others.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{ConnectInfo, Query, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use axum::{Extension, Json};
use http::StatusCode;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use tower::ServiceExt;
use trunkline_protocol::access_token;
use trunkline_protocol::access_token::User as TokenUser;
use trunkline_protocol::negotiate::{ANSWER_HEADER, DECISION, Decision, REFUSAL};
use trunkline_protocol::service::OpenConnection;
use trunkline_protocol::unix_time::unix_seconds;
use trunkline_protocol::wire::{
    ACCESS_TOKEN_PARAMETER, CLIENT_AUTHORIZATION_HEADER, CLIENT_URI_HEADER, FORWARDED_FOR_HEADER, PRIVATE_CLAIM_PREFIX,
    PRIVATE_HEADER_PREFIX, REMOTE_HEADER, USER_HEADER, USER_ID_CLAIM, bearer,
};

use super::routes::{RouteRefusal, ready};
use super::server_core::ServerCore;
use super::user::User;
use super::user_extractor::ProxyVerified;
use crate::connection::forwarded_for;
use crate::dispatch::Dispatcher;
use crate::watchdog::supervise;

/// Decision about a client: admitted as a user, or redirected. Returned by a handler of
/// [`Hub::on_negotiate`](crate::Hub::on_negotiate).
///
/// ```
/// use trunkline::Negotiation;
///
/// let anybody = Negotiation::new(); // as the user of the access token, if there is one
/// let ann = Negotiation::user("ann").claim("role", "admin");
/// let elsewhere = Negotiation::redirect("https://eu.example/chat").access_token("a token for over there");
/// assert_eq!((ann.user_id(), elsewhere.url()), (Some("ann"), Some("https://eu.example/chat")));
/// ```
///
/// | created with | user of the client | its claims | an invalid access token |
/// |---|---|---|---|
/// | [`new`](Self::new) | user of its access token | claims of the token and of [`claim`](Self::claim) | is refused |
/// | [`user`](Self::user) | this user | only claims of `claim`; the token is ignored | is ignored |
///
/// Headers and cookies can be added as to any axum response: `([(SET_COOKIE, "seen=1")], Negotiation::new())`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "a handler of `on_negotiate` has to return it"]
pub struct Negotiation(Decision);

impl Negotiation {
    /// Admits the client as the user of its access token, with the token's claims; without a token, the client has no
    /// user. A token that the proxy rejects is refused, as without a handler.
    pub fn new() -> Self {
        Self::default()
    }

    /// Admits the client as this user. Its access token and the token's claims are ignored.
    pub fn user(id: impl Into<String>) -> Self {
        Self(Decision { user: Some(id.into()), ..Decision::default() })
    }

    /// Redirects the client to negotiate again at this hub URL, given without `/negotiate`.
    pub fn redirect(url: impl Into<String>) -> Self {
        Self(Decision { url: Some(url.into()), ..Decision::default() })
    }

    /// Adds a claim of the user, in addition to the token's claims with [`new`](Self::new). Names may repeat. The total
    /// limit is 2 KiB.
    pub fn claim(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.claims.push((name.into(), value.into()));
        self
    }

    /// Sets the time after which the client is closed and must reconnect, if its hub has
    /// [`close_on_token_expiry`](crate::Hub::close_on_token_expiry).
    pub fn expires_in(mut self, time: Duration) -> Self {
        self.0.expires_s = SystemTime::now().checked_add(time).map(unix_seconds);
        self
    }

    /// Sets the access token that the client sends to the URL of a [`redirect`](Self::redirect).
    pub fn access_token(mut self, token: impl Into<String>) -> Self {
        self.0.access_token = Some(token.into());
        self
    }

    /// Returns the user set by the app; `None` if the access token decides.
    #[must_use]
    pub fn user_id(&self) -> Option<&str> {
        self.0.user.as_deref()
    }

    /// Returns the added claims as names and values.
    pub fn claims(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.claims.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Returns the time set by [`expires_in`](Self::expires_in), in whole seconds.
    #[must_use]
    pub fn expires(&self) -> Option<SystemTime> {
        self.0.expires_s.and_then(|expires_s| UNIX_EPOCH.checked_add(Duration::from_secs(expires_s)))
    }

    /// Returns the URL that the client is redirected to.
    #[must_use]
    pub fn url(&self) -> Option<&str> {
        self.0.url.as_deref()
    }

    /// Returns the access token that the client sends to that URL.
    #[must_use]
    pub fn redirect_token(&self) -> Option<&str> {
        self.0.access_token.as_deref()
    }

    /// Takes the decision of a handler's response; `None` if the handler refuses the client.
    pub(crate) fn take_decision(answer: &mut Response) -> Option<Decision> {
        answer.extensions_mut().remove().map(|Self(decision)| decision)
    }
}

impl IntoResponse for Negotiation {
    fn into_response(self) -> Response {
        (Extension(self.clone()), Json(self.0)).into_response()
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct NegotiateQuery {
    hub: String,
}

/// Route `POST /.trunkline/negotiate?hub=NAME`: calls a hub's handler.
pub(super) async fn negotiate(
    State(core): State<Arc<ServerCore>>,
    Query(query): Query<NegotiateQuery>,
    request: Request,
) -> Result<Response, RouteRefusal> {
    ready(&core)?;
    core.negotiate(&query.hub, request).await.ok_or(RouteRefusal::Hub(query.hub))
}

impl ServerCore {
    /// Negotiates for an embedded node, which needs no credential.
    #[cfg(feature = "embedded")]
    pub(super) async fn negotiate_in_memory(&self, request: Request) -> Option<Response> {
        let Query(query) = Query::<NegotiateQuery>::try_from_uri(request.uri()).ok()?;
        self.negotiate(&query.hub, request).await
    }

    /// Calls the hub's handler, checks the hub's policies and marks the response; `None` without handler and policies.
    pub(super) async fn negotiate(&self, hub: &str, mut request: Request) -> Option<Response> {
        let handler = self.ready.get()?.negotiators.get(hub).cloned();
        let guarded = self.hub(hub).filter(|hub| hub.has_policies());
        if handler.is_none() && guarded.is_none() {
            return None;
        }
        let (remote, verified) = restore(&mut request);
        let applicant = guarded.map(|hub| (Applicant::at(remote, &request, verified), hub));
        let mut answer = match handler {
            Some(handler) => self.decide(hub, handler, request).await,
            None => Negotiation::new().into_response(),
        };
        let mark = match Negotiation::take_decision(&mut answer) {
            None => REFUSAL,
            Some(decision) => match applicant.and_then(|(applicant, hub)| applicant.refuse(&hub, &decision)) {
                None => DECISION,
                Some(refusal) => {
                    answer = refusal;
                    REFUSAL
                }
            },
        };
        answer.headers_mut().insert(HeaderName::from_static(ANSWER_HEADER), HeaderValue::from_static(mark));
        Some(answer)
    }
}

impl ServerCore {
    /// Calls a hub's handler. A handler that hangs or panics refuses the client.
    async fn decide(&self, name: &str, handler: MethodRouter, request: Request) -> Response {
        let deciding = async { Ok(handler.oneshot(request).await.into_response()) };
        let Some(hub) = self.hub(name) else { return StatusCode::NOT_FOUND.into_response() };
        let (outbound, hook_timeout) = (&hub.core.outbound, hub.core.limits.hook_timeout);
        supervise(outbound, ("on_negotiate", name), hook_timeout, deciding).await.unwrap_or_else(|error| {
            tracing::error!(hub = name, ?error, "on_negotiate failed");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        })
    }
}

/// Restores the client's request. Returns the client's address, and the user of a valid access token.
fn restore(request: &mut Request) -> (Option<SocketAddr>, Option<access_token::User>) {
    let headers = request.headers_mut();
    let uri = take_header(headers, CLIENT_URI_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
    let authorization = take_header(headers, CLIENT_AUTHORIZATION_HEADER);
    let remote = take_header(headers, REMOTE_HEADER).and_then(|value| value.to_str().ok()?.parse::<SocketAddr>().ok());
    let user =
        take_header(headers, USER_HEADER).and_then(|value| access_token::User::from_header(value.to_str().ok()?));
    let own: Vec<_> = headers.keys().filter(|name| name.as_str().starts_with(PRIVATE_HEADER_PREFIX)).cloned().collect();
    own.iter().for_each(|name| drop(headers.remove(name)));
    headers.remove(AUTHORIZATION);
    if let Some(value) = authorization {
        headers.insert(AUTHORIZATION, value);
    }
    if let Some(uri) = uri {
        *request.uri_mut() = uri;
    }
    let extensions = request.extensions_mut();
    extensions.insert(ProxyVerified(user.clone().and_then(User::from_verified)));
    extensions.remove::<ConnectInfo<SocketAddr>>();
    if let Some(remote) = remote {
        extensions.insert(ConnectInfo(remote));
    }
    (remote, user)
}

fn take_header(headers: &mut HeaderMap, name: &'static str) -> Option<HeaderValue> {
    headers.remove(HeaderName::from_static(name))
}

/// Negotiating client as seen by the policies of its hub: its request, and the user to admit it as.
#[derive(Debug)]
pub(super) struct Applicant {
    request: OpenConnection,
    /// User of its access token; `None` without a valid token.
    verified: Option<TokenUser>,
    shows_token: bool,
}

impl Applicant {
    /// Reads a request to the app's own port, possibly through load balancers. A client may forge the forwarding
    /// header; the service later reports the real address.
    pub(super) fn of_own_port(peer: Option<SocketAddr>, request: &Request, verified: Option<TokenUser>) -> Self {
        let forwarded = request.headers().get(FORWARDED_FOR_HEADER).and_then(|list| forwarded_for(list.to_str().ok()?));
        Self::at(forwarded.or(peer), request, verified)
    }

    /// Reads a request from a client at this address. The access token (if any) has been verified.
    pub(super) fn at(remote: Option<SocketAddr>, request: &Request, verified: Option<TokenUser>) -> Self {
        let query = request.uri().query().unwrap_or_default();
        let in_header = request.headers().get(AUTHORIZATION).and_then(|value| bearer(value.to_str().ok()?)).is_some();
        let in_query = form_urlencoded::parse(query.as_bytes()).any(|(name, _)| name == ACCESS_TOKEN_PARAMETER);
        let text = |value: &http::HeaderValue| value.to_str().map(|text| vec![text.into()]).ok();
        // Only proxies may set private headers.
        let shown = request.headers().iter().filter(|(name, _)| !name.as_str().starts_with(PRIVATE_HEADER_PREFIX));
        let headers = shown.filter_map(|(name, value)| Some((name.as_str().into(), text(value)?)));
        let remote = remote.map(|address| (REMOTE_HEADER.into(), vec![address.to_string().into()]));
        let request = OpenConnection {
            headers: headers.chain(remote).collect(),
            query: Some(query.into()),
            ..OpenConnection::default()
        };
        Self { request, verified, shows_token: in_header || in_query }
    }

    /// Refuses the client if the user of this decision does not meet the hub's policies.
    pub(super) fn refuse(self, hub: &Arc<Dispatcher>, decision: &Decision) -> Option<Response> {
        let Self { mut request, verified, shows_token } = self;
        let is_elsewhere = decision.url.is_some();
        // A client without a user is refused because of its token, by the component that verified the token.
        let has_bad_token = shows_token && verified.is_none() && decision.user.is_none();
        if is_elsewhere || has_bad_token {
            return None;
        }
        let known = match &decision.user {
            Some(id) => TokenUser { id: Some(id.clone()), ..TokenUser::default() },
            None => verified.unwrap_or_default(),
        };
        let id = known.id.map(|id| (USER_ID_CLAIM.into(), id.into()));
        let claims = known.claims.into_iter().chain(decision.claims.iter().cloned());
        let claims = claims.filter(|(name, _)| !name.starts_with(PRIVATE_CLAIM_PREFIX));
        request.claims = id.into_iter().chain(claims.map(|(name, value)| (name.into(), value.into()))).collect();
        hub.refuse(request).map(|body| (StatusCode::FORBIDDEN, body).into_response())
    }
}
