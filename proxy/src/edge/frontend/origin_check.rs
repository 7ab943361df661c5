//! Origin check of pages: CORS for requests, and the `Origin` header for upgrades, which CORS does not cover.
//!
//! Browsers send cookies with an upgrade requested by any page. A page that only the rule for any page admits therefore
//! loses its cookies before any later step. With dial-in, any page may connect using its access token; cookies are kept
//! only for pages allowed elsewhere, too.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use tower::{Layer, ServiceExt, service_fn};
use tower_http::cors::{AllowCredentials, AllowHeaders, AllowOrigin, CorsLayer};
use tracing::warn;
use trunkline_process::LinePermit;
use trunkline_protocol::manifest::NODE_HEADER;

use crate::edge::frontend::dial_in::is_for_clients;
use crate::edge::frontend::endpoint::Endpoint;
use crate::edge::frontend::forwarded_header::ForwardedScheme;
use crate::edge::frontend::plain_response::plain;
use crate::edge::frontend::request::bearer;
use crate::edge::frontend::request_context::RequestContext;
use crate::ground::config::{Origin, OriginPattern, Settings};
use crate::ground::limits::SetupFault;
use crate::ground::net::address::is_loopback_host;

/// Maximum length of a header shown in a refusal.
const SHOWN_MAX_BYTES: usize = 256;

#[derive(Debug, Clone)]
struct OriginRules {
    allowed: Arc<[OriginPattern]>,
    trusts_loopback: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OriginVerdict {
    /// May connect with cookies.
    WithCookies,
    /// May connect without cookies.
    WithoutCredentials,
    Refused,
}

impl OriginRules {
    fn new(settings: &Settings) -> Self {
        Self { allowed: settings.allow_origins.clone().into(), trusts_loopback: settings.is_development }
    }

    fn judge(&self, origin: &HeaderValue, headers: &HeaderMap, own: Option<ForwardedScheme>) -> OriginVerdict {
        let origin = origin.to_str().unwrap_or_default();
        if self.trust(origin, headers, own) {
            OriginVerdict::WithCookies
        } else if self.allowed.contains(&OriginPattern::Any) {
            OriginVerdict::WithoutCredentials
        } else {
            OriginVerdict::Refused
        }
    }

    fn trust(&self, text: &str, headers: &HeaderMap, own: Option<ForwardedScheme>) -> bool {
        let Ok(origin) = Origin::parse(text) else { return false };
        let of_web = text.split_once("://").filter(|_| matches!(origin, Origin::Web(_)));
        self.allowed.iter().any(|allowed| allowed.names(&origin))
            || of_web.is_some_and(|(scheme, authority)| {
                own_origin(headers, own, scheme).is_some_and(|own| own == origin)
                    || (self.trusts_loopback && is_loopback_host(authority))
            })
    }
}

/// CORS layer: answers preflights, and marks responses for pages that may connect.
pub(crate) fn cors(settings: &Settings) -> CorsLayer {
    let (origins, accepts_dial_in) = (OriginRules::new(settings), settings.accepts_dial_in);
    let trusted = origins.clone();
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(move |origin, parts: &Parts| {
            (accepts_dial_in && is_for_clients(&parts.uri))
                || origins.judge(origin, &parts.headers, RequestContext::scheme_in(parts)) != OriginVerdict::Refused
        }))
        .allow_credentials(AllowCredentials::predicate(move |origin, parts: &Parts| {
            (accepts_dial_in && is_for_clients(&parts.uri))
                || trusted.judge(origin, &parts.headers, RequestContext::scheme_in(parts)) == OriginVerdict::WithCookies
        }))
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        // Apps may use headers of their own, and check them themselves.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([AUTHORIZATION, CONTENT_TYPE, HeaderName::from_static(NODE_HEADER)])
}

/// Adds CORS headers to a refusal that precedes the hub.
pub(crate) async fn with_cors(settings: &Settings, request: Request, refusal: Response) -> Response {
    if request.method() == Method::OPTIONS {
        return refusal;
    }
    let mut refusal = Some(refusal);
    let refuse = service_fn(move |_: Request| ready(Ok::<_, Infallible>(refusal.take().unwrap_or_default())));
    cors(settings).layer(refuse).oneshot(request).await.unwrap_or_default()
}

