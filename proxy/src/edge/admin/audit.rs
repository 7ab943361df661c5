//! Audit log: actions of operators through the admin port, their identity, and refusals.
//!
//! ```text
//!  request ─► action by method and path ─► guard ─► handler ─► line: act, outcome, by, from, path, detail
//!                 └─ a change that is not listed: refused
//! ```
//!
//! A modifying API request not listed in [`ACTS`] is refused, so every route is covered. Lines use the target
//! [`AUDIT_TARGET`], so that programs can write them to a file. Refusals are rate-limited; actions, for which callers
//! need the token, are not.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::access::{Actor, AdminCaller};
use super::session::{AdmittedCaller, PAGE_PATH};
use crate::edge::observer::ApiError;
use crate::edge::observer::{REVOKE_OWN_PATH, SHED_PATH, STOP_PATH};
use crate::ground::config::LogLevels;
use crate::ground::limits::Bucket;
use crate::ground::metrics::Counter;

/// Target of audit log lines.
pub const AUDIT_TARGET: &str = "audit";

/// Maximum number of refusal lines per second.
const REFUSALS_PER_SECOND: NonZeroU32 = NonZeroU32::new(10).unwrap();

/// Bytes of a body examined for details: the maximum body of any action.
const BODY_SEEN_BYTES: usize = 64 * 1024;

/// Maximum length, in characters, of a path with query and of a detail value in a line.
const SHOWN_CHARS: usize = 300;

/// Words in names of a query whose values are not shown.
const SECRET_WORDS: [&str; 6] = ["token", "key", "secret", "password", "jwt", "sig"];

/// Body fields logged as details of an action. Announced content and tokens are excluded.
const DETAILS: [&str; 20] = [
    "hub",
    "target",
    "group",
    "user",
    "client",
    "audience",
    "app",
    "all",
    "issued_before",
    "keep_s",
    "kept_until",
    "close",
    "reason",
    "to",
    "percent",
    "node",
    "per_second",
    "dry_run",
    "levels",
    "clients",
];

/// An act of an operator or, for a fleet, of another node.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OperatorAct {
    method: Method,
    path: &'static str,
    /// Name in log lines and metrics.
    name: &'static str,
}

const ROUTES: usize = 17;

static ACTS: [OperatorAct; ROUTES] = [
    OperatorAct::new(Method::POST, "/api/login", "log_in"),
    OperatorAct::new(Method::POST, "/api/logout", "log_out"),
    OperatorAct::new(Method::POST, "/api/clients/{id}/close", "close_client"),
    OperatorAct::new(Method::POST, "/api/announce", "announce"),
    OperatorAct::new(Method::POST, "/api/groups/join", "join_group"),
    OperatorAct::new(Method::POST, "/api/groups/leave", "leave_group"),
    OperatorAct::new(Method::POST, "/api/records/finish", "finish_record"),
    OperatorAct::new(Method::POST, "/api/records/delete", "delete_record"),
    OperatorAct::new(Method::POST, "/api/rebalance", "rebalance"),
    OperatorAct::new(Method::DELETE, "/api/rebalance", "stop_rebalance"),
    OperatorAct::new(Method::POST, SHED_PATH, "shed"),
    OperatorAct::new(Method::POST, STOP_PATH, "stop_own_rebalance"),
    OperatorAct::new(Method::POST, "/api/revocations", "revoke_tokens"),
    OperatorAct::new(Method::POST, REVOKE_OWN_PATH, "revoke_tokens_here"),
    OperatorAct::new(Method::PUT, "/api/log", "change_log_levels"),
    OperatorAct::new(Method::GET, "/api/clients/{id}/watch", "watch_client"),
    OperatorAct::new(Method::GET, "/api/trace", "trace"),
];

#[cfg(test)]
pub(super) fn routes() -> impl Iterator<Item = (&'static Method, &'static str)> {
    ACTS.iter().map(|act| (&act.method, act.path))
}

impl OperatorAct {
    const fn new(method: Method, path: &'static str, name: &'static str) -> Self {
        Self { method, path, name }
    }

    fn from_request(method: &Method, path: &str) -> Option<&'static Self> {
        let method = if *method == Method::HEAD { &Method::GET } else { method };
        let path = path.strip_prefix(PAGE_PATH).unwrap_or(path);
        ACTS.iter().find(|act| act.method == method && is_of_route(path, act.path))
    }

    /// Whether a success is logged. A rebalance is logged when an operator starts it; its steps, one per second, are
    /// not.
    fn is_logged(&self) -> bool {
        self.path != SHED_PATH
    }
}

