//! Snapshots in the API: `GET /api/fleet`, and the event stream of pages.
//!
//! Each event is produced after the previous one was read, so a slow reader costs nothing.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::{StreamExt, stream};
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use crate::edge::admin::guard::AdminContext;
use crate::edge::admin::parameter::{QueryParameters, Scope};
use crate::edge::admin::session::{AdmittedCaller, SessionEnd};
use crate::edge::observer::ApiError;
use crate::edge::observer::{FleetSnapshot, Freshness, STREAMS_MAX};

pub(super) async fn fleet(State(context): State<AdminContext>, uri: Uri) -> Result<Response, ApiError> {
    let mut parameters = QueryParameters::from_uri(&uri)?;
    let scope = parameters.scope()?;
    let is_fresh = parameters.number("fresh", 0, 1)? == Some(1);
    parameters.refuse_rest()?;
    let snapshot = match (is_fresh, scope) {
        (true, Scope::Fleet) => Arc::new(context.observer.fresh_fleet().await),
        (true, Scope::Node) => of_node(&context, Freshness::Asked).await?,
        (false, scope) => snapshot(&context, scope).await?,
    };
    Ok(Json(&*snapshot).into_response())
}

/// Returns a snapshot; for a single node, a fleet of one.
pub(super) async fn snapshot(context: &AdminContext, scope: Scope) -> Result<Arc<FleetSnapshot>, ApiError> {
    match scope {
        Scope::Fleet => context.observer.fleet().await.ok_or_else(ApiError::stopping),
        Scope::Node => of_node(context, Freshness::Recent).await,
    }
}

async fn of_node(context: &AdminContext, freshness: Freshness) -> Result<Arc<FleetSnapshot>, ApiError> {
    let node = context.observer.node.snapshot(freshness).await.ok_or_else(ApiError::stopping)?;
    Ok(Arc::new(FleetSnapshot { at_ms: node.at_ms, nodes: vec![node], ..FleetSnapshot::default() }))
}

/// Interval between snapshots. Including the time to gather one, a page lags less than a second.
const SNAPSHOT_INTERVAL: Duration = Duration::from_millis(700);

pub(super) async fn fleet_events(
    State(context): State<AdminContext>,
    Extension(AdmittedCaller { end, .. }): Extension<AdmittedCaller>,
    scope: Scope,
) -> Result<Response, ApiError> {
    let permit = context.observer.stream().ok_or_else(no_permit)?;
    let events = stream::unfold((context, permit, Instant::now()), move |(context, permit, at)| async move {
        sleep_until(at).await;
        let event = event("fleet", &*snapshot(&context, scope).await.ok()?)?;
        Some((Ok::<_, Infallible>(event), (context, permit, Instant::now() + SNAPSHOT_INTERVAL)))
    });
    Ok(Sse::new(events.take_until(over(end))).into_response())
}

pub(super) async fn over(end: Option<SessionEnd>) {
    match end {
        Some(end) => end.wait().await,
        None => pending().await,
    }
}

/// Creates an event; `None` for data that JSON can't represent.
pub(super) fn event(name: &str, data: &impl Serialize) -> Option<Event> {
    Event::default().event(name).json_data(data).ok()
}

pub(super) fn no_permit() -> ApiError {
    too_many(format!("{STREAMS_MAX} streams are open"))
}

pub(super) fn too_many(problem: String) -> ApiError {
    ApiError::new(StatusCode::TOO_MANY_REQUESTS, problem)
}
