//! Tests with in-memory fleets of app servers and proxies in virtual time: which app server runs a task, and that two
//! never do.

use std::collections::BTreeSet;

use axum::extract::State;
use tokio::sync::Notify;
use trunkline_link::LinkOutbox;
use trunkline_protocol::hub::HubProtocol;
use trunkline_protocol::service::{Attachment, Capabilities, TaskCandidate};

use super::*;
use crate::connection::Limits;
use crate::metrics::Metrics;
use crate::naming::Naming;
use crate::node::{NodeName, open_outbox};
use crate::outbound::Outbound;
use crate::presence::bindable_notice;

/// App servers that run the task, as reported by the task.
#[derive(Clone, Default)]
struct Stand {
    running: Arc<Mutex<BTreeSet<usize>>>,
    changed: Arc<Notify>,
}

/// Run of the task on one app server, until it is dropped.
struct Run(Stand, usize);

#[derive(Clone)]
struct AppState {
    stand: Stand,
    number: usize,
}

/// App server, and its links by proxy number.
struct AppServer {
    runner: Arc<TaskRunner>,
    links: Vec<AppLink>,
    since_ms: i64,
}

struct AppLink {
    proxy: usize,
    node: Arc<Node>,
    outbox: Arc<LinkOutbox>,
    socket: Attachment,
}

/// App servers, and the list of each proxy.
struct Fleet {
    stand: Stand,
    apps: Vec<AppServer>,
    listed: Vec<BTreeSet<usize>>,
}

impl Run {
    fn begin(state: AppState) -> Self {
        lock(&state.stand.running).insert(state.number);
        state.stand.changed.notify_waiters();
        Self(state.stand, state.number)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        lock(&self.0.running).remove(&self.1);
        self.0.changed.notify_waiters();
    }
}

impl Stand {
    fn running(&self) -> Vec<usize> {
        lock(&self.running).iter().copied().collect()
    }

    /// Waits until exactly these app servers run the task. Returns the elapsed time.
    async fn until(&self, wanted: &[usize]) -> Duration {
        let began = Instant::now();
        loop {
            let changed = self.changed.notified();
            if self.running() == wanted {
                return began.elapsed();
            }
            changed.await;
        }
    }
}

async fn clock(State(state): State<AppState>) {
    let _run = Run::begin(state);
    std::future::pending::<()>().await;
}

impl Fleet {
    /// App servers with these start times, and this number of proxies without links.
    fn new(since_ms: &[i64], proxies: usize) -> Self {
        let stand = Stand::default();
        let task = |number| {
            let state = AppState { stand: stand.clone(), number };
            bindable_notice(clock).bind_early(&state)
        };
        let apps = since_ms.iter().enumerate();
        let apps = apps.map(|(number, since_ms)| AppServer::new(number, task(number), *since_ms)).collect();
        Self { stand, apps, listed: vec![BTreeSet::new(); proxies] }
    }

    fn report(&self, proxy: usize) {
        let candidates: Vec<_> = self.listed[proxy]
            .iter()
            .map(|app| TaskCandidate {
                task: "clock".into(),
                instance: instance(*app).into(),
                since_ms: self.apps[*app].since_ms,
            })
            .collect();
        for app in &self.apps {
            if let Some(link) = app.links.iter().find(|link| link.proxy == proxy && link.outbox.is_open()) {
                app.runner.handle_candidates(&link.node, TaskCandidates { candidates: candidates.clone() });
            }
        }
    }

    fn link(&mut self, app: usize, proxy: usize) {
        let node = Arc::new(Node::new(NodeName::proxy(&format!("n{proxy}"), "boot"), Capabilities::plain()));
        let (outbox, socket) = open_outbox(1_000);
        let outbox = Arc::new(outbox);
        node.open(0, Arc::clone(&outbox));
        self.apps[app].links.push(AppLink { proxy, node, outbox, socket });
        self.listed[proxy].insert(app);
        self.report(proxy);
    }

