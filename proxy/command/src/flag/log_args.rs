//! Flags of the log.

use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};

use crate::logging::LogFormat;

#[derive(Debug, Clone, Args)]
pub(crate) struct LogArgs {
    #[arg(
        help = "What is logged: levels such as `info`, or of a part, such as `trunkline_proxy=debug`, separated by commas. \
              It can be changed while the node runs, by `PUT /api/log` at the admin port",
        long,
        env = "TRUNKLINE_LOG",
        value_name = "LEVELS",
        default_value = "info"
    )]
    pub log: String,

    #[arg(
        help = "What lines of the log look like: for people, or one JSON object each",
        long,
        env = "TRUNKLINE_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "human"
    )]
    pub log_format: LogFormat,

    /// A file to which a line is appended for each act of an operator: who, from where, what. Without it these lines
    /// are in the log, whatever --log says. A new file has the permissions 0600. Where it is a Unix datagram socket,
    /// such as `/dev/log`, each line goes there in the form of syslog. A line that can't be written goes to standard
    /// error. SIGHUP and SIGUSR1 open the file again.
    #[arg(long, env = "TRUNKLINE_AUDIT_LOG", value_name = "FILE")]
    pub audit_log: Option<PathBuf>,

    /// Refuses acts of operators that can't be recorded: each is in the audit log before it begins.
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
