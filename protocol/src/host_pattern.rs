//! Host patterns with which operators configure the hosts of a node or app server.

use std::net::IpAddr;
use std::str::FromStr;

/// Host, or `*.` and a domain, which matches all hosts below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern(String);

impl FromStr for HostPattern {
    type Err = &'static str;

    /// Parses a host without a port. The error text continues a sentence that begins with the input.
    fn from_str(text: &str) -> Result<Self, &'static str> {
        let name = text.strip_prefix("*.").unwrap_or(text);
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        let is_address = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
        if name.is_empty() || !(is_name || is_address) {
            return Err("is not a host such as chat.example or *.example.com, without scheme and port");
        }
        Ok(Self(host_of(text).to_ascii_lowercase()))
    }
}

impl HostPattern {
    /// Whether the pattern matches a `host` or `host:port`. Case-insensitive.
    #[must_use]
    pub fn names(&self, authority: &str) -> bool {
        let host = host_of(authority);
        match self.0.strip_prefix('*') {
            Some(domain) => host.len() > domain.len() && host.to_ascii_lowercase().ends_with(domain),
            None => host.eq_ignore_ascii_case(&self.0),
        }
    }
}

/// Host of a `host:port`, without brackets and trailing dot.
#[must_use]
pub fn host_of(authority: &str) -> &str {
    let host = match authority.rsplit_once(':') {
        _ if authority.parse::<IpAddr>().is_ok() => authority,
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.strip_suffix('.').unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_names_one_host_or_all_below_a_domain() {
        for (pattern, named, others) in [
            ("Shop", &["shop", "SHOP:5000", "shop.:80"][..], &["shop.example", "workshop", ""][..]),
            ("*.Shop.svc", &["a.shop.svc:5000", "a.b.shop.svc"], &["shop.svc", "ashop.svc", ".shop.svc"]),
            ("10.0.0.7", &["10.0.0.7:5000"], &["10.0.0.70:5000"]),
            ("[2001:db8::1]", &["[2001:db8::1]:5000", "2001:db8::1"], &["[2001:db8::2]:5000"]),
        ] {
            let pattern: HostPattern = pattern.parse().unwrap();
            assert!(named.iter().all(|name| pattern.names(name)), "{pattern:?}");
            assert!(!others.iter().any(|name| pattern.names(name)), "{pattern:?}");
        }
    }

    #[test]
    fn a_text_that_names_no_host_is_refused() {
        for wrong in ["", "*.", "https://a.example", "a.example:80", "a b"] {
            assert!(wrong.parse::<HostPattern>().is_err(), "{wrong}");
        }
    }
}
