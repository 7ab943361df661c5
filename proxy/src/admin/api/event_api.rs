//! Event streams for pages: snapshots of the fleet, and the messages of a tapped client connection.
//!
//! A stream makes its next event when its reader has taken the last one, so a slow reader costs nothing.

use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use super::client_api::check_id;
use super::fleet_api::snapshot;
use crate::admin::access::Access;
use crate::admin::api_error::ApiError;
use crate::admin::context::AdminContext;
use crate::admin::parameter::{QueryParameters, Scope};
use crate::admin::session::SessionEnd;
use crate::observer::{PayloadView, STREAMS_MAX, TapError};

/// Interval of snapshots: with the time to gather one, a page is less than a second behind.
const SNAPSHOT_INTERVAL: Duration = Duration::from_millis(700);

/// Interval of the reports of a tap: shorter, because somebody looks at just that.
const TAP_INTERVAL: Duration = Duration::from_millis(300);

/// Streams snapshots of the fleet.
pub(super) async fn fleet(
    State(context): State<AdminContext>,
    Extension(end): Extension<Option<SessionEnd>>,
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

/// Streams the messages of a client connection, as long as somebody reads them.
pub(super) async fn tap(
    State(context): State<AdminContext>,
    Extension(access): Extension<Access>,
    Extension(end): Extension<Option<SessionEnd>>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let mut parameters = QueryParameters::read(&uri)?;
    let scope = parameters.scope()?;
    let payloads = match parameters.word("payloads", ["hidden", "shown"])? {
        "shown" => PayloadView::Shown,
        _ => PayloadView::Hidden,
    };
    parameters.end()?;
    if payloads == PayloadView::Shown {
        access.to_act()?;
    }
    check_id(&id)?;
    let tap = match context.observer.tap(&id, payloads).await {
        Ok(tap) => tap,
        Err(TapError::TooMany(problem)) => return Err(too_many(problem)),
        Err(TapError::UnknownClient) if scope == Scope::Node => return Err(ApiError::unknown_client(&id)),
        Err(TapError::UnknownClient) => return tap_of_peer(&context, &id, payloads, end).await,
    };
    let events = stream::unfold((Some(tap), Instant::now()), |(tap, at)| async move {
        let (tap, permit) = tap?;
        sleep_until(at).await;
        let report = tap.report().await?;
        let event = event("watch", &report)?;
        // The event that says that the connection is closed is the last one.
        let tap = (!report.is_over).then_some((tap, permit));
        Some((Ok::<_, Infallible>(event), (tap, Instant::now() + TAP_INTERVAL)))
    });
    Ok(Sse::new(events.take_until(over(end))).into_response())
}

async fn tap_of_peer(
    context: &AdminContext,
    id: &str,
    payloads: PayloadView,
    end: Option<SessionEnd>,
) -> Result<Response, ApiError> {
    let permit = context.observer.stream().ok_or_else(no_permit)?;
    let answer = context.observer.tap_of_peer(id, payloads).await.ok_or_else(|| ApiError::unknown_client(id))?;
    let status = answer.status();
    let kind = answer.headers().get(CONTENT_TYPE).cloned();
    // The permit is held as long as the stream is read.
    let body = answer.into_body().into_data_stream().inspect(move |_| _ = &permit).take_until(over(end));
    let mut response = (status, Body::from_stream(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.extend(kind.map(|kind| (CONTENT_TYPE, kind)));
    Ok(response)
}

/// Waits for the end of the session that has opened a stream, if it was one.
pub(super) async fn over(end: Option<SessionEnd>) {
    match end {
        Some(end) => end.wait().await,
        None => pending().await,
    }
}

/// Writes an event; `None` for data that JSON can't hold.
fn event(name: &str, data: &impl Serialize) -> Option<Event> {
    Event::default().event(name).json_data(data).ok()
}

fn no_permit() -> ApiError {
    too_many(format!("{STREAMS_MAX} streams are open"))
}

pub(super) fn too_many(problem: String) -> ApiError {
    ApiError::new(StatusCode::TOO_MANY_REQUESTS, problem)
}
