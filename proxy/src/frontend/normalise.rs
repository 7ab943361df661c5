//! Normalisation, the first step of each request: brings it into the one form that all later steps expect.
//!
//! After it `PeerAddress` is the client's address, `Host` is the host that the client asked for, the path has no prefix,
//! and of the headers of load balancers only trusted ones are left. A request that another node has forwarded here was
//! normalised there.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::header::{CONNECTION, HOST};
use http::uri::PathAndQuery;
use http::{HeaderValue, StatusCode, Uri, Version};

use crate::config::{HostRules, PathPrefix};
use crate::frontend::admin_cookie;
use crate::frontend::endpoint::Endpoint;
use crate::frontend::forwarded_header::{
    FORWARDED_HEADERS, FORWARDED_HOST, FORWARDED_PROTO, ForwardedClaims, trusted_claims,
};
use crate::frontend::plain_response::plain;
use crate::frontend::request_extension::{ClientScheme, PeerAddress, peer_address};
use crate::frontend::reverse_proxy::forward_mark;
use crate::metrics::Limit;

/// Answer to a request for a host that is none of this node's.
const FOREIGN_HOST: &str = "Host is none that this node answers for: see --allow-host (without an access key a node answers \
                            for names of this machine only)";

/// Middleware that normalises a request, or refuses one that can't be.
pub(crate) async fn normalise(State(endpoint): State<Endpoint>, mut request: Request, next: Next) -> Response {
    if !has_one_host(&request) {
        endpoint.counters.malformed.increment();
        let mut answer = plain(StatusCode::BAD_REQUEST, "a request names its host once, by a Host header");
        // A client that is ambiguous in this may be so about what follows, too.
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        return answer;
    }
    let settings = &endpoint.shared.settings;
    if head_bytes(&request) > settings.limits.head_max_bytes {
        endpoint.counters.limit(Limit::HeadSize).increment();
        let text = "the head of the request is too large: see --head-max-bytes";
        return plain(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, text);
    }
    admin_cookie::remove(request.headers_mut());
    forward_mark::accept(&endpoint, &mut request);
    if forward_mark::is_forwarded_by_node(&request) {
        return next.run(request).await;
    }
    let peer = peer_address(request.extensions());
    let claims = peer.map(|peer| trusted_claims(request.headers(), peer, &settings.trusted));
    rewrite(&mut request, claims, &settings.path_prefix);
    if !asks_for_own_host(&settings.hosts, &request) {
        return plain(StatusCode::MISDIRECTED_REQUEST, FOREIGN_HOST);
    }
    next.run(request).await
}

/// Whether the host is not ambiguous. HTTP/1.1 demands one; by two of them one server is made to see another request
/// than the next one.
fn has_one_host(request: &Request) -> bool {
    let hosts = request.headers().get_all(HOST).iter().count();
    hosts == 1 || (hosts == 0 && request.version() != Version::HTTP_11)
}

/// Whether the host is one that this node answers for. Only browsers can be led astray, and they name a host.
fn asks_for_own_host(hosts: &HostRules, request: &Request) -> bool {
    request.headers().get(HOST).is_none_or(|host| host.to_str().is_ok_and(|host| hosts.allow(host)))
}

/// Least size of a request's head. The server reads in large steps, and checks its bound only between them.
fn head_bytes(request: &Request) -> usize {
    let uri = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    request.headers().iter().fold(uri, |bytes, (name, value)| bytes + name.as_str().len() + value.len())
}

/// Replaces forwarding headers by their trusted claims, and removes path prefixes.
fn rewrite(request: &mut Request, claims: Option<ForwardedClaims>, own_prefix: &PathPrefix) {
    for name in FORWARDED_HEADERS {
        request.headers_mut().remove(name);
    }
    let claimed = claims.as_ref().and_then(|claims| PathPrefix::new(claims.prefix.as_deref()?).ok());
    for prefix in [Some(own_prefix), claimed.as_ref()].into_iter().flatten() {
        strip_prefix(prefix, request);
    }
    if let Some(claims) = claims {
        apply(claims, request);
    }
}

fn strip_prefix(prefix: &PathPrefix, request: &mut Request) {
    let Some(path) = prefix.strip(request.uri().path()) else { return };
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let Ok(path_and_query) = PathAndQuery::try_from(format!("{path}{query}")) else { return };
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = Some(path_and_query);
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
}

