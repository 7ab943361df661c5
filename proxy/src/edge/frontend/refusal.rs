//! Refusals of requests and sockets: their causes and sources, which are counted, logged, and kept for the observer to
//! explain failed connects, and status codes that client libraries don't retry automatically.

use axum::response::Response;
use http::header::RETRY_AFTER;
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, Uri};
use tracing::debug;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::wire::{REFUSAL_HEADER, REFUSED_DEVELOPMENT_KEY, REFUSED_KEY};

use crate::edge::frontend::endpoint::Endpoint;
use crate::edge::frontend::plain_response::ResponseNotes;
use crate::edge::frontend::request::wants_event_stream;
use crate::edge::frontend::request_query::RequestQuery;
use crate::engine::shard::{PastConnection, short};
use crate::ground::metrics::{Counters, Limit};

pub(crate) fn cause_of_limit(limit: Limit) -> Cause {
    match limit {
        Limit::Connections => Cause::LimitConnections,
        Limit::ConnectionsPerAddress => Cause::LimitAddress,
        Limit::Connects => Cause::LimitConnects,
        Limit::PendingPerAddress => Cause::LimitPending,
        Limit::PendingPipes => Cause::LimitPipes,
        Limit::PassThrough
        | Limit::PassThroughPerAddress
        | Limit::PassThroughPerConnection
        | Limit::PassThroughPerUpstream => Cause::LimitPassThrough,
        Limit::StreamResets => Cause::LimitResets,
        Limit::BodyTime => Cause::BodyTimeout,
        Limit::Descriptors => Cause::LimitDescriptors,
        Limit::HeadTime => Cause::HeadTimeout,
        Limit::HeadSize | Limit::HeadTotal => Cause::HeadTooLarge,
        Limit::BodySize => Cause::BodyTooLarge,
        Limit::MessageSize | Limit::Messages | Limit::Bytes => Cause::MessageTooLarge,
        Limit::MessageTime => Cause::MessageTimeout,
        // These limits never refuse a request.
        Limit::Groups | Limit::GroupName | Limit::GroupNames | Limit::LogLines => Cause::MessageTooLarge,
    }
}

/// Counts and logs a refused request. If it names a connection that never existed, the observer records the cause.
pub(crate) fn record(endpoint: &Endpoint, uri: &Uri, answer: &Response) {
    let cause = cause_of(answer);
    endpoint.counters.requests_refused.count(cause);
    let (notes, refusals) = (ResponseNotes::from_answer(answer), &endpoint.shared.reports.refusals);
    match &notes.text {
        _ if notes.is_for_app_server => refusals.count_app_server(cause),
        Some(text) => refusals.note(cause, text),
        None => {}
    }
    let id = connection_id(endpoint, uri);
    let connection = id.as_deref().map(short);
    let reason = notes.text.as_deref();
    debug!(path = uri.path(), connection, status = answer.status().as_u16(), %cause, reason, "request refused");
    let shared = &endpoint.shared;
    if let Some(id) = id.filter(|id| shared.routes.find(id).is_none() && shared.past(id).is_none()) {
        let hub = shared.hubs.find(uri.path());
        let hub = hub.as_ref().map(|hub| hub.name().into());
        shared.remember(0, &PastConnection { hub, ..PastConnection::new(&id, cause, None) });
    }
}

/// Counts a socket refused before a complete request.
pub(crate) fn count_refused_socket(counters: &Counters, cause: Cause) {
    counters.sockets_refused.count(cause);
}

/// Cause attached to a refusal, or else derived from its status.
pub(crate) fn cause_of(answer: &Response) -> Cause {
    ResponseNotes::from_answer(answer).cause.unwrap_or(match answer.status() {
        StatusCode::UNAUTHORIZED => Cause::TokenRefused,
        StatusCode::FORBIDDEN => Cause::OriginRefused,
        StatusCode::NOT_FOUND => Cause::IdUnknown,
        StatusCode::CONFLICT => Cause::IdUsed,
        StatusCode::REQUEST_TIMEOUT => Cause::BodyTimeout,
        StatusCode::PAYLOAD_TOO_LARGE => Cause::BodyTooLarge,
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Cause::HeadTooLarge,
        StatusCode::SERVICE_UNAVAILABLE => Cause::NoAppServer,
        StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => Cause::AppUnreachable,
        _ => Cause::RequestInvalid,
    })
}

/// Id of the connection named by a request's token, if issued by this fleet.
pub(crate) fn connection_id(endpoint: &Endpoint, uri: &Uri) -> Option<String> {
    RequestQuery::parse(uri).open_token(&endpoint.shared.settings.keys).map(|(_, id)| id)
}

/// Remedy for a refusal by an app's middleware; follows the status.
pub(crate) const MIDDLEWARE_HINT: &str =
    "but not by Trunkline's SDK: is a middleware around `Server::into_router`? Merge that router after `.layer(...)`";

/// Source of a refusal: the SDK, which marks its refusals, or a component in front of it, such as middleware of the
/// app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefusalSource {
    /// The SDK, which does not have this node's key.
    AccessKey,
    /// The SDK: it has only the development key, and this node is on another machine.
    DevelopmentKey,
    /// The SDK, for a reason given in the body.
    Sdk,
    /// A component in front of the SDK requires a login: the app's middleware or a gateway.
    Middleware,
    /// Apparently not the SDK.
    Stranger,
}

