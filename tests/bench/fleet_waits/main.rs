#![forbid(unsafe_code)]
//! Waiting times of clients caused by a fleet: a join is answered only after all nodes have acknowledged it, and a node
//! may be late.
//!
//! ```text
//!  size:    a connect, one of a new user, the first and the second join of a group, an announcement to it at another node,
//!           and the resulting notification there; presence, and a move: in fleets of 1, 1 again, 2 and 12 nodes, or as
//!           given by `--nodes`
//!  frozen:  first joins, each followed by an announcement: at three nodes of three, of three again, of four with one frozen
//! ```
//!
//! Fleets run in parallel and alternate, in a different order in each round. `1 again` and `3 again` repeat their
//! neighbour: their difference is the noise of all others. A first join is one of a group without members at its node.
//! *Presence* lasts from a new user's connect until a client at another node has received the message from the app
//! server's hook `on_user_online`: proxies collect changes for 50 ms, and app servers check them every 100 ms. A *move*
//! is the time from cutting the socket of a client with stateful reconnect until a call is answered over the next node;
//! in a fleet of one node, it reconnects to that node.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use http::Method;
use serde_json::json;
use tokio::task::block_in_place;
use tokio::time::sleep;
use trunkline_bench::mover::Mover;
use trunkline_tests::harness::command::print_line;
use trunkline_tests::harness::fleet::{ACCESS_KEY, App, AppServer, Fleet, POOL_SIZE, Proxy};
use trunkline_tests::harness::http_client::exchange;
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::raw::RawClient;
use trunkline_tests::harness::scenario::{Fixture, until};
use trunkline_tests::harness::sockets::free_address;
use trunkline_tests::harness::{command, token};

const ADMIN_TOKEN: &str = "the-admin-token-of-the-fleet";
/// Time after which a frozen node is late, with a large margin.
const UNTIL_LATE: Duration = Duration::from_secs(5);

/// Group to which the app server reports new users.
const PRESENCE_GROUP: &str = "presence";

/// Kinds of waits compared between fleet sizes.
const SIZE_KINDS: [&str; 7] =
    ["connect", "connect of a new user", "first join", "second join", "announcement", "presence", "move"];
const PRESENCE: usize = 5;
const MOVE: usize = 6;

/// Kinds of waits with a frozen node.
const FROZEN_KINDS: [&str; 2] = ["first join", "announcement"];

/// Measures waiting times of clients in a fleet.
#[derive(Debug, Parser)]
#[command(name = "fleet_waits")]
struct Settings {
    /// Fleets to be compared.
    #[arg(long, value_enum, default_value = "size")]
    work: Work,
    /// Nodes of the fleets; two of equal size show the noise.
    #[arg(long, value_delimiter = ',', default_value = "1,1,2,12", value_parser = clap::value_parser!(u16).range(1..=100))]
    nodes: Vec<u16>,
    /// Number of rounds, each with every fleet.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Number of operations of each kind, at each fleet in each round.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    operations: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Work {
    /// Fleets of different sizes.
    Size,
    /// Fleet with a frozen node.
    Frozen,
}

impl Work {
    fn app_arguments(self) -> &'static [&'static str] {
        match self {
            Self::Size => &["--stateful", "--presence"],
            Self::Frozen => &[],
        }
    }
}

/// Measured fleet with its waits so far.
struct MeasuredFleet {
    name: String,
    _app: AppServer,
    nodes: Vec<Proxy>,
    running: usize,
    next: usize,
    waits: [Vec<Duration>; SIZE_KINDS.len()],
}

impl MeasuredFleet {
    async fn start(fixture: &Fixture, work: Work, name: &str, count: usize) -> Result<Self> {
        let fleet = Fleet::new(fixture);
        let app = fleet.app_with(App::Bench, work.app_arguments()).await?;
        let admins: Vec<String> = (0..count).map(|_| free_address()).collect::<Result<_>>()?;
        let peers = admins.iter().map(|admin| format!("http://{admin}")).collect::<Vec<_>>().join(",");
        let mut nodes = Vec::new();
        for admin in &admins {
            let more = ["--admin-token", ADMIN_TOKEN, "--peers", &peers];
            let more = if count == 1 { &more[..2] } else { &more[..] };
            nodes.push(fleet.proxy_of(&free_address()?, admin, &[app.address()], more)?);
        }
        for node in &mut nodes {
            node.ready().await?;
            node.linked(POOL_SIZE).await?;
            until(async || {
                let ready = node.metrics().await?.sum("trunkline_fleet_nodes", &[("state", "ready")]);
                Ok((count == 1 || ready == count as f64).then_some(()))
            })
            .await?;
        }
        Ok(Self { name: name.to_owned(), _app: app, nodes, running: count, next: 0, waits: Default::default() })
    }

