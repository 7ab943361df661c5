//! Probes of load balancers and of Prometheus: health, readiness, metrics.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::api_error::ApiError;
use super::exposition::render;
use super::guard::Guard;
use crate::observer::Readiness;

/// Routes of the probes.
pub(super) fn router(readiness: Readiness, guard: Guard) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state((readiness, guard))
}

async fn ready(State((readiness, _)): State<(Readiness, Guard)>) -> Response {
    let reasons = readiness.reasons_not_ready();
    if reasons.is_empty() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready\n{}\n", reasons.join("\n"))).into_response()
}

async fn metrics(
    State((readiness, guard)): State<(Readiness, Guard)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    guard.check_metrics(&headers)?;
    Ok(match render(readiness.shared(), readiness.reasons_not_ready().is_empty()) {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    })
}
