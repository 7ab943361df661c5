//! Patterns of origins that may connect (an exact origin, subdomains of a host, or any origin), and hosts that requests
//! may address (`--allow-host`).
//!
//! In DNS rebinding, an attacker's host name resolves to this node, so the browser treats page and node as the same
//! origin. The requests still have that host name, so a host list refuses them. A node with the development key is open
//! to the whole machine and always has such a list.

pub use trunkline_protocol::host_pattern::HostPattern;

use std::net::IpAddr;
use std::str::FromStr;

use trunkline_protocol::host_pattern::host_of;

use crate::ground::net::address::is_loopback_host;

const ANY: &str = "*";

/// Errors of parsing an origin or a pattern of origins, worded to follow the text.
const SCHEME: &str = "has to be an origin with its scheme, such as https://app.example or capacitor://localhost, null for \
                      pages without an origin, or * for any page, without credentials";
const PATH: &str = "continues after host and port: an origin has no path";
const HOST: &str = "has an invalid host";
const STAR: &str = "has a * that is not the whole first label after http:// or https://, as in https://*.example.com";
const PORT: &str = "has an invalid port";

/// Pattern of origins that may connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OriginPattern {
    /// Any origin, without credentials.
    Any,
    /// One origin, compared by scheme, host and port, or as text.
    Exact(Origin),
    /// Subdomains of this host, at any depth.
    SubDomains(WebOrigin),
}

/// Origin of a page without one, such as a sandboxed frame.
const OPAQUE: &str = "null";

/// Origin of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Origin with the scheme http or https.
    Web(WebOrigin),
    /// `null`, or an origin with another scheme, such as a page inside an app. Compared as text.
    Other(String),
}

/// Scheme, host and port of a web page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebOrigin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    /// Parses an origin as sent by browsers. Web origins are case-insensitive.
    ///
    /// # Errors
    /// If the text is not an origin.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let scheme = text.split_once("://").map(|(scheme, _)| scheme);
        match scheme {
            Some(scheme) if is_web(scheme) => WebOrigin::parse(text).map(Self::Web),
            Some(scheme) if is_scheme(scheme) => {
                let host = text.get(scheme.len() + "://".len()..).unwrap_or_default();
                if host.contains(['/', '?', '#']) {
                    return Err(PATH);
                }
                let is_text = host.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'@');
                if is_text { Ok(Self::Other(text.into())) } else { Err(HOST) }
            }
            None if text == OPAQUE => Ok(Self::Other(text.into())),
            _ => Err(SCHEME),
        }
    }
}

fn is_web(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
}

fn is_scheme(scheme: &str) -> bool {
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

impl WebOrigin {
    /// Parses an http or https origin.
    ///
    /// # Errors
    /// Returns an error for any other text.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let text = text.to_ascii_lowercase();
        let (scheme, authority) = text.split_once("://").ok_or(SCHEME)?;
        let default_port = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return Err(SCHEME),
        };
        if authority.contains(['/', '?', '#']) {
            return Err(PATH);
        }
        // Colons of an IPv6 address are inside brackets.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| PORT)?),
            _ => (authority, default_port),
        };
        if !is_host(host) {
            return Err(HOST);
        }
        Ok(Self { scheme: scheme.into(), host: host.into(), port })
    }
}

fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    host.split('.').all(is_label)
}

impl OriginPattern {
    /// Returns whether a page of this origin may connect with credentials.
    #[must_use]
    pub fn names(&self, origin: &Origin) -> bool {
        match self {
            Self::Any => false,
            Self::Exact(allowed) => allowed == origin,
            Self::SubDomains(parent) => {
                let Origin::Web(origin) = origin else { return false };
                let head = origin.host.strip_suffix(&parent.host).and_then(|head| head.strip_suffix('.'));
                head.is_some_and(|head| !head.is_empty())
                    && (&parent.scheme, parent.port) == (&origin.scheme, origin.port)
            }
        }
    }
}

impl FromStr for OriginPattern {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        let text = text.strip_suffix('/').filter(|text| !text.ends_with(":/")).unwrap_or(text);
        if text == ANY {
            return Ok(Self::Any);
        }
        let Some((scheme, rest)) = text.split_once("://*.") else {
            return match text.contains('*') {
                true => Err(STAR),
                false => Origin::parse(text).map(Self::Exact),
            };
        };
        if rest.contains('*') || !is_web(scheme) {
            return Err(STAR);
        }
        let parent = WebOrigin::parse(&format!("{scheme}://{rest}"))?;
        // Any attacker can register a domain below a top-level domain.
        if parent.host.contains('.') { Ok(Self::SubDomains(parent)) } else { Err(STAR) }
    }
}

/// Rules for request hosts.
#[derive(Debug, Clone, Default)]
pub struct HostRules {
    /// Configured hosts. Empty accepts any host.
    pub named: Vec<HostPattern>,
    /// Whether only names of this machine are accepted, besides the configured hosts.
    pub is_development: bool,
}

