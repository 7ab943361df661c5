//! Sequence of a run, common to all profiles.
//!
//! ```text
//!  ramp-up: connect, get ready ──► run: the profile's work ──► settle: messages in flight ──► ramp-down
//! ```
//!
//! The work begins when all clients are ready or have failed, and no client leaves before it has settled. So the
//! expected recipients are known exactly, and the run has exactly the requested length. Everything runs on one thread.

use std::rc::Rc;
use std::time::Duration;

use tokio::task::{JoinSet, spawn_local};
use tokio::time::{Instant, interval, sleep};

use crate::connection::{Connection, Receiver};
use crate::ended::Ended;
use crate::ledger::Counts;
use crate::published::Published;
use crate::run::Run;
use crate::schedule::offset_us;
use trunkline_generator::histogram::micros;

/// Ping interval of clients, as in the official ones.
const PING_INTERVAL: Duration = Duration::from_secs(15);
/// Number of groups of clients with staggered pings.
const PING_SHARES: usize = 150;

/// Wait after everything has arrived, to detect duplicates. No fence message can replace it, because other servers
/// guarantee no order.
const QUIET: Duration = Duration::from_millis(300);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Result of a profile's work.
#[derive(Debug, Default)]
pub(crate) struct Harvest {
    pub(crate) counts: Counts,
    /// Lines that list some missing messages.
    pub(crate) missing: Vec<String>,
    pub(crate) published: Option<Published>,
    /// Whether the run ended early.
    pub(crate) is_cut_short: bool,
}

/// Work of the clients.
pub(crate) trait Profile: Receiver + 'static {
    fn run(&self) -> &Rc<Run>;

    /// Prepares a connected client. Returns `false` if that fails.
    async fn join(&self, client: usize, connection: &Rc<Connection>) -> bool;

    /// Handles a client's lost connection.
    fn left(&self, client: usize);

    async fn work(self: Rc<Self>, until_us: u64);

    /// Whether everything expected has arrived.
    fn is_complete(&self) -> bool;

    /// Queries the server's counts, before and after waiting for messages in flight.
    async fn close_books(&self, part: Part);

    fn harvest(&self) -> Harvest;
}

/// Step of finishing the counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// No further messages are sent.
    Stop,
    /// All messages have arrived.
    Count,
}

/// Runs a profile. `noted` is called when all clients are ready, and when the work has ended.
pub(crate) async fn drive<P: Profile>(profile: Rc<P>, mut noted: impl FnMut(Stage)) -> Harvest {
    let run = Rc::clone(profile.run());
    let mut background = JoinSet::new();
    background.spawn_local(keep_alive(Rc::clone(&run)));
    run.unless_stopped(ramp_up(&profile)).await;
    noted(Stage::Ready);
    let until_us = run.clock.now_us() + micros(run.arguments.run);
    let is_whole = run.unless_stopped(Rc::clone(&profile).work(until_us)).await;
    profile.close_books(Part::Stop).await;
    settle(&profile, run.arguments.settle).await;
    profile.close_books(Part::Count).await;
    noted(Stage::Done);
    // Before the ramp-down, because clients that leave as planned miss nothing.
    let harvest = Harvest { is_cut_short: !is_whole, ..profile.harvest() };
    ramp_down(&run).await;
    background.shutdown().await;
    harvest
}

/// Milestone of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Ready,
    Done,
}

/// Connects a client, prepares it and serves it in a separate task. Returns `false` if a step fails.
pub(crate) async fn admit<P: Profile>(profile: &Rc<P>, client: usize) -> bool {
    let run = profile.run();
    let Some(connection) = run.connect(client).await else { return false };
    run.set_connection(client, Some(Rc::clone(&connection)));
    spawn_local(serve(Rc::clone(profile), client, Rc::clone(&connection)));
    let is_ready = profile.join(client, &connection).await;
    if !is_ready {
        // The server may consider it a member, but this run does not.
        connection.close();
    }
    is_ready
}

async fn serve<P: Profile>(profile: Rc<P>, client: usize, connection: Rc<Connection>) {
    let ended = connection.serve(client, &*profile).await;
    let run = profile.run();
    let cause = (ended != Ended::Closed).then(|| ended.to_string());
    run.tally().closed(run.clock.now_us(), cause);
    // The client may already have a newer connection.
    if run.connection(client).is_some_and(|now| Rc::ptr_eq(&now, &connection)) {
        run.set_connection(client, None);
        profile.left(client);
    }
}

async fn ramp_up<P: Profile>(profile: &Rc<P>) {
    let run = profile.run();
    let (count, begun_us) = (run.client_count(), run.clock.now_us());
    let mut joining = JoinSet::new();
    for client in 0..count {
        run.clock.wait_until(begun_us + offset_us(run.arguments.rampup, client, count)).await;
        let profile = Rc::clone(profile);
        joining.spawn_local(async move {
            admit(&profile, client).await;
            profile.run().settled.update(|settled| settled + 1);
        });
        while joining.try_join_next().is_some() {}
    }
    joining.join_all().await;
}

/// Waits for messages in flight, then for unexpected ones.
async fn settle<P: Profile>(profile: &Rc<P>, patience: Duration) {
    let begun = Instant::now();
    while !profile.is_complete() && begun.elapsed() < patience {
        sleep(LOOK_AGAIN).await;
    }
    sleep(QUIET).await;
}

async fn ramp_down(run: &Run) {
    let open = run.connected();
    let (count, begun_us) = (open.len(), run.clock.now_us());
    for (number, (_, connection)) in open.into_iter().enumerate() {
        let due_us = begun_us + offset_us(run.arguments.rampdown, number, count);
        run.unless_stopped(run.clock.wait_until(due_us)).await;
        connection.close();
    }
    let begun = Instant::now();
    while !run.connected().is_empty() && begun.elapsed() < run.arguments.settle {
        sleep(LOOK_AGAIN).await;
    }
}

async fn keep_alive(run: Rc<Run>) {
    let shares = u32::try_from(PING_SHARES).unwrap_or(1);
    let mut timer = interval(PING_INTERVAL / shares);
    for share in (0..PING_SHARES).cycle() {
        timer.tick().await;
        for client in (share..run.client_count()).step_by(PING_SHARES) {
            if let Some(connection) = run.connection(client) {
                connection.keep_alive();
            }
        }
    }
}
