//! Settings of a node, as plain validated values. The command reads them from flags, environment and file.

mod admin_settings;
mod app_server_settings;
mod client_limit;
mod history_settings;
mod listener_settings;
mod nats_settings;
mod node_config;
mod option_group;
mod origin_pattern;
mod secret_source;
mod url_template;
mod webhook_settings;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use trunkline_protocol::id::random_id;
use trunkline_protocol::key::AccessKeys;

use crate::ground::net::address::Address;
use crate::ground::routing::Ruleset;
use crate::ground::telemetry::SamplingTerms;

pub use admin_settings::{AdminSettings, ConditionReceiver, FleetSettings, LEVELS_MAX_BYTES, LogLevels};
pub use app_server_settings::{LinkSettings, RehomeSettings, RelaySettings};
pub use client_limit::{FrontendLimits, GroupLimits, OutboxLimits};
pub use history_settings::{DEFAULT_FOLLOW_METHOD, HistorySettings};
#[cfg(feature = "tls")]
pub use listener_settings::TlsListener;
pub use listener_settings::{
    HttpTransportSettings, PathPrefix, PortSharing, ProxyProtocolSettings, TrustedHeader, TrustedHeaders,
    TrustedNetworks,
};
pub use nats_settings::{NatsCredentials, NatsServer, NatsSettings, check_nats_prefix};
pub use node_config::Config;
#[cfg(feature = "otlp")]
pub use node_config::OtlpSettings;
pub use option_group::{OptionGroup, OptionKind, OptionRow};
pub(crate) use option_group::{OptionValue, settings};
pub(crate) use origin_pattern::Origin;
pub use origin_pattern::{HostPattern, HostRules, OriginPattern};
pub use secret_source::{
    AdminTokenSource, GivenKeys, LineCounts, SecretFileError, SecretLine, SecretSources, TokenKeySources, WebhookSecret,
};
pub(crate) use url_template::{ExpandError, TemplateValues, UrlTemplate};
pub use webhook_settings::{ConnectItem, WebhookConnecting, WebhookRule, WebhookSettings};

/// Timeout of an app's client authorization. Official clients wait for 100 s, people don't.
pub const NEGOTIATE_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum size of a client's message, regardless of a hub's limit.
pub const MESSAGE_MAX_BYTES: usize = 16 * 1024 * 1024;

const RANDOM_NAME_CHARS: usize = 6;

/// Settings shared by all threads of a node.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name of this node in headers, logs and metrics.
    pub node: String,
    /// Access keys shared by all nodes and app servers.
    pub keys: AccessKeys,
    /// Development mode: no access key is configured, so only loopback is trusted.
    pub is_development: bool,
    /// Whether app servers may dial in, and clients may connect through dial-in.
    pub accepts_dial_in: bool,
    /// Whether app servers that dial in from other machines must use encryption.
    pub needs_encrypted_dial_in: bool,
    /// Whether there are app servers to dial.
    pub has_upstreams: bool,
    /// Address at which other nodes reach this node; `None` if unreachable.
    pub advertise: Option<Address>,
    /// Timeout of an app's client authorization.
    pub negotiate_timeout: Duration,
    /// Origins whose pages may connect.
    pub allow_origins: Vec<OriginPattern>,
    /// Hosts that requests may address.
    pub hosts: HostRules,
    /// Whether other nodes may share its ports.
    pub port_sharing: PortSharing,
    /// Load balancers that may report client addresses.
    pub trusted: TrustedNetworks,
    /// Trusted headers of these load balancers.
    pub trusted_headers: TrustedHeaders,
    /// Path prefix that load balancers add.
    pub path_prefix: PathPrefix,
    /// Limits of the client listeners.
    pub limits: FrontendLimits,
    /// PROXY protocol at the client listeners; `None` if disabled.
    pub proxy_protocol: Option<ProxyProtocolSettings>,
    /// Number of links to each app server for each hub.
    pub pool_size: usize,
    /// Number of clients assigned to one link in a row.
    pub pool_turn: usize,
    /// Maximum size of a client's message in bytes.
    pub message_max_bytes: usize,
    /// Limits of pending data to clients.
    pub outbox: OutboxLimits,
    /// Limits of groups and their names.
    pub groups: GroupLimits,
    /// Settings of links to app servers.
    pub links: LinkSettings,
    /// Settings of clients that have lost their app server.
    pub rehoming: RehomeSettings,
    /// Settings of the HTTP transports.
    pub http_transports: HttpTransportSettings,
    /// Settings of requests relayed to app servers and other nodes.
    pub relay: RelaySettings,
    /// Settings of hubs with webhooks instead of app servers.
    pub webhooks: WebhookSettings,
    /// Settings of the fleet.
    pub fleet: FleetSettings,
    /// Settings of the REST data plane.
    pub rest: RestSettings,
    /// Settings of records of groups and users.
    pub history: HistorySettings,
    /// Store in NATS; `None` if what the nodes know ends with the last of them.
    pub nats: Option<NatsSettings>,
    /// Sampling of traces; `None` if disabled.
    pub sampling: Option<SamplingTerms>,
    /// Rules of the operator at startup.
    pub rules: Arc<Ruleset>,
}

