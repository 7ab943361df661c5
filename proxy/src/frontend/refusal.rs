//! Why requests and sockets are refused, in the words of the taxonomy: counted, logged, and kept for whoever asks why a
//! client could not connect.

use axum::response::Response;
use http::{StatusCode, Uri};
use tracing::debug;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::token::ConnectionToken;

use super::Endpoint;
use super::request::query_value;
use crate::metrics::{Counters, Limit};
use crate::shard::{PastConnection, short};

/// Names why this is the answer, where its status does not say it all.
pub(super) fn because(cause: Cause, mut answer: Response) -> Response {
    answer.extensions_mut().insert(cause);
    answer
}

/// The cause of a limit.
pub(super) fn of_limit(limit: Limit) -> Cause {
    match limit {
        Limit::Connections => Cause::LimitConnections,
        Limit::ConnectionsPerAddress => Cause::LimitAddress,
        Limit::Connects => Cause::LimitConnects,
        Limit::PendingPerAddress => Cause::LimitPending,
        Limit::HeadTime => Cause::HeadTimeout,
        Limit::HeadSize => Cause::HeadTooLarge,
        Limit::BodySize => Cause::BodyTooLarge,
        Limit::MessageSize | Limit::Messages | Limit::Bytes => Cause::MessageTooLarge,
    }
}

/// Counts a refused request. If it names a connection of which nothing is known, that is why that one did not come to be.
pub(super) fn note(endpoint: &Endpoint, uri: &Uri, answer: &Response) {
    let cause = cause_of(answer);
    endpoint.counters.requests_refused.count(cause);
    let id = connection_id(endpoint, uri);
    let connection = id.as_deref().map(short);
    debug!(path = uri.path(), connection, status = answer.status().as_u16(), %cause, "request refused");
    let shared = &endpoint.shared;
    if let Some(id) = id.filter(|id| shared.routes.find(id).is_none() && shared.past(id).is_none()) {
        let hub = shared.hubs.find(uri.path()).map(|hub| hub.name().into());
        shared.remember(0, PastConnection { hub, ..PastConnection::new(&id, cause, None) });
    }
}

/// Counts a socket that was refused before there was a whole request.
pub(super) fn note_socket(counters: &Counters, cause: Cause) {
    counters.sockets_refused.count(cause);
}

fn cause_of(answer: &Response) -> Cause {
    let named = answer.extensions().get::<Cause>().copied();
    named.unwrap_or(match answer.status() {
        StatusCode::UNAUTHORIZED => Cause::TokenRefused,
        StatusCode::FORBIDDEN => Cause::OriginRefused,
        StatusCode::NOT_FOUND => Cause::IdUnknown,
        StatusCode::CONFLICT => Cause::IdUsed,
        StatusCode::PAYLOAD_TOO_LARGE => Cause::BodyTooLarge,
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Cause::HeadTooLarge,
        StatusCode::SERVICE_UNAVAILABLE => Cause::NoAppServer,
        StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => Cause::AppUnreachable,
        _ => Cause::RequestInvalid,
    })
}

/// The connection that a request names by a token of this fleet.
fn connection_id(endpoint: &Endpoint, uri: &Uri) -> Option<String> {
    let sealed = query_value(uri, "id")?;
    let token = ConnectionToken::open(&sealed, &endpoint.shared.settings.keys).ok()?;
    Some(token.connection_id.unwrap_or(sealed))
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    #[test]
    fn a_status_has_a_cause_unless_one_is_named() {
        assert_eq!(cause_of(&StatusCode::UNAUTHORIZED.into_response()), Cause::TokenRefused);
        let named = because(Cause::PathUnknown, StatusCode::NOT_FOUND.into_response());
        assert_eq!(cause_of(&named), Cause::PathUnknown);
    }
}