    async fn wait_for(&mut self, kind: usize, operation: impl Future<Output = Result<()>>) -> Result<()> {
        let begun = Instant::now();
        operation.await?;
        self.note(kind, begun.elapsed())
    }

    fn note(&mut self, kind: usize, wait: Duration) -> Result<()> {
        self.waits.get_mut(kind).context("a kind")?.push(wait);
        Ok(())
    }

    /// Current node in the rotation, and the next.
    fn turn(&mut self) -> Result<[&Proxy; 2]> {
        self.next += 1;
        let at = |place: usize| self.nodes.get(place % self.running).context("a node");
        Ok([at(self.next)?, at(self.next + 1)?])
    }

    /// Client address of the current node, and admin address of the next.
    fn turn_with_admin(&mut self) -> Result<[String; 2]> {
        let [node, other] = self.turn()?;
        Ok([node.address().to_owned(), other.admin().to_owned()])
    }

    /// Performs the operations of each kind.
    async fn turns(&mut self, work: Work, operations: u32) -> Result<()> {
        if work == Work::Frozen {
            for _ in 0..operations {
                self.join_and_announce().await?;
            }
            return Ok(());
        }
        let nodes = self.nodes.iter().map(|node| Ok(node.address().parse()?)).collect::<Result<Vec<SocketAddr>>>()?;
        // Connects immediately before the move, because a client that is silent for longer is closed.
        let mut mover = block_in_place(|| Mover::connect(&nodes, self.next % nodes.len()))?;
        for _ in 0..operations {
            self.connect_and_join().await?;
            self.come_online().await?;
            let wait = block_in_place(|| mover.come_back(&nodes, 1))?;
            self.note(MOVE, wait)?;
        }
        Ok(())
    }

    /// Connects a new user, until a client at another node is notified.
    async fn come_online(&mut self) -> Result<()> {
        let [node, other] = self.turn()?.map(|node| node.address().to_owned());
        let user = format!("present-{}", self.next);
        let path = format!("/bench?access_token={}", token::of_user(ACCESS_KEY, &user)?);
        let mut watcher = RawClient::join(&other, "/bench").await?;
        join(&mut watcher, PRESENCE_GROUP).await?;
        let mut clients = Vec::new();
        self.wait_for(PRESENCE, async {
            connect(&mut clients, &node, &path).await?;
            receive_presence(&mut watcher, &user).await
        })
        .await?;
        for client in clients.into_iter().chain([watcher]) {
            client.close().await?;
        }
        Ok(())
    }

    /// Connects, connects a new user, joins a group twice, and announces to the group at another node.
    async fn connect_and_join(&mut self) -> Result<()> {
        let ([node, admin], number) = (self.turn_with_admin()?, self.next);
        let mut clients = Vec::new();
        self.wait_for(0, connect(&mut clients, &node, "/bench")).await?;
        let path = format!("/bench?access_token={}", token::of_user(ACCESS_KEY, &format!("user-{number}"))?);
        self.wait_for(1, connect(&mut clients, &node, &path)).await?;
        let group = format!("group-{number}");
        for (kind, client) in (2..).zip(&mut clients) {
            self.wait_for(kind, join(client, &group)).await?;
        }
        self.wait_for(4, announce(&admin, (&group, 2))).await?;
        for client in clients {
            client.close().await?;
        }
        Ok(())
    }

    /// Joins a group first, then announces to it at another node.
    async fn join_and_announce(&mut self) -> Result<()> {
        let ([node, admin], number) = (self.turn_with_admin()?, self.next);
        let mut client = RawClient::join(&node, "/bench").await?;
        let group = format!("group-{number}");
        self.wait_for(0, join(&mut client, &group)).await?;
        self.wait_for(1, announce(&admin, (&group, 1))).await?;
        client.close().await?;
        Ok(())
    }
}

async fn connect(clients: &mut Vec<RawClient>, node: &str, path: &str) -> Result<()> {
    clients.push(RawClient::join(node, path).await?);
    Ok(())
}

/// Waits until a client is notified of this user. Late notifications of earlier users are skipped.
async fn receive_presence(watcher: &mut RawClient, user: &str) -> Result<()> {
    while watcher.next_record().await?.get("arguments") != Some(&json!([user])) {}
    Ok(())
}

