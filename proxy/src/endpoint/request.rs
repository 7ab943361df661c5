//! What an accepted request says: its query, its address, and what of it the hub will see.

use std::net::SocketAddr;

use axum::extract::ConnectInfo;
use bytestring::ByteString;
use http::request::Parts;
use http::{Extensions, HeaderMap, Uri};

use super::PeerAddress;

/// Header with the client's address and port, for the app server; never taken from outside.
const REMOTE_HEADER: &str = "x-trunkline-remote";

/// Header with the client's address, as Azure's service gives it.
const FORWARDED_FOR_HEADER: &str = "x-forwarded-for";

/// The first value of a query parameter, its name matched without regard to case.
pub(super) fn query_value(uri: &Uri, name: &str) -> Option<String> {
    form_urlencoded::parse(uri.query()?.as_bytes())
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.into_owned())
}

/// The query with its `?`, as the hub sees it.
pub(super) fn raw_query(uri: &Uri) -> Option<ByteString> {
    uri.query().map(|query| format!("?{query}").into())
}

/// Where the request came from.
pub(super) fn peer(parts: &Parts) -> Option<SocketAddr> {
    peer_of(&parts.extensions)
}

/// The same of a request's extensions.
pub(super) fn peer_of(extensions: &Extensions) -> Option<SocketAddr> {
    let own = extensions.get::<PeerAddress>().map(|peer| peer.0);
    // Inside an app, its server knows.
    own.or_else(|| extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0))
}

/// The headers that the hub sees. Those that only a proxy may set are dropped, whoever sent them.
pub(super) fn headers(parts: &Parts) -> Vec<(ByteString, Vec<ByteString>)> {
    let mut headers: Vec<_> = parts
        .headers
        .keys()
        .filter(|name| !is_reserved(name.as_str()))
        .map(|name| (ByteString::from(name.as_str()), values(&parts.headers, name.as_str())))
        .collect();
    if let Some(peer) = peer(parts) {
        headers.push((FORWARDED_FOR_HEADER.into(), vec![peer.ip().to_string().into()]));
        headers.push((REMOTE_HEADER.into(), vec![peer.to_string().into()]));
    }
    headers
}

fn is_reserved(name: &str) -> bool {
    name == FORWARDED_FOR_HEADER || name.starts_with("x-trunkline-") || name.starts_with("asrs-")
}

fn values(headers: &HeaderMap, name: &str) -> Vec<ByteString> {
    headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned().into()).collect()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn parts(request: http::request::Builder) -> Parts {
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn query_keys_match_without_regard_to_case_and_values_are_decoded() {
        let uri: Uri = "/chat?ID=a%2Bb&x=1".parse().unwrap();
        assert_eq!(query_value(&uri, "id").as_deref(), Some("a+b"));
        assert_eq!(query_value(&uri, "none"), None);
        assert_eq!(raw_query(&uri).as_deref(), Some("?ID=a%2Bb&x=1"));
    }

    #[test]
    fn nobody_outside_can_set_what_only_a_proxy_may_say() {
        let mut parts = parts(
            Request::builder()
                .header("x-forwarded-for", "6.6.6.6")
                .header("x-trunkline-remote", "6.6.6.6:6")
                .header("asrs-migrate-from", "x")
                .header("cookie", "a=1")
                .header("cookie", "b=2"),
        );
        parts.extensions.insert(PeerAddress("127.0.0.1:99".parse().unwrap()));
        let seen = headers(&parts);
        assert_eq!(
            seen,
            [
                ("cookie".into(), vec!["a=1".into(), "b=2".into()]),
                ("x-forwarded-for".into(), vec!["127.0.0.1".into()]),
                ("x-trunkline-remote".into(), vec!["127.0.0.1:99".into()]),
            ]
        );
    }
}
