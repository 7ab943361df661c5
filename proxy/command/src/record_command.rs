//! `trunkline record`: records the traffic of a hub's clients in a file.

mod record_error;
mod recording_file;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, interval_at, sleep_until};
use trunkline_proxy::parts::{LineStream, RecordingHeader, RecordingLine};

use super::admin_client::{AdminAddressArgs, AdminTokenArgs};
use super::admin_port::AdminPort;
use super::flag::value_parser::{bytes, seconds};
use super::stop_signal::StopSignals;
use recording_file::{FileLimits, RecordingFile};

use crate::quantity::size_text;
use crate::shown_text::one_line;
pub(super) use record_error::RecordError;

/// Maximum size of a refusal's body.
const ANSWER_MAX_BYTES: usize = 64 * 1024;

const INTERVAL: Duration = Duration::from_secs(5);

/// Time to continue reading after a stop request: the node reports events with a delay of tenths of a second.
const LAST_LINES: Duration = Duration::from_millis(500);

const MAX_BYTES: u64 = 64 * 1024 * 1024;

const EXAMPLES: &str = "\
Examples:
  trunkline record --hub /chat --out chat.jsonl --payloads              until Ctrl-C, for a replay
  trunkline record --hub chat --user ann --out ann.jsonl --seconds 60   one user, without payloads

New clients are recorded from their hub handshake on, existing clients from now on.
Only clients of the node at --admin are recorded: in a fleet, record at each node.
With --payloads the file contains messages of users: only its owner can read it, and the node requires its admin token.
Values with names of secrets, tokens and cookies are replaced by [redacted]; check for other secrets of your app.
The file has one JSON object per line: see the page on recordings in the book. `trunkline replay` sends it to an app server.";

/// Flags of `trunkline record`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RecordArgs {
    /// Hub to record, by its path or its name.
    #[arg(long, value_name = "HUB")]
    pub hub: String,

    /// Only connections of this user.
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,

    /// Only the connection with this id.
    #[arg(long, value_name = "ID")]
    pub connection: Option<String>,

    /// File to create, which must not exist. When it is full it is renamed to FILE.1, and so on.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,

    /// Stop after this time.
    #[arg(long, value_name = "SECONDS", value_parser = seconds(1..=7 * 24 * 3600))]
    pub seconds: Option<Duration>,

    /// Also record payloads of messages, and claims, headers and query of clients.
    #[arg(long)]
    pub payloads: bool,

    /// Maximum size of a file before the next one is started.
    #[arg(long, value_name = "BYTES", default_value = size_text(MAX_BYTES), value_parser = bytes::<u64>(64 * 1024..=u64::MAX))]
    pub max_size: u64,

    /// Number of files to keep; the oldest is deleted.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub files: u32,

    #[command(flatten)]
    pub admin: AdminAddressArgs,

    #[command(flatten)]
    pub token: AdminTokenArgs,
}

/// Records until a stop signal, the time limit, or the node's end of the stream, which is an error.
pub(super) async fn record(args: &RecordArgs) -> Result<(), RecordError> {
    let limits = FileLimits { max_bytes: args.max_size, files: args.files };
    let port = AdminPort::new(&args.admin, &args.token, ANSWER_MAX_BYTES)?;
    let mut signals = StopSignals::new().map_err(RecordError::Signals)?;
    recording_file::ensure_free(&args.out, limits)?;
    let mut stream = port.stream(&target(args)).await?;
    let header = header(&mut stream).await?;
    let mut progress = Progress::begun(args, &header);
    let failed = |source| RecordError::File { path: args.out.clone(), source };
    let mut file = RecordingFile::create(&args.out, limits, header).map_err(failed)?;
    let mut ends_at = args.seconds.map(|seconds| Instant::now() + seconds);
    let (mut ticks, mut is_ending) = (interval_at(Instant::now() + INTERVAL, INTERVAL), false);
    let outcome = loop {
        let end = sleep_until(ends_at.unwrap_or_else(Instant::now));
        tokio::select! {
            line = stream.next() => match line {
                Ok(Some(line)) if line.is_empty() => {}
                Ok(Some(line)) => {
                    let line: RecordingLine = serde_json::from_slice(&line)?;
                    progress.count(&line);
                    file.write(line).map_err(failed)?;
                }
                Ok(None) => break Err(RecordError::Ended),
                Err(error) => break Err(error.into()),
            },
            () = end, if ends_at.is_some() => {
                if is_ending {
                    break Ok(());
                }
                (ends_at, is_ending) = (Some(Instant::now() + LAST_LINES), true);
            }
            _ = signals.next(), if !is_ending => (ends_at, is_ending) = (Some(Instant::now() + LAST_LINES), true),
            _ = ticks.tick() => {
                file.flush().map_err(failed)?;
                progress.show();
            }
        }
    };
    file.flush().map_err(failed)?;
    progress.show();
    if is_ending { Ok(()) } else { outcome }
}

