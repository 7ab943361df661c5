//! Probes after the loss of a dial-in link, which the app server may not have detected, so that it still has
//! the clients.
//!
//! ```text
//!  link lost ─ 1 s ─► Resume, Pause over another link ─┬─ PauseAck ──► Resume: client continues, not reopened
//!                                                      └─ 2 s ──► Pause, OpenConnection ─┬─ PauseAck ──► closed
//!                                                                                        ├─ link lost ─► closed
//!                                                                                        └─ 10 s ──► settled
//! ```
//!
//! An app server does not reply for an unknown id. If it still has the connection, an opening frame with that id would
//! reach the old connection, and the client would stop getting replies. So the connection is reopened only if no reply
//! arrives in time. After a later reply, two connections exist, and the client has to reconnect with another id.
//!
//! A client that has just moved between two links may be at either one, so it is probed too.

use bytes::BytesMut;
use trunkline_protocol::hub::{CancelInvocation, HubMessage};
use trunkline_protocol::service::{DataType, FlowOperation};

use crate::engine::shard::command::LinkLoss;
use crate::engine::shard::connection::{Client, Role, flow};
use crate::engine::shard::content::Content;
use crate::engine::shard::shard_core::ShardCore;
use crate::engine::shard::slot::{Serial, Slot};
use crate::engine::upstream::HomeLink;
use crate::ground::bounded::Deadlines;

/// Ticks within which an app server replies for a client that it has.
const ANSWER_TICKS: u32 = 2;

/// Maximum ticks that a client waits for its app server when consecutive link losses each restart the wait.
/// Beyond it the client reconnects. The rest of the 10 s within which each call ends is left for the reply.
const LOST_TIMEOUT_TICKS: u32 = 6;

/// Ticks during which a late reply closes a reopened client.
const LATE_TICKS: u32 = 10;

#[derive(Debug, Default)]
pub(crate) struct Probes {
    asked: Deadlines<(Slot, Serial)>,
}

impl Probes {
    /// Schedules a probe of a client that may have been lost with a link other than its primary.
    pub(super) fn ask_at(&mut self, tick: u32, slot: Slot, serial: Serial) {
        self.asked.push((slot, serial), tick);
    }

    /// Probes the app server of this link for a client. Returns `false` if the link is lost, `None` if the client has
    /// to be opened there.
    pub(super) fn ask(&mut self, core: &mut ShardCore, slot: Slot, link: &HomeLink) -> Option<bool> {
        let until = core.tick.saturating_add(ANSWER_TICKS);
        let client = core.connections.live_mut(slot)?;
        if client.home().app != link.app {
            client.cold_mut().stay_mut().leave_app();
            return None;
        }
        if client.cold().stay().is_reopened() {
            // An app server that is slow but has the client will reply to this.
            link.send(&flow(&client.id, FlowOperation::Pause));
            client.cold_mut().stay_mut().reopen(core.tick.saturating_add(LATE_TICKS));
            return None;
        }
        if !client.cold().stay().is_lost() {
            return None;
        }
        // A reply to this pause must not count as a reply to the pause of a slow client.
        core.delivery.slow.take_pause(slot, client);
        if !link.queue(&flow(&client.id, FlowOperation::Resume)) {
            return Some(false);
        }
        link.send(&flow(&client.id, FlowOperation::Pause));
        client.cold_mut().stay_mut().probe(link, until);
        let (now, serial) = (core.tick, client.serial());
        client.change_assignment(&Role::Home, now, |home| {
            home.open_at(link.app, Role::Home.stage_at_first(true));
            home.hold_input();
        });
        core.connections.set_home(slot, link);
        self.asked.push((slot, serial), until);
        Some(true)
    }

    /// Clients without a reply in time, which have to be reopened. Also sends the scheduled probes that are
    /// due.
    pub(super) fn take_unanswered(&mut self, core: &mut ShardCore) -> Vec<Slot> {
        let now = core.tick;
        let (mut unanswered, mut due) = (Vec::new(), Vec::new());
        for (slot, serial) in self.asked.take_due(now) {
            let client = core.connections.get_current(slot, serial).filter(|client| !client.life().is_closed());
            let Some(client) = client else { continue };
            if client.cold_mut().stay_mut().unanswered(now) {
                unanswered.push(slot);
                continue;
            }
            let is_leaving = client.assignments().home().is_leaving() || client.is_in_transit();
            if client.cold().stay().is_lost() && client.home().is_open() && !is_leaving {
                due.push((slot, client.home().clone()));
            }
        }
        for (slot, home) in due {
            // If the primary link is lost by now, that loss triggers its own probe.
            self.ask(core, slot, &home);
        }
        unanswered
    }
}

/// Records the loss of a client's primary link at this tick.
pub(crate) fn lose_home_link(client: &mut Client, loss: &LinkLoss, now: u32) {
    client.cold_mut().stay_mut().link_lost(now, loss.noticed_within_s, loss.may_be_unnoticed);
    client.assignments_mut().home_mut().end_assignment();
}

/// Whether a client whose link is lost has to reconnect: a reply of its app server would be too late, or was perhaps
/// lost with the link over which the client was reopened.
pub(super) fn has_to_reconnect(client: &Client, now: u32) -> bool {
    let stay = client.cold().stay();
    stay.answers_after(ANSWER_TICKS, LOST_TIMEOUT_TICKS) || stay.may_be_duplicated(now)
}

/// Whether a reply of its app server requires closing a client: the app server has two connections with the id, or has
/// answered a hub handshake over the lost link.
pub(crate) fn ends_by_answer(client: &Client, now: u32) -> bool {
    let stay = client.cold().stay();
    match stay.is_probing() {
        true => !client.life().is_open(),
        // The reply may belong to another pause.
        false => stay.may_be_duplicated(now) && !client.is_in_transit(),
    }
}

/// Cancels the calls of a client that have failed here: an app server that answers a probe still streams to them.
pub(crate) fn cancel_failed_calls(client: &Client) {
    let Content::Hub(protocol) = client.content() else { return };
    if !client.cold().stay().is_probing() {
        return;
    }
    for id in client.assignments().home().calls().failed() {
        let cancel = CancelInvocation { headers: Vec::new(), invocation_id: id.into() };
        let mut encoded = BytesMut::new();
        protocol.encode(&HubMessage::CancelInvocation(cancel), &mut encoded);
        client.home().send_data(&client.id, &encoded, DataType::Invocation.number());
    }
}
