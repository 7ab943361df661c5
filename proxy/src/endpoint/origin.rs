//! Which pages may connect: CORS for requests, and the `Origin` check for upgrades, which CORS does not cover.

use std::sync::Arc;

use axum::extract::Request;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN};
use http::request::Parts;
use http::{Extensions, HeaderMap, HeaderName, Method};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use super::arrival::CameBy;
use crate::config::{Settings, is_loopback_host};

/// Who may connect.
#[derive(Debug, Clone)]
struct Origins {
    allowed: Arc<[String]>,
    trusts_this_machine: bool,
}

impl Origins {
    fn new(settings: &Settings) -> Self {
        Self { allowed: settings.allow_origins.clone().into(), trusts_this_machine: settings.is_development }
    }

    fn allow(&self, origin: &str, host: Option<&str>) -> bool {
        let Some((_, authority)) = origin.split_once("://") else { return false };
        host.is_some_and(|host| host.eq_ignore_ascii_case(authority))
            || self.allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin))
            || (self.trusts_this_machine && is_loopback_host(authority))
    }
}

/// The layer that answers preflights and marks answers for pages that may connect.
pub(super) fn cors(settings: &Settings) -> CorsLayer {
    let origins = Origins::new(settings);
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(move |origin, parts: &Parts| {
            origin
                .to_str()
                .is_ok_and(|origin| origins.allow(origin, own_host(&parts.headers, &parts.extensions, origin)))
        }))
        .allow_credentials(true)
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        // Apps may set headers of their own; what they may do with them is the app's concern.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([AUTHORIZATION, CONTENT_TYPE, HeaderName::from_static("x-trunkline-node")])
}

/// Whether an upgrade may go on: it has no origin (no browser), or one that may connect.
pub(super) fn may_upgrade(settings: &Settings, request: &Request) -> bool {
    let Some(origin) = request.headers().get(ORIGIN) else { return true };
    origin.to_str().is_ok_and(|origin| {
        Origins::new(settings).allow(origin, own_host(request.headers(), request.extensions(), origin))
    })
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

    fn origins(allowed: &[&str], trusts_this_machine: bool) -> Origins {
        Origins { allowed: allowed.iter().map(ToString::to_string).collect(), trusts_this_machine }
    }

    #[test]
    fn a_page_of_the_node_itself_may_connect() {
        assert!(origins(&[], false).allow("https://chat.example", Some("chat.example")));
        assert!(!origins(&[], false).allow("https://chat.example", Some("other.example")));
        assert!(!origins(&[], false).allow("null", Some("null")));
    }

    #[test]
    fn listed_origins_may_connect_exactly() {
        let origins = origins(&["https://app.example"], false);
        assert!(origins.allow("https://app.example", Some("proxy")));
        assert!(!origins.allow("http://app.example", Some("proxy")));
        assert!(!origins.allow("https://app.example.evil", Some("proxy")));
    }

    #[test]
    fn pages_of_this_machine_may_connect_only_without_a_key() {
        assert!(origins(&[], true).allow("http://127.0.0.1:5000", Some("127.0.0.1:8080")));
        assert!(!origins(&[], true).allow("http://evil.example", Some("127.0.0.1:8080")));
        assert!(!origins(&[], false).allow("http://127.0.0.1:5000", Some("127.0.0.1:8080")));
    }
}
