//! Normalisation, the first step of each request: converts it to the form that later steps expect.
//!
//! Afterwards, `Host` is the host requested by the client, the path has no prefix, and only trusted load balancer
//! headers remain. A request forwarded by another node was normalised there.

use std::net::IpAddr;

use axum::extract::Request;
use axum::response::Response;
use http::header::{ALLOW, COOKIE, HOST};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use hyper::body::Body as _;

use crate::edge::frontend::endpoint::Endpoint;
use crate::edge::frontend::forwarded_header::{
    FORWARDED_HEADERS, FORWARDED_HOST, FORWARDED_PROTO, ForwardedClaims, ForwardedScheme, REAL_IP, trusted_claims,
};
use crate::edge::frontend::hop_header;
use crate::edge::frontend::plain_response::{closing, plain};
use crate::edge::frontend::request_context::{RequestContext, RequestSource};
use crate::edge::frontend::request_head::{self, HEADERS_MAX, HeadProblem};
use crate::edge::frontend::request_query::RequestQuery;
use crate::edge::frontend::reverse_proxy::owner_head;
use crate::edge::frontend::upgrade_answer::has_upgrade_words;
use crate::ground::auth::ADMIN_COOKIE;
use crate::ground::config::{HostRules, PathPrefix};
use crate::ground::metrics::Limit;

/// Response to a request for a foreign host.
const FOREIGN_HOST: &str = "Host is not served by this node: see --allow-host (without an access key a node serves \
                            only names of this machine)";

pub(crate) fn normalise(endpoint: &Endpoint, request: &mut Request) -> Result<Box<RequestContext>, Response> {
    check(request).map_err(|problem| refuse(endpoint, &problem))?;
    request_head::settle(request);
    let query = RequestQuery::parse(request.uri());
    let mut context = Box::new(RequestContext::new(RequestSource::take_source(request), query));
    remove_admin_cookie(request.headers_mut());
    owner_head::accept_mark(endpoint, request, &mut context);
    if context.is_forwarded {
        return Ok(context);
    }
    refuse_large(endpoint, request).map_or(Ok(()), Err)?;
    let settings = &endpoint.shared.settings;
    if !settings.trusted.is_empty() {
        hop_header::keep_known_nominations(request.headers_mut());
    }
    let claims = context
        .source
        .peer
        .map(|peer| trusted_claims(request.headers(), peer, &settings.trusted, &settings.trusted_headers));
    rewrite(request, &mut context, claims, &settings.path_prefix);
    if asks_for_own_host(&settings.hosts, request) {
        Ok(context)
    } else {
        Err(plain(StatusCode::MISDIRECTED_REQUEST, FOREIGN_HOST))
    }
}

fn check(request: &Request) -> Result<(), HeadProblem> {
    request_head::check(request)?;
    if has_upgrade_words(request.headers()) && !request.body().is_end_stream() {
        return Err(HeadProblem::UpgradeBody);
    }
    if hop_header::has_too_many_nominations(request.headers()) {
        return Err(HeadProblem::Nominations);
    }
    hop_header::misnamed(request.headers()).map_or(Ok(()), |name| Err(HeadProblem::Nomination(name)))
}

fn refuse(endpoint: &Endpoint, problem: &HeadProblem) -> Response {
    endpoint.counters.malformed.increment();
    // Further requests on this connection may be ambiguous, too.
    let mut answer = closing(plain(problem.status(), problem.to_string()));
    if *problem == HeadProblem::Method {
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static(request_head::METHODS));
    }
    answer
}

/// Refuses a head that exceeds the limit of this node, or of an app server including added headers.
fn refuse_large(endpoint: &Endpoint, request: &Request) -> Option<Response> {
    let most = endpoint.shared.settings.limits.head_max_bytes;
    let text = if head_bytes(request) > most {
        format!("the head of the request is larger than {most} bytes: see --head-max-bytes")
    } else if request.headers().len() > HEADERS_MAX {
        format!("the request has more than {HEADERS_MAX} headers, the most that are passed on")
    } else {
        return None;
    };
    endpoint.counters.limit(Limit::HeadSize).increment();
    Some(plain(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, text))
}

/// Whether the host belongs to this node. Only browsers can be misdirected, and they send a host.
fn asks_for_own_host(hosts: &HostRules, request: &Request) -> bool {
    request.headers().get(HOST).is_none_or(|host| host.to_str().is_ok_and(|host| hosts.allow(host)))
}