/// Whether a request may continue: from a permitted page, or without an origin. Other clients than browsers, the same
/// origin, and links and images on any page send none.
pub(crate) fn may_connect(settings: &Settings, headers: &mut HeaderMap, scheme: Option<ForwardedScheme>) -> bool {
    let Some(origin) = headers.get(ORIGIN) else {
        drop_credentials_of_links(headers);
        return true;
    };
    match OriginRules::new(settings).judge(origin, headers, scheme) {
        OriginVerdict::WithCookies => true,
        OriginVerdict::WithoutCredentials => {
            drop_credentials(headers);
            true
        }
        OriginVerdict::Refused => false,
    }
}

/// Removes credentials added by the browser, unless the page may use them.
pub(crate) fn drop_foreign_credentials(settings: &Settings, headers: &mut HeaderMap, scheme: Option<ForwardedScheme>) {
    let Some(origin) = headers.get(ORIGIN) else { return drop_credentials_of_links(headers) };
    if OriginRules::new(settings).judge(origin, headers, scheme) != OriginVerdict::WithCookies {
        drop_credentials(headers);
    }
}

/// Removes credentials added by the browser to a cross-site request without an origin. Such a request has
/// `Sec-Fetch-Site`, or navigates to a page, which a hub is not.
fn drop_credentials_of_links(headers: &mut HeaderMap) {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let is_of_elsewhere = text("sec-fetch-site").is_some_and(|site| !site.eq_ignore_ascii_case("same-origin"));
    let is_navigation = text("sec-fetch-mode").is_some_and(|mode| mode.eq_ignore_ascii_case("navigate"))
        || text(ACCEPT.as_str()).is_some_and(|accept| accept.to_ascii_lowercase().contains("text/html"));
    if is_of_elsewhere || is_navigation {
        drop_credentials(headers);
    }
}

/// Removes cookies and stored log-ins. An access token is kept, because the page must have provided it.
fn drop_credentials(headers: &mut HeaderMap) {
    headers.remove(COOKIE);
    if bearer(headers).is_none() {
        headers.remove(AUTHORIZATION);
    }
}

/// Refuses a page, stating the compared values: a load balancer may have changed `Host`.
pub(crate) fn refuse(endpoint: &Endpoint, parts: &Parts, scheme: Option<ForwardedScheme>) -> Response {
    let shown = |name: HeaderName| {
        let text = parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        text.get(..SHOWN_MAX_BYTES).unwrap_or(text).to_owned()
    };
    let (origin, host) = (shown(ORIGIN), shown(HOST));
    if let Some(LinePermit { left_out }) = endpoint.shared.limits.setup_faults.of(SetupFault::Host).take_line() {
        warn!(
            path = parts.uri.path(),
            origin, host, left_out, "page refused: its origin is neither Host nor in --allow-origin"
        );
    }
    let scheme = scheme.map(|scheme| format!("{}://", scheme.name()));
    let reached = format!("{}{host}", scheme.unwrap_or_default());
    let text = format!(
        "the origin of the page is not allowed: Origin is {origin:?}, and Host is {reached:?}. If this is a page of \
         the node's own address, let the load balancer forward Host (nginx: proxy_set_header Host $http_host), or send \
         X-Forwarded-Host with --trust-headers for,proto,host. For other pages see --allow-origin"
    );
    plain(StatusCode::FORBIDDEN, text)
}

