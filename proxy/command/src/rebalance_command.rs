//! `trunkline rebalance`: moves clients away from nodes with more than others, and shows progress.

use std::io::{self, IsTerminal};
use std::time::Duration;

use anyhow::bail;
use clap::{ArgGroup, Args};
use serde_json::{Value, json};
use tokio::signal::ctrl_c;
use tokio::time::sleep;
use trunkline_proxy::parts::{MissingCount, RebalanceReport, RebalanceState};

use super::admin_client::AdminPortArgs;
use super::output::put;
use crate::quantity::counted;
use crate::shown_text::one_line;

const PATH: &str = "/api/rebalance";

/// Maximum answer size: a few numbers and a reason.
const ANSWER_MAX_BYTES: usize = 64 * 1024;

const INTERVAL: Duration = Duration::from_secs(1);
const MISSING_MAX: u32 = 5;

const EXAMPLES: &str = "\
Examples:
  trunkline rebalance --to-mean                       after adding a node
  trunkline rebalance --to-mean --dry-run             only print how many clients have to leave
  trunkline rebalance --percent 10 --per-second 20    move a part first
  trunkline rebalance --node proxy-a                  after proxy-a was taken out of the load balancer

Clients with stateful reconnect move without an interruption; others are asked to reconnect. The load balancer chooses
their new node: a client that returns to its old node is asked again.
The node coordinates the rebalance, also if this command is killed; Ctrl-C stops it. The exit status is 1 unless the
rebalance is complete.";

/// Flags of `trunkline rebalance`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("goal").required(true).args(["to_mean", "percent", "node"]))]
pub(super) struct RebalanceArgs {
    /// Clients leave all nodes above the mean until these have the mean.
    #[arg(long)]
    pub to_mean: bool,

    /// This share of the clients of each node above the mean leaves it; no node falls below the mean.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100))]
    pub percent: Option<u64>,

    /// All clients leave the node of this name.
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,

    /// Clients per second that may leave all nodes together.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub per_second: u64,

    /// Only print how many clients have to leave their nodes.
    #[arg(long)]
    pub dry_run: bool,

    #[command(flatten)]
    pub admin: AdminPortArgs,
}

/// Starts a rebalance and shows its progress until its end. Ctrl-C stops it. Fails if it ends before its goal.
pub(super) async fn rebalance(args: &RebalanceArgs) -> anyhow::Result<()> {
    let port = args.admin.port(ANSWER_MAX_BYTES)?;
    let mut progress = ProgressLine::default();
    // In a task, so that Ctrl-C is handled from the first request on.
    let mut interrupted = tokio::spawn(ctrl_c());
    let mut report: RebalanceReport = port.post(PATH, &order(args)).await?;
    for missing in &report.missing {
        put(format!("{}\n", one_line(&missing_line(missing))))?;
    }
    let mut missing = 0;
    while report.state == RebalanceState::Running {
        progress.show(&report)?;
        tokio::select! {
            _ = &mut interrupted => {
                let stopped = port.delete(PATH).await?;
                progress.end(&stopped)?;
                bail!(unfinished(&stopped));
            }
            () = sleep(INTERVAL) => {}
        }
        match port.get::<RebalanceReport>(PATH).await {
            Ok(next) if next.id == report.id => (report, missing) = (next, 0),
            Ok(_) => bail!("the coordinating node is gone, so the rebalance has ended"),
            Err(error) if missing >= MISSING_MAX => return Err(error),
            Err(_) => missing += 1,
        }
    }
    progress.end(&report)?;
    match report.state {
        RebalanceState::Done | RebalanceState::Planned => Ok(()),
        _ => bail!(unfinished(&report)),
    }
}

fn order(args: &RebalanceArgs) -> Value {
    let RebalanceArgs { percent, node, per_second, dry_run, .. } = args;
    let to = match (percent, node) {
        (Some(_), _) => "percent",
        (_, Some(_)) => "node",
        _ => "mean",
    };
    json!({ "to": to, "percent": percent, "node": node, "per_second": per_second, "dry_run": dry_run })
}

/// Progress display: one updated line on a terminal, otherwise a line per change.
#[derive(Debug, Default)]
struct ProgressLine {
    last: String,
}

impl ProgressLine {
    fn show(&mut self, report: &RebalanceReport) -> anyhow::Result<()> {
        let line = one_line(&line(report)).into_owned();
        if line == self.last {
            return Ok(());
        }
        put(if io::stdout().is_terminal() { format!("\r\x1b[K{line}") } else { format!("{line}\n") })?;
        self.last = line;
        Ok(())
    }

    fn end(&mut self, report: &RebalanceReport) -> anyhow::Result<()> {
        self.show(report)?;
        if io::stdout().is_terminal() { put("\n") } else { Ok(()) }
    }
}

fn line(report: &RebalanceReport) -> String {
    let RebalanceReport { planned, moved, failed, .. } = report;
    if report.state == RebalanceState::Planned {
        return format!("{} to move; nothing was done", counted(*planned, "client"));
    }
    let failures = if *failed > 0 { format!(", {failed} failed") } else { String::new() };
    format!("{moved} of {planned} moved{failures}: {}", report.state.label())
}

