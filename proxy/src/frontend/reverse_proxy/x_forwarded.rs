//! `X-Forwarded-*` headers for an app server. Normalisation has removed untrusted ones.

use http::header::HOST;
use http::request::Parts;
use http::{Extensions, HeaderValue};

use crate::frontend::forwarded_header::{FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO};
use crate::frontend::request_extension::{ClientScheme, peer_address};

pub(crate) fn set_headers(parts: &mut Parts) {
    if let Some(value) =
        peer_address(&parts.extensions).and_then(|peer| HeaderValue::from_str(&peer.ip().to_string()).ok())
    {
        parts.headers.insert(FORWARDED_FOR, value);
    }
    if let Some(host) = parts.headers.get(HOST).cloned() {
        parts.headers.insert(FORWARDED_HOST, host);
    }
    parts.headers.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme(&parts.extensions)));
}

/// Scheme used by the client; http if unknown.
pub(crate) fn scheme(extensions: &Extensions) -> &'static str {
    extensions.get().map_or("http", |ClientScheme(scheme)| scheme.name())
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Request};

    use super::*;
    use crate::frontend::forwarded_header::ForwardedScheme;
    use crate::frontend::request_extension::PeerAddress;

    fn headers_of(request: Request<()>) -> HeaderMap {
        let (mut parts, ()) = request.into_parts();
        set_headers(&mut parts);
        parts.headers
    }

    fn request() -> Request<()> {
        let mut request = Request::get("/").header(HOST, "chat.example:8443").body(()).unwrap();
        request.extensions_mut().insert(PeerAddress("203.0.113.9:4711".parse().unwrap()));
        request.extensions_mut().insert(ClientScheme(ForwardedScheme::Https));
        request
    }

    #[test]
    fn an_app_server_gets_address_scheme_and_host_of_the_client() {
        let headers = headers_of(request());
        let names = [FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO];
        assert_eq!(names.map(|name| headers[name].clone()), ["203.0.113.9", "chat.example:8443", "https"]);
    }
}
