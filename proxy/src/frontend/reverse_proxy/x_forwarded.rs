//! `X-Forwarded-*` headers for an app server. Untrusted ones were removed by normalisation.

use http::header::HOST;
use http::request::Parts;
use http::{HeaderValue, uri};

use crate::frontend::forwarded_header::{FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO};
use crate::frontend::request_extension::{ClientScheme, peer_address};

/// Sets the headers with the client's address, scheme and host.
pub(crate) fn set_headers(parts: &mut Parts) {
    if let Some(value) =
        peer_address(&parts.extensions).and_then(|peer| HeaderValue::from_str(&peer.ip().to_string()).ok())
    {
        parts.headers.insert(FORWARDED_FOR, value);
    }
    if let Some(host) = parts.headers.get(HOST).cloned() {
        parts.headers.insert(FORWARDED_HOST, host);
    }
    parts.headers.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme(parts)));
}

/// Returns the scheme that the client uses: the load balancer's claim, else the scheme of its socket.
fn scheme(parts: &Parts) -> &'static str {
    let is_tls = parts.extensions.get() == Some(&uri::Scheme::HTTPS);
    let own = if is_tls { "https" } else { "http" };
    parts.extensions.get().map_or(own, |ClientScheme(scheme)| scheme.name())
}
