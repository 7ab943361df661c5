//! The first thing that happens to a request: where it came from and where it was sent is settled for all that follows.
//!
//! After this `PeerAddress` is the client's address, `Host` is whom the client asked, the path has no prefix, and no
//! header of load balancers is left but what is believed of them. Where another node has carried a request here, all that
//! happened there.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::header::{CONNECTION, HOST};
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, StatusCode, Uri, Version};

use super::forwarded::{Believed, HEADERS, Scheme, believe};
use super::request::peer_of;
use super::{Endpoint, PeerAddress, plain, relay};
use crate::config::PathPrefix;
use crate::metrics::Limit;

pub(super) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(super) const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// How the client came, as far as a load balancer tells: an extension of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CameBy(pub(super) Scheme);

pub(super) async fn settle(State(endpoint): State<Endpoint>, mut request: Request, next: Next) -> Response {
    if !has_one_host(&request) {
        endpoint.counters.malformed.increment();
        let mut answer = plain(StatusCode::BAD_REQUEST, "a request names its host once, by a Host header");
        // Who can't be believed in this is not believed about what follows either.
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        return answer;
    }
    let settings = &endpoint.shared.settings;
    if head_bytes(&request) > settings.limits.head_max_bytes {
        endpoint.counters.limit(Limit::HeadSize).increment();
        let text = "the head of the request is too large: see --head-max-bytes";
        return plain(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, text);
    }
    relay::accept_mark(&endpoint, &mut request);
    if relay::is_carried(&request) {
        return next.run(request).await;
    }
    let peer = peer_of(request.extensions());
    let believed = peer.map(|peer| believe(request.headers(), peer, &settings.trusted));
    for name in HEADERS {
        request.headers_mut().remove(name);
    }
    let said = believed.as_ref().and_then(|believed| PathPrefix::new(believed.prefix.as_deref()?).ok());
    for prefix in [Some(&settings.path_prefix), said.as_ref()].into_iter().flatten() {
        take_off(prefix, &mut request);
    }
    if let Some(believed) = believed {
        apply(believed, &mut request);
    }
    next.run(request).await
}

/// HTTP/1.1 asks for it; two of them are how one server is made to see another request than the next one.
fn has_one_host(request: &Request) -> bool {
    let hosts = request.headers().get_all(HOST).iter().count();
    hosts == 1 || (hosts == 0 && request.version() != Version::HTTP_11)
}

/// What the head of a request has at least. The server reads in large steps, and looks at its bound only between them.
fn head_bytes(request: &Request) -> usize {
    let uri = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    request.headers().iter().fold(uri, |bytes, (name, value)| bytes + name.as_str().len() + value.len())
}

fn take_off(prefix: &PathPrefix, request: &mut Request) {
    let Some(path) = prefix.strip(request.uri().path()) else { return };
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let Ok(path_and_query) = PathAndQuery::try_from(format!("{path}{query}")) else { return };
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = Some(path_and_query);
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
}

fn apply(believed: Believed, request: &mut Request) {
    let Believed { client, scheme, host, .. } = believed;
    request.extensions_mut().insert(PeerAddress(client));
    if let Some(scheme) = scheme {
        request.extensions_mut().insert(CameBy(scheme));
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

    use super::*;

    fn request(uri: &str) -> Request {
        Request::get(uri).header("host", "a").body(Body::empty()).unwrap()
    }

    #[test]
    fn the_prefix_goes_and_the_query_stays() {
        let prefix = PathPrefix::new("/realtime").unwrap();
        for (uri, expected) in [
            ("/realtime/chat?id=a%2Fb", "/chat?id=a%2Fb"),
            ("/realtime", "/"),
            ("/chat?x=/realtime", "/chat?x=/realtime"),
            ("http://a/realtime/chat", "http://a/chat"),
            ("/realtime//chat", "//chat"),
        ] {
            let mut request = request(uri);
            take_off(&prefix, &mut request);
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
}
