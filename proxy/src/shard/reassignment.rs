//! Reassignment of client connections whose home is lost: to a link of the same app server if there is one, else of
//! another. While there is none they wait, unread, and their keep-alives go on.
//!
//! ```text
//!  home lost ──► pending calls are answered with an error ──► another home? ─ yes ──► opened there, read on
//!                                                                   └─ no ──► unassigned ──► a link opens, or time out
//! ```
//!
//! What an app server had taken is never given to another one; what a client has sent meanwhile waits in its socket.

use std::mem;
use std::sync::Arc;

use bytestring::ByteString;
use trunkline_protocol::hub::HandshakeRequest;
use trunkline_protocol::manifest::MIGRATE_TO_HEADER;
use trunkline_protocol::service::{CloseConnection, ConnectionFlowControl, FlowOperation, FlowSubject, ServiceMessage};

use super::close_reason::CloseReason;
use super::command::{LinkLoss, MembershipChange};
use super::connection::{Client, Connections, LetGo, PauseReason, SetName, Status};
use super::content::{Content, DATA_TYPE_HANDSHAKE};
use super::slot::{Serial, Slot};
use super::unheard_end::{UnheardEnd, UnheardEnds};
use crate::metrics::Counters;
use crate::upstream::{AppServerId, HomeLink, HubIndex, HubRegistry, ServerGroup};

/// Clients without an app server that one shard closes in a second, when they have waited for too long.
const CLOSED_PER_TICK: usize = 100;

/// A crowd of them is closed within about so many seconds.
const CROWD_TICKS: usize = 20;

/// Client connection without an app server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unassigned {
    slot: Slot,
    serial: Serial,
    since: u32,
}

/// Client connection that an app server may still hold, though it was moved to another one.
#[derive(Debug)]
struct MovedAway {
    hub: HubIndex,
    app: AppServerId,
    /// The app server that it was moved to.
    to: AppServerId,
    id: ByteString,
    until: u32,
}

/// Client connections of one shard that need a home, or have left one.
#[derive(Debug)]
pub(super) struct Reassignment {
    unassigned: Vec<Unassigned>,
    moved_away: Vec<MovedAway>,
    ends: UnheardEnds,
    /// Seconds for which an app server may hold a connection that was moved away from it.
    moved_remembered_s: u32,
    counters: Arc<Counters>,
}

impl Reassignment {
    pub(super) fn new(resume_window_ms: u64, hold_timeout_s: u32, counters: Arc<Counters>) -> Self {
        let moved_remembered_s = moved_remembered_s(resume_window_ms);
        let untold_kept_s = moved_remembered_s.saturating_add(hold_timeout_s);
        let ends = UnheardEnds::new(moved_remembered_s, untold_kept_s, counters.clone());
        Self { unassigned: Vec::new(), moved_away: Vec::new(), ends, moved_remembered_s, counters }
    }

    /// Takes note of the end of a client connection at an app server that knows of it; `is_told` if its link took the
    /// notice.
    pub(super) fn ended(
        &mut self,
        client: &Client,
        (link, group, is_let_go): (&HomeLink, Option<Arc<ServerGroup>>, Option<LetGo>),
        reason: &CloseReason,
        is_told: bool,
        now: u32,
    ) {
        let Some(opening) = client.cold.opening.clone() else { return };
        self.ends.add(UnheardEnd {
            hub: client.home.hub(),
            from: link.app(),
            is_given_away: is_let_go.is_some(),
            id: ByteString::from(&*client.id),
            opening,
            group,
            cause: reason.cause,
            error: reason.error_for_app(),
            told: is_told.then(|| link.clone()),
            since: now,
        });
    }

    /// Whether the end of a client of a hub is to be told.
    pub(super) fn has_ends_of(&self, hub: HubIndex) -> bool {
        self.ends.are_any_of(hub)
    }

    /// Learns that the session of a link is over.
    pub(super) fn link_lost(&mut self, loss: &LinkLoss) {
        self.ends.link_lost(loss.link, &loss.unheard);
    }

    /// Learns that an app server has handed a connection over that has ended.
    pub(super) fn given_away(&mut self, hub: HubIndex, app: AppServerId, id: &str) {
        self.ends.given_away(hub, app, id);
    }

