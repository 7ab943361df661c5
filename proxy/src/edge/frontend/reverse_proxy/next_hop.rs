//! Requests and responses of the next hop, as needed by owner hop and pass-through.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Uri, Version};
use hyper::body::Incoming;

use crate::edge::frontend::InFlight;
use crate::edge::frontend::hop_header;
use crate::edge::frontend::reverse_proxy::expect_continue;
use crate::edge::frontend::reverse_proxy::relayed_body::{ByteMeter, RelayedResponseBody};
use crate::ground::limits::RelayPermit;

/// Prepares a request for the next hop: removes headers of our client's connection and of the fleet. Returns the
/// requested upgrade protocol.
pub(crate) fn prepare_request(parts: &mut Parts) -> Option<HeaderValue> {
    let upgrade = hop_header::end_hop(&mut parts.headers);
    hop_header::drop_private(&mut parts.headers);
    parts.version = Version::HTTP_11;
    upgrade
}

pub(crate) fn request(parts: Parts, body: Body) -> Request<Body> {
    expect_continue::gate(Request::from_parts(parts, body))
}

pub(crate) fn target(uri: &Uri) -> PathAndQuery {
    uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"))
}

/// Removes headers of our own connection from a response. Returns the granted upgrade protocol.
pub(crate) fn prepare_answer(answer: &mut http::Response<Incoming>) -> Option<HeaderValue> {
    *answer.version_mut() = Version::HTTP_11;
    hop_header::end_hop(answer.headers_mut())
}

pub(crate) fn answer(
    answer: http::Response<Incoming>,
    meter: Option<ByteMeter>,
    in_flight: InFlight,
    permit: Option<Arc<RelayPermit>>,
) -> Response {
    // Without room in the client's window, the body is not polled even once.
    permit.iter().for_each(|permit| permit.progress().wait_for_reader());
    let is_length_known = answer.headers().contains_key(CONTENT_LENGTH);
    answer.map(|body| Body::new(RelayedResponseBody { body, meter, is_length_known, _in_flight: in_flight, permit }))
}

#[cfg(test)]
mod tests {
    use http::header::{CONNECTION, HOST, UPGRADE};

    use super::*;

    #[test]
    fn a_request_for_the_next_hop_has_no_headers_of_this_hop_or_the_fleet() {
        let request = Request::get("/page?x=1")
            .version(Version::HTTP_10)
            .header(HOST, "chat.example")
            .header(CONNECTION, "upgrade, x-own")
            .header(UPGRADE, "my-protocol")
            .header("x-own", "1")
            .header("x-trunkline-forward", "forged")
            .header("x-other", "stays")
            .body(())
            .unwrap();
        let (mut parts, ()) = request.into_parts();
        assert_eq!(prepare_request(&mut parts), Some(HeaderValue::from_static("my-protocol")));
        let names: Vec<_> = parts.headers.keys().map(http::HeaderName::as_str).collect();
        assert_eq!(names, ["host", "x-other"]);
        assert_eq!(parts.version, Version::HTTP_11);
        assert_eq!(target(&parts.uri), "/page?x=1");
    }
}
