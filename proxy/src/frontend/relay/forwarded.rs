//! What an app server is told about where a request came from. What others say of it is gone since the request arrived.

use http::header::HOST;
use http::request::Parts;
use http::{HeaderValue, uri};

use crate::frontend::arrival::{CameBy, FORWARDED_HOST, FORWARDED_PROTO};
use crate::frontend::request::{FORWARDED_FOR, peer};

/// Says who the client is, how it came and to which host.
pub(super) fn tell(parts: &mut Parts) {
    if let Some(value) = peer(parts).and_then(|peer| HeaderValue::from_str(&peer.ip().to_string()).ok()) {
        parts.headers.insert(FORWARDED_FOR, value);
    }
    if let Some(host) = parts.headers.get(HOST).cloned() {
        parts.headers.insert(FORWARDED_HOST, host);
    }
    parts.headers.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme(parts)));
}

/// The scheme that the client uses: what a load balancer told, else how it came to us.
fn scheme(parts: &Parts) -> &'static str {
    let is_tls = parts.extensions.get() == Some(&uri::Scheme::HTTPS);
    let own = if is_tls { "https" } else { "http" };
    parts.extensions.get().map_or(own, |CameBy(scheme)| scheme.name())
}