    /// Tells app servers of ends that nobody was told of.
    pub(super) fn tell_ends(&mut self, hubs: &HubRegistry, now: u32) {
        self.ends.tell(hubs, now);
    }

    /// Slots of the clients that wait for an app server.
    pub(super) fn unassigned_slots(&self) -> Vec<Slot> {
        self.unassigned.iter().map(|waiting| waiting.slot).collect()
    }

    /// Number of clients that wait for an app server.
    pub(super) fn waiting(&self) -> usize {
        self.unassigned.len()
    }

    /// Gives a client connection another home, or lets it wait for one, unread.
    pub(super) fn assign_or_wait(&mut self, connections: &mut Connections, hubs: &HubRegistry, slot: Slot, now: u32) {
        if self.assign(connections, hubs, slot, now) {
            return;
        }
        if let Some(client) = connections.get_mut(slot) {
            client.pause(PauseReason::Unassigned);
            self.unassigned.push(Unassigned { slot, serial: client.serial, since: now });
        }
    }

    /// Tries again for all that wait: a link has opened, or a full one may have room.
    pub(super) fn retry(&mut self, connections: &mut Connections, hubs: &HubRegistry, now: u32) {
        for waiting in mem::take(&mut self.unassigned) {
            let Unassigned { slot, serial, .. } = waiting;
            let client = connections.get_current(slot, serial);
            let still_waits = client.is_some_and(|client| client.pause_reasons().contains(PauseReason::Unassigned));
            if still_waits && !self.assign(connections, hubs, slot, now) {
                self.unassigned.push(waiting);
            }
        }
    }

    /// Slots of the clients that have waited for the timeout: they wait no longer, and are to be closed. Of a crowd
    /// some wait for longer, so that they don't come back all at once.
    pub(super) fn take_overdue(&mut self, timeout_s: u32, now: u32) -> Vec<Slot> {
        let at_once = CLOSED_PER_TICK.max(self.unassigned.len() / CROWD_TICKS);
        let overdue = self.unassigned.extract_if(.., |waiting| now.saturating_sub(waiting.since) >= timeout_s);
        overdue.take(at_once).map(|waiting| waiting.slot).collect()
    }

    /// Forgets moves of which every app server has learnt by now, or never will.
    pub(super) fn forget_old_moves(&mut self, now: u32) {
        self.moved_away.retain(|moved| moved.until > now);
        self.ends.forget_old(now);
    }

    /// Connections that were moved away from an app server whose link has opened again, and where to: it may still hold
    /// them.
    pub(super) fn take_moved_away(&mut self, hub: HubIndex, app: AppServerId) -> Vec<(ByteString, AppServerId)> {
        let known = self.moved_away.extract_if(.., |moved| moved.hub == hub && moved.app == app);
        known.map(|moved| (moved.id, moved.to)).collect()
    }

    /// Takes note that a client connection has moved from one app server to another.
    pub(super) fn moved_away(&mut self, hub: HubIndex, (app, to): (AppServerId, AppServerId), id: &str, now: u32) {
        let until = now.saturating_add(self.moved_remembered_s);
        self.moved_away.push(MovedAway { hub, app, to, id: id.into(), until });
    }

    /// Gives a client connection this home.
    pub(super) fn assign_to(
        &mut self,
        connections: &mut Connections,
        hubs: &HubRegistry,
        slot: Slot,
        home: &HomeLink,
        now: u32,
    ) {
        let timeout_ms = hubs.all().get(home.hub().get()).map(|hub| hub.settings().handshake_timeout_ms);
        self.open_at(connections, hubs, slot, home, timeout_ms, now);
    }

    /// Gives a client connection another home if there is one; `false` while there is none.
    fn assign(&mut self, connections: &mut Connections, hubs: &HubRegistry, slot: Slot, now: u32) -> bool {
        loop {
            let Some(client) = connections.get(slot) else { return true };
            let all = hubs.all();
            let hub = all.get(client.home.hub().get());
            let home = hub.and_then(|hub| match client.cold.is_bound {
                true => hub.choose_home_at(client.home.app()),
                false => hub.choose_home_near(client.home.app(), client.cold.group_name()),
            });
            // Too early, it would take it for the one that it has, and then end both.
            let is_held = |home: &HomeLink| home.app() == client.home.app() && now < client.cold.held_until;
            let Some(home) = home.filter(|home| !is_held(home)) else { return false };
            let handshake_timeout_ms = hub.map(|hub| hub.settings().handshake_timeout_ms);
            self.open_at(connections, hubs, slot, &home, handshake_timeout_ms, now);
            // Lost while it was chosen: its place in the pool is empty by now.
            if !home.is_closed() {
                return true;
            }
        }
    }

