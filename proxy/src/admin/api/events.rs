//! Streams of events for pages: the fleet as it is now, again and again, and what a client says that is watched.
//!
//! A stream makes its next event when its reader has taken the last one, so a slow reader costs nothing.

use std::convert::Infallible;
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

use super::params::{Params, Scope};
use super::{Api, ApiError, check_id, fleet_of, no_client};
use crate::admin::guard::Access;
use crate::admin::observe::{STREAMS_MAX, WatchProblem};

/// With the time that it takes to gather the news a page is less than a second behind.
const PERIOD: Duration = Duration::from_millis(700);

/// What a client says is told sooner: somebody looks at just that.
const WATCH_PERIOD: Duration = Duration::from_millis(300);

/// The fleet, as it is now.
pub(super) async fn fleet(State(api): State<Api>, uri: Uri) -> Result<Response, ApiError> {
    let mut params = Params::read(&uri)?;
    let scope = params.scope()?;
    params.end()?;
    let Some(place) = api.observer.stream() else { return Err(too_many(format!("{STREAMS_MAX} streams are open"))) };
    let events = stream::unfold((api, place, Instant::now()), move |(api, place, at)| async move {
        sleep_until(at).await;
        let event = event("fleet", &*fleet_of(&api, scope).await.ok()?)?;
        Some((Ok::<_, Infallible>(event), (api, place, Instant::now() + PERIOD)))
    });
    Ok(Sse::new(events).into_response())
}

/// What a client says, as long as somebody reads this.
pub(super) async fn watch(
    State(api): State<Api>,
    Extension(access): Extension<Access>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let mut params = Params::read(&uri)?;
    let scope = params.scope()?;
    let with_payloads = params.word("payloads", ["hidden", "shown"])? == "shown";
    params.end()?;
    if with_payloads {
        access.to_act()?;
    }
    check_id(&id)?;
    let watch = match api.observer.watch_here(&id, with_payloads).await {
        Ok(watch) => watch,
        Err(WatchProblem::TooMany(problem)) => return Err(too_many(problem)),
        Err(WatchProblem::Unknown) if scope == Scope::Node => return Err(no_client(&id)),
        Err(WatchProblem::Unknown) => return watch_there(&api, &id, with_payloads).await,
    };
    let events = stream::unfold((Some(watch), Instant::now()), |(watch, at)| async move {
        let watch = watch?;
        sleep_until(at).await;
        let report = watch.report().await?;
        let event = event("watch", &report)?;
        // An event that says that the client is gone is the last one.
        let watch = (!report.is_over).then_some(watch);
        Some((Ok::<_, Infallible>(event), (watch, Instant::now() + WATCH_PERIOD)))
    });
    Ok(Sse::new(events).into_response())
}

async fn watch_there(api: &Api, id: &str, with_payloads: bool) -> Result<Response, ApiError> {
    let place = api.observer.stream().ok_or_else(|| too_many(format!("{STREAMS_MAX} streams are open")))?;
    let answer = api.observer.watch_there(id, with_payloads).await.ok_or_else(|| no_client(id))?;
    let status = answer.status();
    let kind = answer.headers().get(CONTENT_TYPE).cloned();
    // The place is taken for as long as the stream is read.
    let body = answer.into_body().into_data_stream().inspect(move |_| _ = &place);
    let mut response = (status, Body::from_stream(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.extend(kind.map(|kind| (CONTENT_TYPE, kind)));
    Ok(response)
}

/// What can't be written as JSON is none of ours.
fn event(name: &str, data: &impl Serialize) -> Option<Event> {
    Event::default().event(name).json_data(data).ok()
}

fn too_many(problem: String) -> ApiError {
    ApiError::new(StatusCode::TOO_MANY_REQUESTS, problem)
}