/// Whether a path matches a route; segments in braces match anything.
fn is_of_route(path: &str, route: &str) -> bool {
    let (mut segments, mut wanted) = (path.split('/'), route.split('/'));
    let are_same = wanted.by_ref().all(|wanted| {
        let segment = segments.next();
        segment.is_some_and(|segment| segment == wanted || (wanted.starts_with('{') && !segment.is_empty()))
    });
    are_same && segments.next().is_none()
}

#[derive(Debug, Clone)]
pub(super) struct AuditLog(Arc<AuditState>);

#[derive(Debug)]
struct AuditState {
    began: Instant,
    refusals: Bucket,
    /// Refusals not logged since the last logged one.
    left_out: AtomicU64,
    counters: Arc<AuditCounters>,
    /// Log that must record actions before they begin.
    required: Option<&'static dyn LogLevels>,
}

#[derive(Debug, Default)]
pub(crate) struct AuditCounters {
    done: [Counter; ROUTES],
    refused: Counter,
}

impl AuditCounters {
    /// Successful actions, by name.
    pub(super) fn done(&self) -> impl Iterator<Item = (&'static str, u64)> {
        ACTS.iter().zip(&self.done).map(|(act, counter)| (act.name, counter.get()))
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused.get()
    }

    fn count(&self, act: &OperatorAct) {
        let counters = ACTS.iter().zip(&self.done).find(|(of, _)| *of == act);
        counters.into_iter().for_each(|(_, counter)| counter.increment());
    }
}

impl AuditLog {
    pub(super) fn new(counters: Arc<AuditCounters>, log: Option<&'static dyn LogLevels>) -> Self {
        let required = log.filter(|log| log.requires_audit());
        let (refusals, left_out) = (Bucket::new(REFUSALS_PER_SECOND), AtomicU64::new(0));
        Self(Arc::new(AuditState { began: Instant::now(), refusals, left_out, counters, required }))
    }

    fn note_act(&self, act: Option<&OperatorAct>, seen: &SeenRequest, answer: &Response) {
        let state = &*self.0;
        let actor = Actor::from_answer(answer);
        let status = answer.status();
        let is_refused = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        let (name, from, path) = (act.map_or("read", |act| act.name), seen.address(), &seen.path);
        // Unauthenticated callers could otherwise fill the disk.
        let may_log = || state.has_room();
        if is_refused && (act.is_some() || seen.has_token) {
            state.counters.refused.increment();
            if !may_log() {
                return;
            }
            let left_out = state.left_out.swap(0, Ordering::Relaxed);
            info!(target: AUDIT_TARGET, act = name, outcome = "refused", status = status.as_u16(), by = %actor, from, path, left_out, "operator");
            return;
        }
        let Some(act) = act.filter(|_| !is_refused) else { return };
        let outcome = if status.is_success() { "done" } else { "failed" };
        if status.is_success() {
            state.counters.count(act);
        }
        if act.is_logged() && (actor != Actor::Unauthenticated || may_log()) {
            let detail = seen.detail();
            info!(target: AUDIT_TARGET, act = name, outcome, status = status.as_u16(), by = %actor, from, path, detail, "operator");
        }
    }
}

impl AuditState {
    /// Whether the rate limit permits a line about an unauthenticated caller.
    fn has_room(&self) -> bool {
        let is_within = self.refusals.take(self.began.elapsed(), Duration::ZERO).is_ok();
        if !is_within {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
        is_within
    }
}

/// Middleware after the guard. If actions must be recorded, it records each before it begins, and refuses it if that
/// fails. Log-ins, which change nothing, precede the guard.
pub(super) async fn record_first(
    State(log): State<AuditLog>,
    caller: AdminCaller,
    Extension(AdmittedCaller { actor, .. }): Extension<AdmittedCaller>,
    request: Request,
    next: Next,
) -> Response {
    let act = OperatorAct::from_request(request.method(), request.uri().path()).filter(|act| act.is_logged());
    if let (Some(required), Some(act)) = (log.0.required, act)
        && (actor != Actor::Unauthenticated || log.0.has_room())
    {
        let seen = SeenRequest::from_request(&request, caller);
        let recorded = tokio::task::spawn_blocking(move || {
            required.confirm_audit(&mut || {
                let (act, from, path) = (act.name, seen.address(), &seen.path);
                info!(target: AUDIT_TARGET, act, outcome = "begun", by = %actor, from, path, "operator");
            })
        });
        if let Err(problem) = recorded.await.unwrap_or_else(|failed| Err(failed.to_string())) {
            let text = format!(
                "refused, because the act can't be recorded in --audit-log ({problem}) and --audit-required is set"
            );
            return ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text).into_response();
        }
    }
    next.run(request).await
}

