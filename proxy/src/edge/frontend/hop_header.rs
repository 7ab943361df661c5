//! Rules for headers: forwarding to the next hop or the app, and removal.

use http::HeaderMap;
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, COOKIE, DATE, EXPECT, FORWARDED, HOST, HeaderName, HeaderValue, ORIGIN,
    RANGE, REFERER, SET_COOKIE, TE, TRAILER, UPGRADE, USER_AGENT, VIA,
};
use trunkline_protocol::wire::{PRIVATE_HEADER_PREFIX, SERVICE_EVENT_HEADER_PREFIX, SERVICE_HEADER_PREFIX};

use crate::edge::frontend::forwarded_header::REAL_IP;
use crate::ground::net::http_client::HOP_BY_HOP;

/// Maximum number of names in `Connection`, Envoy's limit. Legitimate requests have few, and each is compared with many
/// names.
const NOMINATIONS_MAX: usize = 10;

/// End-to-end headers, which `Connection` may not name and look-alikes may not imitate.
const END_TO_END: [HeaderName; 14] = [
    AUTHORIZATION,
    CACHE_CONTROL,
    COOKIE,
    DATE,
    EXPECT,
    FORWARDED,
    HOST,
    ORIGIN,
    RANGE,
    REFERER,
    SET_COOKIE,
    USER_AGENT,
    VIA,
    REAL_IP,
];

const END_TO_END_PREFIXES: [&str; 9] = [
    "accept",
    "access-control-",
    "content-",
    "if-",
    "sec-",
    "x-forwarded-",
    PRIVATE_HEADER_PREFIX,
    SERVICE_HEADER_PREFIX,
    SERVICE_EVENT_HEADER_PREFIX,
];

/// Permitted trailers that match a prefix above; they are for checking a body.
const DIGESTS: [&str; 2] = ["content-digest", "content-md5"];

/// Returns an end-to-end header that `Connection` names.
pub(crate) fn misnamed(headers: &HeaderMap) -> Option<HeaderName> {
    nominated(headers).find(|name| is_end_to_end(name.as_str()))
}

/// Whether `Connection` names more headers than the limit.
pub(crate) fn has_too_many_nominations(headers: &HeaderMap) -> bool {
    words(headers, &CONNECTION).nth(NOMINATIONS_MAX).is_some()
}

/// Reduces `Connection` to known names. Otherwise clients could remove headers added by a load balancer that forwards
/// it, such as HAProxy.
pub(crate) fn keep_known_nominations(headers: &mut HeaderMap) {
    let known = |name: &HeaderName| name == "close" || HOP_BY_HOP.contains(name);
    let kept: Vec<_> = nominated(headers).filter(known).map(|name| name.to_string()).collect();
    match HeaderValue::try_from(kept.join(", ")) {
        Ok(value) if !kept.is_empty() => drop(headers.insert(CONNECTION, value)),
        _ => drop(headers.remove(CONNECTION)),
    }
}

/// Removes headers with ambiguous names: CGI-like systems read `X_Forwarded_For` and `X-Forwarded-For` as one variable.
pub(crate) fn drop_look_alikes(headers: &mut HeaderMap) {
    remove_if(headers, |name| {
        if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return false;
        }
        let folded: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        is_reserved(&folded)
    });
}

/// Removes trailers that could be mistaken for headers allowed only in a head or set only by a proxy.
pub(crate) fn clean_trailers(trailers: &mut HeaderMap) {
    drop_look_alikes(trailers);
    remove_if(trailers, |name| is_reserved(name) && !DIGESTS.contains(&name));
}

fn is_reserved(name: &str) -> bool {
    is_end_to_end(name) || name == TRAILER.as_str() || HOP_BY_HOP.iter().any(|hop| hop == name)
}

