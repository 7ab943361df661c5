//! Guard of the admin port: which requests may read, and which may act.
//!
//! ```text
//!                         no token                      the admin token, or the cookie of a session
//!  /healthz, /readyz      yes                           yes
//!  /metrics               unless it has a token         yes
//!  page and /api, read    only on a loopback address    yes
//!  /api, act              no                            yes
//! ```
//!
//! Beyond this machine page and API are not served at all without an admin token. On it a page of another site must not
//! read through a name that it made resolve to this node: so a request without a token has to name a loopback host.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use trunkline_protocol::wire;

use super::access::Access;
use super::api_error::ApiError;
use super::session;
use crate::auth::AdminToken;
use crate::config::AdminSettings;
use crate::net::address::is_loopback_host;

/// Reachability of the admin port, as far as its address tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exposure {
    /// From this machine alone.
    Loopback,
    Network,
}

/// Guard of the admin port; its clones are one.
#[derive(Debug, Clone)]
pub(super) struct Guard(Arc<GuardRules>);

#[derive(Debug)]
struct GuardRules {
    exposure: Exposure,
    token: Option<AdminToken>,
    metrics_token: Option<AdminToken>,
}

/// Credential of a request.
enum Credential<'a> {
    Token(&'a str),
    Session,
    Nothing,
}

impl Guard {
    /// Takes its rules from the settings.
    #[must_use]
    pub(super) fn new(exposure: Exposure, settings: &AdminSettings) -> Self {
        let (token, metrics_token) = (settings.token.clone(), settings.metrics_token.clone());
        Self(Arc::new(GuardRules { exposure, token, metrics_token }))
    }

    /// Whether there is an admin token, so that somebody can act.
    #[must_use]
    pub(super) fn has_token(&self) -> bool {
        self.0.token.is_some()
    }

    /// Checks that page and API are served.
    ///
    /// # Errors
    /// When they are not, because the port is exposed and has no token.
    pub(super) fn check_served(&self) -> Result<(), ApiError> {
        match (self.0.exposure, &self.0.token) {
            (Exposure::Network, None) => Err(ApiError::new(
                StatusCode::NOT_FOUND,
                "not served: --admin is no loopback address, so the observer page and /api need --admin-token",
            )),
            _ => Ok(()),
        }
    }

    /// Returns the access of a request with these headers.
    ///
    /// # Errors
    /// When it may not even read.
    pub(super) fn access(&self, headers: &HeaderMap) -> Result<Access, ApiError> {
        self.check_served()?;
        match (self.credential(headers), &self.0.token) {
            (Credential::Session, _) => Ok(Access::Act),
            (Credential::Token(given), Some(token)) if token.is(given) => Ok(Access::Act),
            (Credential::Token(_), Some(_)) => Err(unauthorized("the token is not the one of --admin-token")),
            (Credential::Token(_), None) => Err(unauthorized("this node has no --admin-token, so none is accepted")),
            (Credential::Nothing, _) if self.0.exposure == Exposure::Loopback && names_this_machine(headers) => {
                Ok(Access::Read)
            }
            (Credential::Nothing, Some(_)) => Err(unauthorized("this needs the admin token, as Authorization: Bearer")),
            (Credential::Nothing, None) => Err(ApiError::new(
                StatusCode::FORBIDDEN,
                "Host names no loopback address: without --admin-token this is for this machine alone",
            )),
        }
    }

    /// Checks that a request may read metrics.
    ///
    /// # Errors
    /// When it has neither token.
    pub(super) fn check_metrics(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(wanted) = &self.0.metrics_token else { return Ok(()) };
        let given = bearer(headers).unwrap_or_default();
        if wanted.is(given) || self.0.token.as_ref().is_some_and(|token| token.is(given)) {
            return Ok(());
        }
        Err(unauthorized("this needs the token of --metrics-token, as Authorization: Bearer"))
    }

    fn access_for(&self, method: &Method, headers: &HeaderMap) -> Result<Access, ApiError> {
        let access = self.access(headers)?;
        if matches!(*method, Method::GET | Method::HEAD) {
            return Ok(access);
        }
        if access == Access::Read && !self.has_token() {
            let text = "nothing can be changed here: this node was started without --admin-token";
            return Err(ApiError::new(StatusCode::FORBIDDEN, text));
        }
        access.to_act()?;
        // The cookie goes along with whatever a page of the same site sends, and all ports of a host are one site.
        if !is_own_page(headers) {
            return Err(ApiError::new(StatusCode::FORBIDDEN, "Origin is another page than this node's own"));
        }
        Ok(access)
    }

    /// Exchanges the admin token for the cookie of a session.
    ///
    /// # Errors
    /// When the token is wrong, the node has none, or another page asks.
    pub(super) fn log_in(&self, headers: &HeaderMap, given: &str) -> Result<Response, ApiError> {
        self.check_served()?;
        if !is_own_page(headers) {
            return Err(ApiError::new(StatusCode::FORBIDDEN, "Origin is another page than this node's own"));
        }
        let Some(token) = &self.0.token else {
            return Err(unauthorized("this node has no --admin-token, so nobody can log in"));
        };
        if !token.is(given) {
            return Err(unauthorized("the token is not the one of --admin-token"));
        }
        session::begin(token).map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
    }

    fn credential<'a>(&self, headers: &'a HeaderMap) -> Credential<'a> {
        match (bearer(headers), &self.0.token) {
            (Some(token), _) => Credential::Token(token),
            (None, Some(token)) if session::is_open(token, headers) => Credential::Session,
            (None, _) => Credential::Nothing,
        }
    }
}

