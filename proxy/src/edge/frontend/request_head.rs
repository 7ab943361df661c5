//! Checks of a request head: anything that servers may interpret differently is refused.
//!
//! Pure. The status codes follow nginx and Envoy. A valid head has one host, one target and one length, so load
//! balancer, node and app server can't see different requests in the same bytes.

use std::net::Ipv6Addr;

use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, ORIGIN, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version};

/// Maximum number of header lines. App servers (hyper, Kestrel) accept 100; [`ADDED_HEADERS_MAX`] of these are for the
/// node.
pub(crate) const HEADERS_MAX: usize = 100 - ADDED_HEADERS_MAX;

/// Maximum number of header lines that a node adds for an app server or another node.
pub(crate) const ADDED_HEADERS_MAX: usize = 10;

/// Headers that become ambiguous if repeated.
const SINGLE_HEADERS: [HeaderName; 3] = [AUTHORIZATION, CONTENT_LENGTH, ORIGIN];

/// Accepted methods, for the header `Allow` of a refusal.
pub(crate) const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadProblem {
    #[error("this method is not allowed here")]
    Method,
    #[error("the target of a request must be a path, or a URL with http:// or https://")]
    Target,
    #[error("a request needs one Host header with a name or address, and optionally a port")]
    Host,
    #[error("the host in the target of a request must equal its Host header, without a user name")]
    Authority,
    #[error("a request has only one {0} header")]
    Duplicate(HeaderName),
    #[error("the length of a body is one number")]
    Length,
    #[error("chunked is the only transfer coding here")]
    Coding,
    #[error("a request for a WebSocket has no body")]
    UpgradeBody,
    #[error("Connection may not name {0}, which is not a hop-by-hop header")]
    Nomination(HeaderName),
    #[error("Connection names too many headers")]
    Nominations,
}

impl HeadProblem {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Coding => StatusCode::NOT_IMPLEMENTED,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// Returns the first problem of method, target, host or framing.
pub(crate) fn check<B>(request: &Request<B>) -> Result<(), HeadProblem> {
    // TRACE reveals HttpOnly cookies to scripts; CONNECT is for forward proxies.
    if matches!(*request.method(), Method::TRACE | Method::CONNECT) {
        return Err(HeadProblem::Method);
    }
    check_target(request.method(), request.uri())?;
    check_host(request.version(), request.uri().authority(), request.headers())?;
    if let Some(name) = SINGLE_HEADERS.iter().find(|name| request.headers().get_all(*name).iter().nth(1).is_some()) {
        return Err(HeadProblem::Duplicate(name.clone()));
    }
    check_framing(request.headers())
}

fn check_target(method: &Method, uri: &Uri) -> Result<(), HeadProblem> {
    let is_web = uri.scheme().is_none_or(|scheme| matches!(scheme.as_str(), "http" | "https"));
    let target = uri.path_and_query().map_or("", PathAndQuery::as_str);
    let is_path = match target.as_bytes().first() {
        Some(b'/') => true,
        Some(b'?') => uri.authority().is_some(),
        _ => target == "*" && *method == Method::OPTIONS,
    };
    let is_printable = target.bytes().all(|byte| byte > b' ' && byte != 0x7f);
    if is_web && is_path && is_printable { Ok(()) } else { Err(HeadProblem::Target) }
}

/// HTTP/1.1 requires exactly one `Host`; with two, servers may see different requests.
fn check_host(version: Version, authority: Option<&Authority>, headers: &HeaderMap) -> Result<(), HeadProblem> {
    let mut hosts = headers.get_all(HOST).iter();
    let (host, other) = (hosts.next(), hosts.next());
    let is_missing = host.is_none() && authority.is_none() && version >= Version::HTTP_11;
    let is_needed = version == Version::HTTP_11 && host.is_none();
    if other.is_some() || is_missing || is_needed || host.is_some_and(|host| !host.to_str().is_ok_and(is_host)) {
        return Err(HeadProblem::Host);
    }
    let Some(authority) = authority.map(Authority::as_str) else { return Ok(()) };
    let is_same = host.is_none_or(|host| host.as_bytes().eq_ignore_ascii_case(authority.as_bytes()));
    if is_host(authority) && is_same { Ok(()) } else { Err(HeadProblem::Authority) }
}

fn check_framing(headers: &HeaderMap) -> Result<(), HeadProblem> {
    let is_number = |value: &HeaderValue| value.to_str().is_ok_and(|text| text.parse::<u64>().is_ok());
    if headers.get(CONTENT_LENGTH).is_some_and(|length| !is_number(length)) {
        return Err(HeadProblem::Length);
    }
    // The server has processed the last coding; an earlier one would be lost with the header.
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let is_known = codings.next().is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    if is_known && codings.next().is_none() { Ok(()) } else { Err(HeadProblem::Coding) }
}

/// Normalises a checked request: the host is in `Host`, and the target is a path.
pub(crate) fn settle<B>(request: &mut Request<B>) {
    let Some(authority) = request.uri().authority() else { return };
    if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
        request.headers_mut().insert(HOST, host);
    }
    let target = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    let slash = if target.starts_with('/') { "" } else { "/" };
    if let Ok(target) = PathAndQuery::try_from(format!("{slash}{target}")) {
        *request.uri_mut() = target.into();
    }
}

