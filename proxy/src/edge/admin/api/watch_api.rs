//! Watches of clients as streams: taps and traces as server-sent events for pages; traces as JSON lines for commands
//! and other nodes.
//!
//! Lines are produced as they are read. Data lost to a slow reader is counted in the stream.

use std::convert::Infallible;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Uri};
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt};
use http_body_util::BodyExt;
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::client_api::check_id;
use super::fleet_api::{event, no_permit, over, too_many};
use crate::edge::admin::access::Access;
use crate::edge::admin::guard::AdminContext;
use crate::edge::admin::parameter::{NAME_MAX_CHARS, QueryParameters, Scope};
use crate::edge::admin::session::{AdmittedCaller, SessionEnd};
use crate::edge::observer::ApiError;
use crate::edge::observer::{
    PayloadView, TRACE_SECONDS_DEFAULT, TRACE_SECONDS_MAX, WatchChoice, WatchError, WatchLines, json_line,
};
use crate::features::watch::WatchSubject;

/// Interval of empty lines in a silent stream, by which both ends detect a lost peer.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);

const EVENT_STREAM: &str = "text/event-stream";

const JSON_LINES: HeaderValue = HeaderValue::from_static("application/x-ndjson");

type WatchStream<L> = BoxStream<'static, Vec<L>>;

pub(super) async fn tap(
    State(context): State<AdminContext>,
    Extension(AdmittedCaller { access, end, .. }): Extension<AdmittedCaller>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let mut parameters = QueryParameters::from_uri(&uri)?;
    let scope = parameters.scope()?;
    let payloads = payload_view(&mut parameters)?;
    parameters.refuse_rest()?;
    check_access(&access, payloads)?;
    check_id(&id)?;
    match context.observer.tap(&id, payloads).await {
        Ok(tap) => Ok(Sse::new(events("watch", lines(tap)).take_until(over(end))).into_response()),
        Err(WatchError::TooMany(problem)) => Err(too_many(problem)),
        Err(_) if scope == Scope::Node => Err(ApiError::unknown_client(&id)),
        Err(_) => tap_of_peer(&context, &id, payloads, end).await,
    }
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
    // The permit is held while the stream is read.
    let body = answer.into_body().into_data_stream().inspect(move |_| _ = &permit).take_until(over(end));
    let mut response = (status, Body::from_stream(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.extend(kind.map(|kind| (CONTENT_TYPE, kind)));
    Ok(response)
}

pub(super) async fn trace(
    State(context): State<AdminContext>,
    Extension(AdmittedCaller { access, end, .. }): Extension<AdmittedCaller>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let (scope, choice) = trace_choice(&uri)?;
    check_access(&access, choice.payloads)?;
    let hub = choice.hub.clone();
    let lines = match scope {
        Scope::Node => context.observer.trace_node(&choice).await.map(lines),
        Scope::Fleet => context.observer.trace(choice).await.map(lines),
    };
    let lines = lines.map_err(|error| refusal(error, &hub))?;
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if !accept.contains(EVENT_STREAM) {
        return Ok(json_lines(lines, end));
    }
    // The last event keeps the browser from reconnecting.
    let events = events("trace", with_idle(lines));
    Ok(Sse::new(events.take_until(over(end))).keep_alive(KeepAlive::default()).into_response())
}

/// The permit is held while the lines are read.
fn lines<W: WatchLines>((watch, permit): (W, OwnedSemaphorePermit)) -> WatchStream<W::Line> {
    stream::unfold((watch, permit), |(mut watch, permit)| async move {
        // Yields to other tasks, because decoding takes CPU time.
        yield_now().await;
        Some((watch.next().await?, (watch, permit)))
    })
    .boxed()
}

fn events<L: Serialize + Send>(
    name: &'static str,
    lines: impl Stream<Item = Vec<L>> + Send + 'static,
) -> impl Stream<Item = Result<axum::response::sse::Event, Infallible>> + Send + 'static {
    lines.flat_map(move |lines| {
        let events = lines.iter().filter_map(|line| event(name, line)).map(Ok);
        stream::iter(events.collect::<Vec<_>>())
    })
}

fn json_lines<L: Serialize + Send + 'static>(lines: WatchStream<L>, end: Option<SessionEnd>) -> Response {
    let texts = with_idle(lines).map(|lines| match lines.is_empty() {
        true => Bytes::from_static(b"\n"),
        false => lines.iter().map(json_line).collect::<String>().into(),
    });
    let headers = [(CONTENT_TYPE, JSON_LINES), (CACHE_CONTROL, HeaderValue::from_static("no-cache"))];
    (headers, Body::from_stream(texts.map(Ok::<_, Infallible>).take_until(over(end)))).into_response()
}

