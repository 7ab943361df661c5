//! Guard of the admin port: read and write permissions of requests.
//!
//! ```text
//!                         no token                      admin token, or session cookie
//!  /healthz               yes                           yes
//!  /readyz, /startupz     yes                           yes
//!  /metrics               unless a token is set         yes
//!  page and /api, read    only on a loopback address    yes
//!  /api, act              no                            yes
//! ```
//!
//! On a non-loopback address, page and API require an admin token. On a loopback address, a request without a token
//! must name a loopback host, which prevents DNS rebinding by another site's page. `/healthz`, and `/startupz` once
//! ready, are exempt because they reveal nothing.
//!
//! Wrong tokens are counted, logged once a minute and throttled: above a limit, every token from that address is
//! delayed before the comparison. A correct token is never refused.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::{Instant, sleep};
use tracing::warn;
use trunkline_protocol::wire;

use super::access::{Access, Actor, AdminCaller};
use super::audit::CallerGone;
use super::exposition::AdminCounters;
use super::session::{AdmittedCaller, SessionEnd, Sessions};
use crate::edge::observer::ApiError;
use crate::edge::observer::Observer;
use crate::features::webhook::Webhooks;
use crate::fleet::FromNode;
use crate::ground::auth::{AdminToken, AdminTokenInForce};
use crate::ground::config::{AdminSettings, LogLevels};
use crate::ground::limits::AuthThrottle;
use crate::ground::net::address::is_loopback_host;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exposure {
    /// Only from this machine.
    Loopback,
    Network,
}

#[derive(Debug, Clone)]
pub(super) struct Guard(Arc<GuardRules>);

#[derive(Debug)]
struct GuardRules {
    exposure: Exposure,
    token: Option<AdminTokenInForce>,
    metrics_token: Option<AdminToken>,
    sessions: Sessions,
    /// Throttle of wrong tokens, and the start of its clock.
    throttle: (Arc<AuthThrottle>, Instant),
    counters: Arc<AdminCounters>,
}

enum Credential<'a> {
    Token(&'a str),
    Session(SessionEnd),
    Nothing,
}

impl Guard {
    pub(super) fn new(
        exposure: Exposure,
        settings: &AdminSettings,
        node: &str,
        counters: Arc<AdminCounters>,
        throttle: (Arc<AuthThrottle>, Instant),
    ) -> Self {
        let (token, metrics_token) = (settings.token.clone(), settings.metrics_token.clone());
        let sessions = Sessions::new(node);
        Self(Arc::new(GuardRules { exposure, token, metrics_token, sessions, throttle, counters }))
    }

    pub(super) fn has_token(&self) -> bool {
        self.0.token.is_some()
    }

    /// Fails if the port is not loopback and has no token.
    pub(super) fn check_served(&self) -> Result<(), ApiError> {
        match (self.0.exposure, &self.0.token) {
            (Exposure::Network, None) => Err(ApiError::new(
                StatusCode::NOT_FOUND,
                "not served: --admin is not a loopback address, so the observer page and /api need --admin-token",
            )),
            _ => Ok(()),
        }
    }

    /// Fails if the request has no read permission.
    pub(super) async fn access(&self, headers: &HeaderMap, caller: AdminCaller) -> Result<Access, ApiError> {
        self.admit(headers, caller).await.map(|admitted| admitted.access)
    }

    async fn admit(&self, headers: &HeaderMap, caller: AdminCaller) -> Result<AdmittedCaller, ApiError> {
        self.check_served()?;
        match (self.credential(headers), &self.0.token) {
            (Credential::Session(end), _) => Ok(AdmittedCaller::of_session(end)),
            (Credential::Token(given), Some(token)) => {
                self.check_token(given, &[&token.load().token], caller).await?;
                Ok(AdmittedCaller::new(Access::Act, Actor::Token))
            }
            (Credential::Token(_), None) => Err(unauthorized("this node has no --admin-token, so it accepts no token")),
            (Credential::Nothing, _) if self.0.exposure == Exposure::Loopback && names_this_machine(headers) => {
                Ok(AdmittedCaller::new(Access::Read, Actor::Unauthenticated))
            }
            (Credential::Nothing, Some(_)) => Err(unauthorized("this needs the admin token, as Authorization: Bearer")),
            (Credential::Nothing, None) => Err(self.foreign_host()),
        }
    }

