//! Record of refused requests and sockets by cause: counted, logged, and kept for the observer to explain failed
//! connects.

use axum::response::Response;
use http::{StatusCode, Uri};
use tracing::debug;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::token::ConnectionToken;

use crate::edge::frontend::endpoint::Endpoint;
use crate::edge::frontend::plain_response::ResponseNotes;
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
    let (notes, refusals) = (ResponseNotes::of(answer), &endpoint.shared.reports.refusals);
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
    ResponseNotes::of(answer).cause.unwrap_or(match answer.status() {
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
    let query = RequestQuery::parse(uri);
    let sealed = query.connection_token()?;
    let token = ConnectionToken::open(sealed, &endpoint.shared.settings.keys).ok()?;
    Some(token.connection_id.unwrap_or_else(|| sealed.to_owned()))
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;
    use crate::edge::frontend::plain_response::because;

    #[test]
    fn a_status_has_a_cause_unless_one_is_named() {
        assert_eq!(cause_of(&StatusCode::UNAUTHORIZED.into_response()), Cause::TokenRefused);
        let named = because(Cause::PathUnknown, StatusCode::NOT_FOUND.into_response());
        assert_eq!(cause_of(&named), Cause::PathUnknown);
    }
}
