//! Who may come in at the admin port, and who may act there.
//!
//! ```text
//!                         no token shown                the admin token, or the cookie that it was changed for
//!  /healthz, /readyz      yes                           yes
//!  /metrics               unless it has a token         yes
//!  page and /api, read    only on a loopback address    yes
//!  /api, act              no                            yes
//! ```
//!
//! Beyond this machine page and API are not served at all without an admin token. On it a page of elsewhere must not
//! read by a name that it made resolve to us: so who shows no token has to ask for a loopback host.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, COOKIE, HOST, ORIGIN, SET_COOKIE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::api::ApiError;
use crate::config::{AdminSettings, AdminToken, is_loopback_host, unix_seconds};

/// The cookie of who has logged in.
const COOKIE_NAME: &str = "trunkline_admin";

/// How long a log-in is good for: a working day.
const SESSION_S: u64 = 12 * 3600;

/// What a log-in is for, so that no other token signed with the same secret is one.
const AUDIENCE: &str = "trunkline-observer";

/// Where the port can be reached from, as far as its address tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// From this machine alone.
    Machine,
    Network,
}

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Access {
    Read,
    /// Close clients, show what they say, change settings.
    Act,
}

impl Access {
    /// Demands that somebody may act.
    ///
    /// # Errors
    /// When it may only look.
    pub(super) fn to_act(self) -> Result<(), ApiError> {
        match self {
            Self::Act => Ok(()),
            Self::Read => Err(ApiError::new(StatusCode::UNAUTHORIZED, "this needs the admin token: log in with it")),
        }
    }
}

/// Keeps the admin port.
#[derive(Debug, Clone)]
pub(super) struct Guard(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    reach: Reach,
    token: Option<AdminToken>,
    metrics_token: Option<AdminToken>,
}

/// How somebody shows that they may act.
enum Shown<'a> {
    Token(&'a str),
    Session,
    Nothing,
}

#[derive(Serialize, Deserialize)]
struct Session {
    aud: String,
    exp: u64,
}

impl Guard {
    /// One that goes by these settings.
    #[must_use]
    pub(super) fn new(reach: Reach, settings: &AdminSettings) -> Self {
        let (token, metrics_token) = (settings.token.clone(), settings.metrics_token.clone());
        Self(Arc::new(Inner { reach, token, metrics_token }))
    }

    /// Whether anybody can get to act.
    #[must_use]
    pub(super) fn has_token(&self) -> bool {
        self.0.token.is_some()
    }

    /// Whether page and API are served to anybody.
    ///
    /// # Errors
    /// When they are not.
    pub(super) fn is_served(&self) -> Result<(), ApiError> {
        match (self.0.reach, &self.0.token) {
            (Reach::Network, None) => Err(ApiError::new(
                StatusCode::NOT_FOUND,
                "not served: --admin is no loopback address, so the observer page and /api need --admin-token",
            )),
            _ => Ok(()),
        }
    }

    /// What somebody may do who sends these headers.
    ///
    /// # Errors
    /// When they may not even look.
    pub(super) fn judge(&self, headers: &HeaderMap) -> Result<Access, ApiError> {
        self.is_served()?;
        match (self.shown(headers), &self.0.token) {
            (Shown::Session, _) => Ok(Access::Act),
            (Shown::Token(given), Some(token)) if token.is(given) => Ok(Access::Act),
            (Shown::Token(_), Some(_)) => Err(unauthorized("the token is not the one of --admin-token")),
            (Shown::Token(_), None) => Err(unauthorized("this node has no --admin-token, so none is accepted")),
            (Shown::Nothing, _) if self.0.reach == Reach::Machine && names_this_machine(headers) => Ok(Access::Read),
            (Shown::Nothing, Some(_)) => Err(unauthorized("this needs the admin token, as Authorization: Bearer")),
            (Shown::Nothing, None) => Err(ApiError::new(
                StatusCode::FORBIDDEN,
                "Host names no loopback address: without --admin-token this is for this machine alone",
            )),
        }
    }

