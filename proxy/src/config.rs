//! Settings: what a node was told to be, checked. What is typed for it stands in `args`.

#[cfg(feature = "cli")]
mod advertise;
#[cfg(feature = "cli")]
mod args;
mod relay;

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use trunkline_protocol::id::random_id;
use trunkline_protocol::key::AccessKeys;

#[cfg(feature = "cli")]
pub use advertise::AdvertiseError;
#[cfg(feature = "cli")]
pub use args::{ConfigError, ServeArgs};
#[cfg(feature = "cli")]
pub use relay::RelayArgs;
pub use relay::RelaySettings;

/// What may wait for one client: some seconds of a busy hub, and little enough for thousands of slow ones.
pub(crate) const OUTBOX_MAX_BYTES: usize = 4 * 1024 * 1024;

/// What may wait for one link before its clients are read no further: some milliseconds of a busy link. More would only
/// be more that is under way when the app server asks for a client to be paused.
pub(crate) const LINK_OUTBOX_MAX_BYTES: usize = 1024 * 1024;

/// Largest message of a client, whatever a hub allows.
pub(crate) const MESSAGE_MAX_BYTES: usize = 16 * 1024 * 1024;

/// What a node needs to run on its own.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where health, counters and metrics are served.
    pub admin: SocketAddr,
    /// App servers, `host:port`.
    pub upstreams: Vec<String>,
    /// Threads that serve clients.
    pub shards: u16,
    /// How long clients may take to leave when the node stops.
    pub drain_timeout: Duration,
    /// What all its threads go by.
    pub settings: Settings,
}

/// What all threads of a node go by.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The name of this node.
    pub node: String,
    /// The fleet's keys.
    pub keys: AccessKeys,
    /// Without a key of its own the node trusts this machine, and nobody else.
    pub is_development: bool,
    /// Where other nodes reach this one.
    pub advertise: String,
    /// Origins whose pages may connect.
    pub allow_origins: Vec<String>,
    /// Links to each app server for each hub.
    pub pool_size: usize,
    /// Largest message of a client.
    pub message_max_bytes: usize,
    /// What may wait for one client.
    pub outbox_max_bytes: usize,
    /// What may wait for one link.
    pub link_outbox_max_bytes: usize,
    /// How requests are carried on to app servers and to other nodes.
    pub relay: RelaySettings,
}

impl Settings {
    /// Those of a node inside an app: one link, which can't be lost.
    #[must_use]
    pub fn embedded(keys: AccessKeys, allow_origins: Vec<String>, is_development: bool) -> Self {
        Self {
            node: random_node_name(),
            keys,
            is_development,
            advertise: String::new(),
            allow_origins,
            pool_size: 1,
            message_max_bytes: MESSAGE_MAX_BYTES,
            outbox_max_bytes: OUTBOX_MAX_BYTES,
            link_outbox_max_bytes: LINK_OUTBOX_MAX_BYTES,
            relay: RelaySettings::embedded(),
        }
    }
}

fn random_node_name() -> String {
    format!("node-{}", random_id().get(..6).unwrap_or_default())
}

/// Seconds since 1970 by the system's clock, for tokens that other machines read.
#[must_use]
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Whether a `host`, `host:port` or `[host]:port` is this machine, without asking anybody.
#[must_use]
pub fn is_loopback_host(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        _ if authority.parse::<std::net::Ipv6Addr>().is_ok() => authority,
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_hosts_are_known_by_name_and_by_number() {
        for host in ["localhost", "LOCALHOST:80", "127.8.9.1:5", "[::1]:80", "::1"] {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in ["example.org", "10.0.0.1:80", "localhost.example.org"] {
            assert!(!is_loopback_host(host), "{host}");
        }
    }
}
