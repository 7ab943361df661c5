//! Flags of the log.

use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};

use crate::logging::LogFormat;

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