async fn join(client: &mut RawClient, group: &str) -> Result<()> {
    client.call("Join", json!([group])).await?;
    Ok(())
}

/// Announces to a group, and checks the number of reached members.
async fn announce(admin: &str, (group, members): (&str, u64)) -> Result<()> {
    let bearer = format!("Bearer {ADMIN_TOKEN}");
    let headers = [("content-type", "application/json"), ("authorization", bearer.as_str())];
    let body = json!({ "hub": "bench", "group": group, "target": "Notice", "arguments": [] }).to_string();
    let answer = exchange(admin, Method::POST, "/api/announce", &headers, body.into()).await?.json()?;
    ensure!(answer.get("clients") == Some(&json!(members)), "{group} is missed: {answer}");
    Ok(())
}

fn report(fleets: &[MeasuredFleet], kinds: &[&str]) {
    print_line("| fleet | what | count | p50 | p90 | p99 |\n|---|---|---|---|---|---|");
    for fleet in fleets {
        for (kind, waits) in kinds.iter().zip(&fleet.waits) {
            let mut waits = waits.clone();
            waits.sort_unstable();
            let at = |percent: usize| waits.get(waits.len() * percent / 100).copied().unwrap_or_default();
            let [p50, p90, p99] = [50, 90, 99].map(|percent| format!("{:.2} ms", at(percent).as_secs_f64() * 1e3));
            print_line(&format!("| {} | {kind} | {} | {p50} | {p90} | {p99} |", fleet.name, waits.len()));
        }
    }
}

async fn measure(settings: &Settings) -> Result<()> {
    let fixture = Fixture::new()?;
    let (sizes, kinds): (_, &[_]) = match settings.work {
        Work::Size => (named(&settings.nodes), &SIZE_KINDS),
        Work::Frozen => {
            let sizes = [("3", 3), ("3 again", 3), ("4, one frozen", 4)];
            (sizes.map(|(name, count)| (name.to_owned(), count)).to_vec(), &FROZEN_KINDS)
        }
    };
    let mut fleets = Vec::new();
    for (name, count) in &sizes {
        fleets.push(MeasuredFleet::start(&fixture, settings.work, name, *count).await?);
    }
    if let (Work::Frozen, Some(fleet)) = (settings.work, fleets.last_mut()) {
        fleet.running -= 1;
        fleet.nodes.last().context("a node")?.process.signal(Signal::Freeze).await?;
        // Its first announcements would wait for the frozen node.
        sleep(UNTIL_LATE).await; // sleep: becoming late takes time
    }
    for round in 0..settings.rounds {
        let first = round as usize % fleets.len();
        fleets.rotate_left(first);
        for fleet in &mut fleets {
            fleet.turns(settings.work, settings.operations).await?;
        }
        fleets.rotate_right(first);
    }
    report(&fleets, kinds);
    if settings.work == Work::Size {
        slopes(&fleets, &sizes, kinds);
    }
    Ok(())
}

/// Names of fleets by size; a repeated size is marked.
fn named(sizes: &[u16]) -> Vec<(String, usize)> {
    let name = |(place, size): (usize, &u16)| {
        let is_again = sizes.iter().take(place).any(|before| before == size);
        (if is_again { format!("{size} again") } else { size.to_string() }, usize::from(*size))
    };
    sizes.iter().enumerate().map(name).collect()
}

/// Prints the increase of the median wait per additional node, by linear regression over all sizes.
fn slopes(fleets: &[MeasuredFleet], sizes: &[(String, usize)], kinds: &[&str]) {
    for (kind, what) in kinds.iter().enumerate() {
        let medians = fleets.iter().zip(sizes).filter_map(|(fleet, (_, nodes))| {
            let mut waits = fleet.waits.get(kind)?.clone();
            waits.sort_unstable();
            Some((*nodes as f64, waits.get(waits.len() / 2)?.as_secs_f64() * 1e6))
        });
        let points: Vec<_> = medians.collect();
        let count = points.len() as f64;
        let mean = |value: fn(&(f64, f64)) -> f64| points.iter().map(value).sum::<f64>() / count;
        let (nodes, waits) = (mean(|point| point.0), mean(|point| point.1));
        let rise: f64 = points.iter().map(|(x, y)| (x - nodes) * (y - waits)).sum();
        let run: f64 = points.iter().map(|(x, _)| (x - nodes).powi(2)).sum();
        print_line(&format!("{what}: {:.1} us for each further node", rise / run));
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    command::warn_of_debug_build("fleet_waits");
    command::finish("fleet_waits", measure(&Settings::parse()).await)
}
