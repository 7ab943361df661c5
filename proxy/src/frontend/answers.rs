//! Answers that carry what a client shall get: event streams and polls.

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

use crate::net::socket::Patience;
use crate::shard::Shared;
use crate::transport::events::{PREAMBLE, event};
use crate::transport::http::{Carried, Presence};

/// Polls must reach the node each time.
const POLL_HEADERS: [(HeaderName, &str); 3] =
    [(CACHE_CONTROL, "no-cache, no-store"), (PRAGMA, "no-cache"), (EXPIRES, "Thu, 01 Jan 1970 00:00:00 GMT")];

/// An answer that still leaves: a node that stops waits for it, as it does for the sockets of clients.
#[derive(Debug)]
pub(super) struct Counted(Arc<Shared>);

impl Counted {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        shared.socket_began();
        Self(shared)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.socket_ended();
    }
}

/// An event stream; when it ends, whoever ended it, the connection does too.
struct Events {
    counted: Counted,
    carried: Arc<Carried>,
    _present: Presence,
}

impl Drop for Events {
    fn drop(&mut self) {
        self.carried.say_why(Cause::SocketEnded);
        self.counted.0.routes.retire(self.carried.id());
        self.counted.0.carried.remove(&self.carried);
    }
}

/// An event stream that has just begun.
pub(super) fn events(shared: Arc<Shared>, carried: Arc<Carried>) -> Response {
    let patience = Patience::until_over(carried.over());
    let events = Events { counted: Counted::new(shared), _present: carried.attend(), carried };
    let stream = unfold((events, true), |(events, is_first)| async move {
        if is_first {
            return Some((Bytes::from_static(PREAMBLE), (events, false)));
        }
        let messages = events.carried.next().await?;
        Some((event(&messages), (events, false)))
    });
    let headers = [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-cache,no-store"),
        (PRAGMA, "no-cache"),
        (CONTENT_ENCODING, "identity"),
        // For nginx, which else gathers before it passes on.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    let stream = futures_util::StreamExt::map(stream, Ok::<_, Infallible>);
    let mut answer = (headers, Body::from_stream(stream)).into_response();
    answer.extensions_mut().insert(patience);
    answer
}

/// The answer to the poll that begins a connection: at once, and empty.
pub(super) fn first_poll() -> Response {
    (POLL_HEADERS, [(CONTENT_TYPE, "application/octet-stream")], Body::empty()).into_response()
}

/// A poll that brings messages of a connection.
pub(super) fn messages(messages: Bytes, carried: &Carried, counted: Counted) -> Response {
    let body = Body::new(Leaving { messages: Full::new(messages), _counted: counted });
    let mut answer = (POLL_HEADERS, [(CONTENT_TYPE, "application/octet-stream")], body).into_response();
    answer.extensions_mut().insert(Patience::until_over(carried.over()));
    answer
}

/// A poll that brings nothing: 200 to ask again, 204 to stop.
pub(super) fn empty_poll(status: StatusCode) -> Response {
    (status, POLL_HEADERS, [(CONTENT_TYPE, "text/plain")], Body::empty()).into_response()
}

/// Messages that are counted until they have left.
struct Leaving {
    messages: Full<Bytes>,
    _counted: Counted,
}

impl HttpBody for Leaving {
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
    fn polls_are_never_kept_by_anybody() {
        for answer in [first_poll(), empty_poll(StatusCode::OK), empty_poll(StatusCode::NO_CONTENT)] {
            assert_eq!(header(answer.headers(), "cache-control"), Some("no-cache, no-store"));
            assert_eq!(header(answer.headers(), "pragma"), Some("no-cache"));
            assert_eq!(header(answer.headers(), "expires"), Some("Thu, 01 Jan 1970 00:00:00 GMT"));
        }
        assert_eq!(header(first_poll().headers(), "content-type"), Some("application/octet-stream"));
        assert_eq!(header(empty_poll(StatusCode::OK).headers(), "content-type"), Some("text/plain"));
    }
}