/// Origin of this node as seen by the client. If the scheme is unknown, the page's is assumed, because something in
/// front of a plain listener may use TLS.
fn own_origin(headers: &HeaderMap, own: Option<ForwardedScheme>, scheme_of_page: &str) -> Option<Origin> {
    let host = headers.get(HOST)?.to_str().ok()?;
    let scheme = own.map_or(scheme_of_page, |scheme| scheme.name());
    Origin::parse(&format!("{scheme}://{host}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(allowed: &[&str], trusts_loopback: bool, origin: &str, host: &str) -> OriginVerdict {
        let allowed = allowed.iter().map(|text| text.parse().unwrap()).collect();
        let headers = HeaderMap::from_iter([(HOST, host.parse().unwrap())]);
        OriginRules { allowed, trusts_loopback }.judge(&origin.parse().unwrap(), &headers, None)
    }

    /// Verdict on a page if the client is known to use this scheme.
    fn verdict_by(scheme: ForwardedScheme, origin: &str, host: &str) -> OriginVerdict {
        let headers = HeaderMap::from_iter([(HOST, host.parse().unwrap())]);
        let rules = OriginRules { allowed: Arc::new([]), trusts_loopback: false };
        rules.judge(&origin.parse().unwrap(), &headers, Some(scheme))
    }

    #[test]
    fn what_a_page_can_have_a_browser_open_without_an_origin_brings_no_credentials() {
        let is_kept = |headers: &[(&'static str, &str)]| {
            let mut all = HeaderMap::from_iter([(COOKIE, "session=1".parse().unwrap())]);
            headers.iter().for_each(|(name, value)| drop(all.insert(*name, value.parse().unwrap())));
            drop_credentials_of_links(&mut all);
            all.contains_key(COOKIE)
        };
        for own in
            [&[][..], &[("sec-fetch-site", "same-origin")], &[("accept", "text/event-stream")], &[("accept", "*/*")]]
        {
            assert!(is_kept(own), "{own:?}");
        }
        for link in [
            &[("sec-fetch-site", "cross-site")][..],
            &[("sec-fetch-site", "same-site"), ("sec-fetch-mode", "no-cors")],
            &[("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate")],
            &[("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "navigate")],
            &[("accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8")],
        ] {
            assert!(!is_kept(link), "{link:?}");
        }
    }

    #[test]
    fn a_page_of_another_scheme_is_not_of_the_node_itself() {
        use ForwardedScheme::{Http, Https};
        for (scheme, origin, host, expected) in [
            (Https, "https://chat.example", "chat.example", OriginVerdict::WithCookies),
            (Https, "https://chat.example", "Chat.Example:443", OriginVerdict::WithCookies),
            (Https, "https://chat.example:8443", "chat.example:8443", OriginVerdict::WithCookies),
            (Https, "http://chat.example", "chat.example", OriginVerdict::Refused),
            (Https, "http://chat.example:8443", "chat.example:8443", OriginVerdict::Refused),
            (Https, "https://chat.example", "chat.example:8443", OriginVerdict::Refused),
            (Http, "http://chat.example", "chat.example:80", OriginVerdict::WithCookies),
            (Http, "https://chat.example", "chat.example", OriginVerdict::Refused),
        ] {
            assert_eq!(verdict_by(scheme, origin, host), expected, "{origin} at {host} by {scheme:?}");
        }
    }

    #[test]
    fn a_page_of_the_node_itself_may_connect() {
        assert_eq!(verdict(&[], false, "https://chat.example", "chat.example"), OriginVerdict::WithCookies);
        assert_eq!(verdict(&[], false, "https://chat.example", "other.example"), OriginVerdict::Refused);
        assert_eq!(verdict(&[], false, "null", "null"), OriginVerdict::Refused);
    }

    #[test]
    fn listed_origins_may_connect_and_others_without_credentials_where_any_may() {
        let listed = ["https://app.example", "https://*.example.com"];
        for origin in ["https://app.example", "https://a.example.com"] {
            assert_eq!(verdict(&listed, false, origin, "proxy"), OriginVerdict::WithCookies);
        }
        assert_eq!(verdict(&listed, false, "https://evil.example", "proxy"), OriginVerdict::Refused);
        let any = ["*", "https://app.example"];
        assert_eq!(verdict(&any, false, "https://app.example", "proxy"), OriginVerdict::WithCookies);
        let apps = ["capacitor://localhost", "null"];
        for origin in apps {
            assert_eq!(verdict(&apps, false, origin, "proxy"), OriginVerdict::WithCookies);
        }
        assert_eq!(verdict(&[], true, "capacitor://localhost", "localhost"), OriginVerdict::Refused, "no own page");
        for origin in ["https://evil.example", "null"] {
            assert_eq!(verdict(&any, false, origin, "proxy"), OriginVerdict::WithoutCredentials);
        }
    }

    #[test]
    fn pages_of_this_machine_may_connect_only_in_development() {
        let proxy = "127.0.0.1:8080";
        assert_eq!(verdict(&[], true, "http://127.0.0.1:5000", proxy), OriginVerdict::WithCookies);
        assert_eq!(verdict(&[], true, "http://evil.example", proxy), OriginVerdict::Refused);
        assert_eq!(verdict(&[], false, "http://127.0.0.1:5000", proxy), OriginVerdict::Refused);
    }
}
