#![forbid(unsafe_code)]
//! The `trunkline` command: its subcommands, flags and configuration file. The node run by `trunkline serve` is a
//! separate crate; the other commands query running nodes or work offline.
//!
//! Modules, lowest first; a module never imports a higher one:
//!
//! | module | contents |
//! |---|---|
//! | `quantity` | durations, sizes and counts in human-readable form |
//! | `shown_text` | sanitising external texts for a terminal |
//! | `logging` | log lines and levels |
//! | `output` | messages on the standard streams |
//! | `text_table` | tables for the terminal |
//! | `runtime` | the async runtime of commands |
//! | `stop_signal` | signals that end a command |
//! | `supervisor` | systemd: sockets, readiness, the watchdog |
//! | `flag` | flags of `serve`, and their conversion into settings |
//! | `setting_source` | sources of settings, and their common value syntax |
//! | `settings_loader` | settings of environment and configuration file, which are defaults of the flags |
//! | `exposed_secret` | warnings about secrets on the command line, and in files that others can read |
//! | `admin_client` | admin ports of nodes: flags, requests, answers |
//! | `announce_command` | `trunkline announce` |
//! | `check_command` | `trunkline check` |
//! | `completion_command` | `trunkline completions` |
//! | `connection_string_command` | `trunkline connection-string` |
//! | `doctor_command` | `trunkline doctor` |
//! | `health_command` | `trunkline health` |
//! | `init_command` | `trunkline init` |
//! | `manual_command` | `trunkline man` |
//! | `new_command` | `trunkline new` |
//! | `rebalance_command` | `trunkline rebalance` |
//! | `records_command` | `trunkline records` |
//! | `revoke_command` | `trunkline revoke` |
//! | `serve_command` | `trunkline serve` |
//! | `size_command` | `trunkline size` |
//! | `token_command` | `trunkline token` |
//! | `top_command` | `trunkline top` |
//! | `trace_command` | `trunkline trace` |
//! | `fuzzing` | entry points of file parsers, for fuzz targets |

mod admin_client;
mod announce_command;
mod check_command;
mod completion_command;
mod connection_string_command;
mod doctor_command;
mod exposed_secret;
mod flag;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod health_command;
mod init_command;
mod logging;
mod manual_command;
mod new_command;
mod output;
mod quantity;
mod rebalance_command;
mod records_command;
mod revoke_command;
mod runtime;
mod serve_command;
mod setting_source;
mod settings_loader;
mod shown_text;
mod size_command;
mod stop_signal;
mod supervisor;
mod text_table;
mod token_command;
mod top_command;
mod trace_command;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{ArgMatches, Command, CommandFactory, FromArgMatches, Parser, Subcommand};
use tracing::Level;

use announce_command::AnnounceArgs;
use check_command::CheckArgs;
use completion_command::CompletionArgs;
use connection_string_command::ConnectionStringArgs;
use doctor_command::DoctorArgs;
pub use flag::ServeArgs;
use health_command::HealthArgs;
use init_command::InitArgs;
use logging::{LogFormat, formatted, set_format};
use manual_command::ManualArgs;
use new_command::NewArgs;
use output::{print, print_error, print_warning, text_with_causes};
use rebalance_command::RebalanceArgs;
use records_command::RecordsArgs;
use revoke_command::RevokeArgs;
use runtime::runtime;
use setting_source::{Environment, Sources, cleaned_line};
use settings_loader::{config_file, load};
use size_command::SizeArgs;
use token_command::TokenCommand;
use top_command::TopArgs;
use trace_command::TraceArgs;

/// Version, commit and target of the build, as set by the build script.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("TRUNKLINE_BUILD"), ")");

const NODE_COMMANDS: [&str; 2] = ["serve", "connection-string"];