    /// Opens a client connection at another home.
    fn open_at(
        &mut self,
        connections: &mut Connections,
        hubs: &HubRegistry,
        slot: Slot,
        home: &HomeLink,
        handshake_timeout_ms: Option<u64>,
        now: u32,
    ) {
        let Some(client) = connections.get_mut(slot) else { return };
        let (was_at, is_open) = (client.home.app(), client.is_open());
        let from = hubs.instance(was_at);
        // Where its client has no answer to its hub handshake, it begins anew.
        let Some(open) = client.cold.open_again(is_open.then_some(&*from)) else { return };
        home.send(&ServiceMessage::OpenConnection(open));
        if let Content::Hub(protocol) = client.content {
            home.send_data(&client.id, &HandshakeRequest { protocol, version: 1 }.encode(), DATA_TYPE_HANDSHAKE);
        }
        if let (Status::Opening { .. }, Some(timeout_ms)) = (client.status, handshake_timeout_ms) {
            client.status = opening_until(now, timeout_ms);
        }
        (client.cold.is_leaving, client.cold.is_let_go, client.cold.moving_to) = (false, None, None);
        client.cold.is_settled = false;
        for reason in [PauseReason::AppServer, PauseReason::HandingOver, PauseReason::Unassigned] {
            client.resume(reason, now);
        }
        if client.home.by_dial_in().is_some() && was_at != home.app() {
            client.cold.left = Some(was_at);
        }
        if was_at != home.app() && was_at != AppServerId::NONE {
            // Only its own app server is listened to.
            client.cold.calls.forget_failed();
        }
        // Whoever dials in has ended the clients of a link with it.
        if was_at != home.app() && was_at != AppServerId::NONE && client.home.by_dial_in().is_none() {
            self.moved_away(home.hub(), (was_at, home.app()), &client.id, now);
        }
        tell_of_groups(connections, hubs, slot, home);
        connections.set_home(slot, home);
        self.counters.rehomed.increment();
    }
}

/// Tells the next app server of a connection which groups that is in, if it restores them when the client is lost.
fn tell_of_groups(connections: &Connections, hubs: &HubRegistry, slot: Slot, home: &HomeLink) {
    let Some(client) = connections.get(slot).filter(|_| hubs.restores(home)) else { return };
    for set in connections.sets_of(client) {
        if let SetName::Group(group) = set {
            home.send(&MembershipChange::Join(group.into()).notice(&client.id));
        }
    }
}

/// Seconds for which an app server may hold connections that were moved away from it: it waits for a link's return for
/// twice the window of links, and a link is dialled again now and then after that.
fn moved_remembered_s(resume_window_ms: u64) -> u32 {
    let window_s = u32::try_from(resume_window_ms.div_ceil(1000)).unwrap_or(u32::MAX);
    window_s.saturating_mul(2).saturating_add(5)
}

/// Status of a client connection that waits for the answer to its hub handshake from this tick on.
#[must_use]
pub(crate) fn opening_until(now: u32, handshake_timeout_ms: u64) -> Status {
    let timeout_s = u32::try_from(handshake_timeout_ms.div_ceil(1000)).unwrap_or(u32::MAX);
    Status::Opening { until: now.saturating_add(timeout_s).saturating_add(1) }
}

/// Notice to an app server that a connection goes on at this instance.
pub(super) fn moved_to(id: &str, instance: &str) -> ServiceMessage {
    let headers = vec![(MIGRATE_TO_HEADER.into(), vec![instance.into()])];
    ServiceMessage::CloseConnection(CloseConnection { connection_id: id.into(), error: None, headers })
}

/// Flow control of one client, for its app server.
pub(super) fn flow(id: &str, operation: FlowOperation) -> ServiceMessage {
    let (connection_id, subject) = (ByteString::from(id), FlowSubject::Client);
    ServiceMessage::ConnectionFlowControl(ConnectionFlowControl { connection_id, subject, operation })
}

#[cfg(test)]
mod tests;
