//! Event stream of fleet snapshots, for pages.
//!
//! Each event is produced after the previous one was read, so a slow reader costs nothing.

use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use super::fleet_api::snapshot;
use crate::edge::admin::admitted_caller::AdmittedCaller;
use crate::edge::admin::api_error::ApiError;
use crate::edge::admin::context::AdminContext;
use crate::edge::admin::parameter::QueryParameters;
use crate::edge::admin::session::SessionEnd;
use crate::edge::observer::STREAMS_MAX;

/// Interval between snapshots. Including the time to gather one, a page lags less than a second.
const SNAPSHOT_INTERVAL: Duration = Duration::from_millis(700);

pub(super) async fn fleet(
    State(context): State<AdminContext>,
    Extension(AdmittedCaller { end, .. }): Extension<AdmittedCaller>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let mut parameters = QueryParameters::read(&uri)?;
    let scope = parameters.scope()?;
    parameters.end()?;
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