/// An open-source, self-hosted proxy tier for SignalR.
///
/// Proxies hold the connections of SignalR clients, and forward messages over a few links to app servers: Rust apps
/// with the Trunkline SDK, ASP.NET Core apps with the Azure SignalR package (see `trunkline connection-string`), and
/// services in any language by webhooks (see `--upstream-webhook`). Without Redis or sticky sessions.
#[derive(Debug, Parser)]
#[command(name = "trunkline", version = VERSION)]
struct Cli {
    #[command(subcommand)]
    command: CliCommand,
}

#[derive(Debug, Subcommand)]
enum CliCommand {
    /// Run a proxy node.
    Serve(Box<ServeArgs>),
    /// Write a configuration file with every option as a comment.
    Init(InitArgs),
    /// Write a new app: a hub with the SDK, its page, its tests, and a compose file.
    New(NewArgs),
    /// Check a configuration file, and print its rules and the settings of `serve --config FILE`, without secrets.
    Check(CheckArgs),
    /// Check whether a node accepts clients. The exit status is 0 if it does.
    Health(HealthArgs),
    /// Connect to a running fleet like a client, over each transport, and print problems with their remedies.
    Doctor(Box<DoctorArgs>),
    /// Compute the number of nodes for a number of clients and messages, and the resources of each.
    Size(SizeArgs),
    /// Show nodes in the terminal: clients, links, rates, CPU and memory. Ctrl-C stops it.
    Top(TopArgs),
    /// Send a message to clients of a hub, at all nodes of a fleet.
    Announce(AnnounceArgs),
    /// Revoke access tokens at all nodes of a fleet: of a user, of an audience, of an app, or all.
    Revoke(RevokeArgs),
    /// List the records of a hub's groups and users, and finish or delete one.
    Records(RecordsArgs),
    /// Move clients away from nodes that have more than others. Ctrl-C stops it.
    Rebalance(RebalanceArgs),
    /// Show live messages with the time of each hop: of a connection, a user, a group or a method, at all nodes.
    Trace(TraceArgs),
    /// Print the connection string for an ASP.NET Core app with the Azure SignalR package.
    ConnectionString(Box<ConnectionStringArgs>),
    /// Make keys and tokens.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Print completions for a shell.
    Completions(CompletionArgs),
    /// Print the manual page of the command, or of a subcommand.
    Man(ManualArgs),
}

/// Runs the command line of this process, and prints the error if it fails.
#[must_use]
pub fn main() -> ExitCode {
    let status = status_of(run());
    logging::flush();
    status
}

/// Exit status of a run. Prints its error.
fn status_of(run: anyhow::Result<()>) -> ExitCode {
    match run {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let Some(usage) = error.downcast_ref::<clap::Error>() else {
                print_error(&text_with_causes(&error));
                return ExitCode::FAILURE;
            };
            print_error(&usage.to_string());
            u8::try_from(usage.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
        }
    }
}

fn run() -> anyhow::Result<()> {
    let (cli, warnings, sources) = parse()?;
    execute(cli, &warnings).map_err(|error| anyhow::Error::msg(sources.named_in(&text_with_causes(&error))))
}

fn execute(cli: Cli, warnings: &[String]) -> anyhow::Result<()> {
    if !matches!(cli.command, CliCommand::Serve(_)) {
        warnings.iter().for_each(|warning| print_warning(warning));
    }
    match cli.command {
        CliCommand::Serve(args) => serve_command::serve(*args, warnings)?,
        CliCommand::Init(args) => print(init_command::init(&args)?.trim_end()),
        CliCommand::New(args) => print(&new_command::new_app(&args)?),
        CliCommand::Check(args) => {
            let report = check_command::check(args, &Environment::of_process(), &Cli::command())?;
            report.warnings.iter().for_each(|warning| print_warning(warning));
            print(report.text.trim_end());
        }
        CliCommand::Health(args) => print(runtime()?.block_on(health_command::health(&args))?.trim_end()),
        CliCommand::Doctor(args) => runtime()?.block_on(doctor_command::doctor(&args))?,
        CliCommand::Size(args) => print(size_command::size(&args)?.trim_end()),
        CliCommand::Top(args) => runtime()?.block_on(top_command::top(&args))?,
        CliCommand::Announce(args) => print(&runtime()?.block_on(announce_command::announce(&args))?),
        CliCommand::Revoke(args) => print(&runtime()?.block_on(revoke_command::revoke(&args))?),
        CliCommand::Records(args) => print(&runtime()?.block_on(records_command::records(&args))?),
        CliCommand::Rebalance(args) => runtime()?.block_on(rebalance_command::rebalance(&args))?,
        CliCommand::Trace(args) => runtime()?.block_on(trace_command::trace(&args))?,
        CliCommand::ConnectionString(args) => connection_string_command::connection_string(*args)?,
        CliCommand::Token(command) => token_command::token(command)?,
        CliCommand::Completions(args) => print(completion_command::completions(&args, Cli::command()).trim_end()),
        CliCommand::Man(args) => print(manual_command::manual(&args, Cli::command())?.trim_end()),
    }
    Ok(())
}

