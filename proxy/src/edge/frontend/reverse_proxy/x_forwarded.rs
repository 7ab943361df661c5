//! `X-Forwarded-*` headers for an app server. Normalisation has removed untrusted ones.

use http::HeaderValue;
use http::header::HOST;
use http::request::Parts;

use crate::edge::frontend::forwarded_header::{FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO};
use crate::edge::frontend::request_context::RequestContext;

pub(crate) fn set_headers(parts: &mut Parts, context: &RequestContext) {
    if let Some(value) = context.source.peer.and_then(|peer| HeaderValue::from_str(&peer.ip().to_string()).ok()) {
        parts.headers.insert(FORWARDED_FOR, value);
    }
    if let Some(host) = parts.headers.get(HOST).cloned() {
        parts.headers.insert(FORWARDED_HOST, host);
    }
    parts.headers.insert(FORWARDED_PROTO, HeaderValue::from_static(context.scheme_name()));
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::edge::frontend::forwarded_header::ForwardedScheme;
    use crate::edge::frontend::request_context::RequestSource;
    use crate::edge::frontend::request_query::RequestQuery;

    #[test]
    fn an_app_server_gets_address_scheme_and_host_of_the_client() {
        let (mut parts, ()) = Request::get("/").header(HOST, "chat.example:8443").body(()).unwrap().into_parts();
        let source = RequestSource::of("203.0.113.9:4711".parse().unwrap());
        let context = RequestContext::new(source, RequestQuery::parse(&parts.uri));
        set_headers(&mut parts, &RequestContext { scheme: Some(ForwardedScheme::Https), ..context });
        let names = [FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO];
        assert_eq!(names.map(|name| parts.headers[name].clone()), ["203.0.113.9", "chat.example:8443", "https"]);
    }
}
