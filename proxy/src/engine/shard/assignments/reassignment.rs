//! Reassignment of client connections that lost their primary: to another link of the app server, or else to another
//! app server. Until then, clients are not read, but get keep-alives.
//!
//! ```text
//!  primary lost ──► pending calls fail ──► another available? ─ yes ──► opened there, reading resumes
//!                                               └─ no ──► unassigned ──► a link opens, or timeout
//! ```
//!
//! Messages that an app server has received are never sent to another one. Later client data waits in the
//! socket.

use std::mem;
use std::sync::Arc;

use bytestring::ByteString;
use indexmap::IndexSet;
use tracing::debug;

use crate::engine::shard::assignments::client_probe::Probes;
use crate::engine::shard::assignments::pending_close_notice::{PendingCloseNotice, PendingCloseNotices};
use crate::engine::shard::close_reason::CloseReason;
use crate::engine::shard::command::LinkLoss;
use crate::engine::shard::connection::{Assignment, Client, ReleaseReason, Role, open_over};
use crate::engine::shard::shard_core::{CALL_LOST, ShardCore};
use crate::engine::shard::slot::{Serial, Slot};
use crate::engine::upstream::{AppServerId, HomeLink, HubIndex, HubRegistry, ServerGroup};
use crate::ground::metrics::Counters;

/// Maximum number of timed-out clients without an app server that a shard closes per second.
const CLOSED_PER_TICK: usize = 100;

/// Approximate seconds for closing a larger number.
const CROWD_TICKS: usize = 20;

/// Moved client connection that its old app server may still hold.
#[derive(Debug)]
struct MovedAway {
    hub: HubIndex,
    app: AppServerId,
    to: AppServerId,
    id: ByteString,
    until: u32,
}

/// Client connections of one shard that need an app server or have left one.
#[derive(Debug)]
pub(crate) struct Reassignment {
    /// Assignments without an app server, ordered by the time of the loss.
    waiting: IndexSet<(Slot, Role)>,
    moved_away: Vec<MovedAway>,
    ends: PendingCloseNotices,
    probes: Probes,
    /// Seconds for which an app server may hold a connection that has moved away.
    moved_remembered_s: u32,
    counters: Arc<Counters>,
}

impl Reassignment {
    pub(crate) fn new(resume_window_ms: u64, hold_timeout_s: u32, counters: Arc<Counters>) -> Self {
        let moved_remembered_s = moved_remembered_s(resume_window_ms);
        let pending_ttl_s = moved_remembered_s.saturating_add(hold_timeout_s);
        let ends = PendingCloseNotices::new(moved_remembered_s, pending_ttl_s, counters.clone());
        let (waiting, moved_away, probes) = (IndexSet::new(), Vec::new(), Probes::default());
        Self { waiting, moved_away, ends, probes, moved_remembered_s, counters }
    }

    /// Records the close of a client connection that its app server knew; `is_notified` if its link took the
    /// notice.
    pub(crate) fn ended(
        &mut self,
        client: &Client,
        (link, group, released): (&HomeLink, Option<Arc<ServerGroup>>, Option<ReleaseReason>),
        reason: &CloseReason,
        is_notified: bool,
        now: u32,
    ) {
        let Some(opening) = client.cold().opening().cloned() else { return };
        self.ends.add_notice(PendingCloseNotice {
            hub: client.home().hub(),
            from: link.app,
            is_handed_over: released.is_some(),
            id: ByteString::from(&*client.id),
            opening,
            group,
            cause: reason.cause,
            error: reason.error_for_app(),
            notified: is_notified.then(|| link.clone()),
            since: now,
        });
    }

    pub(crate) fn has_ends_of(&self, hub: HubIndex) -> bool {
        self.ends.contains_hub(hub)
    }

    pub(crate) fn link_lost(&mut self, loss: &LinkLoss) {
        self.ends.link_lost(loss.link, &loss.pending_closes);
    }

    pub(crate) fn handed_over(&mut self, hub: HubIndex, app: AppServerId, id: &str) {
        self.ends.handed_over(hub, app, id);
    }

    /// Reports closes to app servers that have not been notified.
    pub(crate) fn send_close_notices(&mut self, hubs: &HubRegistry, now: u32) {
        self.ends.notify(hubs, now);
    }

