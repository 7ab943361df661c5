//! Probes after the loss of a dial-in link: the app server may not have noticed it, and still have the clients.
//!
//! ```text
//!  link lost ─ 1 s ─► Resume, Pause over another link ─┬─ PauseAck ──► Resume: the client goes on, nothing is opened
//!                                                      └─ 2 s ──► Pause, OpenConnection ─┬─ PauseAck ──► closed
//!                                                                                        └─ 10 s ──► settled
//! ```
//!
//! An app server does not answer for an id that it does not have. While it has one, an opening frame for the same id
//! reaches the connection that is there, whose client then gets no answer any more. So the connection is opened again
//! only where no answer has come; if one comes later, there are two, and the client is to reconnect under another id.
//!
//! A client that has just moved between two links may be at either one when one of them is lost: it is asked for, too.

use bytes::BytesMut;
use trunkline_protocol::hub::{CancelInvocation, HubMessage};
use trunkline_protocol::service::{DataType, FlowOperation};

use crate::bounded::Deadlines;
use crate::shard::command::LinkLoss;
use crate::shard::connection::{Client, Role, flow};
use crate::shard::content::Content;
use crate::shard::shard_core::ShardCore;
use crate::shard::slot::{Serial, Slot};
use crate::upstream::HomeLink;

/// Ticks within which an app server answers for a client that it has.
const ANSWER_TICKS: u32 = 2;

/// Ticks that a client may wait for its app server while links are lost one after the other, of which each begins the
/// wait again. Beyond it the client reconnects: of the 10 s in which each call ends, the rest is left for the answer.
const LOST_TIMEOUT_TICKS: u32 = 6;

/// Ticks for which a late answer closes a client that was opened again.
const LATE_TICKS: u32 = 10;

/// Clients of one shard for which app servers are asked.
#[derive(Debug, Default)]
pub(crate) struct Probes {
    asked: Deadlines<(Slot, Serial)>,
}

impl Probes {
    /// Has an app server asked at this tick for a client that it may have lost with a link which is not its home.
    pub(super) fn ask_at(&mut self, tick: u32, slot: Slot, serial: Serial) {
        self.asked.push((slot, serial), tick);
    }

    /// Asks the app server at the end of this link for a client that it may have; `false` if the link is lost. `None`
    /// where it is to be opened there.
    pub(super) fn ask(&mut self, core: &mut ShardCore, slot: Slot, link: &HomeLink) -> Option<bool> {
        let until = core.tick.saturating_add(ANSWER_TICKS);
        let client = core.connections.live_mut(slot)?;
        if client.home().app() != link.app() {
            client.cold_mut().stay_mut().leave_app();
            return None;
        }
        if client.cold().stay().is_reopened() {
            // An app server that has it, and is only slow, answers this.
            link.send(&flow(client.id(), FlowOperation::Pause));
            client.cold_mut().stay_mut().reopen(core.tick.saturating_add(LATE_TICKS));
            return None;
        }
        if !client.cold().stay().is_lost() {
            return None;
        }
        if !link.queue(&flow(client.id(), FlowOperation::Resume)) {
            return Some(false);
        }
        link.send(&flow(client.id(), FlowOperation::Pause));
        client.cold_mut().stay_mut().probe(link, until);
        let (now, serial) = (core.tick, client.serial());
        client.change_assignment(&Role::Home, now, |home| {
            home.open(link.app(), Role::Home.stage_at_first(true));
            home.hold_input();
        });
        core.connections.set_home(slot, link);
        self.asked.push((slot, serial), until);
        Some(true)
    }

    /// Clients for which their app servers have not answered in time: they are to be opened. App servers are asked for
    /// those whose time for that has come.
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
            // Where the home is lost by now, its loss has the client asked for.
            self.ask(core, slot, &home);
        }
        unanswered
    }
}

/// Notes that the link of a client's home is lost at this tick.
pub(crate) fn lose_home_link(client: &mut Client, loss: &LinkLoss, now: u32) {
    client.cold_mut().stay_mut().link_lost(now, loss.noticed_within_s, loss.may_be_unnoticed);
    client.assignments_mut().home_mut().end();
}

/// Whether an answer of a client's app server would come too late.
pub(super) fn is_lost_for_too_long(client: &Client) -> bool {
    client.cold().stay().answers_after(ANSWER_TICKS, LOST_TIMEOUT_TICKS)
}

/// Whether an answer of its app server ends a client: the app server has two connections with its id, or has answered a
/// hub handshake over the lost link.
pub(crate) fn ends_by_answer(client: &Client, now: u32) -> bool {
    let stay = client.cold().stay();
    match stay.is_probing() {
        true => !client.life().is_open(),
        // An answer may be that to another pause.
        false => stay.may_be_duplicated(now) && !client.is_in_transit(),
    }
}

/// Cancels the calls of a client that have failed here, if its app server answers a probe: it still streams to them.
pub(crate) fn cancel_failed_calls(client: &Client) {
    let Content::Hub(protocol) = client.content() else { return };
    if !client.cold().stay().is_probing() {
        return;
    }
    for id in client.assignments().home().calls().failed() {
        let cancel = CancelInvocation { headers: Vec::new(), invocation_id: id.into() };
        let mut encoded = BytesMut::new();
        protocol.encode(&HubMessage::CancelInvocation(cancel), &mut encoded);
        client.home().send_data(client.id(), &encoded, DataType::Invocation.number());
    }
}
