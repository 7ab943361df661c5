//! `trunkline replay`: sends a recording to an app server and compares the answers.

mod answer_ledger;
mod player;
pub(crate) mod recording_reader;
mod replay_report;
mod replayed_client;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use trunkline_proxy::Settings;
use trunkline_proxy::parts::{Address, ReplayHubError, ReplayNode, StartError};

use super::flag::value_parser::seconds;
use super::flag::{AccessKeyArgs, ConfigError};
use super::output::print;
use player::{PlayError, Player, ReplayPace};
use recording_reader::{ReadRecordingError, RecordingReader};
use replay_report::{Values, report};

/// Time limit for linking the app server's hub.
const LINK_TIMEOUT: Duration = Duration::from_secs(10);

const EXAMPLES: &str = "\
Examples:
  trunkline replay chat.jsonl --upstream http://127.0.0.1:5000          with the pauses between messages
  trunkline replay chat.jsonl --upstream http://127.0.0.1:5000 --fast   as fast as the answers come

It takes the place of a proxy before this app server and opens the recorded connections with their ids, users, claims,
headers and query. A message is sent when what came before it in the recording has come. Answers are compared byte for
byte, in their order within a call and among the sends to a client; what has lost secrets is not compared.
Play to a development app server in the state in which the recorded one was when the recording began: calls are run.
The exit status is 1 if an answer differs, is missing or is more than was recorded.";

/// Flags of `trunkline replay`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ReplayArgs {
    #[arg(help = "A file of `trunkline record --payloads`", value_name = "FILE")]
    pub file: PathBuf,

    /// The app server, such as `http://127.0.0.1:5000`. Its hub of the recorded name gets the messages.
    #[arg(long, value_name = "URL")]
    pub upstream: String,

    /// Sends each message as soon as what came before it is there, whenever it was sent.
    #[arg(long)]
    pub fast: bool,

    /// How long an answer may take longer than it did.
    #[arg(long, value_name = "SECONDS", default_value = "5s", value_parser = seconds(1..=3600))]
    pub wait: Duration,

    /// Differences that are listed.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub differences: u32,

    /// Shows the values that differ, which may be secrets.
    #[arg(long)]
    pub show: bool,

    #[command(flatten)]
    pub access_keys: AccessKeyArgs,
}

/// Error for a replay with differing answers.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReplayError {
    #[error("{file} {source}", file = file.display())]
    File { file: PathBuf, source: ReadRecordingError },
    #[error("--upstream {value:?} {problem}")]
    Upstream { value: String, problem: &'static str },
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Hub(#[from] ReplayHubError),
    #[error("{file}, {source}", file = file.display())]
    Broken { file: PathBuf, source: PlayError },
    #[error("{0} of the answers are not as they were recorded")]
    Differs(u64),
    #[error("{unsent} messages could not be sent, so what they would have led to is not known")]
    Unsent { unsent: u64 },
    #[error("no answer was compared: the recording holds none, or none without secrets")]
    Nothing,
}

/// Plays a recording and prints the result.
///
/// # Errors
/// If it can't be played, or an answer differs.
pub(super) async fn replay(args: &ReplayArgs) -> Result<(), ReplayError> {
    let failed = |source| ReplayError::File { file: args.file.clone(), source };
    let mut reader = RecordingReader::open(&args.file).map_err(failed)?;
    let wrong = |problem| ReplayError::Upstream { value: args.upstream.clone(), problem };
    let upstream: Address = args.upstream.parse().map_err(wrong)?;
    let remote: Vec<_> = Some(&upstream).filter(|upstream| !upstream.is_loopback()).into_iter().collect();
    let remote: Vec<_> = remote.iter().map(|upstream| format!("--upstream {upstream}")).collect();
    let (keys, is_development) = args.access_keys.keys_or_development(&remote)?;
    let node = ReplayNode::start(Settings::embedded(keys, Vec::new(), is_development), upstream)?;
    let hub = node.hub(&reader.header.hub, LINK_TIMEOUT).await?;
    let pace = if args.fast { ReplayPace::Fast } else { ReplayPace::Recorded };
    let listed = usize::try_from(args.differences).unwrap_or(usize::MAX);
    let player = Player::new(&node, hub, pace, args.wait, listed);
    let played = player.play(&mut reader).await;
    node.stop().await;
    let outcome = played.map_err(|source| ReplayError::Broken { file: args.file.clone(), source })?;
    let values = if args.show { Values::Shown } else { Values::Hidden };
    print(report(&outcome, values).trim_end());
    match outcome.tally.wrong() {
        0 if outcome.unsent > 0 => Err(ReplayError::Unsent { unsent: outcome.unsent }),
        0 if outcome.tally.equal == 0 => Err(ReplayError::Nothing),
        0 => Ok(()),
        wrong => Err(ReplayError::Differs(wrong)),
    }
}