    /// Compares a token with the valid ones. Delays an address that has guessed before, for correct tokens too.
    async fn check_token(&self, given: &str, right: &[&AdminToken], caller: AdminCaller) -> Result<(), ApiError> {
        let (GuardRules { throttle: (throttle, began), counters, .. }, AdminCaller(address)) = (&*self.0, caller);
        let wait = throttle.wait(address, began.elapsed());
        if !wait.is_zero() {
            sleep(wait).await;
        }
        if right.iter().any(|token| token.is(given)) {
            return Ok(());
        }
        if let Some(count) = throttle.note_wrong(address, given, began.elapsed()) {
            let from = address.map(|ip| ip.to_string()).unwrap_or_default();
            warn!(%from, count, "wrong tokens at the admin port; logged at most once a minute");
        }
        let wrong = "wrong token: it is not the --admin-token of this node";
        if wait.is_zero() {
            counters.wrong_token.increment();
            return Err(unauthorized(wrong));
        }
        counters.braked.increment();
        Err(unauthorized(format!("{wrong}; its address sent many wrong ones, so responses are delayed")))
    }

    /// Protects readiness and metrics against DNS rebinding. Requests without `Host` don't come from browsers. Fails if
    /// the port is loopback and the host is not.
    pub(super) fn check_host(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let is_local = self.0.exposure == Exposure::Loopback;
        if is_local && headers.contains_key(HOST) && !names_this_machine(headers) {
            return Err(self.foreign_host());
        }
        Ok(())
    }

    /// Counts a request for another machine's host and returns its refusal.
    fn foreign_host(&self) -> ApiError {
        self.0.counters.foreign_host.increment();
        let text = "Host is not a loopback address: without --admin-token only this machine has access";
        ApiError::new(StatusCode::FORBIDDEN, text)
    }

    /// Checks that a request has one of the two tokens for metrics.
    pub(super) async fn check_metrics(&self, headers: &HeaderMap, caller: AdminCaller) -> Result<(), ApiError> {
        let GuardRules { token, metrics_token: wanted, .. } = &*self.0;
        let of_admins = token.as_ref().map(AdminTokenInForce::load);
        let right: Vec<_> = wanted.iter().chain(of_admins.as_ref().map(|admins| &admins.token)).collect();
        match bearer(headers) {
            Some(given) if wanted.is_some() => {
                self.check_token(given, &right, caller).await.map_err(|_| metrics_unauthorized())
            }
            None if wanted.is_some() => Err(metrics_unauthorized()),
            // A correct token permits any host name; a DNS rebinding page has no token.
            Some(given) if token.is_some() && self.check_host(headers).is_err() => {
                self.check_token(given, &right, caller).await
            }
            _ => self.check_host(headers),
        }
    }

    async fn admit_for(
        &self,
        method: &Method,
        headers: &HeaderMap,
        caller: AdminCaller,
    ) -> Result<AdmittedCaller, ApiError> {
        let admitted = self.admit(headers, caller).await?;
        if matches!(*method, Method::GET | Method::HEAD) {
            return Ok(admitted);
        }
        if admitted.access == Access::Read && !self.has_token() {
            let text = "changes are disabled: this node was started without --admin-token";
            return Err(ApiError::new(StatusCode::FORBIDDEN, text));
        }
        admitted.access.to_act()?;
        // Browsers send the cookie with any request from the same site, which includes all ports of the host.
        check_page(headers)?;
        Ok(admitted)
    }

