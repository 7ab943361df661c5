//! Exclusive tasks: of all app servers with a task, one runs it.
//!
//! ```text
//!  manifest: own task names ──► proxy ──list of candidates on change──► each app server: Election
//!                                                                            │ the one that started first
//!                                                selected: start after 1 s ◄──┴──► not selected: stop immediately
//! ```
//!
//! Each app server decides on its own, from the lists of all its proxies: the app server that started first wins, by
//! its own clock. So a new app server never displaces a running one, unless its clock is behind.
//!
//! - **Graceful stop**: the task ends first. Another app server starts it a second after the proxies have removed
//!   this one from their lists.
//! - **Crash**: a proxy detects it when no process has listened for 2 s, or when another instance answers. Then as
//!   above.
//! - **Loss of all proxies**: the app server stops the task 2 s after its last socket closes. If dead sockets stay
//!   silent, it detects the loss within the resume window, and the proxies wait for two windows.
//! - **Suspended process**: it stops the task before the task continues.
//! - **Two app servers without a common proxy** both run the task meanwhile.

mod election;

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use trunkline_protocol::limits::{EXCLUSIVE_TASK_NAME_MAX_BYTES, EXCLUSIVE_TASKS_MAX};
use trunkline_protocol::manifest::ExclusiveTasks;
use trunkline_protocol::service::TaskCandidates;
use trunkline_protocol::unix_time::unix_ms;

use crate::error::HubError;
use crate::handler::Bindable;
use crate::hub_core::HubCore;
use crate::node::Node;
use crate::presence::{ErasedNoticeHook, FromNotice, NoticeHub};
use crate::sync::lock;
use crate::watchdog::CodeId;

use election::Election;

/// Time for which an app server must be selected before it starts a task. By then the previous one is notified, and
/// proxies that connected at the same time have sent their lists.
const START_AFTER: Duration = Duration::from_secs(1);

/// Interval for checks of a running task, because elapsed time causes no event.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// Delay of a check after which the process counts as suspended: another app server may have been selected.
const FROZEN_AFTER: Duration = Duration::from_secs(2);

const RESTART_PAUSE: Duration = Duration::from_secs(5);

/// Time after the first link within which a proxy that supports exclusive tasks has sent its list.
const UNHEARD_AFTER: Duration = Duration::from_secs(5);

/// A run of an exclusive task, for [`Hub::exclusively`](crate::Hub::exclusively).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExclusiveRun {
    task: Arc<str>,
}

/// A type-erased exclusive task with its state bound.
pub(crate) struct ExclusiveTask {
    pub(crate) name: Arc<str>,
    pub(crate) run: ErasedNoticeHook<ExclusiveRun>,
}

pub(crate) struct TaskRunner {
    core: Arc<HubCore>,
    tasks: Vec<ExclusiveTask>,
    tracker: TaskTracker,
    election: Mutex<Election<Arc<Node>>>,
    /// Notified when a proxy's list or links change.
    changed: watch::Sender<()>,
    is_started: AtomicBool,
    stopped: CancellationToken,
}

/// Reason why a run ended although its app server is still selected.
enum RunEnd {
    Done,
    Failed,
}

/// Returns the first invalid name: empty, too long, duplicate, or beyond the maximum number.
pub(crate) fn misnamed(tasks: &[ExclusiveTask]) -> Option<String> {
    let is_doubled = |place: usize, name: &Arc<str>| tasks.iter().take(place).any(|other| other.name == *name);
    let mut named = tasks.iter().map(|task| &task.name).enumerate();
    let misnamed = named.find(|(place, name)| {
        let is_sound = (1..=EXCLUSIVE_TASK_NAME_MAX_BYTES).contains(&name.len());
        !is_sound || *place >= EXCLUSIVE_TASKS_MAX || is_doubled(*place, name)
    });
    misnamed.map(|(_, name)| name.to_string())
}

/// Manifest entry for these tasks on an app server that starts now.
pub(crate) fn standing(tasks: &[ExclusiveTask], now: SystemTime) -> Option<ExclusiveTasks> {
    let names: Vec<_> = tasks.iter().map(|task| task.name.to_string()).collect();
    let since_ms = i64::try_from(unix_ms(now)).unwrap_or(i64::MAX);
    (!names.is_empty()).then_some(ExclusiveTasks { since_ms, names })
}

impl ExclusiveTask {
    pub(crate) fn new(name: String, task: Bindable<(), ErasedNoticeHook<ExclusiveRun>>) -> Self {
        Self { name: name.into(), run: task.bind(&()) }
    }
}

impl ExclusiveRun {
    /// Name of the task.
    #[must_use]
    pub fn task(&self) -> &str {
        &self.task
    }
}

impl<S> FromNotice<S, ExclusiveRun> for ExclusiveRun {
    fn from_notice(run: &ExclusiveRun, _hub: &NoticeHub, _state: &S) -> Self {
        run.clone()
    }
}

