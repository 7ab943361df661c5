//! Parts of a request: its access token, and the headers visible to the app.

use std::net::SocketAddr;

use bytestring::ByteString;
use http::HeaderMap;
use http::header::{ACCEPT, AUTHORIZATION, TRAILER};
use trunkline_protocol::manifest::Transport;
use trunkline_protocol::wire::{
    self, PRIVATE_HEADER_PREFIX, REMOTE_HEADER, SERVICE_EVENT_HEADER_PREFIX, SERVICE_HEADER_PREFIX, TRANSPORT_HEADER,
};

use crate::edge::frontend::forwarded_header::FORWARDED_FOR;
use crate::edge::frontend::hop_header::words;
use crate::ground::net::http_client::HOP_BY_HOP;

pub(crate) type Headers = Vec<(ByteString, Vec<ByteString>)>;

pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    wire::bearer(headers.get(AUTHORIZATION)?.to_str().ok()?)
}

/// Whether the headers of a GET request an event stream; a poll accepts anything.
pub(crate) fn wants_event_stream(headers: &HeaderMap) -> bool {
    let mut media_types = words(headers, &ACCEPT).filter_map(|accepted| accepted.split(';').next());
    media_types.any(|media_type| media_type.trim().eq_ignore_ascii_case("text/event-stream"))
}

/// Whether the app sees a client's header.
pub(crate) fn is_for_the_app(name: &str) -> bool {
    !is_reserved(name) && !is_for_one_hop(name)
}

/// Collects the headers for the hub, without hop-by-hop headers, access tokens (see
/// [`RequestQuery::for_hub`](super::request_query::RequestQuery::for_hub)), and headers reserved for proxies, whoever
/// sends them.
pub(crate) fn headers(all: &HeaderMap, peer: Option<SocketAddr>, transport: Transport) -> Headers {
    let mut headers: Vec<_> = all
        .keys()
        .filter(|name| is_for_the_app(name.as_str()))
        .filter(|name| *name != AUTHORIZATION || bearer(all).is_none())
        .map(|name| (ByteString::from(name.as_str()), values(all, name.as_str())))
        .collect();
    if let Some(peer) = peer {
        headers.push((FORWARDED_FOR.as_str().into(), vec![peer.ip().to_string().into()]));
        headers.push((REMOTE_HEADER.into(), vec![peer.to_string().into()]));
    }
    // A missing header means WebSockets, the most common transport: the app server stores the header per connection.
    if transport != Transport::WebSockets {
        headers.push((TRANSPORT_HEADER.into(), vec![transport.name().into()]));
    }
    headers
}

fn is_reserved(name: &str) -> bool {
    let prefixes = [PRIVATE_HEADER_PREFIX, SERVICE_HEADER_PREFIX, SERVICE_EVENT_HEADER_PREFIX];
    name == FORWARDED_FOR.as_str() || prefixes.iter().any(|prefix| name.starts_with(prefix))
}

fn is_for_one_hop(name: &str) -> bool {
    name == TRAILER.as_str() || HOP_BY_HOP.iter().any(|hop| hop == name) || name.starts_with("sec-websocket-")
}

fn values(headers: &HeaderMap, name: &str) -> Vec<ByteString> {
    headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned().into()).collect()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn head(request: http::request::Builder) -> HeaderMap {
        request.body(()).unwrap().into_parts().0.headers
    }

    #[test]
    fn the_hub_sees_neither_tokens_nor_headers_for_one_hop() {
        let for_one_hop = ["connection", "upgrade", "sec-websocket-key", "sec-websocket-version", "te"];
        let request = for_one_hop.iter().fold(Request::builder(), |request, name| request.header(*name, "x"));
        let bearing = head(request.header("authorization", "Bearer e.y.J"));
        let seen = |head: &HeaderMap| headers(head, None, Transport::WebSockets);
        assert!(seen(&bearing).is_empty(), "{:?}", seen(&bearing));
        let basic = head(Request::builder().header("authorization", "Basic eA=="));
        assert_eq!(seen(&basic).len(), 1);
    }

    #[test]
    fn clients_can_not_set_headers_that_only_a_proxy_may_set() {
        let head = head(
            Request::builder()
                .header("x-forwarded-for", "6.6.6.6")
                .header("x-trunkline-remote", "6.6.6.6:6")
                .header("x-trunkline-transport", "Pigeons")
                .header("asrs-migrate-from", "x")
                .header("x-asrs-user-id", "mallory")
                .header("cookie", "a=1")
                .header("cookie", "b=2"),
        );
        let seen = headers(&head, Some("127.0.0.1:99".parse().unwrap()), Transport::LongPolling);
        assert_eq!(
            seen,
            [
                ("cookie".into(), vec!["a=1".into(), "b=2".into()]),
                ("x-forwarded-for".into(), vec!["127.0.0.1".into()]),
                ("x-trunkline-remote".into(), vec!["127.0.0.1:99".into()]),
                ("x-trunkline-transport".into(), vec!["LongPolling".into()]),
            ]
        );
    }
}