impl HostRules {
    /// Returns whether a request with this `Host` is accepted. IP addresses always are, because DNS rebinding needs a
    /// name.
    pub(crate) fn allow(&self, authority: &str) -> bool {
        if self.named.is_empty() && !self.is_development {
            return true;
        }
        let host = host_of(authority);
        let is_local = is_loopback_host(host) || host.to_ascii_lowercase().ends_with(".localhost");
        host.parse::<IpAddr>().is_ok() || is_local || self.named.iter().any(|named| named.names(host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(pattern: &str, origin: &str) -> bool {
        pattern.parse::<OriginPattern>().unwrap().names(&Origin::parse(origin).unwrap())
    }

    #[test]
    fn scheme_host_and_port_must_match_exactly() {
        assert!(names("https://app.example", "https://app.example"));
        assert!(names("https://App.Example/", "https://app.example:443"));
        assert!(names("http://[::1]:5000", "http://[::1]:5000"));
        for other in
            ["http://app.example", "https://app.example:8443", "https://app.example.evil", "https://a.app.example"]
        {
            assert!(!names("https://app.example", other), "{other}");
        }
    }

    #[test]
    fn sub_domains_match_but_not_their_parent_or_a_host_with_the_same_ending() {
        for of_it in ["https://a.example.com", "https://a.b.example.com"] {
            assert!(names("https://*.example.com", of_it), "{of_it}");
        }
        let others = [
            "https://example.com",
            "https://evilexample.com",
            "https://a.example.com.evil.org",
            "http://a.example.com",
            "https://a.example.com:444",
        ];
        for other in others {
            assert!(!names("https://*.example.com", other), "{other}");
        }
        assert!(names("https://*.example.com:444", "https://a.example.com:444"));
    }

    #[test]
    fn origins_of_other_schemes_are_compared_as_text() {
        let others = [
            "capacitor://localhost",
            "ionic://localhost",
            "tauri://localhost",
            "app://-",
            "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
            "moz-extension://0a1b2c3d-0000-4000-8000-000000000000",
            "vscode-webview://0a1b2c3d",
            "file://",
            "null",
        ];
        for pattern in others {
            for origin in others {
                assert_eq!(names(pattern, origin), pattern == origin, "{pattern} {origin}");
            }
        }
        assert!(names("capacitor://localhost/", "capacitor://localhost"));
        assert!(!names("capacitor://localhost", "http://localhost"));
        assert!(!names("capacitor://localhost", "capacitor://LOCALHOST"));
        assert!(!names("https://*.example.com", "app://a.example.com"));
    }

    #[test]
    fn any_origin_may_connect_but_without_credentials() {
        assert!(!names("*", "https://app.example"));
    }

    #[test]
    fn patterns_that_match_too_much_or_nothing_are_refused() {
        let cases = [
            ("app.example", SCHEME),
            ("://app.example", SCHEME),
            ("1app://localhost", SCHEME),
            ("NULL", SCHEME),
            ("tauri://localhost/page", PATH),
            ("app://a b", HOST),
            ("app://*.example.com", STAR),
            ("app://*", STAR),
            ("https://app.example/chat", PATH),
            ("https://.example", HOST),
            ("https://a b", HOST),
            ("https://user@app.example", HOST),
            ("https://app.example:x", PORT),
            ("https://*", STAR),
            ("https://*.com", STAR),
            ("https://a.*.com", STAR),
            ("https://*app.example", STAR),
            ("https://*.*.example.com", STAR),
            ("*://app.example", STAR),
        ];
        for (text, problem) in cases {
            assert_eq!(text.parse::<OriginPattern>(), Err(problem), "{text}");
        }
    }

    fn rules(named: &[&str], is_development: bool) -> HostRules {
        HostRules { named: named.iter().map(|host| host.parse().unwrap()).collect(), is_development }
    }

    #[test]
    fn in_development_only_names_of_this_machine_and_numbers_are_hosts() {
        let rules = rules(&[], true);
        for host in ["localhost", "LOCALHOST:8080", "localhost.:80", "app.localhost:3000", "127.0.0.1:8080", "[::1]:80"]
        {
            assert!(rules.allow(host), "{host}");
        }
        for host in ["rebound.example:8080", "localhost.evil.example", "evil-localhost", "", "127.0.0.1.nip.io"] {
            assert!(!rules.allow(host), "{host}");
        }
    }

    #[test]
    fn a_list_names_hosts_and_all_below_a_domain() {
        let named = rules(&["Chat.Example", "*.example.com"], false);
        for host in ["chat.example", "CHAT.example:443", "a.example.com", "a.b.example.com:80", "10.0.0.1:80"] {
            assert!(named.allow(host), "{host}");
        }
        for host in ["example.com", "evil.example", "xexample.com", "chat.example.evil", ".example.com"] {
            assert!(!named.allow(host), "{host}");
        }
        assert!(rules(&[], false).allow("anything.at.all"), "without a list there is none");
        assert!(rules(&["dev.example"], true).allow("dev.example:8080"));
    }
}