    /// Exchanges the admin token for a session cookie. Fails if the token is wrong or not configured, or the request
    /// comes from another page.
    pub(super) async fn log_in(
        &self,
        headers: &HeaderMap,
        caller: AdminCaller,
        given: &str,
    ) -> Result<Response, ApiError> {
        self.check_served()?;
        self.check_host(headers)?;
        check_page(headers)?;
        let Some(token) = self.0.token.as_ref().map(AdminTokenInForce::load) else {
            return Err(unauthorized("this node has no --admin-token, so log-in is disabled"));
        };
        self.check_token(given, &[&token.token], caller).await?;
        Ok(self.0.sessions.begin_session(&token.replaced, headers))
    }

    /// Fails if the request comes from another page.
    pub(super) fn log_out(&self, headers: &HeaderMap) -> Result<Response, ApiError> {
        self.check_served()?;
        check_page(headers)?;
        Ok(self.0.sessions.end_session(headers))
    }

    fn credential<'a>(&self, headers: &'a HeaderMap) -> Credential<'a> {
        match bearer(headers) {
            Some(token) => Credential::Token(token),
            None => self.0.sessions.find(headers).map_or(Credential::Nothing, Credential::Session),
        }
    }
}

/// Middleware that refuses unauthorized requests and attaches the [`AdmittedCaller`] of others.
pub(super) async fn check(
    State(guard): State<Guard>,
    caller: AdminCaller,
    from: Option<Extension<FromNode>>,
    gone: Option<Extension<CallerGone>>,
    mut request: Request,
    next: Next,
) -> Response {
    let admitted = match from {
        // The other node has authenticated its caller.
        Some(_) => Ok(AdmittedCaller::new(Access::Act, Actor::Node)),
        None => {
            let CallerGone(gone) = gone.map(|Extension(gone)| gone).unwrap_or_default();
            let admitted = guard.admit_for(request.method(), request.headers(), caller);
            gone.run_until_cancelled(admitted).await.unwrap_or_else(|| Err(unauthorized("the caller has disconnected")))
        }
    };
    match admitted {
        Ok(admitted) => {
            let actor = admitted.actor;
            request.extensions_mut().insert(admitted);
            actor.sign(next.run(request).await)
        }
        Err(error) => error.into_response(),
    }
}

fn unauthorized(text: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, text).with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}

fn metrics_unauthorized() -> ApiError {
    unauthorized("--metrics-token is required, as Authorization: Bearer")
}

