//! Presence: hooks for users who come and go, and for groups whose members change.
//!
//! ```text
//!  nodes ──updates──► PresenceView ──notices of this app server──► workers ──► hooks
//!                        ▲ ticks, while anything is about to be told
//! ```
//!
//! A hub without such hooks has none of this, and its proxies send nothing.

mod entry;
mod notice;
mod notice_hook;
mod view;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::task::TaskTracker;
use trunkline_protocol::manifest::PresenceScope;
use trunkline_protocol::service::PresenceChanges;

use crate::hub_core::HubCore;
use crate::node::Node;
use crate::supervision::supervise;
use crate::sync::lock;

use notice::Notice;
pub use notice::{GroupChanged, UserOffline, UserOnline};
use notice_hook::NoticeFuture;
pub(crate) use notice_hook::{ErasedNoticeHook, bindable_notice};
pub use notice_hook::{FromNotice, NoticeHook, NoticeHub};
use view::{FirstSnapshot, LAST_TICKS, PresenceView};

/// Time without connections after which a user is offline, unless the hub says otherwise: a page is loaded anew, or a
/// client goes to another proxy, in less.
pub(crate) const PRESENCE_GRACE: Duration = Duration::from_secs(5);

/// Interval of ticks while there is something to tell. Grace is counted in ticks, so a process that was frozen does not
/// find it over at once.
const TICK: Duration = Duration::from_millis(100);

/// Ticks after which a node is gone all of whose sockets have ended: one that lives dials again within 2 s.
const LOST_NODE_TICKS_MIN: u64 = 30;

/// Time from the first update on in which what nodes tell at first was there before this app server was.
const STARTING: Duration = Duration::from_secs(10);

/// Maximum number of hooks of one hub that run at once.
const RUNNING_MAX: usize = 64;

/// Hooks of presence of one hub.
#[derive(Default)]
pub(crate) struct PresenceHooks {
    pub(crate) on_user_online: Vec<ErasedNoticeHook<UserOnline>>,
    pub(crate) on_user_offline: Vec<ErasedNoticeHook<UserOffline>>,
    pub(crate) on_group_changed: Vec<ErasedNoticeHook<GroupChanged>>,
}

/// Presence of one hub.
pub(crate) struct Presence {
    core: Arc<HubCore>,
    hooks: PresenceHooks,
    tasks: TaskTracker,
    lost_node_ticks: u64,
    state: Mutex<PresenceState>,
}

struct PresenceState {
    view: PresenceView<Arc<Node>>,
    /// Nodes without a socket, since these ticks of the driver.
    away: Vec<(Arc<Node>, u64)>,
    first_update_at: Option<Instant>,
    /// A task drives it.
    is_driven: bool,
    workers: usize,
    /// Workers of these that run hooks.
    busy: usize,
    /// Ticks that are left to this app server, which is about to stop; `None` while it is not.
    last_ticks: Option<u64>,
}

impl PresenceHooks {
    /// Scope of what proxies have to tell for these hooks.
    pub(crate) fn scope(&self) -> PresenceScope {
        PresenceScope {
            users: !self.on_user_online.is_empty() || !self.on_user_offline.is_empty(),
            groups: !self.on_group_changed.is_empty(),
        }
    }

    fn run(&self, notice: Notice, hub: &NoticeHub) -> Vec<NoticeFuture> {
        match notice {
            Notice::Online(notice) => {
                self.on_user_online.iter().map(|hook| hook(notice.clone(), hub.clone())).collect()
            }
            Notice::Offline(notice) => {
                self.on_user_offline.iter().map(|hook| hook(notice.clone(), hub.clone())).collect()
            }
            Notice::Group(notice) => {
                self.on_group_changed.iter().map(|hook| hook(notice.clone(), hub.clone())).collect()
            }
        }
    }
}

impl Presence {
    /// Presence of a hub with such hooks; `None` for any other.
    pub(crate) fn new(
        core: &Arc<HubCore>,
        hooks: PresenceHooks,
        grace: Duration,
        tasks: TaskTracker,
    ) -> Option<Arc<Self>> {
        if !hooks.scope().is_any() {
            return None;
        }
        let grace = u64::try_from(grace.as_millis() / TICK.as_millis()).unwrap_or(u64::MAX);
        let state = PresenceState {
            view: PresenceView::new(Arc::clone(&core.instance), grace),
            away: Vec::new(),
            first_update_at: None,
            is_driven: false,
            workers: 0,
            busy: 0,
            last_ticks: None,
        };
        let lost_node_ticks = grace.max(LOST_NODE_TICKS_MIN);
        Some(Arc::new(Self { core: Arc::clone(core), hooks, tasks, lost_node_ticks, state: Mutex::new(state) }))
    }