/// Lower bound of the size of a request's head. The server reads in large steps, and checks its limit only in between.
fn head_bytes(request: &Request) -> usize {
    let uri = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    request.headers().iter().fold(uri, |bytes, (name, value)| bytes + name.as_str().len() + value.len())
}

/// Replaces forwarding headers with their trusted claims, and removes path prefixes.
fn rewrite(
    request: &mut Request,
    context: &mut RequestContext,
    claims: Option<ForwardedClaims>,
    own_prefix: &PathPrefix,
) {
    for name in FORWARDED_HEADERS {
        request.headers_mut().remove(name);
    }
    hop_header::drop_look_alikes(request.headers_mut());
    let claimed = claims.as_ref().and_then(|claims| PathPrefix::new(claims.prefix.as_deref()?).ok());
    for prefix in [Some(own_prefix), claimed.as_ref()].into_iter().flatten() {
        strip_prefix(prefix, request);
    }
    // Requests on a TLS listener use https, unless a load balancer reports otherwise.
    context.scheme = context.source.is_tls.then_some(ForwardedScheme::Https);
    if let Some(claims) = claims {
        // In an embedded node, the app knows its load balancers.
        if !context.source.is_of_app {
            settle_real_ip(request, claims.client.ip());
        }
        apply(claims, request, context);
    }
}