fn is_end_to_end(name: &str) -> bool {
    END_TO_END.iter().any(|own| own == name) || END_TO_END_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn nominated(headers: &HeaderMap) -> impl Iterator<Item = HeaderName> {
    words(headers, &CONNECTION).filter_map(|word| HeaderName::from_bytes(word.as_bytes()).ok())
}

fn remove_if(headers: &mut HeaderMap, is_unwanted: impl Fn(&str) -> bool) {
    let unwanted: Vec<_> = headers.keys().filter(|name| is_unwanted(name.as_str())).cloned().collect();
    for name in unwanted {
        headers.remove(name);
    }
}

/// Removes the headers that apply to this connection only; returns the requested or granted upgrade.
pub(crate) fn end_hop(headers: &mut HeaderMap) -> Option<HeaderValue> {
    let named: Vec<HeaderName> = nominated(headers).collect();
    let upgrade = headers.get(UPGRADE).filter(|value| named.contains(&UPGRADE) && may_tunnel(value)).cloned();
    let takes_trailers = has_word(headers, &TE, "trailers");
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    upgrade
}

pub(crate) fn set_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// Removes headers reserved for the fleet.
pub(crate) fn drop_private(headers: &mut HeaderMap) {
    remove_if(headers, |name| name.starts_with(PRIVATE_HEADER_PREFIX));
}

/// Removes headers by which app servers recognise nodes and webhook events.
pub(crate) fn drop_service(headers: &mut HeaderMap) {
    remove_if(headers, |name| name.starts_with(SERVICE_HEADER_PREFIX) || name.starts_with(SERVICE_EVENT_HEADER_PREFIX));
}

/// Whether an upgrade may be forwarded. HTTP/2 in a tunnel would bypass all checks of requests.
fn may_tunnel(protocol: &HeaderValue) -> bool {
    protocol.to_str().is_ok_and(|text| text.split(',').all(|one| !one.trim().to_ascii_lowercase().starts_with("h2")))
}

pub(crate) fn has_word(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    words(headers, name).any(|one| one.eq_ignore_ascii_case(word))
}

/// Trimmed elements of the comma-separated lists in all headers with this name.
pub(crate) fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
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
    fn connection_may_name_no_header_from_one_end_to_the_other() {
        for name in
            ["Host", "cookie", "AUTHORIZATION", "x-forwarded-for", "x-trunkline-user", "content-length", "origin"]
        {
            let value = HeaderValue::try_from(format!("close, {name}")).unwrap();
            let found = misnamed(&HeaderMap::from_iter([(CONNECTION, value)]));
            assert_eq!(found.map(|name| name.to_string()), Some(name.to_ascii_lowercase()));
        }
        for value in ["close", "keep-alive, Upgrade", "TE, HTTP2-Settings", "x-own", "", "a b"] {
            assert_eq!(misnamed(&headers(&[("connection", value)])), None, "{value}");
        }
    }

    #[test]
    fn what_a_balancer_passes_on_names_only_headers_that_are_known() {
        let mut all = headers(&[("connection", "X-Added, Upgrade, close"), ("x-added", "1"), ("upgrade", "websocket")]);
        keep_known_nominations(&mut all);
        assert_eq!(all[CONNECTION], "upgrade, close");
        assert_eq!(end_hop(&mut all), Some(HeaderValue::from_static("websocket")));
        assert_eq!(all, headers(&[("x-added", "1")]));
        let mut none = headers(&[("connection", "X-Added")]);
        keep_known_nominations(&mut none);
        assert!(none.is_empty());
    }

    #[test]
    fn names_that_an_app_may_take_for_others_are_removed() {
        let mut all = headers(&[
            ("x_forwarded_for", "6.6.6.6"),
            ("x_trunkline-user", "mallory"),
            ("x-real_ip", "6.6.6.6"),
            ("x_asrs_user_id", "mallory"),
            ("content_length", "5"),
            ("x.forwarded.proto", "https"),
            ("my_own", "stays"),
            ("x-forwarded-for", "stays"),
        ]);
        drop_look_alikes(&mut all);
        let mut left: Vec<_> = all.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["my_own", "x-forwarded-for"]);
    }

    #[test]
    fn trailers_hold_no_header_of_a_head() {
        let mut trailers = headers(&[
            ("x-trunkline-user", "mallory"),
            ("x_forwarded_for", "6.6.6.6"),
            ("host", "evil.example"),
            ("cookie", "a=1"),
            ("transfer-encoding", "chunked"),
            ("content-length", "5"),
            ("content-digest", "stays"),
            ("grpc-status", "0"),
            ("x-sum", "42"),
        ]);
        clean_trailers(&mut trailers);
        let mut left: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-digest", "grpc-status", "x-sum"]);
    }

    #[test]
    fn headers_of_the_fleet_are_removed() {
        let mut headers = headers(&[("x-trunkline-forward", "x"), ("x-trunkline-anything", "x"), ("x-other", "x")]);
        drop_private(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-other"]);
    }

    #[test]
    fn headers_of_webhook_events_are_removed() {
        let mut headers = headers(&[("x-asrs-event", "x"), ("asrs-migrate-to", "x"), ("x-asr", "x")]);
        drop_service(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-asr"]);
    }
}
