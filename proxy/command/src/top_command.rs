//! `trunkline top`: shows the observer's numbers in a terminal and refreshes them.

mod fleet_table;
mod sparkline;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{anyhow, bail};
use clap::Args;
use futures_util::future::join_all;
use http::StatusCode;
use tokio::signal::ctrl_c;
use tokio::time::{Instant, sleep};
use trunkline_proxy::parts::{Address, FleetSnapshot, FleetTimeline, NodeSnapshot, UnreachablePeer, shown_url};

use super::admin_client::{ADMIN_DEFAULT, AdminClient, AdminTokenArgs, admin_address};
use super::flag::value_parser::seconds;
use super::output::put;

/// Maximum answer size of a node in a large fleet.
const ANSWER_MAX_BYTES: usize = 64 * 1024 * 1024;

/// Age at which the last hour is requested again: the nodes' sampling interval.
const HOUR_AGE_MAX: Duration = Duration::from_secs(10);

/// Escape sequences for the alternate screen, without cursor and line wrap.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// Flags of `trunkline top`.
#[derive(Debug, Args)]
pub(super) struct TopArgs {
    /// Admin ports of nodes. A node also shows the nodes of its --peers.
    #[arg(value_name = "URL", env = "TRUNKLINE_ADMIN", default_value = ADMIN_DEFAULT, num_args = 1..=64)]
    pub urls: Vec<String>,

    /// Configuration file of a node, with its admin port and token.
    #[arg(long, env = "TRUNKLINE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    #[command(flatten)]
    pub token: AdminTokenArgs,

    /// Interval between two updates.
    #[arg(long, value_name = "SECONDS", default_value = "1s", value_parser = seconds(1..=60))]
    pub interval: Duration,

    /// Print once, and exit.
    #[arg(long)]
    pub once: bool,
}

/// Shows the nodes at the given URLs until Ctrl-C. Fails if no node answers the first time.
pub(super) async fn top(args: &TopArgs) -> anyhow::Result<()> {
    let client = FleetClient::new(args)?;
    let first = client.fleet().await;
    if first.nodes.is_empty() {
        let problems: Vec<_> = first.unreachable.iter().map(|one| format!("{}: {}", one.url, one.problem)).collect();
        bail!("no node answered for its fleet: {}", problems.join("\n"));
    }
    // Rates refer to the interval between two answers.
    let pause = args.interval;
    if args.once {
        sleep(pause).await;
        let (fleet, hour) = (client.fleet().await, client.last_hour().await);
        return print(&fleet, &hour);
    }
    let is_terminal = io::stdout().is_terminal();
    if is_terminal {
        put(ENTER)?;
    }
    let shown = show(&client, first, pause, is_terminal).await;
    if is_terminal {
        put(LEAVE)?;
    }
    shown
}

async fn show(
    client: &FleetClient,
    mut fleet: FleetSnapshot,
    pause: Duration,
    is_terminal: bool,
) -> anyhow::Result<()> {
    let (mut hour, mut asked) = (client.last_hour().await, Instant::now());
    loop {
        if is_terminal {
            paint(&fleet, &hour)?
        } else {
            print(&fleet, &hour)?
        }
        let is_old = asked.elapsed() >= HOUR_AGE_MAX;
        let news = async {
            sleep(pause).await;
            (client.fleet().await, if is_old { Some(client.last_hour().await) } else { None })
        };
        let newer = tokio::select! {
            _ = ctrl_c() => return Ok(()),
            (newest, newer) = news => { fleet = newest; newer },
        };
        if let Some(newer) = newer {
            (hour, asked) = (newer, Instant::now());
        }
    }
}

/// Draws each line in place, without flicker. Lines beyond the screen are omitted.
fn paint(fleet: &FleetSnapshot, hour: &FleetTimeline) -> anyhow::Result<()> {
    let lines = fleet_table::lines(fleet, sparkline::lines(hour));
    let painted: String =
        lines.iter().enumerate().map(|(row, line)| format!("\x1b[{};1H{line}\x1b[K", row + 1)).collect();
    put(format!("{painted}\x1b[J"))
}

fn print(fleet: &FleetSnapshot, hour: &FleetTimeline) -> anyhow::Result<()> {
    put(format!("{}\n", fleet_table::lines(fleet, sparkline::lines(hour)).join("\n")))
}

struct FleetClient {
    nodes: Vec<Address>,
    client: AdminClient,
}

impl FleetClient {
    fn new(args: &TopArgs) -> anyhow::Result<Self> {
        let nodes =
            args.urls.iter().map(|url| admin_address(url).map_err(|problem| anyhow!("{:?} {problem}", shown_url(url))));
        let nodes: Vec<Address> = nodes.collect::<Result<_, _>>()?;
        let client = AdminClient::to(&nodes, &args.token)?;
        Ok(Self { nodes, client })
    }