impl RefusalSource {
    /// Determines the source by the SDK's mark, or else by the status.
    pub(crate) fn from_answer(status: StatusCode, headers: &HeaderMap) -> Self {
        match headers.get(REFUSAL_HEADER).map(|mark| mark.to_str().unwrap_or_default()) {
            Some(REFUSED_KEY) => Self::AccessKey,
            Some(REFUSED_DEVELOPMENT_KEY) => Self::DevelopmentKey,
            Some(_) => Self::Sdk,
            // A login page is a redirect for browsers.
            None if status.is_redirection() => Self::Middleware,
            None if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => Self::Middleware,
            None => Self::Stranger,
        }
    }
}

/// Kind of a hub request, by the status codes after which client libraries retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RepeatKind {
    /// The GET of an event stream.
    EventStream,
    Other,
}

impl RepeatKind {
    pub(crate) fn from_request(parts: &Parts, query: &RequestQuery) -> Self {
        let is_event_stream =
            parts.method == Method::GET && wants_event_stream(&parts.headers) && query.connection_token().is_some();
        if is_event_stream { Self::EventStream } else { Self::Other }
    }
}

/// Replaces a status that would cause a retry. Text and cause are kept.
///
/// | client library | retries |
/// |---|---|
/// | `eventsource` (official client in Node) | the GET of an event stream after 500, 502, 503 and 504, even if the SignalR client has given up |
/// | Chrome, Firefox, OkHttp (official Java client) | any request after 408, on a kept-alive connection |
/// | OkHttp | any request after 503 with `Retry-After: 0`, which nodes never send |
///
/// A retried GET feeds its messages into the client's next connection; a retried upload delivers messages twice. Known
/// client libraries don't retry after other status codes.
pub(crate) fn settle_status(kind: RepeatKind, mut answer: Response) -> Response {
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
    use axum::response::IntoResponse;
    use http::HeaderValue;
    use trunkline_protocol::cause::Cause;

    use super::*;
    use crate::edge::frontend::plain_response::{because, plain, unavailable};

    #[test]
    fn a_status_has_a_cause_unless_one_is_named() {
        assert_eq!(cause_of(&StatusCode::UNAUTHORIZED.into_response()), Cause::TokenRefused);
        let named = because(Cause::PathUnknown, StatusCode::NOT_FOUND.into_response());
        assert_eq!(cause_of(&named), Cause::PathUnknown);
    }

    #[test]
    fn only_a_marked_refusal_is_the_sdk_s() {
        let of = |status: u16, mark: Option<&'static str>| {
            let marked =
                mark.map(|mark| (http::HeaderName::from_static(REFUSAL_HEADER), HeaderValue::from_static(mark)));
            RefusalSource::from_answer(StatusCode::from_u16(status).unwrap(), &marked.into_iter().collect())
        };
        assert_eq!(of(401, Some(REFUSED_KEY)), RefusalSource::AccessKey);
        assert_eq!(of(403, Some(REFUSED_DEVELOPMENT_KEY)), RefusalSource::DevelopmentKey);
        assert_eq!(of(503, Some("shutdown")), RefusalSource::Sdk);
        for status in [401, 403, 302, 307] {
            assert_eq!(of(status, None), RefusalSource::Middleware, "{status}");
        }
        for status in [404, 500, 503] {
            assert_eq!(of(status, None), RefusalSource::Stranger, "{status}");
        }
    }

    /// Final status for each refusal status.
    fn settled(kind: RepeatKind) -> Vec<(u16, u16)> {
        let statuses = [400, 401, 403, 404, 405, 408, 409, 413, 426, 429, 431, 500, 501, 502, 503, 504];
        let answer = |status| plain(StatusCode::from_u16(status).unwrap(), "");
        statuses.map(|status| (status, settle_status(kind, answer(status)).status().as_u16())).into()
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
        let answer = settle_status(RepeatKind::EventStream, unavailable(Cause::Drained, "stopping"));
        assert_eq!((answer.status(), answer.headers().get(RETRY_AFTER)), (StatusCode::NOT_FOUND, None));
        assert_eq!(cause_of(&answer), Cause::Drained);
        let unnamed = settle_status(RepeatKind::EventStream, plain(StatusCode::BAD_GATEWAY, ""));
        assert_eq!(cause_of(&unnamed), Cause::AppUnreachable);
        let late =
            settle_status(RepeatKind::Other, because(Cause::BodyTimeout, plain(StatusCode::REQUEST_TIMEOUT, "")));
        assert_eq!(cause_of(&late), Cause::BodyTimeout);
    }

    #[test]
    fn only_the_get_of_a_connection_for_an_event_stream_is_one() {
        let kind = |method: Method, uri: &str, accept: &str| {
            let request = http::Request::builder().method(method).uri(uri).header("accept", accept);
            RepeatKind::from_request(
                &request.body(()).unwrap().into_parts().0,
                &RequestQuery::parse(&uri.parse().unwrap()),
            )
        };
        assert_eq!(kind(Method::GET, "/chat?id=a", "text/event-stream"), RepeatKind::EventStream);
        assert_eq!(kind(Method::GET, "/chat?id=a", "*/*"), RepeatKind::Other);
        assert_eq!(kind(Method::POST, "/chat?id=a", "text/event-stream"), RepeatKind::Other);
        assert_eq!(kind(Method::GET, "/chat", "text/event-stream"), RepeatKind::Other);
    }
}
