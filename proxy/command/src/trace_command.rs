//! `trunkline trace`: shows live messages with the time at each hop.

mod hop_text;
mod trace_view;

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use tokio::time::{Instant, interval};
use trunkline_proxy::parts::{TRACE_SECONDS_DEFAULT, TRACE_SECONDS_MAX, TraceLine};

use super::admin_client::AdminPortArgs;
use super::flag::value_parser::whole_seconds;
use super::output::put;
use super::stop_signal::StopSignals;
use trace_view::TraceView;

use crate::quantity::duration_text;
use crate::shown_text::{json, one_line};

/// Maximum size of a refusal's body.
const ANSWER_MAX_BYTES: usize = 64 * 1024;

/// Interval for printing messages with missing hops.
const INTERVAL: Duration = Duration::from_millis(100);

const EXAMPLES: &str = "\
Examples:
  trunkline trace --user ann                           all connections of a user, for 30 s
  trunkline trace --method Send --hub /chat            calls of a method in both directions, with their answers
  trunkline trace --group room-1 --seconds 300         the members of a group
  trunkline trace --connection ID --payloads           one connection, with payloads

One node traces messages at all nodes of its fleet, and names nodes that can't be traced.
Each line is a message: \u{2191} from a client, \u{2193} to a client. Then the time of each hop:
  link      at the proxy: up from the socket into the link, down from the link to the outbox
  waited    in the app server, until the connection's worker took the message
  queued    until the method began, while other calls of the client ran
  ran       the method
  answered  until the answer was in the link
  way       the remaining time between proxy and app server, in both directions
  total     from the client's message to its answer, at the proxy
  written   from the outbox to the client's socket
waited, queued, ran and answered come from app servers with the Trunkline SDK, by their own clock.
With --payloads the node requires its admin token. Values with names of secrets, tokens and cookies are replaced by
[redacted].";

/// Flags of `trunkline trace`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[group(id = "subject", required = true, multiple = false, args = ["connection", "user", "group", "method"])]
pub(super) struct TraceArgs {
    /// Connection with an id that begins with this text.
    #[arg(long, value_name = "ID")]
    pub connection: Option<String>,

    /// All connections of this user.
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,

    /// The members of this group.
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,

    /// Calls of this method and their answers; case-insensitive.
    #[arg(long, value_name = "METHOD")]
    pub method: Option<String>,

    /// Only this hub, by its path or its name.
    #[arg(long, value_name = "HUB")]
    pub hub: Option<String>,

    /// Stop after this time.
    #[arg(long, value_name = "SECONDS", default_value = duration_text(Duration::from_secs(TRACE_SECONDS_DEFAULT)),
          value_parser = whole_seconds::<u64>(1..=TRACE_SECONDS_MAX))]
    pub seconds: u64,

    /// Show the payloads of messages.
    #[arg(long)]
    pub payloads: bool,

    /// Print the node's output unchanged: one JSON object per line.
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub admin: AdminPortArgs,
}

/// Shows messages until the time limit or Ctrl-C. Fails if the node ends it.
pub(super) async fn trace(args: &TraceArgs) -> anyhow::Result<()> {
    let port = args.admin.port(ANSWER_MAX_BYTES)?;
    let mut signals = StopSignals::new().context("cannot listen for Ctrl-C")?;
    let mut stream = port.stream(&target(args)).await?;
    let mut view = TraceView::default();
    let mut ticks = interval(INTERVAL);
    let ended = loop {
        tokio::select! {
            line = stream.next() => match line {
                Ok(Some(line)) if line.is_empty() => {}
                Ok(Some(text)) => {
                    let line: TraceLine = serde_json::from_slice(&text).map_err(|error| {
                        anyhow!("cannot parse the node's output: {error}. Has the node another version?")
                    })?;
                    let is_last = matches!(line, TraceLine::End(_));
                    view.take(line, Instant::now()).iter().for_each(|news| print_status(news));
                    if args.json {
                        put_json(&text)?;
                    }
                    if is_last {
                        break Ok(());
                    }
                }
                Ok(None) => break Err(anyhow!("the node has ended the trace: the node stops, or this machine is too slow")),
                Err(error) => break Err(error).context("the trace broke off"),
            },
            _ = signals.next() => break Ok(()),
            _ = ticks.tick() => show(args, view.due(Instant::now()))?,
        }
    };
    show(args, view.rest())?;
    print_status(&view.summary());
    ended
}

/// Prints messages, except in JSON mode, which prints lines as received.
fn show(args: &TraceArgs, messages: Vec<String>) -> anyhow::Result<()> {
    if args.json || messages.is_empty() {
        return Ok(());
    }
    put(messages.join("\n") + "\n")
}

fn target(args: &TraceArgs) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    let TraceArgs { connection, user, group, method, hub, .. } = args;
    let given = [("connection", connection), ("user", user), ("group", group), ("method", method), ("hub", hub)];
    query.extend_pairs(given.iter().filter_map(|(name, value)| Some((name, value.as_ref()?))));
    query.append_pair("seconds", &args.seconds.to_string());
    query.append_pair("payloads", if args.payloads { "shown" } else { "hidden" });
    format!("/api/trace?{}", query.finish())
}

/// Prints a node's line unchanged; on a terminal, control characters are escaped.
fn put_json(line: &[u8]) -> anyhow::Result<()> {
    if io::stdout().is_terminal() {
        put(format!("{}\n", json(&String::from_utf8_lossy(line))))
    } else {
        put([line, b"\n"].concat())
    }
}

fn print_status(line: &str) {
    // A closed standard error is not an error here.
    drop(writeln!(io::stderr().lock(), "{}", one_line(line)));
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct TraceParser {
        #[command(flatten)]
        args: TraceArgs,
    }

    fn parse(typed: &[&str]) -> Result<TraceArgs, String> {
        let typed = [&["trace"], typed].concat();
        TraceParser::try_parse_from(typed).map(|command| command.args).map_err(|error| error.to_string())
    }

    #[test]
    fn the_request_has_one_subject_with_encoded_values() {
        let args = parse(&["--user", "a&b", "--hub", "/chat", "--payloads"]).unwrap();
        assert_eq!(target(&args), "/api/trace?user=a%26b&hub=%2Fchat&seconds=30&payloads=shown");
        let args = parse(&["--method", "Say", "--seconds", "600"]).unwrap();
        assert_eq!(target(&args), "/api/trace?method=Say&seconds=600&payloads=hidden");
    }

    #[test]
    fn missing_or_surplus_subjects_are_refused() {
        assert!(parse(&[]).unwrap_err().contains("--connection <ID>|--user <USER>|--group <GROUP>|--method <METHOD>"));
        assert!(parse(&["--user", "a", "--group", "b"]).unwrap_err().contains("cannot be used with"));
        assert!(parse(&["--user", "a", "--seconds", "601"]).unwrap_err().contains("must be from 1s to 10m"));
    }
}
