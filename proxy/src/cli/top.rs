//! `trunkline top`: the observer's numbers in a terminal, again and again.

mod table;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use axum::body::Body;
use clap::Args;
use futures_util::future::join_all;
use http::header::AUTHORIZATION;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use tokio::signal::ctrl_c;
use tokio::time::{sleep, timeout};

use crate::admin::{Fleet, Node, Unreachable};
use crate::config::{Address, AdminToken, ClientTls};
use crate::net::connector::{Connector, HttpClient};
use crate::net::tls::TlsError;

/// How long a node may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Largest answer.
const ANSWER_MAX_BYTES: usize = 64 * 1024 * 1024;

/// Another screen, without a cursor and without lines that go on in the next one; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// What `trunkline top` takes.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Admin ports of nodes. One shows those of its --peers too.
    #[arg(value_name = "URL", default_value = "http://127.0.0.1:8090", num_args = 1..=64)]
    pub urls: Vec<String>,

    /// The admin token, where the nodes want one.
    #[arg(long, env = "TRUNKLINE_ADMIN_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub admin_token: Option<String>,

    /// A file that holds it.
    #[arg(long, env = "TRUNKLINE_ADMIN_TOKEN_FILE", value_name = "FILE", conflicts_with = "admin_token")]
    pub admin_token_file: Option<PathBuf>,

    /// How often to look, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub interval: u64,

    /// Looks once, prints, and ends.
    #[arg(long)]
    pub once: bool,
}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TopError {
    /// A URL is none.
    #[error("{value:?} {problem}")]
    Url {
        /// What was given.
        value: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The token is none.
    #[error("--admin-token {0}")]
    Token(&'static str),
    /// The token's file can't be read.
    #[error("--admin-token-file {path} can't be read ({source})")]
    TokenFile {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// TLS can't be spoken.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Nobody answers.
    #[error("{0}")]
    Silent(String),
    /// What is shown can't be written.
    #[error("what is shown can't be written: {0}")]
    Output(#[from] io::Error),
}

/// Shows the nodes at these URLs until Ctrl-C.
///
/// # Errors
/// When none of them answers at first, or nothing can be shown.
pub async fn top(args: &TopArgs) -> Result<(), TopError> {
    let asker = Asker::new(args)?;
    let first = asker.ask().await;
    if first.nodes.is_empty() {
        let problems: Vec<_> = first.unreachable.iter().map(|one| format!("{}: {}", one.url, one.problem)).collect();
        return Err(TopError::Silent(problems.join("\n")));
    }
    // Rates are of the time between two looks.
    let pause = Duration::from_secs(args.interval);
    if args.once {
        sleep(pause).await;
        return Ok(print(&asker.ask().await)?);
    }
    let is_terminal = io::stdout().is_terminal();
    if is_terminal {
        write(ENTER)?;
    }
    let shown = show(&asker, first, pause, is_terminal).await;
    if is_terminal {
        write(LEAVE)?;
    }
    Ok(shown?)
}

async fn show(asker: &Asker, mut fleet: Fleet, pause: Duration, is_terminal: bool) -> io::Result<()> {
    loop {
        if is_terminal {
            paint(&fleet)?
        } else {
            print(&fleet)?
        }
        fleet = tokio::select! {
            _ = ctrl_c() => return Ok(()),
            fleet = async { sleep(pause).await; asker.ask().await } => fleet,
        };
    }
}

/// Line by line at its place: what does not fit the screen is left out, and nothing flickers.
fn paint(fleet: &Fleet) -> io::Result<()> {
    let lines = table::lines(fleet);
    let painted: String =
        lines.iter().enumerate().map(|(row, line)| format!("\x1b[{};1H{line}\x1b[K", row + 1)).collect();
    write(&format!("{painted}\x1b[J"))
}

fn print(fleet: &Fleet) -> io::Result<()> {
    write(&format!("{}\n", table::lines(fleet).join("\n")))
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Asks nodes.
struct Asker {
    nodes: Vec<Address>,
    token: Option<AdminToken>,
    client: HttpClient,
}

impl Asker {
    fn new(args: &TopArgs) -> Result<Self, TopError> {
        let nodes = args.urls.iter().map(|url| {
            let with_scheme = if url.contains("://") { url.clone() } else { format!("http://{url}") };
            with_scheme.parse().map_err(|problem| TopError::Url { value: url.clone(), problem })
        });
        let nodes: Vec<Address> = nodes.collect::<Result<_, _>>()?;
        let text = match (&args.admin_token, &args.admin_token_file) {
            (Some(text), _) => Some(text.clone()),
            (None, Some(path)) => {
                let unread = |source| TopError::TokenFile { path: path.clone(), source };
                Some(std::fs::read_to_string(path).map_err(unread)?)
            }
            (None, None) => None,
        };
        let token = text.filter(|text| !text.is_empty()).map(|text| AdminToken::new(&text)).transpose();
        let connector = match nodes.iter().any(Address::is_tls) {
            true => Connector::with_tls(ClientTls::default())?,
            false => Connector::default(),
        };
        Ok(Self { nodes, token: token.map_err(TopError::Token)?, client: HttpClient::new(connector, ANSWER_TIMEOUT) })
    }

    /// All that the nodes tell; each node once, however many tell of it.
    async fn ask(&self) -> Fleet {
        let mut all = Fleet::default();
        let answers = join_all(self.nodes.iter().map(|node| self.ask_one(node))).await;
        for (url, answer) in self.nodes.iter().zip(answers) {
            match answer {
                Ok(fleet) => {
                    all.at_ms = all.at_ms.max(fleet.at_ms);
                    let is_new = |node: &Node| all.nodes.iter().all(|known| known.instance != node.instance);
                    let new: Vec<Node> = fleet.nodes.into_iter().filter(is_new).collect();
                    all.nodes.extend(new);
                    all.unreachable.extend(fleet.unreachable);
                }
                Err(problem) => all.unreachable.push(Unreachable { url: url.to_string(), problem }),
            }
        }
        all.nodes.sort_by(|one, other| one.name.cmp(&other.name));
        all.unreachable.sort_by(|one, other| one.url.cmp(&other.url));
        all.unreachable.dedup_by(|one, other| one.url == other.url);
        all
    }

    async fn ask_one(&self, node: &Address) -> Result<Fleet, String> {
        let mut request = Request::get("/api/fleet");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.expose()));
        }
        let request = request.body(Body::empty()).map_err(|error| error.to_string())?;
        let answered = async {
            let answer = self.client.send(node, request).await.map_err(|error| error.to_string())?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_MAX_BYTES).collect().await;
            Ok::<_, String>((status, body.map_err(|error| error.to_string())?.to_bytes()))
        };
        let late = |_| format!("nothing within {} s", ANSWER_TIMEOUT.as_secs());
        let (status, body) = timeout(ANSWER_TIMEOUT, answered).await.map_err(late)??;
        match status {
            StatusCode::OK => serde_json::from_slice(&body).map_err(|error| format!("no answer of a node: {error}")),
            StatusCode::UNAUTHORIZED if self.token.is_none() => Err("it wants --admin-token".into()),
            StatusCode::UNAUTHORIZED => Err("it has another --admin-token".into()),
            StatusCode::NOT_FOUND => Err("it serves no API: it has no --admin-token, or is no admin port".into()),
            other => Err(format!("it answers {other}")),
        }
    }
}