fn target(args: &RecordArgs) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("hub", &args.hub);
    let given = [("user", &args.user), ("connection", &args.connection)];
    query.extend_pairs(given.iter().filter_map(|(name, value)| Some((name, value.as_ref()?))));
    query.append_pair("payloads", if args.payloads { "shown" } else { "hidden" });
    format!("/api/record?{}", query.finish())
}

async fn header(stream: &mut LineStream) -> Result<RecordingHeader, RecordError> {
    let line = stream.next().await?.ok_or(RecordError::Ended)?;
    match serde_json::from_slice(&line)? {
        RecordingLine::Header(header) if header.is_known() => Ok(header),
        _ => Err(RecordError::Header),
    }
}

struct Progress {
    connections: u64,
    messages: u64,
    lost_messages: u64,
    lost_connections: u64,
    last: String,
}

impl Progress {
    fn begun(args: &RecordArgs, header: &RecordingHeader) -> Self {
        let RecordingHeader { hub, node, .. } = header;
        print_status(&format!("recording hub {hub:?} at node {node:?} to {}; Ctrl-C stops it", args.out.display()));
        Self { connections: 0, messages: 0, lost_messages: 0, lost_connections: 0, last: String::new() }
    }

    fn count(&mut self, line: &RecordingLine) {
        match line {
            RecordingLine::Open(_) => self.connections += 1,
            RecordingLine::Up(_) | RecordingLine::Down(_) => self.messages += 1,
            RecordingLine::Lost(loss) => {
                self.lost_messages += loss.messages;
                self.lost_connections += loss.connections;
            }
            RecordingLine::Header(_) | RecordingLine::Close(_) => {}
        }
    }

    fn show(&mut self) {
        let line = self.line();
        if line != self.last {
            print_status(&line);
            self.last = line;
        }
    }

    fn line(&self) -> String {
        let Self { connections, messages, lost_messages, lost_connections, .. } = self;
        let mut line = format!("connections: {connections}, messages: {messages}");
        if *lost_messages > 0 {
            line += &format!(", messages lost: {lost_messages} (over the limit of the node)");
        }
        if *lost_connections > 0 {
            line += &format!(", connections left out: {lost_connections} (choose fewer, by --user or --connection)");
        }
        line
    }
}

