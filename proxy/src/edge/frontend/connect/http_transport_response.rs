//! Responses of an HTTP transport with messages for the client: event streams and polls.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::response::{IntoResponse, IntoResponseParts, Response};
use bytes::Bytes;
use futures_util::stream::unfold;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, EXPIRES, PRAGMA};
use http::{HeaderName, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use trunkline_protocol::cause::Cause;

use crate::edge::frontend::InFlight;
use crate::edge::frontend::handover_body::HandoverBody;
use crate::engine::shard::Shared;
use crate::engine::transport::event_stream::{PREAMBLE, encode_event};
use crate::engine::transport::http_transport::{ActiveGet, OuterHalf};
use crate::ground::net::socket::{SocketHandover, WriteStallLimit};

/// Headers that prevent caching of polls, which must all reach the node.
const POLL_HEADERS: [(HeaderName, &str); 3] =
    [(CACHE_CONTROL, "no-cache, no-store"), (PRAGMA, "no-cache"), (EXPIRES, "Thu, 01 Jan 1970 00:00:00 GMT")];

/// Guard of an event stream. Its end, at either side, closes the connection.
pub(crate) struct EventStream {
    shared: Arc<Shared>,
    outer: Arc<OuterHalf>,
    _get: ActiveGet,
}

impl EventStream {
    pub(crate) fn new(shared: Arc<Shared>, outer: Arc<OuterHalf>) -> Self {
        Self { shared, _get: outer.begin_get(), outer }
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        self.outer.set_close_cause(Cause::SocketEnded);
        self.shared.routes.retire(&self.outer.id);
        self.shared.http_transports.remove(&self.outer);
    }
}

pub(crate) fn event_stream(shared: Arc<Shared>, outer: Arc<OuterHalf>) -> Response {
    let in_flight = InFlight::new(shared.clone());
    let head = stream_head(&outer);
    let events = EventStream::new(shared, outer);
    let stream = unfold((events, in_flight, true), |(events, in_flight, is_first)| async move {
        if is_first {
            return Some((Bytes::from_static(PREAMBLE), (events, in_flight, false)));
        }
        let messages = events.outer.next_messages().await?;
        Some((encode_event(&messages), (events, in_flight, false)))
    });
    let stream = futures_util::StreamExt::map(stream, Ok::<_, Infallible>);
    (head, Body::from_stream(stream)).into_response()
}

/// Creates the beginning of an event stream response. The client module then receives the socket and writes the rest.
pub(crate) fn begin_event_stream(
    outer: &OuterHalf,
    handover: SocketHandover,
    taker: oneshot::Sender<TcpStream>,
) -> Response {
    // The connection can't be reused.
    let close = [(CONNECTION, "close")];
    let body = HandoverBody::new(Bytes::from_static(PREAMBLE), handover, taker);
    (stream_head(outer), close, Body::new(body)).into_response()
}

/// Head of an event stream, and the limit of its write stalls.
fn stream_head(outer: &OuterHalf) -> impl IntoResponseParts + use<> {
    let headers = [
        (CONTENT_TYPE, "text/event-stream"),
        // An intermediary's compression would delay events, and not all respect `identity`.
        (CACHE_CONTROL, "no-cache,no-store,no-transform"),
        (PRAGMA, "no-cache"),
        (CONTENT_ENCODING, "identity"),
        // Prevents buffering in nginx.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, Extension(WriteStallLimit::until_closed(outer.inner_closed())))
}

/// Creates the immediate, empty response to the first poll.
pub(crate) fn first_poll() -> Response {
    (POLL_HEADERS, [(CONTENT_TYPE, "application/octet-stream")], Body::empty()).into_response()
}

pub(crate) fn poll_messages(messages: Bytes, outer: &OuterHalf, in_flight: InFlight) -> Response {
    // The body holds `in_flight`, so the poll is counted until its body is dropped.
    let body = Body::new(Full::new(messages).inspect_frame(move |_| _ = &in_flight));
    let mut answer = (POLL_HEADERS, [(CONTENT_TYPE, "application/octet-stream")], body).into_response();
    WriteStallLimit::until_closed(outer.inner_closed()).attach(&mut answer);
    answer
}

/// Creates the response to a poll without messages: 200 to poll again, 204 to stop.
pub(crate) fn empty_poll(status: StatusCode) -> Response {
    (status, POLL_HEADERS, [(CONTENT_TYPE, "text/plain")], Body::empty()).into_response()
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
        headers.get(name).and_then(|value| value.to_str().ok())
    }

    #[test]
    fn polls_are_never_cached() {
        for answer in [first_poll(), empty_poll(StatusCode::OK), empty_poll(StatusCode::NO_CONTENT)] {
            assert_eq!(header(answer.headers(), "cache-control"), Some("no-cache, no-store"));
            assert_eq!(header(answer.headers(), "pragma"), Some("no-cache"));
            assert_eq!(header(answer.headers(), "expires"), Some("Thu, 01 Jan 1970 00:00:00 GMT"));
        }
        assert_eq!(header(first_poll().headers(), "content-type"), Some("application/octet-stream"));
        assert_eq!(header(empty_poll(StatusCode::OK).headers(), "content-type"), Some("text/plain"));
    }
}