struct SeenRequest {
    caller: AdminCaller,
    has_token: bool,
    path: String,
    body: Arc<Mutex<Vec<u8>>>,
}

impl SeenRequest {
    /// Captures a request without its body.
    fn from_request(request: &Request, caller: AdminCaller) -> Self {
        Self {
            caller,
            has_token: request.headers().contains_key(AUTHORIZATION),
            path: shown_target(request.uri()),
            body: Arc::default(),
        }
    }

    fn address(&self) -> String {
        self.caller.0.map(|ip| ip.to_string()).unwrap_or_default()
    }

    /// Details of the body as JSON; empty if there are none.
    fn detail(&self) -> String {
        let body = self.body.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(Value::Object(fields)) = serde_json::from_slice(&body) else { return String::new() };
        let shown = fields.into_iter().filter(|(name, _)| DETAILS.contains(&name.as_str()));
        let shown: Map<_, _> = shown.map(|(name, value)| (name, short_value(value))).collect();
        if shown.is_empty() { String::new() } else { Value::Object(shown).to_string() }
    }
}

/// Path and query of a request, without what an operator may have written there by mistake.
fn shown_target(uri: &Uri) -> String {
    let is_secret = |pair: &&str| {
        // The name as the server decodes it.
        let name = percent_decode_str(pair.split('=').next().unwrap_or_default()).decode_utf8_lossy();
        let name = name.to_ascii_lowercase();
        SECRET_WORDS.iter().any(|word| name.contains(word))
    };
    let shown = |pair: &str| match Some(pair).filter(is_secret) {
        Some(pair) => format!("{}=(secret)", pair.split('=').next().unwrap_or_default()),
        None => pair.to_owned(),
    };
    let query = uri.query().map(|query| query.split('&').map(shown).collect::<Vec<_>>().join("&"));
    let target = query.map_or_else(|| uri.path().to_owned(), |query| format!("{}?{query}", uri.path()));
    target.chars().take(SHOWN_CHARS).collect()
}

fn short_value(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(text.chars().take(SHOWN_CHARS).collect()),
        Value::Array(_) | Value::Object(_) => Value::Null,
        other => other,
    }
}

/// Set when the caller disconnects. Queued work is then cancelled, such as the wait before a token check.
#[derive(Debug, Clone, Default)]
pub(super) struct CallerGone(pub(super) CancellationToken);

/// Middleware that logs each API request and refuses unlisted changes.
pub(super) async fn record(State(log): State<AuditLog>, caller: AdminCaller, request: Request, next: Next) -> Response {
    let act = OperatorAct::from_request(request.method(), request.uri().path());
    if act.is_none() && !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        let text = format!("method {} is not allowed here", request.method());
        return ApiError::new(StatusCode::METHOD_NOT_ALLOWED, text).into_response();
    }
    let seen = SeenRequest::from_request(&request, caller);
    let mut request = if act.is_some() { request.map(|body| seen_by(body, seen.body.clone())) } else { request };
    let gone = CallerGone::default();
    request.extensions_mut().insert(gone.clone());
    // After a disconnect, only the action itself continues.
    let _waits = gone.0.drop_guard();
    let noted = async move {
        let answer = next.run(request).await;
        log.note_act(act, &seen, &answer);
        answer
    };
    if act.is_none() {
        return noted.await;
    }
    // Runs in its own task, so the action is logged even if the caller disconnects.
    let failed = |_| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the act was interrupted").into_response();
    tokio::spawn(noted).await.unwrap_or_else(failed)
}

