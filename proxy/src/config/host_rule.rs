//! Hosts that requests may ask for (`--allow-host`).
//!
//! A page whose name was made to resolve to this node (DNS rebinding) is same-origin with it in its browser. It still
//! names its own host, so a list of hosts keeps it out. A node with the development key is open to all of this machine,
//! and so has such a list by itself.

use std::net::IpAddr;
use std::str::FromStr;

use crate::net::address::is_loopback_host;

/// Host, or `*.` and a domain for all hosts below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern(String);

/// Rules for the hosts of requests.
#[derive(Debug, Clone, Default)]
pub struct HostRules {
    /// Hosts that were named; empty: any.
    pub named: Vec<HostPattern>,
    /// Whether only this machine's names are meant, besides those that were named.
    pub is_development: bool,
}

impl FromStr for HostPattern {
    type Err = &'static str;

    /// Parses a host without a port; the error ends a sentence that begins with the text.
    fn from_str(text: &str) -> Result<Self, &'static str> {
        let name = text.strip_prefix("*.").unwrap_or(text);
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        let is_address = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
        if name.is_empty() || !(is_name || is_address) {
            return Err("is no host like chat.example or *.example.com: give it without scheme and port");
        }
        Ok(Self(host_of(text).to_ascii_lowercase()))
    }
}

impl HostPattern {
    fn names(&self, host: &str) -> bool {
        match self.0.strip_prefix('*') {
            Some(domain) => host.len() > domain.len() && host.to_ascii_lowercase().ends_with(domain),
            None => host.eq_ignore_ascii_case(&self.0),
        }
    }
}

impl HostRules {
    /// Whether a request with this `Host` may come in. Numbers always may: no name leads to them.
    #[must_use]
    pub(crate) fn allow(&self, authority: &str) -> bool {
        if self.named.is_empty() && !self.is_development {
            return true;
        }
        let host = host_of(authority);
        let is_local = is_loopback_host(host) || host.to_ascii_lowercase().ends_with(".localhost");
        host.parse::<IpAddr>().is_ok() || is_local || self.named.iter().any(|named| named.names(host))
    }
}

/// Returns the host of a `host:port`, without brackets and without the dot of the root.
fn host_of(authority: &str) -> &str {
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
        for wrong in ["", "*.", "https://a.example", "a.example:80", "a b"] {
            assert!(wrong.parse::<HostPattern>().is_err(), "{wrong}");
        }
    }
}
