//! WebSocket upgrades: detection of requests, the accepting response, and refusals of incomplete ones. Pure.

use axum::body::Body;
use axum::response::Response;
use http::header::{
    CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, StatusCode, Version};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::edge::frontend::hop_header::{has_word, set_upgrade, words};
use crate::edge::frontend::plain_response::plain;

/// Version of the WebSocket protocol (RFC 6455).
const VERSION: &str = "13";

/// Whether a request asks for a WebSocket, in an HTTP version with upgrades.
pub(crate) fn is_upgrade_of(parts: &Parts) -> bool {
    parts.method == Method::GET && parts.version >= Version::HTTP_11 && is_upgrade(&parts.headers)
}

/// Whether a client asks for a WebSocket. A load balancer may [add](has_upgrade_words) the words of an upgrade to any
/// request; a client that wants one also sends a key or a version.
pub(crate) fn is_upgrade(headers: &HeaderMap) -> bool {
    let is_of_client = [SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION].iter().any(|name| headers.contains_key(name));
    is_of_client && has_upgrade_words(headers)
}

pub(crate) fn has_upgrade_words(headers: &HeaderMap) -> bool {
    has_word(headers, &CONNECTION, "upgrade") && has_word(headers, &UPGRADE, "websocket")
}

/// Response value for the key of an upgrade.
///
/// # Errors
/// The refusal, if the version is wrong or the key is missing.
pub(crate) fn accept_key(headers: &HeaderMap) -> Result<HeaderValue, Response> {
    if headers.get(SEC_WEBSOCKET_VERSION).is_some_and(|version| version != VERSION) {
        let mut answer = plain(StatusCode::UPGRADE_REQUIRED, "this version of WebSockets is not supported, only 13 is");
        answer.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION));
        return Err(answer);
    }
    let key =
        headers.get(SEC_WEBSOCKET_KEY).filter(|key| key.len() == 24 && headers.contains_key(SEC_WEBSOCKET_VERSION));
    let accept = key.and_then(|key| HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok());
    accept.ok_or_else(|| {
        plain(StatusCode::BAD_REQUEST, "the WebSocket upgrade is malformed: version 13 and a key are needed")
    })
}

/// Returns the client's first sub-protocol that the endpoint supports.
pub(crate) fn chosen_sub_protocol(headers: &HeaderMap, offered: &[String]) -> Option<HeaderValue> {
    let chosen = words(headers, &SEC_WEBSOCKET_PROTOCOL).find(|name| offered.iter().any(|offered| offered == name))?;
    HeaderValue::from_str(chosen).ok()
}

/// Adds the choices from the client's offers.
pub(crate) fn with_chosen(mut answer: Response, chosen: [(HeaderName, Option<HeaderValue>); 2]) -> Response {
    let chosen = chosen.into_iter().filter_map(|(name, value)| Some((name, value?)));
    answer.headers_mut().extend(chosen);
    answer
}

/// Returns the part of a WebSocket request that was lost on the way, so that it requests no upgrade; `None` for a
/// complete upgrade, and for other clients, which send no key.
pub(crate) fn lost_part(parts: &Parts) -> Option<&'static str> {
    let headers = &parts.headers;
    if parts.method != Method::GET || !headers.contains_key(SEC_WEBSOCKET_KEY) || is_upgrade_of(parts) {
        return None;
    }
    Some(match parts.version {
        Version::HTTP_09 | Version::HTTP_10 => "it came by HTTP/1.0 (nginx: proxy_http_version 1.1)",
        Version::HTTP_11 if has_word(headers, &UPGRADE, "websocket") => {
            "its header `Connection: Upgrade` is missing (nginx: proxy_set_header Connection \"upgrade\")"
        }
        Version::HTTP_11 => {
            "its header `Upgrade: websocket` is missing (nginx: proxy_set_header Upgrade $http_upgrade)"
        }
        _ => "it came by HTTP/2, not HTTP/1.1",
    })
}

pub(crate) fn incomplete(lost: &str, version: Version) -> Response {
    let text = format!("this WebSocket upgrade can't be answered: {lost}; the load balancer has to forward upgrades");
    let mut answer = plain(StatusCode::UPGRADE_REQUIRED, text);
    if version <= Version::HTTP_11 {
        set_upgrade(answer.headers_mut(), HeaderValue::from_static("websocket"));
    }
    answer
}

