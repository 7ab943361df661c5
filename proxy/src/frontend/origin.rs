//! Which pages may connect: CORS for requests, and the `Origin` check for upgrades, which CORS does not cover.
//!
//! A browser sends cookies with an upgrade whoever's page asks for it. So a page that may connect only because any page
//! may does so without them: they are taken off before anybody looks.

use std::sync::Arc;

use axum::extract::Request;
use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST, ORIGIN};
use http::request::Parts;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method};
use tower_http::cors::{AllowCredentials, AllowHeaders, AllowOrigin, CorsLayer};
use trunkline_protocol::manifest::NODE_HEADER;

use super::arrival::CameBy;
use crate::config::{Origin, OriginPattern, Settings, is_loopback_host};

#[derive(Debug, Clone)]
struct Origins {
    allowed: Arc<[OriginPattern]>,
    trusts_this_machine: bool,
}

/// How a page may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Welcome {
    /// With cookies and all.
    Trusted,
    /// As nobody that a cookie could name.
    WithoutCredentials,
    Refused,
}

impl Origins {
    fn new(settings: &Settings) -> Self {
        Self { allowed: settings.allow_origins.clone().into(), trusts_this_machine: settings.is_development }
    }

    fn welcome(&self, origin: &HeaderValue, headers: &HeaderMap, extensions: &Extensions) -> Welcome {
        let origin = origin.to_str().unwrap_or_default();
        let host = own_host(headers, extensions, origin);
        if self.trust(origin, host) {
            Welcome::Trusted
        } else if self.allowed.contains(&OriginPattern::Any) {
            Welcome::WithoutCredentials
        } else {
            Welcome::Refused
        }
    }

    fn trust(&self, text: &str, host: Option<&str>) -> bool {
        let (Some((_, authority)), Ok(origin)) = (text.split_once("://"), Origin::parse(text)) else { return false };
        host.is_some_and(|host| host.eq_ignore_ascii_case(authority))
            || self.allowed.iter().any(|allowed| allowed.names(&origin))
            || (self.trusts_this_machine && is_loopback_host(authority))
    }
}

/// The layer that answers preflights and marks answers for pages that may connect.
pub(super) fn cors(settings: &Settings) -> CorsLayer {
    let origins = Origins::new(settings);
    let trusted = origins.clone();
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(move |origin, parts: &Parts| {
            origins.welcome(origin, &parts.headers, &parts.extensions) != Welcome::Refused
        }))
        .allow_credentials(AllowCredentials::predicate(move |origin, parts: &Parts| {
            trusted.welcome(origin, &parts.headers, &parts.extensions) == Welcome::Trusted
        }))
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        // Apps may set headers of their own; what they may do with them is the app's concern.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([AUTHORIZATION, CONTENT_TYPE, HeaderName::from_static(NODE_HEADER)])
}

/// Whether a request may go on: it has no origin (no browser), or one that may connect.
pub(super) fn may_connect(settings: &Settings, request: &mut Request) -> bool {
    let Some(origin) = request.headers().get(ORIGIN) else { return true };
    match Origins::new(settings).welcome(origin, request.headers(), request.extensions()) {
        Welcome::Trusted => true,
        Welcome::WithoutCredentials => {
            request.headers_mut().remove(COOKIE);
            true
        }
        Welcome::Refused => false,
    }
}

/// Whom the request asked; nobody when it came by another scheme than this origin's pages, as far as that is known.
fn own_host<'a>(headers: &'a HeaderMap, extensions: &Extensions, origin: &str) -> Option<&'a str> {
    let host = headers.get(HOST)?.to_str().ok()?;
    let Some(CameBy(scheme)) = extensions.get() else { return Some(host) };
    let fits = origin.split_once("://").is_some_and(|(of_page, _)| of_page.eq_ignore_ascii_case(scheme.name()));
    fits.then(|| host.strip_suffix(scheme.default_port()).unwrap_or(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn welcome(allowed: &[&str], trusts_this_machine: bool, origin: &str, host: &str) -> Welcome {
        let allowed = allowed.iter().map(|text| text.parse().unwrap()).collect();
        let headers = HeaderMap::from_iter([(HOST, host.parse().unwrap())]);
        Origins { allowed, trusts_this_machine }.welcome(&origin.parse().unwrap(), &headers, &Extensions::new())
    }

    #[test]
    fn a_page_of_the_node_itself_may_connect() {
        assert_eq!(welcome(&[], false, "https://chat.example", "chat.example"), Welcome::Trusted);
        assert_eq!(welcome(&[], false, "https://chat.example", "other.example"), Welcome::Refused);
        assert_eq!(welcome(&[], false, "null", "null"), Welcome::Refused);
    }

    #[test]
    fn listed_origins_may_connect_and_others_without_credentials_where_any_may() {
        let listed = ["https://app.example", "https://*.example.com"];
        for origin in ["https://app.example", "https://a.example.com"] {
            assert_eq!(welcome(&listed, false, origin, "proxy"), Welcome::Trusted);
        }
        assert_eq!(welcome(&listed, false, "https://evil.example", "proxy"), Welcome::Refused);
        let any = ["*", "https://app.example"];
        assert_eq!(welcome(&any, false, "https://app.example", "proxy"), Welcome::Trusted);
        for origin in ["https://evil.example", "null"] {
            assert_eq!(welcome(&any, false, origin, "proxy"), Welcome::WithoutCredentials);
        }
    }

    #[test]
    fn pages_of_this_machine_may_connect_only_without_a_key() {
        let proxy = "127.0.0.1:8080";
        assert_eq!(welcome(&[], true, "http://127.0.0.1:5000", proxy), Welcome::Trusted);
        assert_eq!(welcome(&[], true, "http://evil.example", proxy), Welcome::Refused);
        assert_eq!(welcome(&[], false, "http://127.0.0.1:5000", proxy), Welcome::Refused);
    }
}