/// Omits empty batches, except for one after each idle interval.
fn with_idle<L: Send + 'static>(lines: WatchStream<L>) -> impl Stream<Item = Vec<L>> + Send + 'static {
    stream::unfold(lines, |mut lines| async move {
        let next = async {
            while let Some(some) = lines.next().await {
                if !some.is_empty() {
                    return Some(some);
                }
            }
            None
        };
        // Cancelling only a wait, so no lines are lost.
        let next = timeout(IDLE_INTERVAL, next).await.unwrap_or_else(|_| Some(Vec::new()))?;
        Some((next, lines))
    })
}

fn trace_choice(uri: &Uri) -> Result<(Scope, WatchChoice), ApiError> {
    let mut parameters = QueryParameters::from_uri(uri)?;
    let scope = parameters.scope()?;
    let mut text = |name| Ok(parameters.text(name, NAME_MAX_CHARS)?.filter(|text: &String| !text.is_empty()));
    let hub = text("hub")?;
    let subjects = [
        text("connection")?.map(WatchSubject::Connection),
        text("user")?.map(WatchSubject::User),
        text("group")?.map(WatchSubject::Group),
        text("method")?.map(WatchSubject::Method),
    ];
    let most = usize::try_from(TRACE_SECONDS_MAX).unwrap_or(usize::MAX);
    let seconds = parameters.number("seconds", 1, most)?.map_or(TRACE_SECONDS_DEFAULT, |seconds| seconds as u64);
    let payloads = payload_view(&mut parameters)?;
    parameters.refuse_rest()?;
    let subjects: Vec<_> = subjects.into_iter().flatten().collect();
    let problem = match subjects.len() {
        0 => "is missing: connection, user, group or method is required",
        1 => return Ok((scope, WatchChoice { hub, subjects, payloads, seconds: Some(seconds) })),
        _ => "can't be combined with user, group or method, and these exclude each other",
    };
    Err(ApiError::field("connection", problem))
}

fn payload_view(parameters: &mut QueryParameters) -> Result<PayloadView, ApiError> {
    let word = parameters.word("payloads", ["hidden", "shown"])?;
    Ok(if word == "shown" { PayloadView::Shown } else { PayloadView::Hidden })
}

fn check_access(access: &Access, payloads: PayloadView) -> Result<(), ApiError> {
    if payloads == PayloadView::Shown { access.to_act() } else { Ok(()) }
}

fn refusal(error: WatchError, hub: &Option<String>) -> ApiError {
    match error {
        WatchError::UnknownHub => ApiError::unknown_hub(hub.as_deref()),
        WatchError::TooMany(problem) => too_many(problem),
        WatchError::UnknownClient | WatchError::Stopping => ApiError::stopping(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_subject_is_followed_for_a_bounded_time() {
        let read = |query: &'static str| trace_choice(&Uri::from_static(query));
        let (scope, choice) = read("/?user=ann&hub=/chat&seconds=600&payloads=shown&scope=node").unwrap();
        assert_eq!(
            (scope, choice.subjects, choice.hub.as_deref()),
            (Scope::Node, vec![WatchSubject::User("ann".into())], Some("/chat"))
        );
        assert_eq!((choice.seconds, choice.payloads), (Some(600), PayloadView::Shown));
        let (_, choice) = read("/?method=Say").unwrap();
        assert_eq!((choice.seconds, choice.payloads), (Some(TRACE_SECONDS_DEFAULT), PayloadView::Hidden));
        for wrong in ["/", "/?user=", "/?user=a&group=b", "/?user=a&seconds=0", "/?user=a&seconds=601", "/?user=a&x=1"]
        {
            assert_eq!(read(wrong).unwrap_err().status().as_u16(), 400, "{wrong}");
        }
    }
}
