//! Recording of a hub's clients as a stream of JSON lines, for `trunkline record`.
//!
//! A stream makes its next lines when its reader has taken the last ones. What a slow reader misses is counted in it.

use std::convert::Infallible;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::task::yield_now;
use tokio::time::Instant;

use super::client_api::check_id;
use super::event_api::{over, too_many};
use crate::admin::access::Access;
use crate::admin::api_error::ApiError;
use crate::admin::context::AdminContext;
use crate::admin::parameter::{NAME_MAX_CHARS, QueryParameters};
use crate::admin::session::SessionEnd;
use crate::observer::{HubRecording, PayloadView, RecordingChoice, RecordingError, RecordingLine};

/// Media type of JSON lines.
pub(super) const JSON_LINES: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// Interval of empty lines while nothing is recorded: by them both ends notice that the other one is gone.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);

/// Streams what passes for the clients of a hub on this node, from now on.
pub(super) async fn record(
    State(context): State<AdminContext>,
    Extension(access): Extension<Access>,
    Extension(end): Extension<Option<SessionEnd>>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let choice = choice(&uri)?;
    if choice.payloads == PayloadView::Shown {
        access.to_act()?;
    }
    let hub = choice.hub.clone();
    let (recording, permit) = context.observer.record(choice).await.map_err(|error| match error {
        RecordingError::UnknownHub => ApiError::unknown_hub(Some(&hub)),
        RecordingError::TooMany(problem) => too_many(problem),
        RecordingError::Stopping => ApiError::stopping(),
    })?;
    let first = Bytes::from(recording.header().to_text());
    // The permit is held as long as the stream is read.
    let rest = stream::unfold((recording, permit), |(mut recording, permit)| async move {
        let text = next_text(&mut recording).await?;
        Some((text, (recording, permit)))
    });
    let all = stream::iter([first]).chain(rest).map(Ok::<_, Infallible>);
    let headers = [(CONTENT_TYPE, JSON_LINES), (CACHE_CONTROL, HeaderValue::from_static("no-cache"))];
    Ok((headers, Body::from_stream(all.take_until(over(end)))).into_response())
}

fn choice(uri: &Uri) -> Result<RecordingChoice, ApiError> {
    let mut parameters = QueryParameters::read(uri)?;
    let hub = parameters.text("hub", NAME_MAX_CHARS)?.filter(|hub| !hub.is_empty());
    let user = parameters.text("user", NAME_MAX_CHARS)?;
    let connection = parameters.text("connection", NAME_MAX_CHARS)?;
    let payloads = match parameters.word("payloads", ["hidden", "shown"])? {
        "shown" => PayloadView::Shown,
        _ => PayloadView::Hidden,
    };
    parameters.end()?;
    connection.as_deref().map_or(Ok(()), check_id)?;
    let hub = hub.ok_or_else(|| ApiError::field("hub", "is missing"))?;
    Ok(RecordingChoice { hub, user, connection, payloads })
}

/// Returns the next lines as text, an empty line after some time without any.
async fn next_text(recording: &mut HubRecording) -> Option<Bytes> {
    let idle_at = Instant::now() + IDLE_INTERVAL;
    loop {
        yield_now().await;
        let lines = recording.next().await?;
        if !lines.is_empty() {
            return Some(lines.iter().map(RecordingLine::to_text).collect::<String>().into());
        }
        if Instant::now() >= idle_at {
            return Some(Bytes::from_static(b"\n"));
        }
    }
}