/// Middleware that refuses requests without access; behind it a request carries its [`Access`].
pub(super) async fn check(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    match guard.access_for(request.method(), request.headers()) {
        Ok(access) => {
            request.extensions_mut().insert(access);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

fn unauthorized(text: &'static str) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, text).with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    wire::bearer(headers.get(AUTHORIZATION)?.to_str().ok()?)
}

fn names_this_machine(headers: &HeaderMap) -> bool {
    headers.get(HOST).and_then(|host| host.to_str().ok()).is_some_and(is_loopback_host)
}

/// Whether a request comes from a page of this node. Browsers name the page that sends it; other clients name none.
fn is_own_page(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else { return true };
    let origin = origin.to_str().ok().and_then(|text| text.parse::<Uri>().ok());
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    origin.as_ref().and_then(|origin| origin.authority()).map(|authority| authority.as_str()) == host && host.is_some()
}

#[cfg(test)]
mod tests {
    use axum::http::header::SET_COOKIE;

    use super::*;

    const TOKEN: &str = "the admin token of the tests";

    fn guard(exposure: Exposure, token: Option<&str>) -> Guard {
        let token = token.map(|text| AdminToken::new(&text.replace(' ', "-")).unwrap());
        Guard::new(exposure, &AdminSettings { token, ..AdminSettings::default() })
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn status(access: Result<Access, ApiError>) -> u16 {
        access.unwrap_err().status().as_u16()
    }

    fn bearer_of(token: &str) -> String {
        format!("Bearer {}", token.replace(' ', "-"))
    }

    #[test]
    fn on_this_machine_every_request_reads_and_one_with_the_token_acts() {
        let guard = guard(Exposure::Loopback, Some(TOKEN));
        let local = headers(&[("host", "127.0.0.1:8090")]);
        assert_eq!(guard.access(&local).unwrap(), Access::Read);
        assert_eq!(status(guard.access_for(&Method::POST, &local)), 401);
        let with = headers(&[("host", "localhost"), ("authorization", &bearer_of(TOKEN))]);
        assert_eq!(guard.access_for(&Method::POST, &with).unwrap(), Access::Act);
        let wrong = headers(&[("host", "localhost"), ("authorization", &bearer_of("something else"))]);
        assert_eq!(status(guard.access(&wrong)), 401);
    }

    #[test]
    fn without_a_token_nothing_acts_and_a_page_of_another_site_can_not_even_read() {
        let guard = guard(Exposure::Loopback, None);
        let local = headers(&[("host", "[::1]:8090")]);
        assert_eq!(guard.access(&local).unwrap(), Access::Read);
        assert_eq!(status(guard.access_for(&Method::POST, &local)), 403);
        assert_eq!(status(guard.access(&headers(&[("host", "rebound.example:8090")]))), 403);
        let with = headers(&[("host", "localhost"), ("authorization", &bearer_of(TOKEN))]);
        assert_eq!(status(guard.access(&with)), 401);
    }

    #[test]
    fn beyond_this_machine_the_token_is_needed_and_without_one_nothing_is_served() {
        let local = headers(&[("host", "127.0.0.1:8090")]);
        assert_eq!(status(guard(Exposure::Network, None).access(&local)), 404);
        let guard = guard(Exposure::Network, Some(TOKEN));
        assert_eq!(status(guard.access(&local)), 401);
        let with = headers(&[("host", "proxy-a:8090"), ("authorization", &bearer_of(TOKEN))]);
        assert_eq!(guard.access(&with).unwrap(), Access::Act);
    }

    #[test]
    fn the_cookie_of_a_session_acts_for_the_nodes_own_page_alone() {
        let guard = guard(Exposure::Network, Some(TOKEN));
        let own = headers(&[("host", "proxy-a:8090"), ("origin", "http://proxy-a:8090")]);
        assert_eq!(guard.log_in(&own, "wrong").unwrap_err().status(), StatusCode::UNAUTHORIZED);
        let answer = guard.log_in(&own, &TOKEN.replace(' ', "-")).unwrap();
        let cookie = answer.headers()[SET_COOKIE].to_str().unwrap();
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
        let pair = cookie.split(';').next().unwrap();
        let with = |origin: &str| headers(&[("host", "proxy-a:8090"), ("origin", origin), ("cookie", pair)]);
        assert_eq!(guard.access_for(&Method::POST, &with("http://proxy-a:8090")).unwrap(), Access::Act);
        for other in ["http://proxy-a:3000", "null", "http://evil.example"] {
            assert_eq!(status(guard.access_for(&Method::POST, &with(other))), 403, "{other}");
        }
        let forged = headers(&[("host", "proxy-a:8090"), ("cookie", &pair.replace('e', "f"))]);
        assert_eq!(status(guard.access(&forged)), 401);
    }

    #[test]
    fn metrics_are_open_unless_they_have_a_token() {
        let open = guard(Exposure::Network, None);
        assert!(open.check_metrics(&HeaderMap::new()).is_ok());
        let metrics_token = AdminToken::new("the-token-of-metrics").ok();
        let token = AdminToken::new("the-token-of-admins").ok();
        let guard = Guard::new(Exposure::Network, &AdminSettings { token, metrics_token, peers: Vec::new() });
        assert_eq!(guard.check_metrics(&HeaderMap::new()).unwrap_err().status(), StatusCode::UNAUTHORIZED);
        for good in ["the-token-of-metrics", "the-token-of-admins"] {
            assert!(guard.check_metrics(&headers(&[("authorization", &bearer_of(good))])).is_ok());
        }
        assert!(guard.access(&headers(&[("authorization", &bearer_of("the-token-of-metrics"))])).is_err());
    }
}