/// Copies the beginning of a body while its handler reads it.
fn seen_by(body: Body, seen: Arc<Mutex<Vec<u8>>>) -> Body {
    Body::new(body.map_frame(move |frame| {
        if let Some(data) = frame.data_ref() {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            let room = BODY_SEEN_BYTES.saturating_sub(seen.len()).min(data.len());
            seen.extend_from_slice(data.get(..room).unwrap_or_default());
        }
        frame
    }))
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::middleware::from_fn_with_state;
    use axum::routing::{get, post};
    use tokio::sync::Notify;
    use tower::ServiceExt;

    use super::*;
    use crate::edge::admin::access::Access;

    #[test]
    fn secrets_in_a_query_are_not_shown() {
        for (target, shown) in [
            ("/api/trace?user=ann&payloads=shown", "/api/trace?user=ann&payloads=shown"),
            ("/api/trace?token=hush&user=ann", "/api/trace?token=(secret)&user=ann"),
            ("/api/trace?Access_Token=hush&api-key=hush&x", "/api/trace?Access_Token=(secret)&api-key=(secret)&x"),
            ("/api/trace?jwt=hush&Sig=hush&se=1", "/api/trace?jwt=(secret)&Sig=(secret)&se=1"),
            ("/api/trace?%74oken=hush&to%6Ben=hush", "/api/trace?%74oken=(secret)&to%6Ben=(secret)"),
            ("/api/trace", "/api/trace"),
        ] {
            assert_eq!(shown_target(&target.parse().unwrap()), shown);
        }
        assert_eq!(shown_target(&format!("/{}", "a".repeat(999)).parse().unwrap()).len(), SHOWN_CHARS);
    }

    /// Routes with a handler for each of these requests, behind the audit log.
    fn routes(counters: &Arc<AuditCounters>) -> Router {
        let answer = async |body: String| (axum::Extension(Actor::Token), body);
        let refuse = async || StatusCode::UNAUTHORIZED;
        Router::new()
            .route("/api/announce", post(answer))
            .route("/api/rebalance", post(refuse))
            .route("/api/groups", post(answer).get(refuse))
            .route("/api/trace", get(answer))
            .layer(from_fn_with_state(AuditLog::new(counters.clone(), None), record))
    }

    async fn ask(routes: &Router, method: Method, path: &str, token: Option<&str>) -> u16 {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, token);
        }
        let request = request.body(Body::from("{\"hub\":\"chat\",\"arguments\":[\"secret\"]}")).unwrap();
        let answer = routes.clone().oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(status != 200 || body.ends_with(b"]}"), "handlers get the whole body");
        status
    }

    fn done(counters: &AuditCounters, name: &str) -> u64 {
        counters.done().filter(|(of, _)| *of == name).map(|(_, count)| count).sum()
    }

    #[tokio::test(start_paused = true)]
    async fn every_change_passes_the_log_and_one_without_a_name_is_not_served() {
        let counters = Arc::<AuditCounters>::default();
        let routes = routes(&counters);
        assert_eq!(ask(&routes, Method::POST, "/api/announce", None).await, 200);
        assert_eq!(ask(&routes, Method::GET, "/api/trace?hub=chat", None).await, 200);
        assert_eq!(
            ask(&routes, Method::POST, "/api/groups", None).await,
            405,
            "its developer has forgotten to name it"
        );
        assert_eq!((done(&counters, "announce"), done(&counters, "trace"), counters.refused()), (1, 1, 0));
        assert_eq!(ask(&routes, Method::POST, "/api/rebalance", None).await, 401);
        assert_eq!(ask(&routes, Method::GET, "/api/groups", Some("Bearer guess")).await, 401);
        assert_eq!(ask(&routes, Method::GET, "/api/groups", None).await, 401, "whoever has no token only looks");
        assert_eq!((done(&counters, "rebalance"), counters.refused()), (0, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_are_limited_in_rate_and_their_number_is_kept() {
        let counters = Arc::<AuditCounters>::default();
        let log = AuditLog::new(counters.clone(), None);
        let (act, path) = (OperatorAct::from_request(&Method::POST, "/api/rebalance"), "/api/rebalance".to_owned());
        let seen = SeenRequest { caller: AdminCaller::default(), has_token: true, path, body: Arc::default() };
        for _ in 0..1_000 {
            log.note_act(act, &seen, &StatusCode::UNAUTHORIZED.into_response());
        }
        let left_out = log.0.left_out.load(Ordering::Relaxed);
        assert!((980..1_000).contains(&left_out), "{left_out}");
        assert_eq!(counters.refused(), 1_000);
    }

    #[tokio::test(start_paused = true)]
    async fn lines_of_those_who_have_shown_nothing_are_limited_in_rate_too() {
        let log = AuditLog::new(Arc::default(), None);
        let (act, path) = (OperatorAct::from_request(&Method::POST, "/api/logout"), "/api/logout".to_owned());
        let seen = SeenRequest { caller: AdminCaller::default(), has_token: false, path, body: Arc::default() };
        for _ in 0..1_000 {
            log.note_act(act, &seen, &StatusCode::OK.into_response());
        }
        let left_out = log.0.left_out.load(Ordering::Relaxed);
        assert!((980..1_000).contains(&left_out), "{left_out}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_act_is_noted_though_its_caller_has_gone() {
        let counters = Arc::<AuditCounters>::default();
        let (begun, goes_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let slow = {
            let (begun, goes_on) = (begun.clone(), goes_on.clone());
            async move || {
                begun.notify_one();
                goes_on.notified().await;
                axum::Extension(Actor::Token)
            }
        };
        let routes = Router::new()
            .route("/api/announce", post(slow))
            .layer(from_fn_with_state(AuditLog::new(counters.clone(), None), record));
        let request = Request::builder().method(Method::POST).uri("/api/announce").body(Body::empty()).unwrap();
        tokio::select! {
            _ = routes.oneshot(request) => panic!("it has not been let go on"),
            () = begun.notified() => {}
        }
        goes_on.notify_one();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(done(&counters, "announce"), 1);
    }

    #[test]
    fn details_are_chosen_fields_and_nothing_that_is_announced() {
        let long = "x".repeat(5_000);
        let body = serde_json::json!({
            "hub": "chat", "target": "Notice", "arguments": ["secret"], "token": "secret", "user": long, "group": ["no"],
        });
        let body = Arc::new(Mutex::new(body.to_string().into_bytes()));
        let seen = SeenRequest { caller: AdminCaller::default(), has_token: false, path: String::new(), body };
        let detail = seen.detail();
        assert!(detail.contains("\"hub\":\"chat\"") && detail.contains("\"target\":\"Notice\""), "{detail}");
        assert!(!detail.contains("secret") && detail.len() < 1_000, "{detail}");
    }

    #[test]
    fn each_act_is_found_below_the_path_of_the_page_too() {
        for act in &ACTS {
            let (method, path) = (&act.method, act.path.replace("{id}", "a%2Fb"));
            assert_eq!(OperatorAct::from_request(method, &path), Some(act));
            assert_eq!(OperatorAct::from_request(method, &format!("{PAGE_PATH}{path}")), Some(act));
            assert_eq!(OperatorAct::from_request(method, &format!("{path}/more")), None);
        }
        let trace = OperatorAct::from_request(&Method::HEAD, "/api/trace");
        assert_eq!(trace.map(|act| act.name), Some("trace"));
        assert_eq!(OperatorAct::from_request(&Method::DELETE, "/api/announce"), None);
    }

    /// Audit log that either accepts or rejects lines.
    #[derive(Debug)]
    struct RequiredLog {
        is_full: bool,
    }

    impl LogLevels for RequiredLog {
        fn format_name(&self) -> &'static str {
            "human"
        }

        fn text(&self) -> String {
            String::new()
        }

        fn set(&self, _levels: &str) -> Result<(), String> {
            Ok(())
        }

        fn requires_audit(&self) -> bool {
            true
        }

        fn confirm_audit(&self, write: &mut dyn FnMut()) -> Result<(), String> {
            write();
            if self.is_full { Err("no space left".into()) } else { Ok(()) }
        }
    }

    #[tokio::test]
    async fn an_act_that_cannot_be_recorded_is_refused_where_that_is_required_and_reading_is_not() {
        static GOOD: RequiredLog = RequiredLog { is_full: false };
        static FULL: RequiredLog = RequiredLog { is_full: true };
        for (log, act) in [(&GOOD, 200), (&FULL, 503)] {
            let log = AuditLog::new(Arc::default(), Some(log));
            let admitted = AdmittedCaller::new(Access::Read, Actor::Unauthenticated);
            let answer = async || "{\"arguments\":[]}";
            let routes = Router::new()
                .route("/api/announce", post(answer))
                .route("/api/groups", get(answer))
                .layer(from_fn_with_state(log, record_first))
                .layer(Extension(admitted));
            assert_eq!(ask(&routes, Method::POST, "/api/announce", None).await, act);
            assert_eq!(ask(&routes, Method::GET, "/api/groups", None).await, 200);
        }
    }
}
