//! Responses of an HTTP transport with messages for the client: event streams and polls.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::unfold;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, EXPIRES, PRAGMA};
use http::{HeaderName, StatusCode};
use http_body_util::Full;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use trunkline_protocol::cause::Cause;

use crate::frontend::in_flight::InFlight;
use crate::net::socket::WriteStallLimit;
use crate::shard::Shared;
use crate::transport::event_stream::{PREAMBLE, encode_event};
use crate::transport::http_transport::{ActiveGet, OuterHalf};

/// Headers that keep polls out of caches: each must reach the node.
const POLL_HEADERS: [(HeaderName, &str); 3] =
    [(CACHE_CONTROL, "no-cache, no-store"), (PRAGMA, "no-cache"), (EXPIRES, "Thu, 01 Jan 1970 00:00:00 GMT")];

/// Guard of an event stream: when it ends, at either end, the connection is closed.
struct EventStream {
    in_flight: InFlight,
    outer: Arc<OuterHalf>,
    _get: ActiveGet,
}

impl Drop for EventStream {
    fn drop(&mut self) {
        let shared = self.in_flight.shared();
        self.outer.set_close_cause(Cause::SocketEnded);
        shared.routes.retire(self.outer.id());
        shared.admission.http_transports.remove(&self.outer);
    }
}

/// Makes the response of an event stream that has just begun.
pub(crate) fn event_stream(shared: Arc<Shared>, outer: Arc<OuterHalf>) -> Response {
    let patience = WriteStallLimit::until_closed(outer.inner_closed());
    let events = EventStream { in_flight: InFlight::new(shared), _get: outer.begin_get(), outer };
    let stream = unfold((events, true), |(events, is_first)| async move {
        if is_first {
            return Some((Bytes::from_static(PREAMBLE), (events, false)));
        }
        let messages = events.outer.next_messages().await?;
        Some((encode_event(&messages), (events, false)))
    });
    let headers = [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-cache,no-store"),
        (PRAGMA, "no-cache"),
        (CONTENT_ENCODING, "identity"),
        // For nginx, which otherwise buffers.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    let stream = futures_util::StreamExt::map(stream, Ok::<_, Infallible>);
    let mut answer = (headers, Body::from_stream(stream)).into_response();
    answer.extensions_mut().insert(patience);
    answer
}

/// Makes the answer to the poll that begins a connection: at once, and empty.
pub(crate) fn first_poll() -> Response {
    (POLL_HEADERS, [(CONTENT_TYPE, "application/octet-stream")], Body::empty()).into_response()
}

/// Makes the answer to a poll that brings messages.
pub(crate) fn poll_messages(messages: Bytes, outer: &OuterHalf, in_flight: InFlight) -> Response {
    let body = Body::new(PollBody { messages: Full::new(messages), _in_flight: in_flight });
    let mut answer = (POLL_HEADERS, [(CONTENT_TYPE, "application/octet-stream")], body).into_response();
    answer.extensions_mut().insert(WriteStallLimit::until_closed(outer.inner_closed()));
    answer
}

/// Makes the answer to a poll without messages: 200 to poll again, 204 to stop.
pub(crate) fn empty_poll(status: StatusCode) -> Response {
    (status, POLL_HEADERS, [(CONTENT_TYPE, "text/plain")], Body::empty()).into_response()
}

/// Body of a poll's answer, counted until it is sent.
struct PollBody {
    messages: Full<Bytes>,
    _in_flight: InFlight,
}

impl HttpBody for PollBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.messages).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.messages.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.messages.size_hint()
    }
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
