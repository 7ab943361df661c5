//! Which headers go on, and which end here.

use http::HeaderMap;
use http::header::{
    CONNECTION, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use trunkline_protocol::manifest::PRIVATE_HEADER_PREFIX;

/// Headers that are for one connection only, beside those that `Connection` names. `Trailer` is not among them: it is
/// for whoever reads the trailers, which are carried on.
pub(in super::super) const HOP_BY_HOP: [HeaderName; 9] = [
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

/// Takes away what is for this connection only, and says which upgrade was asked for or granted.
pub(super) fn end_hop(headers: &mut HeaderMap) -> Option<HeaderValue> {
    let named: Vec<HeaderName> =
        words(headers, &CONNECTION).filter_map(|word| HeaderName::from_bytes(word.as_bytes()).ok()).collect();
    let upgrade = headers.get(UPGRADE).filter(|value| named.contains(&UPGRADE) && is_ours_to_carry(value)).cloned();
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
pub(super) fn ask_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// Takes away what only the fleet may say.
pub(super) fn drop_private(headers: &mut HeaderMap) {
    let private: Vec<_> =
        headers.keys().filter(|name| name.as_str().starts_with(PRIVATE_HEADER_PREFIX)).cloned().collect();
    for name in private {
        headers.remove(name);
    }
}

/// HTTP/2 inside of a tunnel would carry requests past every check here.
fn is_ours_to_carry(protocol: &HeaderValue) -> bool {
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
    fn what_is_for_one_connection_ends_here_and_the_rest_goes_on() {
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
    fn an_upgrade_is_one_when_connection_names_it_and_never_to_http_2() {
        for (protocol, is_carried) in [("websocket", true), ("my-own", true), ("h2c", false), ("websocket, H2C", false)]
        {
            let mut headers = headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", protocol)]);
            let upgrade = end_hop(&mut headers);
            assert_eq!(upgrade.is_some(), is_carried, "{protocol}");
            assert!(headers.is_empty(), "{headers:?}");
        }
    }

    #[test]
    fn what_only_the_fleet_may_say_is_taken_away() {
        let mut headers = headers(&[("x-trunkline-forward", "x"), ("x-trunkline-anything", "x"), ("x-other", "x")]);
        drop_private(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-other"]);
    }
}