    /// Slots of the clients waiting for a primary.
    pub(crate) fn unassigned(&self) -> impl Iterator<Item = Slot> {
        self.waiting.iter().filter(|(_, role)| role.is_needed_always()).map(|(slot, _)| *slot)
    }

    /// Assigns an app server in a role without one, or queues the client. The wait for a primary starts
    /// immediately, for a secondary with the first message.
    pub(crate) fn assign_or_wait(&mut self, core: &mut ShardCore, slot: Slot, role: &Role) {
        if self.assign(core, slot, role) {
            return;
        }
        self.waiting.insert((slot, role.clone()));
        core.change_assignment(slot, role, |assignment, now| {
            if role.is_needed_always() {
                assignment.wait(now);
            }
        });
    }

    pub(crate) fn ask_at(&mut self, tick: u32, slot: Slot, serial: Serial) {
        self.probes.ask_at(tick, slot, serial);
    }

    /// Reopens clients after unanswered probes.
    pub(crate) fn open_unanswered(&mut self, core: &mut ShardCore) {
        for slot in self.probes.take_unanswered(core) {
            core.leave(slot, &Role::Home, CALL_LOST);
            self.assign_or_wait(core, slot, &Role::Home);
        }
    }

    /// Retries all waiting assignments after a link opened or may have room again.
    pub(crate) fn retry(&mut self, core: &mut ShardCore) {
        let mut waiting = mem::take(&mut self.waiting);
        waiting.retain(|(slot, role)| !self.assign(core, *slot, role));
        // Frees the memory of a large queue.
        if !waiting.is_empty() {
            self.waiting = waiting;
        }
    }

    /// Ends waits that exceeded the timeout. Returns the clients that waited for a primary, to be closed. Of many, some
    /// wait longer so that they don't reconnect simultaneously.
    pub(crate) fn take_overdue(&mut self, core: &mut ShardCore, timeout_s: u32) -> Vec<Slot> {
        let (at_once, now) = (CLOSED_PER_TICK.max(self.unassigned().count() / CROWD_TICKS), core.tick);
        let (mut homes, mut secondaries) = (Vec::new(), Vec::new());
        self.waiting.retain(|(slot, role)| {
            let assignment = core.connections.live(*slot).and_then(|client| client.assignments().assignment_of(role));
            let since = assignment.and_then(Assignment::waits_since);
            let is_overdue = since.is_some_and(|since| now.saturating_sub(since) >= timeout_s);
            match role {
                Role::Home if is_overdue && homes.len() < at_once => {
                    homes.push(*slot);
                    return false;
                }
                Role::Secondary(group) if is_overdue => secondaries.push((*slot, group.clone())),
                Role::Home | Role::Secondary(_) => {}
            }
            true
        });
        for (slot, group) in secondaries {
            debug!(slot, %group, "no app server of the group was available in time");
            let give_up = |secondary: &mut Assignment, _| secondary.give_up();
            core.change_assignment(slot, &Role::Secondary(group), give_up);
        }
        homes
    }

    pub(crate) fn evict_old_moves(&mut self, now: u32) {
        self.moved_away.retain(|moved| moved.until > now);
        self.ends.evict_old(now);
    }

    /// Moved connections that an app server with a new link may still hold, with their new app servers.
    pub(crate) fn take_moved_away(&mut self, hub: HubIndex, app: AppServerId) -> Vec<(ByteString, AppServerId)> {
        let known = self.moved_away.extract_if(.., |moved| moved.hub == hub && moved.app == app);
        known.map(|moved| (moved.id, moved.to)).collect()
    }

    /// Records that a client connection has moved from one app server to another.
    pub(crate) fn moved_away(&mut self, hub: HubIndex, (app, to): (AppServerId, AppServerId), id: &str, now: u32) {
        let until = now.saturating_add(self.moved_remembered_s);
        self.moved_away.push(MovedAway { hub, app, to, id: id.into(), until });
    }

    /// Assigns an app server in a role without one. Returns `false` if none is available.
    fn assign(&mut self, core: &mut ShardCore, slot: Slot, role: &Role) -> bool {
        loop {
            let Some(client) = core.connections.live(slot) else { return true };
            if !client.assignments().assignment_of(role).is_some_and(|assignment| assignment.wants_link()) {
                return true;
            }
            let Some(link) = choose(core, client, role) else { return false };
            // A link lost while being chosen is no longer in the pool.
            if self.open_at_target(core, slot, role, &link) {
                return true;
            }
        }
    }