/// Checks that a request comes from this node's page, or not from a page.
fn check_page(headers: &HeaderMap) -> Result<(), ApiError> {
    match is_own_page(headers) {
        true => Ok(()),
        false => Err(ApiError::new(StatusCode::FORBIDDEN, "Origin is not this node's own page")),
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    wire::bearer(headers.get(AUTHORIZATION)?.to_str().ok()?)
}

fn names_this_machine(headers: &HeaderMap) -> bool {
    headers.get(HOST).and_then(|host| host.to_str().ok()).is_some_and(is_loopback_host)
}

/// Whether a request comes from this node's page. Browsers send the origin; other clients send none.
fn is_own_page(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else { return true };
    let origin = origin.to_str().ok().and_then(|text| text.parse::<Uri>().ok());
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    origin.as_ref().and_then(|origin| origin.authority()).map(|authority| authority.as_str()) == host && host.is_some()
}

/// State shared by the handlers of page and API.
#[derive(Debug, Clone)]
pub(super) struct AdminContext {
    pub(super) observer: Observer,
    pub(super) webhooks: Arc<Webhooks>,
    pub(super) guard: Guard,
    pub(super) log: Option<&'static dyn LogLevels>,
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use axum::Router;
    use axum::body::Body;
    use axum::http::header::SET_COOKIE;
    use axum::middleware::from_fn_with_state;
    use axum::routing::post;
    use futures_util::FutureExt;
    use tokio::time::timeout;
    use tower::ServiceExt;

    use super::*;
    use crate::edge::admin::audit::{AuditLog, record};

    const TOKEN: &str = "the admin token of the tests";

    fn guard(exposure: Exposure, token: Option<&str>) -> Guard {
        let token = token.map(|text| AdminToken::new(&text.replace(' ', "-")).unwrap().into());
        of(exposure, &AdminSettings { token, ..AdminSettings::default() })
    }

    fn of(exposure: Exposure, settings: &AdminSettings) -> Guard {
        Guard::new(exposure, settings, "proxy-a", Arc::default(), (Arc::default(), Instant::now()))
    }

    fn me() -> AdminCaller {
        AdminCaller(Some(std::net::Ipv4Addr::LOCALHOST.into()))
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn status<T>(access: Result<T, ApiError>) -> u16 {
        access.err().unwrap().status().as_u16()
    }

    fn bearer_of(token: &str) -> String {
        format!("Bearer {}", token.replace(' ', "-"))
    }

    #[tokio::test(start_paused = true)]
    async fn on_this_machine_every_request_reads_and_one_with_the_token_acts() {
        let guard = guard(Exposure::Loopback, Some(TOKEN));
        let local = headers(&[("host", "127.0.0.1:8090")]);
        assert_eq!(guard.access(&local, me()).await.unwrap(), Access::Read);
        assert_eq!(status(guard.admit_for(&Method::POST, &local, me()).await), 401);
        let with = headers(&[("host", "localhost"), ("authorization", &bearer_of(TOKEN))]);
        assert_eq!(guard.admit_for(&Method::POST, &with, me()).await.unwrap().access, Access::Act);
        let wrong = headers(&[("host", "localhost"), ("authorization", &bearer_of("something else"))]);
        assert_eq!(status(guard.access(&wrong, me()).await), 401);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_token_nothing_acts_and_a_page_of_another_site_can_not_even_read() {
        let guard = guard(Exposure::Loopback, None);
        let local = headers(&[("host", "[::1]:8090")]);
        assert_eq!(guard.access(&local, me()).await.unwrap(), Access::Read);
        assert_eq!(status(guard.admit_for(&Method::POST, &local, me()).await), 403);
        assert_eq!(status(guard.access(&headers(&[("host", "rebound.example:8090")]), me()).await), 403);
        let with = headers(&[("host", "localhost"), ("authorization", &bearer_of(TOKEN))]);
        assert_eq!(status(guard.access(&with, me()).await), 401);
    }

    #[tokio::test(start_paused = true)]
    async fn beyond_this_machine_the_token_is_needed_and_without_one_nothing_is_served() {
        let local = headers(&[("host", "127.0.0.1:8090")]);
        assert_eq!(status(guard(Exposure::Network, None).access(&local, me()).await), 404);
        let guard = guard(Exposure::Network, Some(TOKEN));
        assert_eq!(status(guard.access(&local, me()).await), 401);
        let with = headers(&[("host", "proxy-a:8090"), ("authorization", &bearer_of(TOKEN))]);
        assert_eq!(guard.access(&with, me()).await.unwrap(), Access::Act);
    }

    #[tokio::test(start_paused = true)]
    async fn the_cookie_of_a_session_acts_for_the_nodes_own_page_alone() {
        let guard = guard(Exposure::Network, Some(TOKEN));
        let own = headers(&[("host", "proxy-a:8090"), ("origin", "http://proxy-a:8090")]);
        assert_eq!(guard.log_in(&own, me(), "wrong").await.unwrap_err().status(), StatusCode::UNAUTHORIZED);
        let answer = guard.log_in(&own, me(), &TOKEN.replace(' ', "-")).await.unwrap();
        let cookie = answer.headers()[SET_COOKIE].to_str().unwrap();
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
        let pair = cookie.split(';').next().unwrap();
        let with = |origin: &str| headers(&[("host", "proxy-a:8090"), ("origin", origin), ("cookie", pair)]);
        assert_eq!(
            guard.admit_for(&Method::POST, &with("http://proxy-a:8090"), me()).await.unwrap().access,
            Access::Act
        );
        for other in ["http://proxy-a:3000", "null", "http://evil.example"] {
            assert_eq!(status(guard.admit_for(&Method::POST, &with(other), me()).await), 403, "{other}");
        }
        let forged = headers(&[("host", "proxy-a:8090"), ("cookie", &pair.replace('e', "f"))]);
        assert_eq!(status(guard.access(&forged, me()).await), 401);
    }

    #[tokio::test(start_paused = true)]
    async fn of_9150_wrong_tokens_ten_are_answered_at_once_and_the_right_one_is_good_everywhere() {
        let guard = guard(Exposure::Loopback, Some(TOKEN));
        let local = headers(&[("host", "127.0.0.1:8090")]);
        let answer = guard.log_in(&local, me(), &TOKEN.replace(' ', "-")).await.unwrap();
        let pair = answer.headers()[SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned();
        let guesses = (0..9_150).map(|number| {
            let guess = bearer_of(&format!("a wrong guess {number}"));
            let guessing = headers(&[("host", "localhost"), ("authorization", &guess)]);
            let guard = guard.clone();
            async move { status(guard.access(&guessing, me()).await) }
        });
        let statuses = futures_util::future::join_all(guesses).await;
        assert!(statuses.iter().all(|status| *status == 401));
        let counters = &guard.0.counters;
        assert_eq!((counters.wrong_token.get(), counters.braked.get()), (10, 9_140));
        let right = headers(&[("host", "localhost"), ("authorization", &bearer_of(TOKEN))]);
        assert_eq!(guard.access(&right, me()).await.unwrap(), Access::Act, "late, but in");
        let elsewhere = AdminCaller(Some([10, 0, 0, 7].into()));
        let at_once = guard.access(&right, elsewhere).now_or_never();
        assert_eq!(at_once.unwrap().unwrap(), Access::Act, "whoever guesses makes nobody else wait");
        let session = headers(&[("host", "localhost"), ("cookie", &pair)]);
        assert_eq!(guard.access(&session, me()).await.unwrap(), Access::Act);
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_whose_caller_has_hung_up_is_not_judged() {
        let guard = guard(Exposure::Network, Some(TOKEN));
        for number in 0..20 {
            let guessing = headers(&[("authorization", &bearer_of(&format!("a wrong guess {number}")))]);
            assert!(guard.access(&guessing, me()).now_or_never().is_none_or(|access| access.is_err()));
        }
        let acts = Arc::new(AtomicU32::new(0));
        let act = {
            let acts = acts.clone();
            async move || {
                acts.fetch_add(1, Ordering::Relaxed);
            }
        };
        let routes = Router::new()
            .route("/api/announce", post(act))
            .layer(from_fn_with_state(guard, check))
            .layer(from_fn_with_state(AuditLog::new(Arc::default(), None), record));
        let request = || {
            let builder = Request::builder().method(Method::POST).uri("/api/announce").extension(me());
            builder.header(AUTHORIZATION, bearer_of(TOKEN)).body(Body::empty()).unwrap()
        };
        let short = Duration::from_millis(10);
        assert!(timeout(short, routes.clone().oneshot(request())).await.is_err(), "it waits, and hangs up");
        // sleep: time is paused, and that nothing happens in it is what is tested.
        sleep(Duration::from_secs(60)).await;
        assert_eq!(acts.load(Ordering::Relaxed), 0);
        assert_eq!(routes.oneshot(request()).await.unwrap().status(), StatusCode::OK, "late, but in");
        assert_eq!(acts.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_operator_at_a_new_address_is_not_delayed_while_twelve_addresses_guess() {
        let guard = guard(Exposure::Network, Some(TOKEN));
        for number in 0..120 {
            let from = AdminCaller(Some([192, 0, 2, number % 12].into()));
            let guess = bearer_of(&format!("a wrong guess {number}"));
            let guessing = headers(&[("host", "proxy-a"), ("authorization", &guess)]);
            assert!(guard.access(&guessing, from).now_or_never().is_none_or(|access| access.is_err()));
        }
        let right = headers(&[("host", "proxy-a"), ("authorization", &bearer_of(TOKEN))]);
        let operator = AdminCaller(Some([198, 51, 100, 7].into()));
        assert_eq!(guard.access(&right, operator).now_or_never().unwrap().unwrap(), Access::Act);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_cookie_is_invalid_after_the_log_out() {
        let guard = guard(Exposure::Network, Some(TOKEN));
        let own = headers(&[("host", "proxy-a:8090"), ("origin", "http://proxy-a:8090")]);
        let answer = guard.log_in(&own, me(), &TOKEN.replace(' ', "-")).await.unwrap();
        let pair = answer.headers()[SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned();
        assert!(!pair.contains('.'), "it is no JWT: {pair}");
        let kept = headers(&[("host", "proxy-a:8090"), ("cookie", &pair)]);
        assert_eq!(guard.access(&kept, me()).await.unwrap(), Access::Act);
        let foreign = headers(&[("host", "proxy-a:8090"), ("origin", "http://proxy-a:3000"), ("cookie", &pair)]);
        assert_eq!(status(guard.log_out(&foreign)), 403);
        guard.log_out(&kept).unwrap();
        assert_eq!(status(guard.access(&kept, me()).await), 401);
    }

    #[tokio::test(start_paused = true)]
    async fn a_loopback_port_reveals_nothing_to_a_page_by_dns_rebinding() {
        let guard = guard(Exposure::Loopback, Some(TOKEN));
        let rebound = headers(&[("host", "rebound.example:8090"), ("origin", "http://rebound.example:8090")]);
        assert_eq!(status(guard.check_host(&rebound)), 403);
        assert_eq!(status(guard.check_metrics(&rebound, me()).await), 403);
        assert_eq!(status(guard.log_in(&rebound, me(), &TOKEN.replace(' ', "-")).await), 403);
        let with = headers(&[("host", "metrics.example"), ("authorization", &bearer_of(TOKEN))]);
        for good in [HeaderMap::new(), headers(&[("host", "localhost:8090")]), with] {
            assert!(guard.check_metrics(&good, me()).await.is_ok(), "{good:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_is_replaced_takes_its_sessions_along() {
        let [old, new] = ["the-token-of-monday", "the-token-of-tuesday"].map(|text| AdminToken::new(text).unwrap());
        let in_force = AdminTokenInForce::from(old.clone());
        let settings = AdminSettings { token: Some(in_force.clone()), ..AdminSettings::default() };
        let guard = of(Exposure::Network, &settings);
        let answer = guard.log_in(&HeaderMap::new(), me(), old.expose()).await.unwrap();
        let cookie = answer.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
        let cookie = headers(&[("cookie", &cookie)]);
        let with = |token: &AdminToken| headers(&[("authorization", &bearer_of(token.expose()))]);
        in_force.replace(old.clone());
        let end = guard.admit(&cookie, me()).await.unwrap().end;
        assert!(guard.access(&with(&old), me()).await.is_ok(), "it is the same one");
        in_force.replace(new.clone());
        timeout(Duration::from_secs(1), end.unwrap().wait()).await.expect("what the session has opened ends");
        assert_eq!(status(guard.access(&cookie, me()).await), 401);
        assert_eq!(status(guard.access(&with(&old), me()).await), 401);
        assert_eq!(guard.access(&with(&new), me()).await.unwrap(), Access::Act);
        assert!(guard.log_in(&HeaderMap::new(), me(), new.expose()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn metrics_are_open_unless_they_have_a_token() {
        let open = guard(Exposure::Network, None);
        assert!(open.check_metrics(&HeaderMap::new(), me()).await.is_ok());
        let metrics_token = AdminToken::new("the-token-of-metrics").ok();
        let token = AdminToken::new("the-token-of-admins").ok().map(Into::into);
        let guard = of(Exposure::Network, &AdminSettings { token, metrics_token, ..AdminSettings::default() });
        assert_eq!(guard.check_metrics(&HeaderMap::new(), me()).await.unwrap_err().status(), StatusCode::UNAUTHORIZED);
        for good in ["the-token-of-metrics", "the-token-of-admins"] {
            assert!(guard.check_metrics(&headers(&[("authorization", &bearer_of(good))]), me()).await.is_ok());
        }
        assert!(guard.access(&headers(&[("authorization", &bearer_of("the-token-of-metrics"))]), me()).await.is_err());
    }
}
