//! Flags of `trunkline serve`: clap's structures, one per topic, and their conversion into settings.
//!
//! Help texts, names of flags and of environment variables stand here and nowhere else.

mod access_key_args;
mod admin_args;
mod advertised_address;
mod config_error;
mod discovery_args;
mod drain_args;
mod group_args;
mod http_transport_args;
mod limit_args;
mod link_args;
mod log_args;
mod otlp_args;
mod outbox_args;
mod path_prefix_args;
mod proxy_protocol_args;
mod rehome_args;
mod relay_args;
mod rest_args;
mod serve_args;
mod socket_address;
mod tls_args;
mod token_args;
mod trust_args;
pub(super) mod value_parser;
mod webhook_args;

pub(super) use access_key_args::AccessKeyArgs;
pub(super) use config_error::ConfigError;
pub(super) use rest_args::audience_host;
pub use serve_args::ServeArgs;
