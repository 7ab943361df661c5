//! Rules for headers: which go on to the next hop or to the app, and which end here.

use http::HeaderMap;
use http::header::{
    CONNECTION, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use trunkline_protocol::manifest::PRIVATE_HEADER_PREFIX;

/// Headers for one connection only, beside the ones that `Connection` names. `Trailer` is not among them: it is for the
/// reader of the trailers, which go on.
pub(crate) const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Removes the headers for this connection only, and returns the upgrade that was asked for or granted.
pub(crate) fn end_hop(headers: &mut HeaderMap) -> Option<HeaderValue> {
    let named: Vec<HeaderName> =
        words(headers, &CONNECTION).filter_map(|word| HeaderName::from_bytes(word.as_bytes()).ok()).collect();
    let upgrade = headers.get(UPGRADE).filter(|value| named.contains(&UPGRADE) && may_tunnel(value)).cloned();
    let takes_trailers = words(headers, &TE).any(|word| word.eq_ignore_ascii_case("trailers"));
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    upgrade
}

/// Asks for an upgrade, or grants it.
pub(crate) fn set_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// Removes the headers that only the fleet may set.
pub(crate) fn drop_private(headers: &mut HeaderMap) {
    let private: Vec<_> =
        headers.keys().filter(|name| name.as_str().starts_with(PRIVATE_HEADER_PREFIX)).cloned().collect();
    for name in private {
        headers.remove(name);
    }
}

/// Whether an upgrade may go on: HTTP/2 in a tunnel carries requests past every check here.
fn may_tunnel(protocol: &HeaderValue) -> bool {
    protocol.to_str().is_ok_and(|text| text.split(',').all(|one| !one.trim().to_ascii_lowercase().starts_with("h2")))
}

fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&'static str, &'static str)]) -> HeaderMap {
        all.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn headers_for_one_connection_end_here_and_the_rest_goes_on() {
        let mut headers = headers(&[
            ("connection", "close, X-Own"),
            ("x-own", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-authorization", "Basic x"),
            ("te", "gzip, Trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("trailer", "x-sum"),
            ("accept", "*/*"),
        ]);
        assert_eq!(end_hop(&mut headers), None, "Connection does not name the upgrade");
        let mut left: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        left.sort_unstable();
        assert_eq!(left, [("accept", "*/*"), ("te", "trailers"), ("trailer", "x-sum")]);
    }

    #[test]
    fn an_upgrade_counts_when_connection_names_it_and_never_to_http_2() {
        for (protocol, may_go_on) in [("websocket", true), ("my-own", true), ("h2c", false), ("websocket, H2C", false)]
        {
            let mut headers = headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", protocol)]);
            let upgrade = end_hop(&mut headers);
            assert_eq!(upgrade.is_some(), may_go_on, "{protocol}");
            assert!(headers.is_empty(), "{headers:?}");
        }
    }

    #[test]
    fn headers_of_the_fleet_are_removed() {
        let mut headers = headers(&[("x-trunkline-forward", "x"), ("x-trunkline-anything", "x"), ("x-other", "x")]);
        drop_private(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-other"]);
    }
}
