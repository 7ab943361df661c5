//! Live traces: JSON lines for commands and other nodes, server-sent events for pages.
//!
//! A stream makes its next lines when its reader has taken the last ones. What a slow reader misses is counted in it.

use std::convert::Infallible;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Uri};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt};
use tokio::time::timeout;

use super::event_api::{over, too_many};
use super::recording_api::JSON_LINES;
use crate::admin::access::Access;
use crate::admin::api_error::ApiError;
use crate::admin::context::AdminContext;
use crate::admin::parameter::{NAME_MAX_CHARS, QueryParameters, Scope};
use crate::admin::session::SessionEnd;
use crate::observer::{PayloadView, TRACE_SECONDS_DEFAULT, TRACE_SECONDS_MAX, TraceChoice, TraceError, TraceLine};
use crate::shard::TraceSubject;

/// Interval of empty lines while nothing is told: by them both ends notice that the other one is gone.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);

/// Media type of server-sent events.
const EVENT_STREAM: &str = "text/event-stream";

/// Streams the messages of a connection, a user, a group or a method, with the time at each hop.
pub(super) async fn trace(
    State(context): State<AdminContext>,
    Extension(access): Extension<Access>,
    Extension(end): Extension<Option<SessionEnd>>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let (scope, choice) = read_choice(&uri)?;
    if choice.payloads == PayloadView::Shown {
        access.to_act()?;
    }
    let hub = choice.hub.clone();
    let refused = |error| match error {
        TraceError::UnknownHub => ApiError::unknown_hub(hub.as_deref()),
        TraceError::TooMany(problem) => too_many(problem),
        TraceError::Stopping => ApiError::stopping(),
    };
    let lines: BoxStream<'static, Vec<TraceLine>> = match scope {
        Scope::Node => {
            let (trace, permit) = context.observer.trace_node(&choice).await.map_err(refused)?;
            let first = stream::iter([vec![trace.header()]]);
            let rest = stream::unfold((trace, permit), |(mut trace, permit)| async move {
                Some((trace.next().await?, (trace, permit)))
            });
            first.chain(rest).boxed()
        }
        Scope::Fleet => {
            let begun = context.observer.trace(choice).await.map_err(refused)?;
            stream::unfold(begun, |(mut trace, permit)| async move { Some((trace.next().await?, (trace, permit))) })
                .boxed()
        }
    };
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    Ok(if accept.contains(EVENT_STREAM) { events(lines, end) } else { json_lines(lines, end) })
}

/// Answers with an event per line. The last event tells the browser not to come again.
fn events(lines: BoxStream<'static, Vec<TraceLine>>, end: Option<SessionEnd>) -> Response {
    let events = with_idle(lines).flat_map(|lines| {
        let lines = lines.into_iter().filter_map(|line| Event::default().event("trace").json_data(line).ok());
        stream::iter(lines.map(Ok::<_, Infallible>).collect::<Vec<_>>())
    });
    Sse::new(events.take_until(over(end))).keep_alive(KeepAlive::default()).into_response()
}

/// Answers with a line of JSON per line.
fn json_lines(lines: BoxStream<'static, Vec<TraceLine>>, end: Option<SessionEnd>) -> Response {
    let texts = with_idle(lines).map(|lines| match lines.is_empty() {
        true => Bytes::from_static(b"\n"),
        false => lines.iter().map(TraceLine::to_text).collect::<String>().into(),
    });
    let headers = [(CONTENT_TYPE, JSON_LINES), (CACHE_CONTROL, HeaderValue::from_static("no-cache"))];
    (headers, Body::from_stream(texts.map(Ok::<_, Infallible>).take_until(over(end)))).into_response()
}

/// Leaves out what holds no lines, but for one such piece after some time without any.
fn with_idle(lines: BoxStream<'static, Vec<TraceLine>>) -> impl Stream<Item = Vec<TraceLine>> + Send + 'static {
    stream::unfold(lines, |mut lines| async move {
        let next = async {
            while let Some(some) = lines.next().await {
                if !some.is_empty() {
                    return Some(some);
                }
            }
            None
        };
        // What is cancelled here is a wait: streams lose nothing by that.
        let next = timeout(IDLE_INTERVAL, next).await.unwrap_or_else(|_| Some(Vec::new()))?;
        Some((next, lines))
    })
}

fn read_choice(uri: &Uri) -> Result<(Scope, TraceChoice), ApiError> {
    let mut parameters = QueryParameters::read(uri)?;
    let scope = parameters.scope()?;
    let mut text = |name| Ok(parameters.text(name, NAME_MAX_CHARS)?.filter(|text: &String| !text.is_empty()));
    let hub = text("hub")?;
    let subjects = [
        text("connection")?.map(TraceSubject::Connection),
        text("user")?.map(TraceSubject::User),
        text("group")?.map(TraceSubject::Group),
        text("method")?.map(TraceSubject::Method),
    ];
    let most = usize::try_from(TRACE_SECONDS_MAX).unwrap_or(usize::MAX);
    let seconds = parameters.number("seconds", 1, most)?.map_or(TRACE_SECONDS_DEFAULT, |seconds| seconds as u64);
    let payloads = match parameters.word("payloads", ["hidden", "shown"])? {
        "shown" => PayloadView::Shown,
        _ => PayloadView::Hidden,
    };
    parameters.end()?;
    let mut given = subjects.into_iter().flatten();
    let subject = given.next().ok_or_else(|| {
        ApiError::field("connection", "is missing, and user, group and method, too: one of them says what to follow")
    })?;
    if given.next().is_some() {
        return Err(ApiError::field(
            "connection",
            "can't be given together with user, group or method, nor these with each other",
        ));
    }
    Ok((scope, TraceChoice { hub, subject, payloads, seconds }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_subject_is_followed_for_a_bounded_time() {
        let read = |query: &'static str| read_choice(&Uri::from_static(query));
        let (scope, choice) = read("/?user=ann&hub=/chat&seconds=600&payloads=shown&scope=node").unwrap();
        assert_eq!(
            (scope, choice.subject, choice.hub.as_deref()),
            (Scope::Node, TraceSubject::User("ann".into()), Some("/chat"))
        );
        assert_eq!((choice.seconds, choice.payloads), (600, PayloadView::Shown));
        let (_, choice) = read("/?method=Say").unwrap();
        assert_eq!((choice.seconds, choice.payloads), (TRACE_SECONDS_DEFAULT, PayloadView::Hidden));
        for wrong in ["/", "/?user=", "/?user=a&group=b", "/?user=a&seconds=0", "/?user=a&seconds=601", "/?user=a&x=1"]
        {
            assert_eq!(read(wrong).unwrap_err().status().as_u16(), 400, "{wrong}");
        }
    }
}