    async fn fleet(&self) -> FleetSnapshot {
        let answers = join_all(self.nodes.iter().map(|node| self.fleet_of(node))).await;
        merge(self.nodes.iter().map(Address::to_string).zip(answers))
    }

    /// Queries all nodes concurrently for the last hour, and merges the answers.
    async fn last_hour(&self) -> FleetTimeline {
        let answers = join_all(self.nodes.iter().map(|node| self.client.get(node, "/api/timeline", ANSWER_MAX_BYTES)));
        let told = answers.await.into_iter().flatten().filter(|answer| answer.status() == StatusCode::OK);
        merge_hours(told.filter_map(|answer| serde_json::from_slice(answer.body()).ok()))
    }

    /// Queries one node for its fleet: itself and its peers.
    async fn fleet_of(&self, node: &Address) -> Result<FleetSnapshot, String> {
        let answer = self.client.get(node, "/api/fleet", ANSWER_MAX_BYTES).await?;
        match answer.status() {
            StatusCode::OK => {
                serde_json::from_slice(answer.body()).map_err(|error| format!("not a node's answer: {error}"))
            }
            _ => Err(self.client.problem(&answer)),
        }
    }
}

/// Merges the answers of nodes, each with its URL. A node in several answers is shown once.
fn merge(answers: impl Iterator<Item = (String, Result<FleetSnapshot, String>)>) -> FleetSnapshot {
    let mut all = FleetSnapshot::default();
    for (url, answer) in answers {
        match answer {
            Ok(fleet) => {
                all.at_ms = all.at_ms.max(fleet.at_ms);
                all.agree &= fleet.agree;
                let is_new = |node: &NodeSnapshot| all.nodes.iter().all(|known| known.instance != node.instance);
                let new: Vec<NodeSnapshot> = fleet.nodes.into_iter().filter(is_new).collect();
                all.nodes.extend(new);
                all.unreachable.extend(fleet.unreachable);
            }
            Err(problem) => all.unreachable.push(UnreachablePeer { url, problem }),
        }
    }
    all.nodes.sort_by(|one, other| one.name.cmp(&other.name));
    all.unreachable.sort_by(|one, other| one.url.cmp(&other.url));
    all.unreachable.dedup_by(|one, other| one.url == other.url);
    all
}

/// Merges the last hour of several fleets. A node in several answers counts once.
fn merge_hours(answers: impl Iterator<Item = FleetTimeline>) -> FleetTimeline {
    let mut all = FleetTimeline::default();
    for hour in answers {
        all.at_ms = all.at_ms.max(hour.at_ms);
        for node in hour.nodes {
            if all.nodes.iter().all(|known| known.instance != node.instance) {
                all.nodes.push(node);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use trunkline_proxy::parts::NodeTimeline;

    use super::*;

    fn fleet(at_ms: u64, names: &[&str]) -> Result<FleetSnapshot, String> {
        let node = |name: &&str| NodeSnapshot {
            name: (*name).into(),
            instance: format!("i-{name}"),
            ..NodeSnapshot::default()
        };
        Ok(FleetSnapshot { at_ms, nodes: names.iter().map(node).collect(), ..FleetSnapshot::default() })
    }

    #[test]
    fn the_last_hour_of_a_node_in_several_answers_counts_once() {
        let hour = |at_ms, instances: &[&str]| FleetTimeline {
            at_ms,
            nodes: instances
                .iter()
                .map(|instance| NodeTimeline { instance: (*instance).into(), ..NodeTimeline::default() })
                .collect(),
            ..FleetTimeline::default()
        };
        let all = merge_hours([hour(7, &["a", "b"]), hour(5, &["b", "c"])].into_iter());
        let instances: Vec<_> = all.nodes.iter().map(|node| node.instance.as_str()).collect();
        assert_eq!((instances, all.at_ms), (vec!["a", "b", "c"], 7));
    }

    #[test]
    fn a_node_in_several_answers_is_shown_once_and_silent_nodes_are_listed() {
        let silent = || Err("gone".to_owned());
        let answers = [fleet(1, &["b", "a"]), fleet(2, &["c", "b"]), silent(), silent()];
        let all = merge(["u", "v", "w", "w"].map(str::to_owned).into_iter().zip(answers));
        let names: Vec<_> = all.nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!((names, all.at_ms), (vec!["a", "b", "c"], 2));
        assert_eq!(all.unreachable.iter().map(|one| one.url.as_str()).collect::<Vec<_>>(), ["w"]);
    }
}