    /// Opens a client connection at an app server in a role. Returns `false` if the link is lost; then nothing has
    /// changed, and handed-over items still wait.
    pub(crate) fn open_at_target(&mut self, core: &mut ShardCore, slot: Slot, role: &Role, link: &HomeLink) -> bool {
        if *role == Role::Home
            && let Some(is_asked) = self.probes.ask(core, slot, link)
        {
            return is_asked;
        }
        let now = core.tick;
        let timeout_ms = core.connections.live(slot).and_then(|client| core.hub_of(client));
        let timeout_ms = timeout_ms.map(|hub| hub.settings().handshake_timeout_ms);
        let hubs = &core.context.shared.hubs;
        let Some(client) = core.connections.live_mut(slot) else { return true };
        let (id, content, is_open) = (client.id.clone(), client.content(), client.life().is_open());
        let has_ended = client.link_of(role).is_some_and(|left| left.capabilities.ends_clients_with_link);
        let Some(assignment) = client.assignments().assignment_of(role) else { return true };
        let was_at = assignment.was_at();
        // It has let go of the connection, and may get it back over another link than a late notice.
        let is_released = assignment.released().is_some();
        // Without a handshake response, the client starts over.
        let from = was_at.filter(|_| is_open).map(|app| hubs.instance(app));
        let items = assignment.items().filter(|_| from.is_some());
        let Some(open) = client.cold().opening_with(from.as_deref(), items) else { return true };
        if !open_over(link, open, (&id, content)) {
            return false;
        }
        if let Some(assignment) = client.assignments_mut().of_mut(role) {
            if from.is_some() {
                assignment.clear_items();
            }
            // A reassigned connection receives no handshake response.
            assignment.open_at(link.app, role.stage_at_first(was_at.is_some()));
        }
        let left = was_at.filter(|was_at| *was_at != link.app);
        if let Some(left) = left.filter(|_| !has_ended && !is_released) {
            self.moved_away(link.hub(), (left, link.app), &id, now);
        }
        if left.is_some() || role.is_needed_always() {
            self.counters.rehomed.increment();
        }
        match role {
            Role::Home => {
                if let Some(timeout_ms) = timeout_ms {
                    client.life_mut().handshake_sent(opening_until(now, timeout_ms));
                }
                client.cold_mut().stay_mut().opened(left.filter(|_| has_ended));
                client.refresh_pauses(now);
                core.connections.set_home(slot, link);
            }
            Role::Secondary(group) => {
                if let Some(secondary) =
                    client.assignments_mut().secondaries_mut().and_then(|secondaries| secondaries.of_group(group))
                {
                    secondary.link = link.clone();
                }
                client.refresh_pauses(now);
            }
        }
        true
    }
}

fn choose(core: &ShardCore, client: &Client, role: &Role) -> Option<HomeLink> {
    let (hub, left) = (core.hub_of(client)?, client.link_of(role)?.app);
    match role {
        Role::Secondary(group) => hub.choose_home_near(left, group),
        // After the probe sent over this link.
        Role::Home
            if client.cold().stay().is_reopened() && client.home().is_open() && client.home().may_carry_clients() =>
        {
            Some(client.home().clone())
        }
        Role::Home => {
            let home = match client.cold().origin().is_bound {
                true => hub.choose_home_at(left),
                false => hub.choose_home_near(left, client.cold().group_name()),
            };
            // If opened too early, the app server would confuse the connection with its existing one and close both.
            home.filter(|home| home.app != left || client.cold().stay().is_accepted_again(core.tick))
        }
    }
}

/// Seconds for which an app server may hold connections that have moved away: it waits twice the resume window for a
/// link, which is then redialled periodically.
fn moved_remembered_s(resume_window_ms: u64) -> u32 {
    let window_s = u32::try_from(resume_window_ms.div_ceil(1000)).unwrap_or(u32::MAX);
    window_s.saturating_mul(2).saturating_add(5)
}

/// Tick at which a client connection closes if it has no hub handshake response by then.
pub(crate) fn opening_until(now: u32, handshake_timeout_ms: u64) -> u32 {
    let timeout_s = u32::try_from(handshake_timeout_ms.div_ceil(1000)).unwrap_or(u32::MAX);
    now.saturating_add(timeout_s).saturating_add(1)
}

#[cfg(test)]
mod tests;