    /// Closes the socket of a link. Its session continues on both ends.
    fn cut(&self, app: usize, proxy: usize) {
        let link = self.apps[app].links.iter().find(|link| link.proxy == proxy).unwrap();
        link.outbox.detach(link.socket, 0);
        self.apps[app].runner.handle_socket_ended();
    }

    fn unlist(&mut self, app: usize, proxy: usize) {
        self.listed[proxy].remove(&app);
        self.report(proxy);
    }

    /// Notifies an app server that the session has ended.
    fn lose(&mut self, app: usize, proxy: usize) {
        let AppServer { links, runner, .. } = &mut self.apps[app];
        for link in links.extract_if(.., |link| link.proxy == proxy) {
            runner.handle_node_lost(&link.node);
        }
    }

    /// Kills an app server: nothing of it runs any longer.
    fn kill(&mut self, app: usize) {
        self.apps[app].runner.stop();
        self.apps[app].links.clear();
    }
}

fn instance(app: usize) -> String {
    format!("app-{app}")
}

impl AppServer {
    fn new(number: usize, task: Bindable<(), ErasedNoticeHook<ExclusiveRun>>, since_ms: i64) -> Self {
        let outbound = Outbound::new("test", Metrics::new().hub("test"));
        let (naming, limits) = (Naming::default(), Limits::default());
        let core = HubCore::new(instance(number).into(), HubProtocol::ALL.to_vec(), naming, limits, outbound);
        let tasks = vec![ExclusiveTask::new("clock".to_owned(), task)];
        let runner = TaskRunner::new(&Arc::new(core), tasks, TaskTracker::new()).unwrap();
        Self { runner, links: Vec::new(), since_ms }
    }
}

/// Advances virtual time, expecting no change.
async fn pass(time: Duration) {
    // sleep: time is virtual, and the test shows that nothing changes
    sleep(time).await;
}

const LONG: Duration = Duration::from_secs(600);

#[tokio::test(start_paused = true)]
async fn a_new_app_server_does_not_displace_the_running_one() {
    let mut fleet = Fleet::new(&[1, 2, 3], 2);
    fleet.link(1, 0);
    assert!(fleet.stand.until(&[1]).await <= START_AFTER);
    fleet.link(2, 0);
    fleet.link(2, 1);
    fleet.link(1, 1);
    pass(LONG).await;
    assert_eq!(fleet.stand.running(), [1]);
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_another_app_server_takes_over_once_all_proxies_have_detected_it() {
    let mut fleet = Fleet::new(&[1, 2], 2);
    for (app, proxy) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        fleet.link(app, proxy);
    }
    fleet.stand.until(&[0]).await;
    fleet.kill(0);
    fleet.stand.until(&[]).await;
    fleet.unlist(0, 0);
    pass(LONG).await;
    assert_eq!(fleet.stand.running(), [0; 0], "for the other proxy it lives");
    fleet.unlist(0, 1);
    assert!(fleet.stand.until(&[1]).await <= START_AFTER);
}

#[tokio::test(start_paused = true)]
async fn an_app_server_that_stops_ends_the_task_before_another_one_starts_it() {
    let mut fleet = Fleet::new(&[1, 2], 1);
    fleet.link(0, 0);
    fleet.link(1, 0);
    fleet.stand.until(&[0]).await;
    fleet.apps[0].runner.stop();
    fleet.unlist(0, 0);
    assert_eq!(fleet.stand.until(&[]).await, Duration::ZERO);
    assert!(fleet.stand.until(&[1]).await <= START_AFTER);
}