pub(crate) fn switching_protocols(accept: &HeaderValue) -> Response {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    set_upgrade(answer.headers_mut(), HeaderValue::from_static("websocket"));
    answer.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept.clone());
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(version: Version, headers: &[(&str, &str)]) -> Parts {
        let request = http::Request::get("/chat?id=1").version(version);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(()).unwrap().into_parts().0
    }

    const UPGRADED: (&str, &str) = ("upgrade", "websocket");
    const NAMED: (&str, &str) = ("connection", "keep-alive, Upgrade");
    const KEY: (&str, &str) = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");

    #[test]
    fn an_upgrade_with_a_lost_part_is_refused_with_its_name_and_a_poll_is_no_upgrade() {
        for (version, headers, lost) in [
            (Version::HTTP_10, &[UPGRADED, NAMED, KEY][..], "HTTP/1.0"),
            (Version::HTTP_11, &[UPGRADED, KEY], "Connection: Upgrade"),
            (Version::HTTP_11, &[NAMED, KEY], "Upgrade: websocket"),
            (Version::HTTP_11, &[KEY], "Upgrade: websocket"),
            (Version::HTTP_2, &[KEY], "HTTP/2"),
        ] {
            let found = lost_part(&request(version, headers)).unwrap();
            assert!(found.contains(lost), "{found}");
            let answer = incomplete(found, version);
            assert_eq!(answer.status(), StatusCode::UPGRADE_REQUIRED);
            assert_eq!(answer.headers().contains_key(UPGRADE), version <= Version::HTTP_11);
        }
        let whole = request(Version::HTTP_11, &[UPGRADED, NAMED, KEY]);
        let polls =
            [&[][..], &[NAMED], &[UPGRADED, NAMED], &[UPGRADED]].map(|headers| request(Version::HTTP_10, headers));
        for other in polls.iter().chain([&whole]) {
            assert_eq!(lost_part(other), None, "{other:?}");
        }
        let decorated = request(Version::HTTP_11, &[UPGRADED, NAMED]);
        assert!(is_upgrade_of(&whole) && !is_upgrade_of(&decorated), "a load balancer added the headers of an upgrade");
    }

    #[test]
    fn the_first_sub_protocol_of_the_client_that_the_endpoint_has_is_chosen() {
        let chosen = |asked: &[&str], offered: &[&str]| {
            let headers = asked.iter().map(|value| (SEC_WEBSOCKET_PROTOCOL, value.parse().unwrap())).collect();
            let offered: Vec<_> = offered.iter().map(ToString::to_string).collect();
            chosen_sub_protocol(&headers, &offered).map(|chosen| chosen.to_str().unwrap().to_owned())
        };
        assert_eq!(chosen(&["v2.chat, v1.chat"], &["v1.chat", "v2.chat"]).as_deref(), Some("v2.chat"));
        assert_eq!(chosen(&["x", "v1.chat"], &["v1.chat"]).as_deref(), Some("v1.chat"));
        assert_eq!(chosen(&["V1.chat"], &["v1.chat"]), None);
        assert_eq!((chosen(&[], &["v1.chat"]), chosen(&["v1.chat"], &[])), (None, None));
    }

    #[test]
    fn an_upgrade_of_another_version_is_refused_with_the_one_that_is_supported() {
        let accept = |version: Option<&str>| {
            let version = version.map(|version| ("sec-websocket-version", version));
            let headers: Vec<_> = [KEY].into_iter().chain(version).collect();
            accept_key(&request(Version::HTTP_11, &headers).headers)
        };
        assert_eq!(accept(Some("13")).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        for version in ["8", "12", "013", ""] {
            let refusal = accept(Some(version)).unwrap_err();
            assert_eq!(
                (refusal.status().as_u16(), &refusal.headers()[SEC_WEBSOCKET_VERSION]),
                (426, &"13".parse().unwrap())
            );
        }
        assert_eq!(accept(None).unwrap_err().status(), StatusCode::BAD_REQUEST);
    }
}
