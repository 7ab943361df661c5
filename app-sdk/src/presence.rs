//! Presence: hooks for users coming online or going offline, and for changes of group membership.
//!
//! ```text
//!  nodes ──updates──► PresenceView ──notices of this app server──► workers ──► hooks
//!                        ▲ ticks, while reports are pending
//! ```
//!
//! A hub without such hooks has no presence, and its proxies send no updates for it.

mod entry;
mod notice;
mod view;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::task::TaskTracker;
use trunkline_protocol::manifest::PresenceScope;
use trunkline_protocol::service::PresenceChanges;

use crate::hub_core::HubCore;
use crate::node::Node;
use crate::sync::lock;
use crate::watchdog::supervise;

pub(crate) use notice::{ErasedNoticeHook, bindable_notice};
pub use notice::{FromNotice, GroupChanged, NoticeHook, NoticeHub, UserOffline, UserOnline};
use notice::{Notice, NoticeFuture};
use view::{FirstSnapshot, LAST_TICKS, PresenceView};

/// Interval of ticks while there are pending changes. Grace periods count ticks, so that they do not expire immediately
/// when a suspended process continues.
const TICK: Duration = Duration::from_millis(100);

/// Ticks after which a node without sockets counts as lost. A live node dials again within 2 s.
const LOST_NODE_TICKS_MIN: u64 = 30;

/// Time after the first update in which the nodes' first snapshots describe users and members from before this app
/// server started.
const STARTING: Duration = Duration::from_secs(10);

/// Maximum number of concurrent hooks of one hub.
const RUNNING_MAX: usize = 64;

#[derive(Default)]
pub(crate) struct PresenceHooks {
    pub(crate) on_user_online: Vec<ErasedNoticeHook<UserOnline>>,
    pub(crate) on_user_offline: Vec<ErasedNoticeHook<UserOffline>>,
    pub(crate) on_group_changed: Vec<ErasedNoticeHook<GroupChanged>>,
}

pub(crate) struct Presence {
    core: Arc<HubCore>,
    hooks: PresenceHooks,
    tasks: TaskTracker,
    lost_node_ticks: u64,
    state: Mutex<PresenceState>,
}

struct PresenceState {
    view: PresenceView<Arc<Node>>,
    /// Nodes without a socket, with the number of ticks for which they have had none.
    away: Vec<(Arc<Node>, u64)>,
    first_update_at: Option<Instant>,
    is_driven: bool,
    workers: usize,
    busy: usize,
    /// Remaining ticks if this app server is about to stop; otherwise `None`.
    last_ticks: Option<u64>,
}

impl PresenceHooks {
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
    /// Creates the presence of a hub; `None` if the hub has no such hooks.
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

    pub(crate) fn handle_update(self: &Arc<Self>, node: &Arc<Node>, update: PresenceChanges) {
        let mut state = lock(&self.state);
        let first_update_at = *state.first_update_at.get_or_insert_with(Instant::now);
        let first = if first_update_at.elapsed() < STARTING { FirstSnapshot::Known } else { FirstSnapshot::News };
        state.view.update(node, update, first);
        self.core.outbound.metrics.presence_ignored.inc_by(state.view.take_ignored());
        self.drive_if_needed(&mut state);
    }

    /// Handles the end of a node's socket. Without sockets, the node may be lost.
    pub(crate) fn handle_socket_ended(self: &Arc<Self>, node: &Arc<Node>) {
        let mut state = lock(&self.state);
        let is_known = state.away.iter().any(|(away, _)| away == node);
        if !is_known && state.last_ticks.is_none() && !node.is_linked() && state.view.follows(node) {
            state.away.push((Arc::clone(node), 0));
            self.drive_if_needed(&mut state);
        }
    }

    pub(crate) fn handle_node_lost(self: &Arc<Self>, node: &Arc<Node>) {
        let mut state = lock(&self.state);
        let missed = state.away.extract_if(.., |(away, _)| *away == *node).map(|(_, ticks)| ticks).max();
        if state.last_ticks.is_none() {
            // The time without sockets counts towards the grace period of its clients.
            state.view.forget(node, missed.unwrap_or_default());
            self.drive_if_needed(&mut state);
        }
    }

    /// Suppresses notices caused by links that close because this app server stops.
    pub(crate) fn stop(&self) {
        lock(&self.state).last_ticks.get_or_insert(LAST_TICKS);
    }

    fn drive_if_needed(self: &Arc<Self>, state: &mut PresenceState) {
        if state.is_busy() && !std::mem::replace(&mut state.is_driven, true) {
            self.tasks.spawn(Arc::clone(self).drive());
        }
    }

    /// Generates ticks while there are pending changes.
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

    /// Runs hooks, notice by notice, until there are no ready notices.
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
            self.core.outbound.metrics.presence_notices.inc();
            let (hook_name, subject_name) = (notice.hook_name(), subject.name());
            for hook in self.hooks.run(notice, &hub) {
                let (named, hook_timeout) = ((hook_name, subject_name), self.core.limits.hook_timeout);
                if let Err(error) = supervise(&self.core.outbound, named, hook_timeout, hook).await {
                    let hub = self.core.name();
                    tracing::error!(hub, hook = hook_name, subject = subject_name, ?error, "presence hook failed");
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
    fn is_busy(&self) -> bool {
        let is_waiting = self.view.is_waiting() || !self.away.is_empty();
        is_waiting && self.last_ticks != Some(0)
    }

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
                tracing::info!(node = node.name(), "proxy not reachable: its users are reported as offline");
                view.suspend(node);
            }
            true
        });
    }
}
