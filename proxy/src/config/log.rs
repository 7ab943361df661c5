//! What is logged, and how lines look.

use crate::logging::LogFormat;

/// What of this is typed.
#[derive(Debug, Clone, clap::Args)]
pub struct LogArgs {
    /// What is logged: levels such as `info`, or of a part, such as `trunkline_proxy=debug`, separated by commas. It can be
    /// changed while the node runs, by `PUT /api/log` at the admin port.
    #[arg(long, env = "TRUNKLINE_LOG", value_name = "LEVELS", default_value = "info")]
    pub log: String,

    /// What lines of the log look like: for people, or one JSON object each.
    #[arg(long, env = "TRUNKLINE_LOG_FORMAT", value_name = "FORMAT", default_value = "human")]
    pub log_format: LogFormat,
}