/// Whether a text is a host as written by browsers, with an optional port: no user name, path or list.
pub(crate) fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (text, ""),
    };
    let is_port = port.is_empty() || (port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok());
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
    };
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    is_port && address.map_or_else(|| is_name(host), |address| address.parse::<Ipv6Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(request: http::request::Builder) -> Option<HeadProblem> {
        check(&request.body(()).unwrap()).err()
    }

    fn to(target: &str) -> http::request::Builder {
        Request::get(target).header(HOST, "chat.example")
    }

    #[test]
    fn a_request_names_its_host_once_and_without_anything_else() {
        assert_eq!(problem(to("/")), None);
        assert_eq!(problem(to("/").header(HOST, "b")), Some(HeadProblem::Host));
        assert_eq!(problem(Request::get("/")), Some(HeadProblem::Host));
        assert_eq!(problem(Request::get("/").version(Version::HTTP_2)), Some(HeadProblem::Host));
        assert_eq!(problem(Request::get("/").version(Version::HTTP_10)), None);
        for host in ["chat.example", "chat.example:8443", "a_b:1", "10.0.0.1:80", "[::1]", "[2001:db8::1]:443", "a:"] {
            assert_eq!(problem(Request::get("/").header(HOST, host)), None, "{host}");
        }
        for host in [
            "",
            "evil.com/path?x=",
            "user@evil.com",
            "a b",
            "a,b",
            "a:b",
            "a:1:2",
            "a:99999",
            ":80",
            "[::1",
            "[evil]",
            "a\\b",
            "a#b",
            "a%00b",
        ] {
            assert_eq!(problem(Request::get("/").header(HOST, host)), Some(HeadProblem::Host), "{host}");
        }
    }

    #[test]
    fn a_target_is_a_path_and_its_host_is_that_of_the_header() {
        for target in ["/", "/chat?id=1", "http://chat.example/chat", "https://CHAT.example", "http://chat.example?x"] {
            assert_eq!(problem(to(target)), None, "{target}");
        }
        assert_eq!(problem(to("*")), Some(HeadProblem::Target));
        assert_eq!(problem(to("*").method(Method::OPTIONS)), None);
        for target in ["chat.example", "chat.example:80", "ftp://chat.example/"] {
            assert_eq!(problem(to(target)), Some(HeadProblem::Target), "{target}");
        }
        for target in ["http://evil.example/", "http://user@chat.example/", "http://chat.example:81/"] {
            assert_eq!(problem(to(target)), Some(HeadProblem::Authority), "{target}");
        }
        let alone = |target| problem(Request::get(target).version(Version::HTTP_2));
        assert_eq!(alone("https://chat.example/"), None);
        assert_eq!(alone("https://user:secret@chat.example/"), Some(HeadProblem::Authority));
    }

    #[test]
    fn methods_for_other_kinds_of_servers_are_not_allowed() {
        for method in [Method::TRACE, Method::CONNECT] {
            let problem = problem(to("/").method(method)).unwrap();
            assert_eq!((problem.status().as_u16(), problem), (405, HeadProblem::Method));
        }
    }

    #[test]
    fn a_body_has_one_length_and_one_coding() {
        let with = |name: HeaderName, values: &[&str]| {
            problem(values.iter().fold(to("/"), |request, value| request.header(&name, *value)))
        };
        assert_eq!(with(CONTENT_LENGTH, &["5"]), None);
        assert_eq!(with(CONTENT_LENGTH, &["5", "5"]), Some(HeadProblem::Duplicate(CONTENT_LENGTH)));
        assert_eq!(with(CONTENT_LENGTH, &["5, 5"]), Some(HeadProblem::Length));
        assert_eq!(with(TRANSFER_ENCODING, &["Chunked"]), None);
        for codings in [&["gzip, chunked"][..], &["chunked", "chunked"], &["gzip"]] {
            let problem = with(TRANSFER_ENCODING, codings).unwrap();
            assert_eq!((problem.status().as_u16(), problem), (501, HeadProblem::Coding), "{codings:?}");
        }
        assert_eq!(with(AUTHORIZATION, &["Basic eA==", "Bearer x"]), Some(HeadProblem::Duplicate(AUTHORIZATION)));
        assert_eq!(with(ORIGIN, &["https://a", "https://b"]), Some(HeadProblem::Duplicate(ORIGIN)));
    }

    #[test]
    fn a_settled_request_has_its_host_in_the_header_and_a_path_as_its_target() {
        for (target, path) in [
            ("https://chat.example:8443/chat?id=1", "/chat?id=1"),
            ("https://chat.example:8443", "/"),
            ("https://chat.example:8443?x=1", "/?x=1"),
        ] {
            let mut request = Request::get(target).body(()).unwrap();
            settle(&mut request);
            assert_eq!(request.uri(), path);
            assert_eq!(request.headers()[HOST], "chat.example:8443");
        }
    }
}
