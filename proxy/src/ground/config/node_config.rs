//! Configuration of a node that runs as its own process: its settings, and what only its start needs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

#[cfg(feature = "otlp")]
use http::{HeaderName, HeaderValue};

#[cfg(feature = "tls")]
use super::TlsListener;
use super::{AdminSettings, DrainSettings, SecretSources, Settings};
use crate::ground::auth::AccessSettings;
use crate::ground::net::address::Address;
use crate::ground::net::resolver::Resolver;
#[cfg(feature = "tls")]
use crate::ground::net::tls::ClientTls;

/// Configuration of a node that runs as its own process.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address of the plain client listener.
    pub listen: SocketAddr,
    /// Client listener with TLS.
    #[cfg(feature = "tls")]
    pub tls_listen: Option<TlsListener>,
    /// Address of the admin port: health, metrics and the observer page.
    pub admin: SocketAddr,
    /// Access to the admin port, and the other nodes that it shows.
    pub observer: AdminSettings,
    /// Addresses of app servers, or DNS names that resolve to them.
    pub upstreams: Vec<Address>,
    /// Interval between DNS lookups of app servers; zero disables them.
    pub resolve_interval: Duration,
    /// Resolver of upstream names.
    pub resolver: Resolver,
    /// TLS towards app servers and other nodes.
    #[cfg(feature = "tls")]
    pub upstream_tls: ClientTls,
    /// TLS towards token issuers. They are third parties, so this node sends no client certificate.
    #[cfg(feature = "tls")]
    pub issuer_tls: ClientTls,
    /// Number of shards: threads that serve clients.
    pub shards: u16,
    /// Timing of a graceful stop.
    pub drain: DrainSettings,
    /// Export to an OpenTelemetry collector; `None` if disabled.
    #[cfg(feature = "otlp")]
    pub otlp: Option<OtlpSettings>,
    /// File with rules, reloaded on change.
    pub rules_file: Option<PathBuf>,
    /// Keys and secrets outside that file. Their own files are also reloaded.
    pub key_sources: SecretSources,
    /// Keys and tokens that the node accepts, in addition to its access keys.
    pub access: AccessSettings,
    /// Settings shared by all threads.
    pub settings: Settings,
}

/// Settings of the export to an OpenTelemetry collector.
#[cfg(feature = "otlp")]
#[derive(Debug, Clone)]
pub struct OtlpSettings {
    /// Collector that accepts OTLP over HTTP.
    pub address: Address,
    /// Path before `/v1/traces`, without a trailing slash; usually empty.
    pub path: String,
    /// Headers of each request, such as an API key of a hosted collector.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Interval between metric exports; `None` disables them.
    pub metrics_interval: Option<Duration>,
    /// TLS towards the collector.
    #[cfg(feature = "tls")]
    pub tls: ClientTls,
}