/// Replaces an existing header with the client's address, because apps trust it and any client can write it.
fn settle_real_ip(request: &mut Request, client: IpAddr) {
    if request.headers().contains_key(REAL_IP)
        && let Ok(value) = HeaderValue::try_from(client.to_string())
    {
        request.headers_mut().insert(REAL_IP, value);
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

fn apply(claims: ForwardedClaims, request: &mut Request, context: &mut RequestContext) {
    let ForwardedClaims { client, scheme, host, .. } = claims;
    context.source.peer = Some(client);
    if let Some(scheme) = scheme {
        context.scheme = Some(scheme);
        request.headers_mut().insert(FORWARDED_PROTO, HeaderValue::from_static(scheme.name()));
    }
    if let Some(host) = host.and_then(|host| HeaderValue::try_from(host).ok()) {
        request.headers_mut().insert(FORWARDED_HOST, host.clone());
        request.headers_mut().insert(HOST, host);
    }
}

/// Removes the observer page's cookies from a client's request. Cookies ignore ports: a browser logged in at the admin
/// port also sends the cookie to the client port, where neither node nor app server should see it.
fn remove_admin_cookie(headers: &mut HeaderMap) {
    if !headers.get_all(COOKIE).iter().any(holds_one) {
        return;
    }
    let left: Vec<_> = headers.get_all(COOKIE).iter().filter_map(without).collect();
    headers.remove(COOKIE);
    for cookies in left {
        headers.append(COOKIE, cookies);
    }
}

fn holds_one(cookies: &HeaderValue) -> bool {
    pairs(cookies).any(is_of_admin)
}

fn without(cookies: &HeaderValue) -> Option<HeaderValue> {
    if !holds_one(cookies) {
        return Some(cookies.clone());
    }
    let others: Vec<&[u8]> = pairs(cookies).filter(|pair| !pair.is_empty() && !is_of_admin(pair)).collect();
    // Part of a valid value, so also valid.
    HeaderValue::from_bytes(&others.join(&b"; "[..])).ok().filter(|left| !left.is_empty())
}

fn pairs(cookies: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    cookies.as_bytes().split(|byte| *byte == b';').map(<[u8]>::trim_ascii)
}

fn is_of_admin(pair: &[u8]) -> bool {
    pair.starts_with(ADMIN_COOKIE.as_bytes())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::HeaderName;

    use super::*;

    fn request(uri: &str) -> Request {
        Request::get(uri).header("host", "a").body(Body::empty()).unwrap()
    }

    fn context(source: RequestSource) -> RequestContext {
        RequestContext::new(source, RequestQuery::parse(&Uri::default()))
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
    fn untrusted_headers_are_removed_and_trusted_claims_take_their_place() {
        let spoken = || {
            let mut request = request("/realtime/app/chat?id=1");
            for (name, value) in [
                ("x-forwarded-for", "6.6.6.6"),
                ("x-forwarded-proto", "gopher"),
                ("x-forwarded-host", "evil.example"),
                ("x-forwarded-prefix", "/evil"),
                ("x-forwarded-port", "1"),
                ("x-forwarded-ssl", "on"),
                ("x_forwarded_for", "6.6.6.6"),
                ("x-real-ip", "6.6.6.6"),
                ("forwarded", "for=6.6.6.6"),
                ("x-other", "stays"),
            ] {
                request.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            request
        };
        let prefix = PathPrefix::new("/realtime").unwrap();
        let mut inside_an_app = spoken();
        rewrite(&mut inside_an_app, &mut context(RequestSource::default()), None, &prefix);
        assert_eq!(inside_an_app.uri(), "/app/chat?id=1");
        let mut names: Vec<_> = inside_an_app.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["host", "x-other", "x-real-ip"]);

        let mut behind_a_balancer = spoken();
        let mut context = context(RequestSource::from_peer("10.0.0.1:1".parse().unwrap()));
        let claims = ForwardedClaims {
            client: "203.0.113.9:1".parse().unwrap(),
            scheme: Some(ForwardedScheme::Https),
            host: Some("chat.example".into()),
            prefix: Some("/app".into()),
        };
        rewrite(&mut behind_a_balancer, &mut context, Some(claims), &prefix);
        assert_eq!(behind_a_balancer.uri(), "/chat?id=1");
        let header = |name: &str| behind_a_balancer.headers()[name].to_str().unwrap();
        let headers = ["host", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"].map(header);
        assert_eq!(headers, ["chat.example", "chat.example", "https", "203.0.113.9"]);
        assert!(!behind_a_balancer.headers().contains_key("x-forwarded-for"));
        assert_eq!(context.scheme, Some(ForwardedScheme::Https));
        assert_eq!(context.source.peer, Some("203.0.113.9:1".parse().unwrap()));
    }

    #[test]
    fn the_scheme_is_https_on_a_tls_socket_unless_a_balancer_reports_another() {
        let scheme = |is_tls, claimed| {
            let mut context = context(RequestSource { is_tls, ..RequestSource::default() });
            let client = "203.0.113.9:1".parse().unwrap();
            let claims = ForwardedClaims { client, scheme: claimed, host: None, prefix: None };
            rewrite(&mut request("/"), &mut context, Some(claims), &PathPrefix::default());
            context.scheme
        };
        assert_eq!(scheme(true, None), Some(ForwardedScheme::Https));
        assert_eq!(scheme(true, Some(ForwardedScheme::Http)), Some(ForwardedScheme::Http));
        assert_eq!(scheme(false, None), None, "something in front may speak TLS");
    }

    #[test]
    fn the_size_of_a_head_counts_target_names_and_values() {
        assert_eq!(head_bytes(&request("/chat?id=1")), "/chat?id=1".len() + "host".len() + "a".len());
    }

    fn left(cookies: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut headers = HeaderMap::new();
        for value in cookies {
            headers.append(COOKIE, HeaderValue::from_bytes(value).unwrap());
        }
        remove_admin_cookie(&mut headers);
        headers.get_all(COOKIE).iter().map(|value| value.as_bytes().to_vec()).collect()
    }

    #[test]
    fn cookies_of_admin_sessions_are_removed_and_others_stay_as_they_are() {
        let session = format!("{ADMIN_COOKIE}_proxy-a=abc");
        let among = |text: &str| text.replace("SESSION", &session).into_bytes();
        for (sent, expected) in [
            (among("a=1; SESSION; b=2"), Some("a=1; b=2")),
            (among("SESSION"), None),
            (among("SESSION;SESSION ; a=1"), Some("a=1")),
            (among("a=1;  b=\u{e9};;"), Some("a=1;  b=\u{e9};;")),
            (among("x=SESSION"), Some(&*format!("x={session}"))),
        ] {
            let expected: Vec<_> = expected.map(|text| text.as_bytes().to_vec()).into_iter().collect();
            assert_eq!(left(&[&sent]), expected, "{}", String::from_utf8_lossy(&sent));
        }
        assert_eq!(left(&[b"a=1", session.as_bytes(), b"b=2"]), [b"a=1".to_vec(), b"b=2".to_vec()]);
    }
}