#[tokio::test(start_paused = true)]
async fn an_app_server_that_is_cut_off_stops_long_before_proxies_give_it_up() {
    let mut fleet = Fleet::new(&[1, 2], 2);
    for (app, proxy) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        fleet.link(app, proxy);
    }
    fleet.stand.until(&[0]).await;
    fleet.cut(0, 0);
    pass(LONG).await;
    assert_eq!(fleet.stand.running(), [0], "the other proxy is enough");
    fleet.cut(0, 1);
    let stopped = fleet.stand.until(&[]).await;
    assert!((Duration::from_secs(2)..Duration::from_secs(3)).contains(&stopped), "{stopped:?}");
    fleet.unlist(0, 0);
    fleet.unlist(0, 1);
    fleet.stand.until(&[1]).await;
    fleet.lose(0, 0);
    fleet.lose(0, 1);
    fleet.link(0, 0);
    fleet.stand.until(&[]).await;
    assert!(fleet.stand.until(&[0]).await <= START_AFTER, "it is back, and began first");
}

#[tokio::test(start_paused = true)]
async fn a_suspended_process_stops_the_task_before_it_continues() {
    let mut fleet = Fleet::new(&[1], 1);
    fleet.link(0, 0);
    fleet.stand.until(&[0]).await;
    tokio::time::advance(Duration::from_secs(30)).await;
    assert_eq!(fleet.stand.until(&[]).await, Duration::ZERO, "others may have been chosen");
    assert!(fleet.stand.until(&[0]).await <= START_AFTER, "its proxies are there still");
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_crashes_with_the_app_server_that_runs_it_is_waited_for_in_vain_a_while() {
    let mut fleet = Fleet::new(&[1, 2], 2);
    for (app, proxy) in [(0, 0), (1, 0), (1, 1)] {
        fleet.link(app, proxy);
    }
    fleet.stand.until(&[0]).await;
    fleet.kill(0);
    fleet.cut(1, 0);
    fleet.stand.until(&[]).await;
    let taken = fleet.stand.until(&[1]).await;
    assert!((Duration::from_secs(5)..Duration::from_secs(8)).contains(&taken), "{taken:?}");
}

#[tokio::test(start_paused = true)]
async fn two_without_a_common_proxy_both_run_it_until_they_have_one() {
    let mut fleet = Fleet::new(&[1, 2], 2);
    fleet.link(0, 0);
    fleet.link(1, 1);
    fleet.stand.until(&[0, 1]).await;
    fleet.link(1, 0);
    assert_eq!(fleet.stand.until(&[0]).await, Duration::ZERO);
    pass(LONG).await;
    assert_eq!(fleet.stand.running(), [0]);
}

#[tokio::test(start_paused = true)]
async fn an_app_server_with_a_slow_clock_starts_after_the_other_has_stopped() {
    let mut fleet = Fleet::new(&[5, 1], 1);
    fleet.link(0, 0);
    fleet.stand.until(&[0]).await;
    fleet.link(1, 0);
    assert_eq!(fleet.stand.until(&[]).await, Duration::ZERO);
    assert_eq!(fleet.stand.until(&[1]).await, START_AFTER);
}

/// Runs a single app server. Its task counts its runs and ends as given.
async fn runs_within(time: Duration, end: fn() -> Result<(), HubError>) -> usize {
    let runs = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&runs);
    let task = move || {
        *lock(&counted) += 1;
        async move { end() }
    };
    let mut fleet = Fleet::new(&[], 1);
    fleet.apps.push(AppServer::new(0, bindable_notice(task), 1));
    fleet.link(0, 0);
    pass(time).await;
    *lock(&runs)
}

#[tokio::test(start_paused = true)]
async fn a_task_that_returns_is_finished_and_a_failed_task_restarts() {
    assert_eq!(runs_within(LONG, || Ok(())).await, 1);
    let failing = runs_within(Duration::from_secs(16), || Err(HubError::new("on purpose"))).await;
    assert_eq!(failing, 3, "after 1, 7 and 13 s: a pause, and a second as the chosen one");
    assert_eq!(runs_within(Duration::from_secs(3), || panic!("on purpose")).await, 1);
}