    /// Whether metrics may be read.
    ///
    /// # Errors
    /// When they may not.
    pub(super) fn judge_metrics(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(wanted) = &self.0.metrics_token else { return Ok(()) };
        let given = bearer(headers).unwrap_or_default();
        if wanted.is(given) || self.0.token.as_ref().is_some_and(|token| token.is(given)) {
            return Ok(());
        }
        Err(unauthorized("this needs the token of --metrics-token, as Authorization: Bearer"))
    }

    fn judge_request(&self, method: &Method, headers: &HeaderMap) -> Result<Access, ApiError> {
        let access = self.judge(headers)?;
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

    /// Changes the admin token for a cookie.
    ///
    /// # Errors
    /// When it is not the token, or there is none.
    pub(super) fn log_in(&self, headers: &HeaderMap, given: &str) -> Result<Response, ApiError> {
        self.is_served()?;
        if !is_own_page(headers) {
            return Err(ApiError::new(StatusCode::FORBIDDEN, "Origin is another page than this node's own"));
        }
        let Some(token) = &self.0.token else {
            return Err(unauthorized("this node has no --admin-token, so nobody can log in"));
        };
        if !token.is(given) {
            return Err(unauthorized("the token is not the one of --admin-token"));
        }
        let session = Session { aud: AUDIENCE.into(), exp: unix_seconds() + SESSION_S };
        let key = EncodingKey::from_secret(token.expose().as_bytes());
        let unsigned =
            |error: jsonwebtoken::errors::Error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
        let value = encode(&Header::new(Algorithm::HS256), &session, &key).map_err(unsigned)?;
        Ok(with_cookie(&value, SESSION_S, Access::Act))
    }

    fn shown<'a>(&self, headers: &'a HeaderMap) -> Shown<'a> {
        if let Some(token) = bearer(headers) {
            return Shown::Token(token);
        }
        let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut values = cookies.flat_map(|all| all.split("; ")).filter_map(|one| one.split_once('='));
        // One that is over, or of another node on this machine, is as none: the page asks to log in.
        if values.any(|(name, value)| name == COOKIE_NAME && self.is_session(value)) {
            return Shown::Session;
        }
        Shown::Nothing
    }

    fn is_session(&self, value: &str) -> bool {
        let Some(token) = &self.0.token else { return false };
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_audience(&[AUDIENCE]);
        decode::<Session>(value, &DecodingKey::from_secret(token.expose().as_bytes()), &validation).is_ok()
    }
}

/// Takes the cookie back.
#[must_use]
pub(super) fn log_out() -> Response {
    with_cookie("", 0, Access::Read)
}

fn with_cookie(value: &str, lifetime_s: u64, access: Access) -> Response {
    let cookie = format!("{COOKIE_NAME}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={lifetime_s}");
    let mut response = Json(json!({ "access": access })).into_response();
    // A JWT has no character that a header can't carry.
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}

