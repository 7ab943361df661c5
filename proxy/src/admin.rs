//! The admin port: health, readiness, metrics for Prometheus, the observer page and its API.

mod api;
mod guard;
#[cfg(feature = "cli")]
mod log;
mod metrics;
mod observe;
mod page;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use trunkline_protocol::manifest::NODE_HEADER;

use crate::config::AdminSettings;
use crate::shard::Shared;

use api::{Api, ApiError};
use guard::Guard;
use observe::Observer;

pub(crate) use guard::Reach;
pub(crate) use metrics::render;
#[cfg(feature = "cli")]
pub(crate) use observe::{Fleet, Node, Rates, Unreachable};
#[cfg(test)]
pub(crate) use observe::{HubView, LinkView};

/// Why each upstream is not linked; empty texts are left out.
#[derive(Debug, Default)]
pub(crate) struct Upstreams(std::sync::Mutex<std::collections::BTreeMap<String, String>>);

impl Upstreams {
    /// Tells what is wrong with an upstream, or that nothing is.
    pub(crate) fn tell(&self, address: &str, problem: Option<String>) {
        let mut problems = self.problems();
        match problem {
            Some(problem) => problems.insert(address.into(), problem),
            None => problems.remove(address),
        };
    }

    /// What is wrong, upstream by upstream.
    #[must_use]
    pub(crate) fn list(&self) -> Vec<(String, String)> {
        self.problems().iter().map(|(address, problem)| (address.clone(), problem.clone())).collect()
    }

    fn problems(&self) -> std::sync::MutexGuard<'_, std::collections::BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What the admin port is answered from.
#[derive(Debug, Clone)]
pub(crate) struct Admin {
    /// What the shards share.
    pub shared: Arc<Shared>,
    /// What is wrong with upstreams.
    pub upstreams: Arc<Upstreams>,
    /// Who may do what, and which other nodes are shown.
    pub settings: AdminSettings,
    /// Where it can be reached from.
    pub reach: Reach,
}

impl Admin {
    /// The router that serves it. Has to be made where there is a runtime.
    pub(crate) fn into_router(self) -> Router {
        let guard = Guard::new(self.reach, &self.settings);
        let state = Api { observer: Arc::new(Observer::new(self.clone())), guard: guard.clone() };
        let behind_guard = api::guarded();
        #[cfg(feature = "cli")]
        let behind_guard = behind_guard.merge(log::routes());
        let behind_guard = behind_guard.layer(middleware::from_fn_with_state(guard.clone(), guard::guard));
        let observer = behind_guard.merge(api::open()).merge(page::router()).with_state(state);
        Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .with_state((self.clone(), guard))
            .merge(observer)
            .fallback(api::unknown)
            .layer(middleware::from_fn_with_state(self, sign))
    }

    /// Why clients can't be taken in; empty when they can.
    #[must_use]
    pub(crate) fn reasons_not_ready(&self) -> Vec<String> {
        if self.shared.has_begun_drain() {
            return vec!["draining: this node is stopping".into()];
        }
        let hubs = self.shared.hubs.all();
        let unserved: Vec<_> = hubs.iter().filter(|hub| !hub.is_served()).map(|hub| hub.name()).collect();
        if !hubs.is_empty() && unserved.is_empty() {
            return Vec::new();
        }
        let problems = self.upstreams.list();
        if problems.is_empty() {
            return vec![format!("waiting for links of hubs: {}", unserved.join(", "))];
        }
        problems.iter().map(|(address, problem)| format!("waiting for app server {address}: {problem}")).collect()
    }
}

async fn ready(State((admin, _)): State<(Admin, Guard)>) -> Response {
    let reasons = admin.reasons_not_ready();
    if reasons.is_empty() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready\n{}\n", reasons.join("\n"))).into_response()
}

async fn metrics(State((admin, guard)): State<(Admin, Guard)>, headers: HeaderMap) -> Result<Response, ApiError> {
    guard.judge_metrics(&headers)?;
    Ok(match render(&admin.shared, admin.reasons_not_ready().is_empty()) {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    })
}

async fn sign(State(admin): State<Admin>, request: axum::extract::Request, next: Next) -> Response {
    let mut answer = next.run(request).await;
    if let Ok(name) = HeaderValue::from_str(&admin.shared.settings.node) {
        answer.headers_mut().insert(HeaderName::from_static(NODE_HEADER), name);
    }
    answer
}