fn print_status(line: &str) {
    // A closed standard error is not an error here.
    drop(writeln!(io::stderr().lock(), "{}", one_line(line)));
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::extract::RawQuery;
    use axum::routing::get;
    use clap::Parser;
    use futures_util::{StreamExt, stream};
    use http::StatusCode;
    use tokio::net::TcpListener;

    use super::recording_file::tests::TestFolder;
    use super::*;
    use trunkline_proxy::parts::{LossLine, MessageLine, OpenLine, RECORDING_FORMAT, RECORDING_VERSION, json_line};

    #[derive(Debug, Parser)]
    struct RecordParser {
        #[command(flatten)]
        args: RecordArgs,
    }

    fn parse(typed: &[&str]) -> Result<RecordArgs, String> {
        let typed = [&["record", "--hub", "/chat"], typed].concat();
        RecordParser::try_parse_from(typed).map(|command| command.args).map_err(|error| error.to_string())
    }

    fn header_of(version: u32) -> String {
        let (format, node, hub) = (RECORDING_FORMAT.into(), "n1".into(), "chat".into());
        json_line(&RecordingLine::Header(RecordingHeader {
            format,
            version,
            node,
            hub,
            started_ms: 1,
            payloads: false,
        }))
    }

    /// Records at a node that gives this answer, which stays open with `open`. Returns the query of the request.
    async fn recorded(
        out: &std::path::Path,
        more: &[&str],
        status: u16,
        answer: &str,
        open: bool,
    ) -> (Result<(), String>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, mut asked) = tokio::sync::mpsc::unbounded_channel();
        let (answer, status) = (answer.to_owned(), StatusCode::from_u16(status).unwrap());
        let router = Router::new().route(
            "/api/record",
            get(async move |RawQuery(query): RawQuery| {
                sender.send(query.unwrap_or_default()).unwrap();
                let pieces = stream::iter([Ok::<_, io::Error>(answer)]);
                let body =
                    if open { Body::from_stream(pieces.chain(stream::pending())) } else { Body::from_stream(pieces) };
                (status, body)
            }),
        );
        tokio::spawn(async { axum::serve(listener, router).await });
        let args = parse(&[&["--out", out.to_str().unwrap(), "--admin", &url], more].concat()).unwrap();
        let outcome = record(&args).await.map_err(|error| error.to_string().replace(&url, "URL"));
        (outcome, asked.recv().await.unwrap())
    }

    #[tokio::test]
    async fn lines_are_written_as_received_until_the_time_limit() {
        let (folder, other) = (TestFolder::new(), TestFolder::new());
        let out = folder.file();
        let open = OpenLine { connection: "c".into(), transport: "WebSockets".into(), ..OpenLine::default() };
        let say = MessageLine { connection: "c".into(), kind: "invocation".into(), ..MessageLine::default() };
        let lines = header_of(RECORDING_VERSION)
            + &json_line(&RecordingLine::Open(Box::new(open)))
            + "\n"
            + &json_line(&RecordingLine::Up(say))
            + &json_line(&RecordingLine::Lost(LossLine { messages: 2, connections: 1 }));
        let more = ["--seconds", "1", "--user", "a&b", "--payloads"];
        let (outcome, asked) = recorded(&out, &more, 200, &lines, true).await;
        assert_eq!(outcome, Ok(()));
        assert_eq!(asked, "hub=%2Fchat&user=a%26b&payloads=shown");
        assert_eq!(std::fs::read_to_string(&out).unwrap(), lines.replace("\n\n", "\n"));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let (outcome, _) = recorded(&other.file(), &[], 200, &lines, false).await;
        assert!(outcome.unwrap_err().starts_with("the node has ended the recording"));
    }

    #[tokio::test]
    async fn a_refusal_leaves_no_file_and_a_file_that_is_there_stays() {
        let folder = TestFolder::new();
        let out = folder.file();
        let refusal = r#"{"error":"no reachable node has a hub \"/chat\"","field":null}"#;
        let (outcome, asked) = recorded(&out, &[], 404, refusal, false).await;
        assert_eq!(outcome.unwrap_err(), "URL refuses: no reachable node has a hub \"/chat\"");
        assert_eq!(asked, "hub=%2Fchat&payloads=hidden");
        let (outcome, _) = recorded(&out, &[], 200, &header_of(RECORDING_VERSION + 1), true).await;
        assert!(outcome.unwrap_err().contains("another version"));
        assert!(!out.exists());
        std::fs::write(&out, "mine").unwrap();
        let args = parse(&["--out", out.to_str().unwrap(), "--admin", "127.0.0.1:1"]).unwrap();
        let problem = record(&args).await.unwrap_err().to_string();
        assert!(problem.ends_with("exists: choose another file, or remove it"), "{problem}");
        assert_eq!(std::fs::read_to_string(&out).unwrap(), "mine");
    }

    #[test]
    fn sizes_and_times_have_bounds() {
        for wrong in [["--max-size", "1000"], ["--files", "0"], ["--seconds", "0"], ["--files", "1001"]] {
            assert!(parse(&[&["--out", "x"], &wrong[..]].concat()).is_err(), "{wrong:?}");
        }
        assert!(parse(&[]).unwrap_err().contains("--out"));
    }
}
