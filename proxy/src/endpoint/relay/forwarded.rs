//! What an app server is told about where a request came from.

use http::header::{FORWARDED, HOST};
use http::request::Parts;
use http::{HeaderName, HeaderValue};

use crate::endpoint::request::peer;

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const HOST_NAME: HeaderName = HeaderName::from_static("x-forwarded-host");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Every header that says such things.
const ALL: [HeaderName; 4] = [FORWARDED, FOR, HOST_NAME, PROTO];

/// Says who the client is, how it came and to which host, whatever it says about that itself.
pub(super) fn tell(parts: &mut Parts) {
    forget(parts);
    if let Some(value) = peer(parts).and_then(|peer| HeaderValue::from_str(&peer.ip().to_string()).ok()) {
        parts.headers.insert(FOR, value);
    }
    if let Some(host) = parts.headers.get(HOST).cloned() {
        parts.headers.insert(HOST_NAME, host);
    }
    parts.headers.insert(PROTO, HeaderValue::from_static(scheme(parts)));
}

/// Takes away what the request says about where it came from.
pub(super) fn forget(parts: &mut Parts) {
    for name in ALL {
        parts.headers.remove(name);
    }
}

/// The scheme that the client uses.
pub(super) fn scheme(_parts: &Parts) -> &'static str {
    "http"
}
