//! The admin port: health, readiness, Prometheus metrics, the observer page and its API.

mod access;
mod admin_listener;
mod api;
mod audit;
mod exposition;
mod guard;
mod node_channel;
mod page;
mod parameter;
mod probe;
mod session;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::HOST;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::{self, Next};
use axum::response::Response;
use futures_util::future::OptionFuture;
use tokio::net::TcpListener;
use trunkline_protocol::wire::NODE_HEADER;

use crate::edge::observer::{Observer, Readiness};
use crate::edge::rest::Rest;
use crate::features::webhook::Webhooks;
use crate::fleet::{self, Fleet};
use crate::ground::config::AdminSettings;
use crate::ground::net::node_port::NodePort;

pub use audit::AUDIT_TARGET;
#[cfg(any(feature = "otlp", test))]
pub(crate) use exposition::families;
pub use exposition::{MetricEntry, metric_entries};

use access::AdminCaller;
use audit::AuditLog;
pub(crate) use exposition::AdminCounters;
use guard::{AdminContext, Exposure, Guard};
use session::PAGE_PATH;

pub(crate) async fn serve(
    listener: TcpListener,
    address: SocketAddr,
    readiness: Readiness,
    settings: &AdminSettings,
    (fleet, rest, webhooks): (Fleet, Option<Rest>, Arc<Webhooks>),
    counters: Arc<AdminCounters>,
) {
    let exposure = if address.ip().is_loopback() { Exposure::Loopback } else { Exposure::Network };
    let pipes = fleet.broker().map(|broker| broker.listen(NodePort::Admin));
    let router = router(readiness, settings, exposure, counters.clone(), (fleet, webhooks));
    let of_nodes = pipes.map(|pipes| admin_listener::serve_pipes(pipes, router.clone()));
    let router = match rest {
        Some(rest) => router.layer(middleware::from_fn_with_state(rest, data_plane)),
        None => router,
    };
    tokio::join!(admin_listener::serve(listener, router, counters), OptionFuture::from(of_nodes));
}

/// Middleware for data plane requests, if the data plane shares the admin port.
async fn data_plane(
    State(rest): State<Rest>,
    AdminCaller(address): AdminCaller,
    request: Request,
    next: Next,
) -> Response {
    if !Rest::takes(request.uri().path()) {
        return next.run(request).await;
    }
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let origin = format!("http://{host}");
    rest.answer_request(request, address, &origin).await
}

/// Needs a tokio runtime.
fn router(
    readiness: Readiness,
    settings: &AdminSettings,
    exposure: Exposure,
    counters: Arc<AdminCounters>,
    (fleet, webhooks): (Fleet, Arc<Webhooks>),
) -> Router {
    let shared = readiness.shared.clone();
    let name = &shared.settings.node;
    let throttle = (shared.limits.wrong_tokens.clone(), shared.instant(0));
    let guard = Guard::new(exposure, settings, name, counters.clone(), throttle);
    let node = HeaderValue::from_str(name).ok();
    let observer = Observer::new(readiness.clone(), fleet.clone());
    let context = AdminContext { observer, webhooks: webhooks.clone(), guard: guard.clone(), log: settings.log };
    let audit = AuditLog::new(counters.audit.clone(), settings.log);
    let recorded = api::guarded().layer(middleware::from_fn_with_state(audit.clone(), audit::record_first));
    let guarded = recorded.layer(middleware::from_fn_with_state(guard.clone(), guard::check));
    let api = guarded.merge(api::open_routes()).layer(middleware::from_fn_with_state(audit, audit::record));
    if !fleet.members().is_alone() {
        fleet.questions().serve_api(api.clone().merge(node_channel::for_nodes()).with_state(context.clone()));
    }
    // The page uses the API below its own path, which the session cookie is limited to.
    let observer = api.clone().merge(page::router()).nest(PAGE_PATH, api).with_state(context);
    let port = probe::router(readiness, (fleet.clone(), webhooks), guard, counters.clone()).merge(observer);
    let port = match fleet.questions().api() {
        Some(api) => {
            let inside = fleet::routes(fleet.clone()).merge(api);
            port.merge(node_channel::router(shared, inside, counters))
        }
        None => port,
    };
    port.fallback(api::unknown)
        .layer(middleware::map_response(page::secure))
        .layer(middleware::from_fn_with_state(node, name_node))
}

