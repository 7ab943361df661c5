//! What the command does besides running a node: look at a configuration, ask for a node's health, tell what a fleet
//! needs, show one, speak to whoever supervises it.

mod check;
mod health;
mod key_file;
mod size;
mod supervisor;
mod top;

pub use check::check;
pub use health::{HealthError, health};
pub use key_file::{KeyFileError, make_key_file};
pub use size::{SizeArgs, TooLittleMemory, size};
pub use supervisor::{News, feed_watchdog, handed, tell};
pub use top::{TopArgs, TopError, top};

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::auth::sign_user_token;
use crate::config::{Config, ServeArgs, WithFile, unix_seconds, with_file};
use crate::logging;
use crate::node::Node;
use anyhow::{Context, anyhow, bail};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use tokio::signal;
use trunkline_protocol::key::AccessKey;

/// An open, self-hosted proxy tier for SignalR.
///
/// Clients connect to proxies; proxies carry them over a few links to app servers built with the Trunkline SDK.
/// No Redis, no sticky sessions.
#[derive(Debug, Parser)]
#[command(name = "trunkline", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// How a node ends that was told twice.
const STOPPED_AT_ONCE: &str = "told to stop a second time: ended at once, and clients that were left are cut";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a proxy node.
    Serve(Box<ServeArgs>),
    /// Check a configuration file, and print what `serve --config FILE` would use here. Secrets are left out.
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Ask a node whether it takes clients in; the exit status tells.
    Health {
        /// The admin port of the node.
        #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8090")]
        admin: String,
    },
    /// Tell how many nodes carry so many clients and messages, and what each of them needs.
    Size(SizeArgs),
    /// Show nodes in the terminal: clients, links, rates, CPU and memory. Ctrl-C ends it.
    Top(TopArgs),
    /// Make keys and tokens.
    #[command(subcommand)]
    Token(TokenCommand),
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Print a new access key, to be given to all proxies and app servers.
    Key {
        /// Keep it in this file, which only its owner can read, instead of printing it. A key that is there stays.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Print an access token for a user, as an app would make one.
    User {
        /// The user id.
        id: String,
        /// The access key to sign with.
        #[arg(long, env = "TRUNKLINE_ACCESS_KEY", value_name = "KEY", hide_env_values = true)]
        access_key: String,
        /// A further claim; may be given several times, also with the same name.
        #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = parse_claim)]
        claims: Vec<(String, String)>,
        /// How long the token is good for, in seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
        lifetime: u64,
    },
}

fn parse_claim(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a claim looks like role=admin")?;
    Ok((name.into(), value.into()))
}

/// Runs the command that was typed, and tells people of an error.
#[must_use]
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say_error(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    match parse()?.command {
        Command::Serve(args) => serve(*args),
        Command::Check { file } => check_file(&file),
        Command::Health { admin } => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            say(runtime.block_on(health(&admin))?.trim_end());
            Ok(())
        }
        Command::Size(args) => {
            say(size(&args)?.trim_end());
            Ok(())
        }
        Command::Top(args) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok(runtime.block_on(top(&args))?)
        }
        Command::Token(command) => token(command),
    }
}

/// What was typed; a file is looked for first, because its values are defaults of the flags.
fn parse() -> anyhow::Result<Cli> {
    let mut command = Cli::command();
    // It is read in full below, where errors count.
    let first_look = command.clone().ignore_errors(true).try_get_matches().ok();
    let file = first_look.as_ref().and_then(|matches| {
        let (name, serve) = matches.subcommand()?;
        serve.try_get_one::<PathBuf>("config").ok()?.filter(|_| name == "serve").cloned()
    });
    if let Some((serve, file)) = command.find_subcommand("serve").zip(file) {
        let serve = with_file(serve.clone(), &file)?.command;
        command = command.mut_subcommand("serve", |_| serve);
    }
    Cli::from_arg_matches(&command.get_matches()).map_err(|error| error.exit())
}

fn check_file(file: &Path) -> anyhow::Result<()> {
    let serve = ServeArgs::augment_args(clap::Command::new("trunkline serve"));
    let WithFile { command, keys } = with_file(serve, file)?;
    let matches = command.clone().no_binary_name(true).get_matches_from([""; 0]);
    Config::new(ServeArgs::from_arg_matches(&matches)?)?;
    say(check(&command, &matches, &keys).trim_end());
    Ok(())
}

fn serve(args: ServeArgs) -> anyhow::Result<()> {
    logging::begin(&args.log.log, args.log.log_format).map_err(|error| anyhow!("--log {error}"))?;
    let config = Config::new(args)?;
    let handed = handed().context("a socket that the supervisor hands over (LISTEN_FDS) can't be used")?;
    logging::name_node(&config.settings.node);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let node = Node::start_on(handed, config).await?;
        say(&format!("listening on http://{}", node.listen()));
        if let Some(listen) = node.tls_listen() {
            say(&format!("listening on https://{listen}"));
        }
        say(&format!("admin on http://{}", node.admin()));
        let mut orders = StopOrders::new()?;
        tell(News::Ready);
        tokio::spawn(feed_watchdog(node.pulse()));
        orders.next().await?;
        tell(News::Stopping);
        tokio::select! {
            () = node.stop() => Ok(()),
            // With the process all its threads end, and whatever they wait for.
            second = orders.next() => second.map_err(Into::into).and_then(|()| bail!("{STOPPED_AT_ONCE}")),
        }
    })
}

/// Ctrl-C, or where there is such a thing, SIGTERM. From its making on neither ends the process by itself.
struct StopOrders {
    #[cfg(unix)]
    terminate: signal::unix::Signal,
}

impl StopOrders {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            #[cfg(unix)]
            terminate: signal::unix::signal(signal::unix::SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> std::io::Result<()> {
        #[cfg(unix)]
        tokio::select! {
            interrupted = signal::ctrl_c() => interrupted,
            _ = self.terminate.recv() => Ok(()),
        }
        #[cfg(not(unix))]
        signal::ctrl_c().await
    }
}

fn token(command: TokenCommand) -> anyhow::Result<()> {
    match command {
        TokenCommand::Key { file: None } => say(AccessKey::random().expose()),
        TokenCommand::Key { file: Some(file) } => make_key_file(&file)?,
        TokenCommand::User { id, access_key, claims, lifetime } => {
            let key = AccessKey::new(access_key.split(',').next().unwrap_or_default())?;
            say(&sign_user_token(&key, &id, &claims, unix_seconds().saturating_add(lifetime))?);
        }
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what a person or a script asked for")]
fn say(text: &str) {
    println!("{text}");
}

#[expect(clippy::print_stderr, reason = "the command ends with this, and logging may not have begun")]
fn say_error(text: &str) {
    eprintln!("error: {text}");
}