    /// Takes what a shard of a node tells.
    pub(crate) fn handle_update(self: &Arc<Self>, node: &Arc<Node>, update: PresenceChanges) {
        let mut state = lock(&self.state);
        let first_update_at = *state.first_update_at.get_or_insert_with(Instant::now);
        let first = if first_update_at.elapsed() < STARTING { FirstSnapshot::Known } else { FirstSnapshot::News };
        state.view.update(node, update, first);
        self.core.metrics().presence_ignored.inc_by(state.view.take_ignored());
        self.drive_if_needed(&mut state);
    }

    /// Notes that a socket of a node has ended: without any it may be gone.
    pub(crate) fn handle_socket_ended(self: &Arc<Self>, node: &Arc<Node>) {
        let mut state = lock(&self.state);
        let is_known = state.away.iter().any(|(away, _)| away == node);
        if !is_known && state.last_ticks.is_none() && !node.is_linked() && state.view.follows(node) {
            state.away.push((Arc::clone(node), 0));
            self.drive_if_needed(&mut state);
        }
    }

    /// Forgets a node whose links are over.
    pub(crate) fn handle_node_lost(self: &Arc<Self>, node: &Arc<Node>) {
        let mut state = lock(&self.state);
        let missed = state.away.extract_if(.., |(away, _)| *away == *node).map(|(_, ticks)| ticks).max();
        if state.last_ticks.is_none() {
            // Its clients have had so much of their grace already.
            state.view.forget(node, missed.unwrap_or_default());
            self.drive_if_needed(&mut state);
        }
    }

    /// Tells nothing any more that the end of links would mean: it is this app server that stops.
    pub(crate) fn stop(&self) {
        lock(&self.state).last_ticks.get_or_insert(LAST_TICKS);
    }

    fn drive_if_needed(self: &Arc<Self>, state: &mut PresenceState) {
        if state.is_busy() && !std::mem::replace(&mut state.is_driven, true) {
            self.tasks.spawn(Arc::clone(self).drive());
        }
    }

    /// Ticks for as long as there is something to tell.
    async fn drive(self: Arc<Self>) {
        loop {
            // sleep: a tick of the view
            sleep(TICK).await;
            let mut state = lock(&self.state);
            state.tick(self.lost_node_ticks);
            for _ in 0..state.missing_workers() {
                state.workers += 1;
                self.tasks.spawn(Arc::clone(&self).work());
            }
            if !state.is_busy() {
                state.is_driven = false;
                return;
            }
        }
    }

    /// Tells the app, notice by notice, until there is none.
    async fn work(self: Arc<Self>) {
        let hub = NoticeHub(Arc::clone(&self.core));
        loop {
            let next = {
                let mut state = lock(&self.state);
                let next = state.view.next_notice(Instant::now());
                match next {
                    Some(_) => state.busy += 1,
                    None => state.workers -= 1,
                }
                next
            };
            let Some(notice) = next else { return };
            let subject = notice.subject();
            self.core.metrics().presence_notices.inc();
            let (hook_name, subject_name) = (notice.hook_name(), subject.name());
            for hook in self.hooks.run(notice, &hub) {
                let (named, hook_timeout) = ((hook_name, subject_name), self.core.limits.hook_timeout);
                if let Err(error) = supervise(&self.core.outbound, named, hook_timeout, hook).await {
                    let hub = self.core.name();
                    tracing::error!(hub, hook = hook_name, subject = subject_name, ?error, "hook of presence failed");
                }
            }
            let mut state = lock(&self.state);
            state.busy -= 1;
            state.view.done(subject);
            self.drive_if_needed(&mut state);
        }
    }
}

impl PresenceState {
    /// Whether ticks are needed.
    fn is_busy(&self) -> bool {
        let is_waiting = self.view.is_waiting() || !self.away.is_empty();
        is_waiting && self.last_ticks != Some(0)
    }

    /// Number of workers to start, for what is ready beside what is being worked on.
    fn missing_workers(&self) -> usize {
        (self.busy + self.view.ready()).min(RUNNING_MAX).saturating_sub(self.workers)
    }

    fn tick(&mut self, lost_node_ticks: u64) {
        let Self { view, away, last_ticks, .. } = self;
        view.tick();
        if let Some(left) = last_ticks {
            *left = left.saturating_sub(1);
        }
        away.retain_mut(|(node, ticks)| {
            *ticks += 1;
            if node.is_linked() {
                view.resume(node);
                return false;
            }
            if *ticks == lost_node_ticks {
                tracing::info!(node = node.name(), "a proxy can't be reached: its users are offline");
                view.suspend(node);
            }
            true
        });
    }
}
