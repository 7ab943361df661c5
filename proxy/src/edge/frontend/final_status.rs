//! Final status codes: refusals that client libraries don't retry automatically.
//!
//! | client library | retries |
//! |---|---|
//! | `eventsource` (official client in Node) | the GET of an event stream after 500, 502, 503 and 504, even if the SignalR client has given up |
//! | Chrome, Firefox, OkHttp (official Java client) | any request after 408, on a kept-alive connection |
//! | OkHttp | any request after 503 with `Retry-After: 0`, which nodes never send |
//!
//! A retried GET feeds its messages into the client's next connection; a retried upload delivers messages twice. Known
//! client libraries don't retry after other status codes.

use axum::response::Response;
use http::header::RETRY_AFTER;
use http::request::Parts;
use http::{Method, StatusCode};

use crate::edge::frontend::plain_response::ResponseNotes;
use crate::edge::frontend::refusal::cause_of;
use crate::edge::frontend::request::wants_event_stream;
use crate::edge::frontend::request_query::RequestQuery;

/// Kind of a hub request, by the status codes after which client libraries retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RepeatKind {
    /// The GET of an event stream.
    EventStream,
    Other,
}

impl RepeatKind {
    pub(crate) fn of(parts: &Parts, query: &RequestQuery) -> Self {
        let is_event_stream =
            parts.method == Method::GET && wants_event_stream(&parts.headers) && query.connection_token().is_some();
        if is_event_stream { Self::EventStream } else { Self::Other }
    }
}

/// Replaces a status that would cause a retry. Text and cause are kept.
pub(crate) fn settle(kind: RepeatKind, mut answer: Response) -> Response {
    let status = match (kind, answer.status()) {
        // Status of ASP.NET Core for a missing connection.
        (RepeatKind::EventStream, status) if status.is_server_error() => StatusCode::NOT_FOUND,
        (_, StatusCode::REQUEST_TIMEOUT) => StatusCode::BAD_REQUEST,
        _ => return answer,
    };
    let cause = cause_of(&answer);
    ResponseNotes::edit(&mut answer).cause = Some(cause);
    answer.headers_mut().remove(RETRY_AFTER);
    *answer.status_mut() = status;
    answer
}

#[cfg(test)]
mod tests {
    use trunkline_protocol::cause::Cause;

    use super::*;
    use crate::edge::frontend::plain_response::{because, plain, unavailable};

    /// Final status for each refusal status.
    fn settled(kind: RepeatKind) -> Vec<(u16, u16)> {
        let statuses = [400, 401, 403, 404, 405, 408, 409, 413, 426, 429, 431, 500, 501, 502, 503, 504];
        let answer = |status| plain(StatusCode::from_u16(status).unwrap(), "");
        statuses.map(|status| (status, settle(kind, answer(status)).status().as_u16())).into()
    }

    #[test]
    fn no_refusal_has_a_status_that_a_client_library_repeats() {
        for (kind, repeated) in [(RepeatKind::EventStream, &[408, 500, 502, 503, 504][..]), (RepeatKind::Other, &[408])]
        {
            for (status, settled) in settled(kind) {
                assert!(!repeated.contains(&settled), "{kind:?}: {status} became {settled}");
                assert!(settled == status || settled == 404 || settled == 400, "{kind:?}: {status} became {settled}");
            }
        }
    }

    #[test]
    fn a_refusal_keeps_its_cause_and_asks_for_no_repetition() {
        let answer = settle(RepeatKind::EventStream, unavailable(Cause::Drained, "stopping"));
        assert_eq!((answer.status(), answer.headers().get(RETRY_AFTER)), (StatusCode::NOT_FOUND, None));
        assert_eq!(cause_of(&answer), Cause::Drained);
        let unnamed = settle(RepeatKind::EventStream, plain(StatusCode::BAD_GATEWAY, ""));
        assert_eq!(cause_of(&unnamed), Cause::AppUnreachable);
        let late = settle(RepeatKind::Other, because(Cause::BodyTimeout, plain(StatusCode::REQUEST_TIMEOUT, "")));
        assert_eq!(cause_of(&late), Cause::BodyTimeout);
    }

    #[test]
    fn only_the_get_of_a_connection_for_an_event_stream_is_one() {
        let kind = |method: Method, uri: &str, accept: &str| {
            let request = http::Request::builder().method(method).uri(uri).header("accept", accept);
            RepeatKind::of(&request.body(()).unwrap().into_parts().0, &RequestQuery::parse(&uri.parse().unwrap()))
        };
        assert_eq!(kind(Method::GET, "/chat?id=a", "text/event-stream"), RepeatKind::EventStream);
        assert_eq!(kind(Method::GET, "/chat?id=a", "*/*"), RepeatKind::Other);
        assert_eq!(kind(Method::POST, "/chat?id=a", "text/event-stream"), RepeatKind::Other);
        assert_eq!(kind(Method::GET, "/chat", "text/event-stream"), RepeatKind::Other);
    }
}
