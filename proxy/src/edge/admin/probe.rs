//! Probes of load balancers and Prometheus: health, readiness, metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::access::AdminCaller;
use super::exposition::{AdminCounters, render};
use super::guard::Guard;
use crate::edge::observer::ApiError;
use crate::edge::observer::Readiness;
use crate::features::webhook::Webhooks;
use crate::fleet::Fleet;
use crate::ground::condition::{ConditionKind, Finding};

/// Time for which a refused scrape is reported: somewhat longer than the usual scrape intervals.
const SCRAPE_INTERVAL: Duration = Duration::from_secs(150);

#[derive(Debug, Clone)]
struct ProbeState {
    readiness: Readiness,
    fleet: Fleet,
    webhooks: Arc<Webhooks>,
    guard: Guard,
    counters: Arc<AdminCounters>,
    /// Set when the node first became ready.
    was_ready: Arc<AtomicBool>,
}

pub(super) fn router(
    readiness: Readiness,
    (fleet, webhooks): (Fleet, Arc<Webhooks>),
    guard: Guard,
    counters: Arc<AdminCounters>,
) -> Router {
    Router::new()
        // Some load balancers use OPTIONS, such as HAProxy by default.
        .route("/healthz", get(|| async { "ok\n" }).options(|| async { "ok\n" }))
        .route("/readyz", get(ready).options(ready))
        .route("/startupz", get(started))
        .route("/metrics", get(metrics))
        .with_state(ProbeState { readiness, fleet, webhooks, guard, counters, was_ready: Arc::default() })
}

async fn ready(State(probes): State<ProbeState>, headers: HeaderMap) -> Result<Response, ApiError> {
    probes.guard.check_host(&headers)?;
    let (reasons, warnings) = (probes.readiness.reasons_not_ready(), probes.readiness.warnings());
    let lines: String = warnings.iter().map(|warning| format!("warning: {warning}\n")).collect();
    if reasons.is_empty() {
        probes.was_ready.store(true, Ordering::Relaxed);
        return Ok(format!("ready\n{lines}").into_response());
    }
    Ok((StatusCode::SERVICE_UNAVAILABLE, format!("not ready\n{}\n{lines}", reasons.join("\n"))).into_response())
}

/// Responds like `/readyz` until the node is first ready, then always 200.
async fn started(probes: State<ProbeState>, headers: HeaderMap) -> Result<Response, ApiError> {
    match probes.was_ready.load(Ordering::Relaxed) {
        true => Ok("ok\n".into_response()),
        false => ready(probes, headers).await,
    }
}

async fn metrics(
    State(ProbeState { readiness, fleet, webhooks, guard, counters, .. }): State<ProbeState>,
    caller: AdminCaller,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let from = caller.0.map_or_else(|| "an unknown address".to_owned(), |ip| ip.to_string());
    guard.check_metrics(&headers, caller).await.inspect_err(|_| {
        let finding = Finding::new(ConditionKind::ScrapeRefused, "metrics", format!("the latest came from {from}"));
        readiness.shared.reports.conditions.report(finding, Some(SCRAPE_INTERVAL));
    })?;
    Ok(match render(&readiness, &fleet, &webhooks, &counters) {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    })
}
