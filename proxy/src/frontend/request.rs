//! What an accepted request says: its query, its address, and what of it the hub will see.

use std::net::SocketAddr;

use axum::extract::ConnectInfo;
use bytestring::ByteString;
use http::header::{AUTHORIZATION, TRAILER};
use http::request::Parts;
use http::{Extensions, HeaderMap, HeaderName, Uri};
use trunkline_protocol::manifest::{REMOTE_HEADER, TRANSPORT_HEADER, Transport};

use super::PeerAddress;
use super::relay::HOP_BY_HOP;

/// Header with the client's address, as Azure's service gives it.
pub(super) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Query parameters that hold an access token and a connection token.
const SECRET_PARAMETERS: [&str; 2] = ["access_token", "id"];

/// The first value of a query parameter, its name matched without regard to case.
pub(crate) fn query_value(uri: &Uri, name: &str) -> Option<String> {
    form_urlencoded::parse(uri.query()?.as_bytes())
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.into_owned())
}

/// The access token of the `Authorization` header.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The query with its `?`, as the hub sees it: as it was sent, but without the secrets. The hub has claims and an id, and
/// would only keep them in memory for as long as the client is there.
pub(crate) fn raw_query(uri: &Uri) -> Option<ByteString> {
    // Names are decoded first: `%69d` is `id` to everybody who reads the query.
    let is_secret = |pair: &&str| {
        let name = form_urlencoded::parse(pair.as_bytes()).next().map(|(name, _)| name);
        name.is_some_and(|name| SECRET_PARAMETERS.iter().any(|secret| name.eq_ignore_ascii_case(secret)))
    };
    let kept: Vec<_> = uri.query()?.split('&').filter(|pair| !is_secret(pair)).collect();
    (!kept.is_empty()).then(|| format!("?{}", kept.join("&")).into())
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

/// Whether a header of the client's is the app's business.
pub(super) fn is_for_the_app(name: &str) -> bool {
    !is_reserved(name) && !is_of_the_way(name)
}

/// The headers that the hub sees. Those that only a proxy may set are dropped, whoever sent them; so are those of the
/// way here, and access tokens: see [`raw_query`].
pub(super) fn headers(parts: &Parts, transport: Transport) -> Vec<(ByteString, Vec<ByteString>)> {
    let mut headers: Vec<_> = parts
        .headers
        .keys()
        .filter(|name| is_for_the_app(name.as_str()))
        .filter(|name| *name != AUTHORIZATION || bearer(&parts.headers).is_none())
        .map(|name| (ByteString::from(name.as_str()), values(&parts.headers, name.as_str())))
        .collect();
    if let Some(peer) = peer(parts) {
        headers.push((FORWARDED_FOR.as_str().into(), vec![peer.ip().to_string().into()]));
        headers.push((REMOTE_HEADER.into(), vec![peer.to_string().into()]));
    }
    // What is not said is a WebSocket: most connections are, and the app server keeps this for each.
    if transport != Transport::WebSockets {
        headers.push((TRANSPORT_HEADER.into(), vec![transport.name().into()]));
    }
    headers
}

fn is_reserved(name: &str) -> bool {
    name == FORWARDED_FOR.as_str() || name.starts_with("x-trunkline-") || name.starts_with("asrs-")
}

fn is_of_the_way(name: &str) -> bool {
    name == TRAILER.as_str() || HOP_BY_HOP.iter().any(|hop| hop == name) || name.starts_with("sec-websocket-")
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
    }

    #[test]
    fn the_hub_sees_the_query_without_secrets() {
        let seen = |uri: &str| raw_query(&uri.parse().unwrap());
        assert_eq!(seen("/chat?ID=a%2Bb&x=%201&access_token=e.y.J&y").as_deref(), Some("?x=%201&y"));
        assert_eq!(seen("/chat?%69d=1&access%5Ftoken=e.y.J&y").as_deref(), Some("?y"));
        assert_eq!(seen("/chat?id=1"), None);
        assert_eq!(seen("/chat"), None);
    }

    #[test]
    fn the_hub_sees_neither_tokens_nor_what_speaks_of_the_way() {
        let of_the_way = ["connection", "upgrade", "sec-websocket-key", "sec-websocket-version", "te"];
        let request = of_the_way.iter().fold(Request::builder(), |request, name| request.header(*name, "x"));
        let bearing = parts(request.header("authorization", "Bearer e.y.J"));
        let seen = |parts: &Parts| headers(parts, Transport::WebSockets);
        assert!(seen(&bearing).is_empty(), "{:?}", seen(&bearing));
        let basic = parts(Request::builder().header("authorization", "Basic eA=="));
        assert_eq!(seen(&basic).len(), 1);
    }

    #[test]
    fn nobody_outside_can_set_what_only_a_proxy_may_say() {
        let mut parts = parts(
            Request::builder()
                .header("x-forwarded-for", "6.6.6.6")
                .header("x-trunkline-remote", "6.6.6.6:6")
                .header("x-trunkline-transport", "Pigeons")
                .header("asrs-migrate-from", "x")
                .header("cookie", "a=1")
                .header("cookie", "b=2"),
        );
        parts.extensions.insert(PeerAddress("127.0.0.1:99".parse().unwrap()));
        let seen = headers(&parts, Transport::LongPolling);
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
