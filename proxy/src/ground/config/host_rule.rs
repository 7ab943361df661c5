//! Hosts that requests may address (`--allow-host`).
//!
//! In DNS rebinding, an attacker's host name resolves to this node, so the browser treats page and node as the same
//! origin. The requests still have that host name, so a host list refuses them. A node with the development key is open
//! to the whole machine and always has such a list.

use std::net::IpAddr;

pub use trunkline_protocol::host_pattern::HostPattern;
use trunkline_protocol::host_pattern::host_of;

use crate::ground::net::address::is_loopback_host;

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