/// Lets through who may; behind it a request carries its [`Access`].
pub(super) async fn guard(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    match guard.judge_request(request.method(), request.headers()) {
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
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

fn names_this_machine(headers: &HeaderMap) -> bool {
    headers.get(HOST).and_then(|host| host.to_str().ok()).is_some_and(is_loopback_host)
}

/// Browsers name the page that sends a request; who is no browser names none.
fn is_own_page(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else { return true };
    let origin = origin.to_str().ok().and_then(|text| text.parse::<Uri>().ok());
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    origin.as_ref().and_then(|origin| origin.authority()).map(|authority| authority.as_str()) == host && host.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "the admin token of the tests";

    fn guard(reach: Reach, token: Option<&str>) -> Guard {
        let token = token.map(|text| AdminToken::new(&text.replace(' ', "-")).unwrap());
        Guard::new(reach, &AdminSettings { token, ..AdminSettings::default() })
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn status(judged: Result<Access, ApiError>) -> u16 {
        judged.unwrap_err().status().as_u16()
    }

    fn bearer_of(token: &str) -> String {
        format!("Bearer {}", token.replace(' ', "-"))
    }

    #[test]
    fn on_this_machine_all_may_look_and_who_has_the_token_may_act() {
        let guard = guard(Reach::Machine, Some(TOKEN));
        let local = headers(&[("host", "127.0.0.1:8090")]);
        assert_eq!(guard.judge(&local).unwrap(), Access::Read);
        assert_eq!(status(guard.judge_request(&Method::POST, &local)), 401);
        let with = headers(&[("host", "localhost"), ("authorization", &bearer_of(TOKEN))]);
        assert_eq!(guard.judge_request(&Method::POST, &with).unwrap(), Access::Act);
        let wrong = headers(&[("host", "localhost"), ("authorization", &bearer_of("something else"))]);
        assert_eq!(status(guard.judge(&wrong)), 401);
    }

    #[test]
    fn without_a_token_nobody_acts_and_a_page_of_elsewhere_can_not_even_look() {
        let guard = guard(Reach::Machine, None);
        let local = headers(&[("host", "[::1]:8090")]);
        assert_eq!(guard.judge(&local).unwrap(), Access::Read);
        assert_eq!(status(guard.judge_request(&Method::POST, &local)), 403);
        assert_eq!(status(guard.judge(&headers(&[("host", "rebound.example:8090")]))), 403);
        let with = headers(&[("host", "localhost"), ("authorization", &bearer_of(TOKEN))]);
        assert_eq!(status(guard.judge(&with)), 401);
    }

    #[test]
    fn beyond_this_machine_the_token_is_needed_and_without_one_nothing_is_served() {
        let local = headers(&[("host", "127.0.0.1:8090")]);
        assert_eq!(status(guard(Reach::Network, None).judge(&local)), 404);
        let guard = guard(Reach::Network, Some(TOKEN));
        assert_eq!(status(guard.judge(&local)), 401);
        let with = headers(&[("host", "proxy-a:8090"), ("authorization", &bearer_of(TOKEN))]);
        assert_eq!(guard.judge(&with).unwrap(), Access::Act);
    }

    #[test]
    fn a_log_in_is_a_cookie_that_acts_for_the_nodes_own_page_alone() {
        let guard = guard(Reach::Network, Some(TOKEN));
        let own = headers(&[("host", "proxy-a:8090"), ("origin", "http://proxy-a:8090")]);
        assert_eq!(guard.log_in(&own, "wrong").unwrap_err().status(), StatusCode::UNAUTHORIZED);
        let answer = guard.log_in(&own, &TOKEN.replace(' ', "-")).unwrap();
        let cookie = answer.headers()[SET_COOKIE].to_str().unwrap();
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
        let pair = cookie.split(';').next().unwrap();
        let with = |origin: &str| headers(&[("host", "proxy-a:8090"), ("origin", origin), ("cookie", pair)]);
        assert_eq!(guard.judge_request(&Method::POST, &with("http://proxy-a:8090")).unwrap(), Access::Act);
        for other in ["http://proxy-a:3000", "null", "http://evil.example"] {
            assert_eq!(status(guard.judge_request(&Method::POST, &with(other))), 403, "{other}");
        }
        let forged = headers(&[("host", "proxy-a:8090"), ("cookie", &pair.replace('e', "f"))]);
        assert_eq!(status(guard.judge(&forged)), 401);
    }

    #[test]
    fn metrics_are_open_unless_they_have_a_token() {
        let open = guard(Reach::Network, None);
        assert!(open.judge_metrics(&HeaderMap::new()).is_ok());
        let metrics_token = AdminToken::new("the-token-of-metrics").ok();
        let token = AdminToken::new("the-token-of-admins").ok();
        let guard = Guard::new(Reach::Network, &AdminSettings { token, metrics_token, peers: Vec::new() });
        assert_eq!(guard.judge_metrics(&HeaderMap::new()).unwrap_err().status(), StatusCode::UNAUTHORIZED);
        for good in ["the-token-of-metrics", "the-token-of-admins"] {
            assert!(guard.judge_metrics(&headers(&[("authorization", &bearer_of(good))])).is_ok());
        }
        assert!(guard.judge(&headers(&[("authorization", &bearer_of("the-token-of-metrics"))])).is_err());
    }
}
