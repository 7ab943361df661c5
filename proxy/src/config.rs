//! Settings: what a node was told to be, checked. What is typed for it stands in `args`.

mod address;
mod admin;
#[cfg(feature = "cli")]
mod advertise;
#[cfg(feature = "cli")]
mod args;
#[cfg(feature = "cli")]
mod carried;
#[cfg(feature = "cli")]
mod discovery;
mod drain;
#[cfg(feature = "cli")]
mod file;
mod homes;
mod limits;
mod links;
#[cfg(feature = "cli")]
mod log;
mod origin;
mod outbox;
mod path_prefix;
mod proxy_protocol;
mod relay;
mod resolver;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "cli")]
mod tokens;
mod trust;

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use trunkline_protocol::id::random_id;
use trunkline_protocol::key::AccessKeys;

use crate::auth::TokenPolicy;

pub(crate) use address::Address;
#[cfg(feature = "cli")]
pub(crate) use admin::{AdminArgs, AdminArgsError};
pub(crate) use admin::{AdminSettings, AdminToken};
#[cfg(feature = "cli")]
pub(crate) use advertise::AdvertiseError;
#[cfg(feature = "cli")]
pub use args::ServeArgs;
#[cfg(feature = "cli")]
pub(crate) use drain::DrainArgs;
pub(crate) use drain::DrainSettings;
#[cfg(feature = "fuzzing")]
pub(crate) use file::with_text;
#[cfg(feature = "cli")]
pub(crate) use file::{WithFile, with_file};
#[cfg(feature = "cli")]
pub(crate) use homes::HomeArgs;
pub(crate) use homes::HomeSettings;
#[cfg(feature = "cli")]
pub(crate) use limits::LimitArgs;
pub(crate) use limits::Limits;
#[cfg(feature = "cli")]
pub(crate) use links::LinkArgs;
pub(crate) use links::LinkSettings;
#[cfg(feature = "cli")]
pub(crate) use log::LogArgs;
pub(crate) use origin::Origin;
pub use origin::{OriginError, OriginPattern};
#[cfg(feature = "cli")]
pub(crate) use outbox::OutboxArgs;
pub(crate) use outbox::OutboxLimits;
pub(crate) use path_prefix::PathPrefix;
#[cfg(feature = "cli")]
pub(crate) use path_prefix::PathPrefixArgs;
pub(crate) use proxy_protocol::ProxyProtocol;
#[cfg(feature = "cli")]
pub(crate) use proxy_protocol::{NobodyTrusted, ProxyProtocolArgs};
#[cfg(feature = "cli")]
pub(crate) use relay::RelayArgs;
pub(crate) use relay::RelaySettings;
#[cfg(feature = "cli")]
pub use resolver::Resolver;
#[cfg(not(feature = "cli"))]
pub(crate) use resolver::Resolver;
#[cfg(feature = "tls")]
pub(crate) use tls::{ClientTls, IdentityFiles, TlsListen};
#[cfg(feature = "cli")]
pub(crate) use tls::{TlsArgs, TlsArgsError};
#[cfg(feature = "cli")]
pub(crate) use trust::TrustArgs;
pub(crate) use trust::Trusted;

/// How long an app may take to decide about a client: official clients wait for 100 s, people don't.
pub(crate) const NEGOTIATE_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest message of a client, whatever a hub allows.
pub(crate) const MESSAGE_MAX_BYTES: usize = 16 * 1024 * 1024;

/// What a node needs to run on its own.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address of the plain client listener.
    pub listen: SocketAddr,
    /// Where clients connect with TLS.
    #[cfg(feature = "tls")]
    pub tls_listen: Option<TlsListen>,
    /// Where health, metrics and the observer page are served.
    pub admin: SocketAddr,
    /// Who may do what there, and which other nodes are shown.
    pub observer: AdminSettings,
    /// Addresses of the app servers, or names that resolve to them.
    pub upstreams: Vec<Address>,
    /// How often their names are resolved again; zero: never.
    pub resolve_interval: Duration,
    /// How that is done.
    pub resolver: Resolver,
    /// TLS towards app servers and other nodes.
    #[cfg(feature = "tls")]
    pub upstream_tls: ClientTls,
    /// TLS towards issuers of access tokens, who are strangers: this node doesn't show them who it is.
    #[cfg(feature = "tls")]
    pub issuer_tls: ClientTls,
    /// Threads that serve clients.
    pub shards: u16,
    /// Timing of a graceful stop.
    pub drain: DrainSettings,
    /// What all its threads go by.
    pub settings: Settings,
}

/// What all threads of a node go by.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The name of this node.
    pub node: String,
    /// Access keys shared by all nodes and app servers.
    pub keys: AccessKeys,
    /// Without a key of its own the node trusts this machine, and nobody else.
    pub is_development: bool,
    /// Where other nodes reach this one; `None`: nowhere.
    pub advertise: Option<Address>,
    /// What is asked of the access tokens of users.
    pub tokens: TokenPolicy,
    /// How long an app may take to decide about a client.
    pub negotiate_timeout: Duration,
    /// Origins whose pages may connect.
    pub allow_origins: Vec<OriginPattern>,
    /// Whose word about a client's address is taken.
    pub trusted: Trusted,
    /// What load balancers put in front of paths.
    pub path_prefix: PathPrefix,
    /// Limits of the front door.
    pub limits: Limits,
    /// Whose connections begin with a PROXY protocol header; `None`: nobody's.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Links to each app server for each hub.
    pub pool_size: usize,
    /// Largest message of a client.
    pub message_max_bytes: usize,
    /// What may wait for clients.
    pub outbox: OutboxLimits,
    /// What links go by.
    pub links: LinkSettings,
    /// For clients whose app server is gone.
    pub homes: HomeSettings,
    /// For connections that are carried by requests.
    pub carried: CarriedSettings,
    /// How requests are carried on to app servers and to other nodes.
    pub relay: RelaySettings,
}

/// What Server-Sent Events and long polling go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CarriedSettings {
    /// How long a poll waits for messages.
    pub poll_timeout: Duration,
    /// How long a client may be without a GET, in ticks of a second.
    pub disconnect_timeout_s: u32,
}

impl CarriedSettings {
    /// Those of the official server.
    pub const DEFAULT: Self = Self { poll_timeout: Duration::from_secs(90), disconnect_timeout_s: 15 };
}

impl Settings {
    /// Those of a node inside an app: one link, which can't be lost.
    #[must_use]
    pub fn embedded(keys: AccessKeys, allow_origins: Vec<OriginPattern>, is_development: bool) -> Self {
        Self {
            node: random_node_name(),
            keys,
            is_development,
            advertise: None,
            tokens: TokenPolicy::default(),
            negotiate_timeout: NEGOTIATE_TIMEOUT,
            allow_origins,
            trusted: Trusted::default(),
            path_prefix: PathPrefix::default(),
            limits: Limits::default(),
            proxy_protocol: None,
            pool_size: 1,
            message_max_bytes: MESSAGE_MAX_BYTES,
            outbox: OutboxLimits::default(),
            links: LinkSettings::default(),
            homes: HomeSettings::DEFAULT,
            carried: CarriedSettings::DEFAULT,
            relay: RelaySettings::embedded(),
        }
    }
}

fn random_node_name() -> String {
    format!("node-{}", random_id().get(..6).unwrap_or_default())
}

/// Seconds since 1970 by the system's clock, for tokens that other machines read.
#[must_use]
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Whether a `host`, `host:port` or `[host]:port` is this machine, without asking anybody.
#[must_use]
pub(crate) fn is_loopback_host(authority: &str) -> bool {
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
