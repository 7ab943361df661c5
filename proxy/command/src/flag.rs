//! Flags of `trunkline serve`, and their conversion into settings.
//!
//! Numeric flags and switches are fields of the node's settings (`settings_flag`). Flags with parsed texts are declared
//! here: addresses, files, keys, origins.

mod access_key_args;
mod admin_args;
mod advertised_address;
mod app_key_args;
mod config_error;
mod log_args;
mod nats_args;
mod otlp_args;
mod proxy_protocol_args;
mod rest_args;
mod serve_args;
mod settings_flag;
mod socket_address;
mod tls_args;
mod token_args;
mod trust_args;
pub(super) mod value_parser;
mod webhook_args;

pub(super) use access_key_args::AccessKeyArgs;
pub(super) use app_key_args::AppKeyList;
pub(super) use config_error::ConfigError;
pub(super) use nats_args::{NatsArgs, NatsArgsError};
pub(super) use rest_args::audience_host;
pub use serve_args::ServeArgs;
