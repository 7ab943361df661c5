//! What all requests have in common that go on to another server, and the answers that come back.

use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_LENGTH, HOST};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Uri, Version};
use hyper::body::Incoming;

use super::body::{AnswerBody, Meter};
use super::{expect, headers};
use crate::frontend::answers::Counted;

/// Makes a request ready to leave: what is for our client's connection alone, and what only the fleet may say, stays
/// behind. Returns the protocol of the upgrade that was asked for.
pub(super) fn depart(parts: &mut Parts) -> Option<HeaderValue> {
    let upgrade = headers::end_hop(&mut parts.headers);
    headers::drop_private(&mut parts.headers);
    // In HTTP/2, and in what is meant for proxies, the host stands in the request's address.
    if let Some(host) = parts.uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok()) {
        parts.headers.insert(HOST, host);
    }
    parts.version = Version::HTTP_11;
    upgrade
}

/// The request as it leaves.
pub(super) fn request(parts: Parts, body: Body) -> Request<Body> {
    expect::gate(Request::from_parts(parts, body))
}

/// Path and query of a request.
pub(super) fn target(uri: &Uri) -> PathAndQuery {
    uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"))
}

/// Takes what was for our own connection out of an answer. Returns the protocol of the upgrade that was granted.
pub(super) fn arrive(answer: &mut http::Response<Incoming>) -> Option<HeaderValue> {
    *answer.version_mut() = Version::HTTP_11;
    headers::end_hop(answer.headers_mut())
}

/// The answer for our client.
pub(super) fn answer(answer: http::Response<Incoming>, meter: Option<Meter>, under_way: Counted) -> Response {
    let is_length_told = answer.headers().contains_key(CONTENT_LENGTH);
    answer.map(|body| Body::new(AnswerBody { body, meter, is_length_told, _under_way: under_way }))
}