impl Settings {
    /// Returns the settings of a node embedded in an app: a single link that can't be lost.
    #[must_use]
    pub fn embedded(keys: AccessKeys, allow_origins: Vec<OriginPattern>, is_development: bool) -> Self {
        Self {
            node: random_node_name(),
            keys,
            is_development,
            accepts_dial_in: false,
            needs_encrypted_dial_in: false,
            has_upstreams: true,
            advertise: None,
            negotiate_timeout: NEGOTIATE_TIMEOUT,
            allow_origins,
            hosts: HostRules { named: Vec::new(), is_development },
            port_sharing: PortSharing::Alone,
            trusted: TrustedNetworks::default(),
            trusted_headers: TrustedHeaders::default(),
            path_prefix: PathPrefix::default(),
            limits: FrontendLimits::default(),
            proxy_protocol: None,
            pool_size: 1,
            pool_turn: 1,
            message_max_bytes: MESSAGE_MAX_BYTES,
            outbox: OutboxLimits::default(),
            groups: GroupLimits::DEFAULT,
            links: LinkSettings::default(),
            rehoming: RehomeSettings::DEFAULT,
            http_transports: HttpTransportSettings::DEFAULT,
            relay: RelaySettings::embedded(),
            webhooks: WebhookSettings::DEFAULT,
            fleet: FleetSettings::default(),
            rest: RestSettings::default(),
            history: HistorySettings::DEFAULT,
            nats: None,
            sampling: None,
            rules: Arc::default(),
        }
    }
}

/// Returns a node name that is very likely unique.
pub fn random_node_name() -> String {
    format!("node-{}", random_id().get(..RANDOM_NAME_CHARS).unwrap_or_default())
}

/// Time at the end of the drain reserved for clients to close: the official server's timeout for a close response.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

settings! {
    /// Timing of a graceful stop.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct DrainSettings {
        /// Time for which a stopping node still accepts clients. During it `/readyz` answers 503, so that load
        /// balancers choose other nodes before clients are refused: give a little more than they need to notice.
        /// Responses close their connections during this time.
        #[flag("drain-grace", Seconds(0..=3600))]
        pub grace: Duration = Duration::ZERO,

        /// Time for clients to leave when the node stops. The node asks them to reconnect one after the other, spread
        /// evenly over most of this time, so that they don't all connect elsewhere together, and each client between
        /// its calls.
        #[flag("drain-timeout", Seconds(0..=3600))]
        pub timeout: Duration = Duration::from_secs(30),
    }
}

impl DrainSettings {
    /// Returns the time over which closes are spread. The last clients need a part of the timeout to disconnect.
    #[must_use]
    pub fn spread(self) -> Duration {
        self.timeout.saturating_sub(CLOSE_TIMEOUT.min(self.timeout / 4))
    }
}

settings! {
    /// Settings of the REST data plane.
    #[derive(Debug, Clone)]
    pub struct RestSettings {
        /// Whether the client ports answer it.
        pub on_client_ports: bool = false,

        /// Address of a port of its own.
        pub listen: Option<SocketAddr> = None,

        /// Maximum body size of a REST request.
        // At most a quarter of a link's maximum frame.
        #[flag("rest-body-max-bytes", Bytes(1024..=4 * 1024 * 1024))]
        // Limit of Azure's service.
        pub body_max_bytes: usize = 1024 * 1024,

        /// Maximum number of concurrent REST requests of this node; further ones get 503 and `Retry-After`.
        #[flag("rest-requests-max", Count(1..=u64::MAX))]
        pub requests_max: NonZeroUsize = NonZeroUsize::new(256).unwrap(),

        /// Maximum number of stored group memberships of users, for their future connections; at most 100 per user.
        /// Further ones get 409.
        #[flag("rest-user-groups-max", Count(0..=u64::MAX))]
        pub user_groups_max: usize = 100_000,

        /// Maximum memory for stored group memberships of users, including requests of app servers that dial in; one
        /// hub can use half of it. Beyond it requests get 409.
        #[flag("rest-user-groups-max-bytes", Bytes(1024..=u64::MAX))]
        // About 600 bytes per membership.
        pub user_groups_max_bytes: usize = 64 * 1024 * 1024,

        /// Accepted hosts in the audience of a token. Empty accepts any host.
        pub audience_hosts: Vec<String> = Vec::new(),
    }
}

impl RestSettings {
    pub(crate) fn is_on(&self) -> bool {
        self.on_client_ports || self.listen.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_node_names_differ_and_fit_a_header() {
        let (one, other) = (random_node_name(), random_node_name());
        assert_ne!(one, other);
        assert_eq!(one.len(), "node-".len() + RANDOM_NAME_CHARS);
        assert!(one.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{one}");
    }

    #[test]
    fn the_last_clients_have_some_time_to_disconnect() {
        let spread = |seconds| DrainSettings { grace: Duration::ZERO, timeout: Duration::from_secs(seconds) }.spread();
        assert_eq!(spread(30), Duration::from_secs(25));
        assert_eq!(spread(4), Duration::from_secs(3));
        assert_eq!(spread(0), Duration::ZERO);
    }
}