fn apply(claims: ForwardedClaims, request: &mut Request) {
    let ForwardedClaims { client, scheme, host, .. } = claims;
    request.extensions_mut().insert(PeerAddress(client));
    if let Some(scheme) = scheme {
        request.extensions_mut().insert(ClientScheme(scheme));
        request.headers_mut().insert(FORWARDED_PROTO, HeaderValue::from_static(scheme.name()));
    }
    if let Some(host) = host.and_then(|host| HeaderValue::try_from(host).ok()) {
        request.headers_mut().insert(FORWARDED_HOST, host.clone());
        request.headers_mut().insert(HOST, host);
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::HeaderName;

    use super::*;
    use crate::frontend::forwarded_header::ForwardedScheme;

    fn request(uri: &str) -> Request {
        Request::get(uri).header("host", "a").body(Body::empty()).unwrap()
    }

    #[test]
    fn a_prefix_is_removed_and_the_query_stays() {
        let prefix = PathPrefix::new("/realtime").unwrap();
        for (uri, expected) in [
            ("/realtime/chat?id=a%2Fb", "/chat?id=a%2Fb"),
            ("/realtime", "/"),
            ("/chat?x=/realtime", "/chat?x=/realtime"),
            ("http://a/realtime/chat", "http://a/chat"),
            ("/realtime//chat", "//chat"),
        ] {
            let mut request = request(uri);
            strip_prefix(&prefix, &mut request);
            assert_eq!(request.uri().to_string(), expected);
        }
    }

    #[test]
    fn a_request_names_its_host_once() {
        let mut twice = request("/");
        assert!(has_one_host(&twice));
        twice.headers_mut().append(HOST, HeaderValue::from_static("b"));
        assert!(!has_one_host(&twice));
        let mut none = request("/");
        none.headers_mut().clear();
        assert!(!has_one_host(&none));
        *none.version_mut() = Version::HTTP_2;
        assert!(has_one_host(&none));
    }

    #[test]
    fn untrusted_headers_are_removed_and_trusted_claims_take_their_place() {
        let spoken = || {
            let mut request = request("/realtime/app/chat?id=1");
            for (name, value) in [
                ("x-forwarded-for", "6.6.6.6"),
                ("x-forwarded-proto", "gopher"),
                ("x-forwarded-host", "evil.example"),
                ("x-forwarded-prefix", "/evil"),
                ("x-forwarded-port", "1"),
                ("forwarded", "for=6.6.6.6"),
                ("x-other", "stays"),
            ] {
                request.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            request
        };
        let prefix = PathPrefix::new("/realtime").unwrap();
        let mut inside_an_app = spoken();
        rewrite(&mut inside_an_app, None, &prefix);
        assert_eq!(inside_an_app.uri(), "/app/chat?id=1");
        let names: Vec<_> = inside_an_app.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["host", "x-other"]);

        let mut behind_a_balancer = spoken();
        let claims = ForwardedClaims {
            client: "203.0.113.9:1".parse().unwrap(),
            scheme: Some(ForwardedScheme::Https),
            host: Some("chat.example".into()),
            prefix: Some("/app".into()),
        };
        rewrite(&mut behind_a_balancer, Some(claims), &prefix);
        assert_eq!(behind_a_balancer.uri(), "/chat?id=1");
        let header = |name: &str| behind_a_balancer.headers()[name].to_str().unwrap();
        let headers = ["host", "x-forwarded-host", "x-forwarded-proto"].map(header);
        assert_eq!(headers, ["chat.example", "chat.example", "https"]);
        assert!(!behind_a_balancer.headers().contains_key("x-forwarded-for"));
        let extensions = behind_a_balancer.extensions();
        assert_eq!(extensions.get(), Some(&ClientScheme(ForwardedScheme::Https)));
        assert_eq!(peer_address(extensions), Some("203.0.113.9:1".parse().unwrap()));
    }

    #[test]
    fn the_size_of_a_head_counts_target_names_and_values() {
        assert_eq!(head_bytes(&request("/chat?id=1")), "/chat?id=1".len() + "host".len() + "a".len());
    }
}
