//! WebSocket upgrades: the request for one, and the answer that lets it begin. Pure.

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, HeaderName, Method, StatusCode, Version};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// Whether a request asks for a WebSocket, in a version of HTTP that has upgrades.
pub(crate) fn is_upgrade_of(request: &Request) -> bool {
    *request.method() == Method::GET && request.version() >= Version::HTTP_11 && is_upgrade(request.headers())
}

/// Whether the headers of a request ask for a WebSocket.
pub(crate) fn is_upgrade(headers: &HeaderMap) -> bool {
    has_word(headers, &CONNECTION, "upgrade") && has_word(headers, &UPGRADE, "websocket")
}

fn has_word(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.split(',').any(|one| one.trim().eq_ignore_ascii_case(word)))
}

/// Answer to the key of an upgrade; `None` if the upgrade is malformed.
pub(crate) fn accept_key(headers: &HeaderMap) -> Option<HeaderValue> {
    let is_version_13 = headers.get(SEC_WEBSOCKET_VERSION)?.as_bytes() == b"13";
    let key = headers.get(SEC_WEBSOCKET_KEY)?;
    (is_version_13 && key.len() == 24).then(|| HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok())?
}

/// Makes the answer that lets a WebSocket begin.
pub(crate) fn switching_protocols(accept: &HeaderValue) -> Response {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept.clone());
    answer
}
