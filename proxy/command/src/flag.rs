//! Flags of `trunkline serve`, and their conversion into settings.
//!
//! Numeric flags and switches are fields of the node's settings (`settings_flag`). Flags with parsed texts are declared
//! here: addresses, files, keys, origins.

mod access_key_args;
mod admin_args;
mod advertised_address;
mod app_key_args;
mod history_args;
mod nats_args;
mod otlp_args;
mod rest_args;
mod serve_args;
mod settings_flag;
mod socket_address;
mod tls_args;
mod token_args;
pub(super) mod value_parser;
mod webhook_args;

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::anyhow;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use trunkline_proxy::parts::{TrustedHeader, shown_url};

use crate::logging::LogFormat;

pub(super) use access_key_args::{AccessKeyArgs, needs_key};
pub(super) use app_key_args::AppKeyList;
pub(super) use nats_args::NatsArgs;
pub(super) use rest_args::audience_host;
pub use serve_args::ServeArgs;

#[derive(Debug, Clone, Args)]
pub(crate) struct LogArgs {
    #[arg(
        help = "Log levels, such as `info`, or for one module, such as `trunkline_proxy=debug`, separated by commas. \
                `PUT /api/log` at the admin port changes the levels of a running node",
        long,
        env = "TRUNKLINE_LOG",
        value_name = "LEVELS",
        default_value = "info"
    )]
    pub log: String,

    #[arg(
        help = "Format of log lines: readable text, or one JSON object per line",
        long,
        env = "TRUNKLINE_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "human"
    )]
    pub log_format: LogFormat,

    /// File for the audit log: one line per act of an operator, with caller, address and act. Without the flag these
    /// lines are in the log, regardless of --log. A new file has the permissions 0600. A line that can't be
    /// written goes to standard error. SIGHUP and SIGUSR1 reopen the file.
    #[arg(long, env = "TRUNKLINE_AUDIT_LOG", value_name = "FILE")]
    pub audit_log: Option<PathBuf>,

    /// Refuse acts of operators that can't be recorded: each act is written to the audit log before it begins.
    #[arg(long, env = "TRUNKLINE_AUDIT_REQUIRED", requires = "audit_log")]
    pub audit_required: bool,
}

impl ValueEnum for LogFormat {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Human, Self::Json]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            Self::Human => "For people",
            Self::Json => "One JSON object in each line",
        };
        Some(PossibleValue::new(self.name()).help(help))
    }
}

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TrustArgs {
    /// Addresses of trusted load balancers, such as `10.0.0.0/8` or `::1`, which may state a client's address. May be
    /// given several times.
    #[arg(long = "trust", env = "TRUNKLINE_TRUST", value_name = "CIDR", value_delimiter = ',')]
    pub trust: Vec<String>,

    /// Trusted headers of these load balancers. Name only headers that your load balancers always overwrite: many pass
    /// on a client's own X-Forwarded-Host, X-Forwarded-Prefix and Forwarded. May be given several times.
    #[arg(long = "trust-headers", env = "TRUNKLINE_TRUST_HEADERS", value_name = "HEADER", value_delimiter = ',',
          default_values = ["for", "proto"], value_parser = header_parser())]
    pub trust_headers: Vec<TrustedHeader>,
}

/// Parses the value of a flag. An error names both, without secrets of a URL.
fn parsed<T: FromStr<Err: Display>>(flag: &str, value: &str) -> anyhow::Result<T> {
    value.parse().map_err(|problem| anyhow!("{flag} {:?} {problem}", shown_url(value)))
}

/// Parses each value of a flag.
fn all_parsed<T: FromStr<Err: Display>>(flag: &str, values: &[String]) -> anyhow::Result<Vec<T>> {
    values.iter().map(|value| parsed(flag, value)).collect()
}

/// Parser of header names, with a help text for each.
fn header_parser() -> impl TypedValueParser<Value = TrustedHeader> {
    let names = TrustedHeader::ALL.map(|header| {
        let help = match header {
            TrustedHeader::For => "X-Forwarded-For: the client's address",
            TrustedHeader::Proto => "X-Forwarded-Proto: the client's scheme",
            TrustedHeader::Host => "X-Forwarded-Host: the requested host",
            TrustedHeader::Prefix => "X-Forwarded-Prefix: the path prefix that the load balancer removed",
            TrustedHeader::Forwarded => "Forwarded (RFC 7239): address, scheme and host, instead of the other headers",
        };
        PossibleValue::new(header.name()).help(help)
    });
    PossibleValuesParser::new(names).try_map(|name| TrustedHeader::named(&name).ok_or("unknown header"))
}
