//! Parts of a node used by the `trunkline` command. Not part of the public API.

pub use crate::admin::{AUDIT_TARGET, MetricEntry, metric_entries};
pub use crate::admission::host_of_url;
pub use crate::auth::jwks::{JwksError, JwksSourceError};
pub use crate::auth::key::KeyError;
pub use crate::auth::{
    AccessSettings, AccessTables, AdminTokenInForce, AppKey, AppKeyError, AppKeySetError, Issuer, JwksSource,
    TokenPolicy, VerifyingKey,
};
pub use crate::clock::unix_seconds;
pub use crate::condition::{CatalogueEntry, Severity, condition_entries};
#[cfg(feature = "otlp")]
pub use crate::config::OtlpSettings;
#[cfg(feature = "tls")]
pub use crate::config::TlsListener;
pub use crate::config::{
    AdminSettings, AdminTokenSource, AmbiguousHeaders, ConditionReceiver, ConnectItem, ConnectItemError, DrainSettings,
    FleetSettings, FrontendLimits, GivenKeys, GroupLimits, HostPattern, HostRules, HttpTransportSettings,
    LEVELS_MAX_BYTES, LineCounts, LinkSettings, LogLevels, MESSAGE_MAX_BYTES, NEGOTIATE_TIMEOUT, NatsCredentials,
    NatsServer, NatsSettings, NetworkError, OptionGroup, OptionKind, OptionRow, OutboxLimits, PathPrefix,
    PathPrefixError, PortSharing, ProxyProtocolSettings, RehomeSettings, RelaySettings, RestSettings, SecretFileError,
    SecretLine, SecretSources, TokenKeySources, TrustedHeader, TrustedHeaders, TrustedNetworks, WebhookConnecting,
    WebhookRule, WebhookSecret, WebhookSecretError, WebhookSettings, WebhookTableError, check_nats_prefix,
    random_node_name,
};
pub use crate::fleet::MemberState;
pub use crate::net::address::{Address, is_loopback_host, shown_url};
pub use crate::net::connector::Connector;
pub use crate::net::descriptor::client_files_max;
pub use crate::net::http_client::{HttpClient, HttpError, read_whole, within};
pub use crate::net::line_stream::{LineStream, LineStreamError};
#[cfg(feature = "tls")]
pub use crate::net::tls::{CertificateFault, ClientTls, IdentityFiles, TlsError, TlsProbeError, TlsSeen, probe_tls};
pub use crate::node::{Heartbeat, InheritedSockets, StartError};
pub use crate::observer::{
    AnnouncementReport, ConditionSnapshot, FleetConditions, FleetSnapshot, FleetTimeline, HubSnapshot, MissingCount,
    NodeSnapshot, NodeTimeline, PartyChange, PoolSnapshot, Rates, RebalanceReport, RebalanceState, RevocationList,
    RevocationReport, RevokedTokens, StoreSnapshot, TRACE_SECONDS_DEFAULT, TRACE_SECONDS_MAX, TimelineMark,
    TimelineParty, TraceConnectionLine, TraceHeader, TraceHopLine, TraceLine, TraceMessageLine, TraceNodeLine,
    TraceNodeState, UnreachablePeer, WebhookSnapshot, json_line,
};
pub use crate::routing::{
    NamedFiles, RULE_TABLES, RuleFile, RuleSample, Ruleset, TextPlace, WebhookHeader, WebhookHeaderError, nearest,
};
#[cfg(feature = "nats")]
pub use crate::store::check_nats;
pub use crate::telemetry::SamplingTerms;
pub use crate::upstream::Hub;
pub use crate::watch::HubTimes;
