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

const LINK_TIMEOUT: Duration = Duration::from_secs(10);

const EXAMPLES: &str = "\
Examples:
  trunkline replay chat.jsonl --upstream http://127.0.0.1:5000          with the recorded pauses
  trunkline replay chat.jsonl --upstream http://127.0.0.1:5000 --fast   as fast as the answers come

The command acts as a proxy of the app server, and opens the recorded connections with their ids, users, claims, headers
and query. A message is sent when the answers recorded before it have arrived. Answers are compared byte for byte, in
their order within a call and among the sends to a client; answers with redacted secrets are not compared.
Use a development app server in the same state as the recorded one when the recording began: methods do run.
The exit status is 1 if an answer differs, is missing, or is not in the recording.";

/// Flags of `trunkline replay`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ReplayArgs {
    #[arg(help = "A file of `trunkline record --payloads`", value_name = "FILE")]
    pub file: PathBuf,

    /// App server, such as `http://127.0.0.1:5000`. Its hub of the recorded name receives the messages.
    #[arg(long, value_name = "URL")]
    pub upstream: String,

    /// Send each message as soon as the answers before it have arrived, without the recorded pauses.
    #[arg(long)]
    pub fast: bool,

    /// Additional time for an answer, compared with the recording.
    #[arg(long, value_name = "SECONDS", default_value = "5s", value_parser = seconds(1..=3600))]
    pub wait: Duration,

    /// Maximum number of differences to list.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub differences: u32,

    /// Print differing values, which may be secrets.
    #[arg(long)]
    pub show: bool,

    #[command(flatten)]
    pub access_keys: AccessKeyArgs,
}

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
    #[error("{0} answers differ from the recording")]
    Differs(u64),
    #[error("{unsent} messages could not be sent, so their answers are unknown")]
    Unsent { unsent: u64 },
    #[error("no answer was compared: the recording has no answers, or only answers with secrets")]
    Nothing,
}

/// Plays a recording and prints the result. Fails if an answer differs.
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
