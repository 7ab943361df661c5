//! Command line of the load tester.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use trunkline_protocol::hub::HubProtocol;

/// Load tester with exact numbers for any SignalR server
#[derive(Debug, Parser)]
#[command(name = "trunkline-load", version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) run: Option<RunArguments>,
}

/// Commands other than a run.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make one report of several generators' JSON files
    Merge {
        /// The files, written with --json
        #[arg(required = true)]
        files: Vec<PathBuf>,
        #[command(flatten)]
        outputs: Outputs,
    },
}

/// Outputs of a report in addition to the terminal.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Outputs {
    /// Write the report as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write the report as a page with charts
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct RunArguments {
    /// echo, shared-echo, broadcast, chat, idle, storm, or a profile file (TOML)
    #[arg(required = true)]
    pub(crate) profile: String,
    /// URL of a server; repeatable: all must lead to one hub. A bare number is a port of this machine
    #[arg(short, long = "server", value_name = "URL", required = true)]
    pub(crate) servers: Vec<String>,
    /// Clients for each server
    #[arg(short, long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) clients: u32,
    /// Seconds between ramp-up and ramp-down
    #[arg(short, long, value_name = "S", default_value = "60", value_parser = seconds)]
    pub(crate) run: Duration,
    /// Seconds over which the clients connect
    #[arg(short = 'u', long, value_name = "S", default_value = "10", value_parser = seconds)]
    pub(crate) rampup: Duration,
    /// Seconds over which they leave
    #[arg(short = 'd', long, value_name = "S", default_value = "10", value_parser = seconds)]
    pub(crate) rampdown: Duration,
    /// Milliseconds between two messages; what it means exactly depends on the profile
    #[arg(short, long, value_name = "MS", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    pub(crate) interval: u64,
    /// Number of rooms; clients are distributed round robin
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) groups: u32,
    /// Bytes that fill each message up
    #[arg(long, value_name = "BYTES", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub(crate) payload: u32,
    /// The hub's path, for server URLs without one
    #[arg(long, value_name = "PATH", default_value = "/bench")]
    pub(crate) hub: String,
    /// Hub protocol of all clients
    #[arg(long, value_enum, default_value_t = Protocol::Json)]
    pub(crate) protocol: Protocol,
    /// Transport; sse and long-polling always negotiate, and sse carries json only
    #[arg(long, value_enum, default_value_t = Transport::Websockets)]
    pub(crate) transport: Transport,
    /// Negotiate before connecting, as browsers do
    #[arg(long, overrides_with = "skip")]
    pub(crate) negotiate: bool,
    /// Connect without negotiation, which is the default for websockets
    #[arg(long, overrides_with = "negotiate")]
    pub(crate) skip: bool,
    /// Access token (JWT) of all clients
    #[arg(long, value_name = "JWT", conflicts_with = "access_key")]
    pub(crate) token: Option<String>,
    /// Sign a token for each client (HS256), with the users client-0, client-1 …
    #[arg(long, value_name = "KEY")]
    pub(crate) access_key: Option<String>,
    /// Seconds after which a connect has failed
    #[arg(long, value_name = "S", default_value = "15", value_parser = seconds)]
    pub(crate) connect_timeout: Duration,
    /// Seconds to wait, after the run, for messages that are still on their way
    #[arg(long, value_name = "S", default_value = "5", value_parser = seconds)]
    pub(crate) settle: Duration,
    /// A process of this machine to report memory and CPU time of; repeatable
    #[arg(long = "pid", value_name = "[NAME=]PID")]
    pub(crate) processes: Vec<String>,
    /// URL of a proxy's metrics (http://host:port/metrics): its link bytes are reported; repeatable
    #[arg(long, value_name = "URL")]
    pub(crate) metrics: Vec<String>,
    /// Write the report as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the report as a page with charts
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Encoding of the hub protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    Json,
    Messagepack,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Transport {
    Websockets,
    #[value(name = "sse")]
    ServerSentEvents,
    LongPolling,
}

impl From<Protocol> for HubProtocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Json => Self::Json,
            Protocol::Messagepack => Self::MessagePack,
        }
    }
}

impl RunArguments {
    /// Outputs of the report. (Not flattened, because clap could then not detect whether these arguments are present.)
    pub(crate) fn outputs(&self) -> Outputs {
        Outputs { json: self.json.clone(), html: self.html.clone() }
    }
}

impl Transport {
    /// Name in the official protocol.
    pub(crate) fn official_name(self) -> &'static str {
        match self {
            Self::Websockets => "WebSockets",
            Self::ServerSentEvents => "ServerSentEvents",
            Self::LongPolling => "LongPolling",
        }
    }

    /// Number of sockets per client: receive-only transports need a second one to send.
    pub(crate) fn sockets(self) -> usize {
        match self {
            Self::Websockets => 1,
            Self::ServerSentEvents | Self::LongPolling => 2,
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arguments: &[&str]) -> RunArguments {
        Cli::try_parse_from([&["trunkline-load"], arguments].concat()).unwrap().run.unwrap()
    }

    #[test]
    fn the_known_short_forms_are_taken() {
        let run =
            run(&["chat", "-s", "1", "-s", "2", "-c", "7", "-r", "3", "-u", "1", "-d", "0.5", "-i", "10", "-g", "4"]);
        assert_eq!((run.servers.len(), run.clients, run.groups, run.interval), (2, 7, 4, 10));
        assert_eq!((run.run.as_secs(), run.rampup.as_secs(), run.rampdown.as_millis()), (3, 1, 500));
    }

    #[test]
    fn the_defaults_are_the_published_ones() {
        let run = run(&["echo", "-s", "8080"]);
        assert_eq!((run.clients, run.run.as_secs(), run.rampup.as_secs(), run.rampdown.as_secs()), (5, 60, 10, 10));
        assert_eq!((run.interval, run.groups), (1_000, 1));
        assert_eq!((run.transport, run.negotiate, run.skip), (Transport::Websockets, false, false));
    }

    #[test]
    fn a_server_is_required_and_merging_needs_none() {
        assert!(Cli::try_parse_from(["trunkline-load", "echo"]).is_err());
        let cli = Cli::try_parse_from(["trunkline-load", "merge", "a.json", "b.json", "--html", "c.html"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Merge { files, .. }) if files.len() == 2));
    }
}