impl TaskRunner {
    /// Creates the task runner of a hub; `None` if the hub has no exclusive tasks.
    pub(crate) fn new(core: &Arc<HubCore>, tasks: Vec<ExclusiveTask>, tracker: TaskTracker) -> Option<Arc<Self>> {
        if tasks.is_empty() {
            return None;
        }
        Some(Arc::new(Self {
            core: Arc::clone(core),
            tasks,
            tracker,
            election: Mutex::new(Election::new(Arc::clone(&core.instance))),
            changed: watch::Sender::new(()),
            is_started: AtomicBool::new(false),
            stopped: CancellationToken::new(),
        }))
    }

    pub(crate) fn handle_candidates(self: &Arc<Self>, node: &Arc<Node>, told: TaskCandidates) {
        lock(&self.election).update(node, told.candidates);
        if !self.is_started.swap(true, Ordering::Relaxed) {
            for place in 0..self.tasks.len() {
                self.tracker.spawn(Arc::clone(self).serve(place));
            }
        }
        self.changed.send_replace(());
    }

    /// Handles the end of a proxy's socket, possibly its last one.
    pub(crate) fn handle_socket_ended(&self) {
        self.changed.send_replace(());
    }

    pub(crate) fn handle_node_lost(&self, node: &Arc<Node>) {
        lock(&self.election).forget(node);
        self.changed.send_replace(());
    }

    pub(crate) fn stop(&self) {
        self.stopped.cancel();
    }

    /// Warns if no proxy has sent a list of candidates some seconds after the first link: no task can run then.
    pub(crate) async fn warn_if_unheard(self: Arc<Self>) {
        let unheard = async {
            self.core.outbound.linked().await;
            sleep(UNHEARD_AFTER).await;
        };
        tokio::select! {
            () = self.stopped.cancelled() => {}
            () = unheard => if !self.is_started.load(Ordering::Relaxed) {
                tracing::warn!(
                    hub = self.core.name(),
                    "exclusive tasks don't run: no proxy reports the app servers of the hub (older proxies and dialled \
                     services don't)"
                );
            }
        }
    }

    /// Runs a task whenever this app server is selected, until shutdown.
    async fn serve(self: Arc<Self>, place: usize) {
        let Some(task) = self.tasks.get(place) else { return };
        tokio::select! {
            () = self.stopped.cancelled() => {}
            () = self.take_turns(task) => {}
        }
    }

    async fn take_turns(&self, task: &ExclusiveTask) {
        loop {
            self.selected(&task.name).await;
            tracing::info!(hub = self.core.name(), task = &*task.name, "exclusive task runs here");
            let ended = tokio::select! {
                // Checked first: after a suspension the task must not continue.
                biased;
                () = self.deselected(&task.name) => None,
                ended = self.run(task) => Some(ended),
            };
            match ended {
                None => {
                    tracing::info!(hub = self.core.name(), task = &*task.name, "exclusive task no longer runs here")
                }
                Some(RunEnd::Done) => self.deselected(&task.name).await,
                Some(RunEnd::Failed) => sleep(RESTART_PAUSE).await,
            }
        }
    }

    async fn run(&self, task: &ExclusiveTask) -> RunEnd {
        let run = (task.run)(ExclusiveRun { task: Arc::clone(&task.name) }, NoticeHub(Arc::clone(&self.core)));
        let run = pin!(AssertUnwindSafe(run).catch_unwind());
        let ran = crate::watchdog::watch(&self.core.outbound, CodeId::of(self.core.name(), &task.name), run).await;
        match ran.unwrap_or_else(|panic| Err(HubError::from_panic(&*panic))) {
            Ok(()) => RunEnd::Done,
            Err(error) => {
                tracing::error!(hub = self.core.name(), task = &*task.name, ?error, "exclusive task failed");
                RunEnd::Failed
            }
        }
    }

    /// Waits until this app server has been selected for long enough.
    async fn selected(&self, task: &str) {
        let mut changes = self.changed.subscribe();
        let mut since = None;
        loop {
            let is_selected = self.evaluate(|election, now| election.may_start(task, now));
            since = is_selected.then(|| since.unwrap_or_else(Instant::now));
            let start_at = since.map(|since| since + START_AFTER);
            if start_at.is_some_and(|start_at| start_at <= Instant::now()) {
                return;
            }
            let next_check = sleep_until(start_at.unwrap_or_else(|| Instant::now() + CHECK_INTERVAL));
            tokio::select! {
                _ = changes.changed() => {}
                () = next_check => {}
            }
        }
    }

    async fn deselected(&self, task: &str) {
        let mut changes = self.changed.subscribe();
        loop {
            let checked_at = Instant::now();
            if !self.evaluate(|election, now| election.may_go_on(task, now)) {
                return;
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = sleep(CHECK_INTERVAL) => {}
            }
            if checked_at.elapsed() > CHECK_INTERVAL + FROZEN_AFTER {
                return;
            }
        }
    }

    /// Evaluates the election after updating which proxies have a socket.
    fn evaluate(&self, ask: impl FnOnce(&Election<Arc<Node>>, Instant) -> bool) -> bool {
        let now = Instant::now();
        let mut election = lock(&self.election);
        election.note_links(|node| node.is_linked(), now);
        ask(&election, now)
    }
}

#[cfg(test)]
mod tests;
