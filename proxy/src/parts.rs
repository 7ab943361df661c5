//! Parts of a node used by the `trunkline` command. Not part of the public API.

pub use crate::edge::admin::{AUDIT_TARGET, MetricEntry, metric_entries};
pub use crate::edge::observer::{
    AnnouncementReport, ConditionSnapshot, FleetConditions, FleetSnapshot, FleetTimeline, HubSnapshot, ListPage,
    MissingCount, NodeSnapshot, NodeTimeline, PartyChange, PoolSnapshot, Rates, RebalanceReport, RebalanceState,
    RecordReport, RecordRow, RevocationList, RevocationReport, RevokedTokens, StoreSnapshot, TRACE_SECONDS_DEFAULT,
    TRACE_SECONDS_MAX, TimelineMark, TimelineParty, TraceConnectionLine, TraceHeader, TraceHopLine, TraceLine,
    TraceMessageLine, TraceNodeLine, TraceNodeState, UnreachablePeer, WebhookSnapshot, json_line,
};
pub use crate::engine::upstream::Hub;
pub use crate::features::admission::host_of_url;
#[cfg(feature = "nats")]
pub use crate::features::store::check_nats;
pub use crate::features::watch::HubTimes;
pub use crate::fleet::MemberState;
pub use crate::ground::auth::jwks::JwksError;
pub use crate::ground::auth::key::KeyError;
pub use crate::ground::auth::{
    AccessSettings, AccessTables, AdminTokenInForce, AppKey, AppKeySetError, Issuer, JwksSource, TokenPolicy,
    VerifyingKey,
};
pub use crate::ground::clock::unix_seconds;
pub use crate::ground::condition::{CatalogueEntry, Severity, condition_entries};
#[cfg(feature = "otlp")]
pub use crate::ground::config::OtlpSettings;
#[cfg(feature = "tls")]
pub use crate::ground::config::TlsListener;
pub use crate::ground::config::{
    AdminSettings, AdminTokenSource, ConditionReceiver, ConnectItem, DEFAULT_FOLLOW_METHOD, DrainSettings,
    FleetSettings, FrontendLimits, GivenKeys, GroupLimits, HistorySettings, HostPattern, HostRules,
    HttpTransportSettings, LEVELS_MAX_BYTES, LineCounts, LinkSettings, LogLevels, MESSAGE_MAX_BYTES, NEGOTIATE_TIMEOUT,
    NatsCredentials, NatsServer, NatsSettings, OptionGroup, OptionKind, OptionRow, OutboxLimits, PathPrefix,
    PortSharing, ProxyProtocolSettings, RehomeSettings, RelaySettings, RestSettings, SecretFileError, SecretLine,
    SecretSources, TokenKeySources, TrustedHeader, TrustedHeaders, TrustedNetworks, WebhookConnecting, WebhookRule,
    WebhookSecret, WebhookSettings, check_nats_prefix, random_node_name,
};
pub use crate::ground::net::address::{Address, is_loopback_host, shown_url};
pub use crate::ground::net::connector::Connector;
pub use crate::ground::net::descriptor::client_files_max;
pub use crate::ground::net::http_client::{HttpClient, HttpError, read_whole, within};
pub use crate::ground::net::line_stream::{LineStream, LineStreamError};
#[cfg(feature = "tls")]
pub use crate::ground::net::tls::{
    CertificateFault, ClientTls, IdentityFiles, TlsError, TlsProbeError, TlsSeen, probe_tls,
};
pub use crate::ground::routing::{
    NamedFiles, RULE_TABLES, RuleFile, RuleSample, Ruleset, TextPlace, WebhookHeader, nearest,
};
pub use crate::ground::telemetry::SamplingTerms;
pub use crate::node::{Heartbeat, InheritedSockets, StartError};