#[cfg(test)]
pub(crate) fn api_for_nodes(observer: Observer, webhooks: Arc<Webhooks>) -> Router {
    let settings = AdminSettings::default();
    let guard =
        Guard::new(Exposure::Network, &settings, "n", Arc::default(), (Arc::default(), tokio::time::Instant::now()));
    let guarded = api::guarded().layer(middleware::from_fn_with_state(guard.clone(), guard::check));
    guarded.merge(node_channel::for_nodes()).with_state(AdminContext { observer, webhooks, guard, log: None })
}

async fn name_node(State(node): State<Option<HeaderValue>>, request: Request, next: Next) -> Response {
    let mut answer = next.run(request).await;
    if let Some(node) = node {
        answer.headers_mut().insert(HeaderName::from_static(NODE_HEADER), node);
    }
    answer
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use axum::body::Body;
    use axum::http::Method;
    use axum::http::header::HOST;
    use http_body_util::BodyExt;
    use tower::ServiceExt;
    use trunkline_protocol::key::{AccessKey, AccessKeys};

    use super::*;
    use crate::edge::observer::{FleetSnapshot, UpstreamProblems};
    use crate::engine::shard::{ShardSender, Shared};
    use crate::fleet::NodeStores;
    use crate::ground::config::Settings;

    fn node(problem: &str) -> Router {
        let keys = AccessKeys::new(vec![AccessKey::random()]).unwrap();
        let settings = Settings { node: "proxy-a".into(), ..Settings::embedded(keys, Vec::new(), true) };
        let stores = NodeStores::with_keys_alone(&settings);
        let shared = Shared::alone(settings, vec![ShardSender::new().0]);
        let problems = Arc::new(UpstreamProblems::default());
        problems.set("http://app:5000", Some(problem.to_owned().into()));
        let settings = AdminSettings::default();
        let fleet = Fleet::new(shared.clone(), stores, ([127, 0, 0, 1], 8090).into());
        let webhooks = Arc::new(Webhooks::new(&shared));
        router(Readiness::new(shared, problems), &settings, Exposure::Loopback, Arc::default(), (fleet, webhooks))
    }

    async fn get(node: Router, path: &str) -> (u16, String) {
        let request = Request::get(path).header(HOST, "localhost:8090").body(Body::empty()).unwrap();
        let answer = node.oneshot(request).await.unwrap();
        assert_eq!(answer.headers()[NODE_HEADER], "proxy-a");
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn health_is_independent_of_readiness_and_every_answer_names_the_node() {
        let node = node("refused");
        assert_eq!(get(node.clone(), "/healthz").await, (200, "ok\n".into()));
        let reason = "not ready\nwaiting for app server http://app:5000: refused\n";
        assert_eq!(get(node.clone(), "/readyz").await, (503, reason.into()));
        assert_eq!(get(node.clone(), "/startupz").await, (503, reason.into()));
        for (path, status) in [("/healthz", 200), ("/readyz", 503)] {
            let request = Request::options(path).header(HOST, "localhost:8090").body(Body::empty()).unwrap();
            assert_eq!(node.clone().oneshot(request).await.unwrap().status(), status, "{path}");
        }
        let text = "the admin port has no /nothing: hubs, app servers and REST are at the port of --listen";
        assert_eq!(get(node, "/nothing").await, (404, format!(r#"{{"error":"{text}","field":null}}"#)));
    }

    #[tokio::test]
    async fn every_metric_is_described_once() {
        let (status, text) = get(node("refused"), "/metrics").await;
        let names = |kind: &str| -> Vec<_> {
            text.lines().filter_map(|line| line.strip_prefix(kind)?.split(' ').next()).map(str::to_owned).collect()
        };
        let (helped, typed) = (names("# HELP "), names("# TYPE "));
        assert_eq!((status, &helped), (200, &typed));
        assert_eq!(typed.iter().collect::<BTreeSet<_>>().len(), typed.len());
        for name in ["trunkline_build_info", "trunkline_send_receivers", "trunkline_link_round_trip_seconds"] {
            assert!(typed.iter().any(|typed| typed == name), "{name}");
        }
        assert!(text.contains("trunkline_ready 0\n") && text.contains("trunkline_vectored_sends 0\n"), "{text}");
        // A node without peers forms a fleet of one.
        let of_fleet = text.lines().filter(|line| line.starts_with("trunkline_fleet_nodes{"));
        let states = ["draining", "late", "ready", "starting", "unreachable"];
        let counts =
            states.map(|state| format!("trunkline_fleet_nodes{{state=\"{state}\"}} {}", u8::from(state == "starting")));
        assert_eq!(of_fleet.collect::<Vec<_>>(), counts);
        assert!(text.contains("trunkline_fleet_agree 1\n"), "{text}");
    }

    #[tokio::test]
    async fn a_snapshot_states_why_the_node_is_not_ready() {
        let (status, text) = get(node("refused"), "/api/fleet?scope=node").await;
        let fleet: FleetSnapshot = serde_json::from_str(&text).unwrap();
        let reasons: Vec<_> = fleet.nodes.iter().flat_map(|node| node.not_ready.clone()).collect();
        assert_eq!((status, reasons), (200, vec!["waiting for app server http://app:5000: refused".to_owned()]));
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_request_is_named() {
        for (path, status, problem) in [
            ("/api/fleet?scope=all", 400, "scope must be fleet or node"),
            ("/api/clients?group=g", 400, "hub is missing: a group belongs to a hub"),
            ("/api/clients?hub=chat&scope=node", 404, "no reachable node has a hub \\\"chat\\\""),
            ("/api/clients/short", 404, "no reachable node has a client connection \\\"short\\\""),
        ] {
            let (answered, text) = get(node("refused"), path).await;
            assert_eq!(answered, status, "{path}");
            assert!(text.contains(problem), "{path}: {text}");
        }
    }

    #[tokio::test]
    async fn page_and_api_are_also_served_below_the_cookie_path_with_security_headers() {
        let node = node("refused");
        for path in ["/.trunkline/observer/", "/.trunkline/observer/api/session", "/", "/api/session", "/nothing"] {
            let request = Request::get(path).header(HOST, "localhost:8090").body(Body::empty()).unwrap();
            let answer = node.clone().oneshot(request).await.unwrap();
            assert_eq!(answer.status().as_u16(), if path == "/nothing" { 404 } else { 200 }, "{path}");
            let headers = answer.headers();
            assert!(headers["content-security-policy"].to_str().unwrap().contains("default-src 'none'"), "{path}");
            assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        }
    }

    #[tokio::test]
    async fn every_route_that_changes_something_is_an_act_and_every_act_has_a_route() {
        let sources = [
            include_str!("admin/api.rs"),
            include_str!("admin/api/act_api.rs"),
            include_str!("admin/api/log_level_api.rs"),
        ];
        let code = sources.map(|source| source.split("#[cfg(test)]").next().unwrap_or_default()).concat();
        let in_code = ["act(", "post(", "put(", "delete(", "patch("]
            .map(|call| code.matches(call).count() - code.matches(&format!("fn {call}")).count());
        let changes = audit::routes().filter(|(method, ..)| **method != Method::GET).collect::<Vec<_>>();
        assert_eq!(in_code.iter().sum::<usize>(), changes.len());
        for (method, path) in audit::routes() {
            let path = path.replace("{id}", "short");
            let request = Request::builder().method(method).uri(&path).header(HOST, "localhost:8090");
            let answer = node("refused").oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
            assert_ne!(answer.status().as_u16(), 405, "{method} {path}");
        }
    }

    #[tokio::test]
    async fn a_page_that_was_led_here_reads_health_alone() {
        let node = node("refused");
        for (path, status) in [("/readyz", 403), ("/metrics", 403), ("/api/fleet", 403), ("/healthz", 200)] {
            let request = Request::get(path).header(HOST, "rebound.example:8090").body(Body::empty()).unwrap();
            assert_eq!(node.clone().oneshot(request).await.unwrap().status().as_u16(), status, "{path}");
        }
        let (_, text) = get(node, "/metrics").await;
        assert!(text.contains("trunkline_admin_requests_refused_total{reason=\"host\"} 3"), "{text}");
    }
}