/// Returns the command line with warnings. Environment and file come first: they set the flags' defaults.
fn parse() -> anyhow::Result<(Cli, Vec<String>, Sources)> {
    let (plain, environment) = (Cli::command(), Environment::of_process());
    let line = cleaned_line(&plain, std::env::args_os());
    begin_format(&plain, &line);
    // This draft ignores errors, because it only finds typed flags. The real parsing follows below.
    let draft = without_environment(plain.clone()).ignore_errors(true).try_get_matches_from(&line);
    let mut sources = Sources::default();
    let command = match draft {
        Ok(typed) => with_settings(plain.clone(), &typed, &environment, &mut sources)?,
        // For the help, which lists the variables.
        Err(_) => plain.clone(),
    };
    begin_format(&command, &line);
    let matches = command.try_get_matches_from(&line).map_err(usage_error)?;
    let mut warnings = exposed_secret::warnings(&plain, &matches, &sources);
    if matches.subcommand_name().is_some_and(|name| NODE_COMMANDS.contains(&name)) {
        warnings.extend(environment.warnings(&plain));
    }
    Ok((Cli::from_arg_matches(&matches).map_err(usage_error)?, warnings, sources))
}

/// From now on prints a node's errors in its log format, even if other flags are invalid.
fn begin_format(command: &Command, line: &[OsString]) {
    let draft = command.clone().ignore_errors(true).try_get_matches_from(line);
    let draft = draft.as_ref().ok().and_then(ArgMatches::subcommand);
    if let Some((name, flags)) = draft
        && NODE_COMMANDS.contains(&name)
        && let Ok(Some(format)) = flags.try_get_one::<LogFormat>("log_format")
    {
        set_format(*format);
    }
}

fn without_environment(command: Command) -> Command {
    command.mut_args(|arg| arg.env(None)).mut_subcommands(without_environment)
}

fn with_settings(
    command: Command,
    typed: &ArgMatches,
    environment: &Environment,
    sources: &mut Sources,
) -> anyhow::Result<Command> {
    let below = typed.subcommand().and_then(|(name, typed)| Some((command.find_subcommand(name)?.clone(), typed)));
    if let Some((below, typed)) = below {
        let below = with_settings(below, typed, environment, sources)?;
        let name = below.get_name().to_owned();
        return Ok(command.mut_subcommand(name, |_| below));
    }
    let file = config_file(&command, typed, environment);
    let loaded = load(command, Some(typed), environment, file.as_deref())?;
    *sources = loaded.sources;
    Ok(loaded.command)
}

/// Error of a command line in a JSON log. Otherwise, and for help output, clap prints in colour and exits.
fn usage_error(error: clap::Error) -> clap::Error {
    if !error.use_stderr() || formatted(Level::ERROR, "").is_none() {
        error.exit();
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subcommand_and_its_flags_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_error_includes_its_cause_once() {
        let taken = || std::io::Error::other("the port is taken");
        for context in ["no start", "no start: the port is taken"] {
            let error = anyhow::Error::new(taken()).context(context);
            assert_eq!(text_with_causes(&error), "no start: the port is taken");
        }
    }
}
