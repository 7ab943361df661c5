//! Errors in flags, each with the name of its flag.

use trunkline_protocol::development_key::DevelopmentKeyError;
use trunkline_protocol::key::AccessKeyError;
use trunkline_proxy::OriginError;
use trunkline_proxy::parts::{
    AmbiguousHeaders, AppKeyError, AppKeySetError, NetworkError, PathPrefixError, SecretFileError, WebhookHeaderError,
    WebhookSecretError, shown_url,
};

use super::admin_args::AdminArgsError;
use super::advertised_address::AdvertiseError;
use super::nats_args::NatsArgsError;
use super::otlp_args::OtlpArgsError;
use super::proxy_protocol_args::NobodyTrusted;
use super::tls_args::TlsArgsError;
use super::token_args::TokenArgsError;

/// Error for invalid flags. The text names the flag.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    #[error(
        "{flag} {:?} is not an address ({reason}): write 127.0.0.1:8080 or node-1:8080, for example, or :8080 for \
         every address of this machine",
        shown_url(value)
    )]
    Address { flag: &'static str, value: String, reason: std::io::Error },
    #[error("--share-port works only on Unix; omit it, or use a load balancer")]
    SharePort,
    #[error("--upstream {:?} {problem}", shown_url(value))]
    Upstream { value: String, problem: &'static str },
    #[error("--upstream-webhook {:?}: {problem}", shown_url(value))]
    Webhook { value: String, problem: String },
    #[error("--webhook-secret: {0}")]
    WebhookSecret(WebhookSecretError),
    #[error("--webhook-header number {number}: {problem}")]
    WebhookHeader { number: usize, problem: WebhookHeaderError },
    #[error(transparent)]
    SecretFile(#[from] SecretFileError),
    #[error("--access-key: {0}")]
    Key(#[from] AccessKeyError),
    #[error("--app-key: {0}")]
    AppKey(AppKeyError),
    #[error(transparent)]
    AppKeySet(#[from] AppKeySetError),
    #[error(
        "apps have their own keys, so the fleet needs an access key, too: make one by `trunkline token key`, and give \
         it only to the nodes, by --access-key-file or TRUNKLINE_ACCESS_KEY"
    )]
    AppKeysAlone,
    #[error(
        "{what} is not on this machine, so an access key is needed: make one by `trunkline token key`, and give it to \
         this node and the app servers by --access-key or TRUNKLINE_ACCESS_KEY"
    )]
    NoKey { what: String },
    #[error(transparent)]
    DevelopmentKey(#[from] DevelopmentKeyError),
    #[error(transparent)]
    Tokens(#[from] TokenArgsError),
    #[error("--allow-origin {value:?} {source}")]
    Origin { value: String, source: OriginError },
    #[error("--allow-host {value:?} {problem}")]
    Host { value: String, problem: &'static str },
    #[error("--node-name {0:?} may hold only letters, digits, '-', '_' and '.'")]
    NodeName(String),
    #[error("--trust {0}")]
    Trust(NetworkError),
    #[error("--trust-headers {0}")]
    TrustHeaders(#[from] AmbiguousHeaders),
    #[error("--path-prefix {0}")]
    PathPrefix(PathPrefixError),
    #[error(transparent)]
    ProxyProtocol(#[from] NobodyTrusted),
    #[error(transparent)]
    Tls(#[from] TlsArgsError),
    #[error(transparent)]
    Admin(#[from] AdminArgsError),
    #[error(transparent)]
    Otlp(#[from] OtlpArgsError),
    #[error(transparent)]
    Nats(#[from] NatsArgsError),
    #[error(transparent)]
    Advertise(#[from] AdvertiseError),
    #[error(transparent)]
    Rules(Box<dyn std::error::Error + Send + Sync>),
}