/// Line about a node with an unknown or outdated number of clients.
fn missing_line(MissingCount { node, problem, age_ms }: &MissingCount) -> String {
    match age_ms {
        Some(age_ms) => format!("{node} {problem}: its number of clients is {age_ms} ms old"),
        None => format!("{node} {problem}: the node is left out"),
    }
}

fn unfinished(report: &RebalanceReport) -> String {
    let reason = report.reason.as_deref().unwrap_or("reason unknown");
    format!("{} of {} clients have moved: {reason}", report.moved, report.planned)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::extract::State;
    use axum::routing::post;
    use axum::{Json, Router};
    use clap::Parser;
    use serde_json::Value;
    use tokio::net::TcpListener;

    use super::*;
    use http::StatusCode;

    #[derive(Debug, Parser)]
    struct RebalanceParser {
        #[command(flatten)]
        args: RebalanceArgs,
    }

    fn parse(typed: &[&str]) -> Result<RebalanceArgs, String> {
        let typed = [&["rebalance"], typed].concat();
        RebalanceParser::try_parse_from(typed).map(|command| command.args).map_err(|error| error.to_string())
    }

    type Answers = Arc<Mutex<(Vec<Value>, Value)>>;

    /// Rebalances at a node that gives these answers, the last one first. Also returns the request.
    async fn rebalanced(typed: &[&str], status: u16, answers: &[Value]) -> (Result<(), String>, Value) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let all: Answers = Arc::new(Mutex::new((answers.to_vec(), Value::Null)));
        let status = StatusCode::from_u16(status).unwrap();
        let begin = async move |State(all): State<Answers>, Json(body): Json<Value>| {
            let mut all = all.lock().unwrap();
            all.1 = body;
            (status, Json(all.0.pop()))
        };
        let progress = async |State(all): State<Answers>| Json(all.lock().unwrap().0.pop());
        let router = Router::new().route(PATH, post(begin).get(progress)).with_state(all.clone());
        tokio::spawn(async { axum::serve(listener, router).await });
        let args = parse(&[typed, &["--admin", &url]].concat()).unwrap();
        let told = rebalance(&args).await.map_err(|error| error.to_string().replace(&url, "URL"));
        let asked = all.lock().unwrap().1.clone();
        (told, asked)
    }

    fn report(state: &str, moved: u64) -> Value {
        json!({ "id": "a", "planned": 9, "moved": moved, "failed": 1, "state": state, "reason": "no way" })
    }

    #[tokio::test]
    async fn progress_is_shown_until_the_end() {
        let answers = [report("done", 9), report("running", 0)];
        let (told, asked) = rebalanced(&["--to-mean", "--per-second", "7"], 200, &answers).await;
        assert_eq!(told, Ok(()));
        assert_eq!(asked, json!({ "to": "mean", "percent": null, "node": null, "per_second": 7, "dry_run": false }));
        let (told, asked) = rebalanced(&["--node", "proxy-a", "--dry-run"], 200, &[report("planned", 0)]).await;
        assert_eq!((told, &asked["to"], &asked["node"]), (Ok(()), &json!("node"), &json!("proxy-a")));
    }

    #[tokio::test]
    async fn an_end_before_the_goal_is_an_error_with_the_reason() {
        let (told, asked) = rebalanced(&["--percent", "20"], 200, &[report("stalled", 4)]).await;
        assert_eq!(told, Err("4 of 9 clients have moved: no way".into()));
        assert_eq!((&asked["to"], &asked["percent"]), (&json!("percent"), &json!(20)));
        let running = json!({ "error": "a rebalance is already running, at proxy-b", "field": null });
        let (told, _) = rebalanced(&["--to-mean"], 409, &[running]).await;
        assert_eq!(told, Err("URL refuses: a rebalance is already running, at proxy-b".into()));
        assert_eq!(rebalanced(&["--to-mean"], 401, &[]).await.0, Err("URL refuses: --admin-token is required".into()));
    }

    #[test]
    fn lines_show_the_progress() {
        let report = |value: Value| line(&serde_json::from_value(value).unwrap());
        assert_eq!(
            report(json!({ "planned": 9, "moved": 3, "failed": 2, "state": "running" })),
            "3 of 9 moved, 2 failed: running"
        );
        assert_eq!(report(json!({ "planned": 9, "moved": 9, "state": "done" })), "9 of 9 moved: done");
        assert_eq!(report(json!({ "planned": 1, "state": "planned" })), "1 client to move; nothing was done");
    }

    #[test]
    fn nodes_without_fresh_numbers_are_named_with_the_number_used_instead() {
        let line = |age_ms| missing_line(&MissingCount { node: "b".into(), problem: "is late".into(), age_ms });
        assert_eq!(line(Some(1200)), "b is late: its number of clients is 1200 ms old");
        assert_eq!(line(None), "b is late: the node is left out");
    }

    #[test]
    fn there_is_one_goal_and_numbers_have_bounds() {
        for wrong in [&[][..], &["--to-mean", "--percent", "5"], &["--percent", "101"], &["--percent", "0"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
        assert!(parse(&["--to-mean", "--per-second", "10001"]).unwrap_err().contains("1..=10000"));
        assert!(parse(&["--to-mean", "--per-second", "10000"]).is_ok());
    }
}
