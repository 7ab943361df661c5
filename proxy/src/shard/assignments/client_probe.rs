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
use crate::shard::connection::{Client, LetGo, OldStay, Role, flow};
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
        let since = match client.cold.old_stay {
            _ if client.home.app() != link.app() => {
                client.cold.old_stay = OldStay::Clear;
                return None;
            }
            OldStay::Replaced { .. } => {
                // One that is there and only slow, or that has not sent what it had before the pause, answers this.
                link.send(&flow(&client.id, FlowOperation::Pause));
                client.cold.old_stay = OldStay::Replaced { until: core.tick.saturating_add(LATE_TICKS) };
                return None;
            }
            OldStay::Unknown { since } => since,
            OldStay::Clear | OldStay::Asked { .. } => return None,
        };
        if !link.queue(&flow(&client.id, FlowOperation::Resume)) {
            return Some(false);
        }
        link.send(&flow(&client.id, FlowOperation::Pause));
        (client.cold.old_stay, client.cold.held_until) = (OldStay::Asked { since }, until);
        client.cold.moving_to = Some(link.clone());
        let (now, serial) = (core.tick, client.serial);
        client.change_assignment(&Role::Home, now, |home| {
            home.open(link.app(), Role::Home.stage_at_first(true));
            home.holds_input = true;
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
            let client = core.connections.get_current(slot, serial).filter(|client| !client.is_closing());
            let Some(client) = client else { continue };
            let is_leaving = || client.cold.assignment.is_leaving || client.is_in_transit();
            match client.cold.old_stay {
                OldStay::Asked { .. } if client.cold.held_until <= now => {
                    client.cold.old_stay = OldStay::Replaced { until: now };
                    client.cold.moving_to = None;
                    unanswered.push(slot);
                }
                OldStay::Unknown { .. } if client.home.is_open() && !is_leaving() => {
                    due.push((slot, client.home.clone()))
                }
                _ => {}
            }
        }
        for (slot, home) in due {
            // Where the home is lost by now, its loss has the client asked for.
            self.ask(core, slot, &home);
        }
        unanswered
    }
}

impl Client {
    /// Takes note that the link of its home is lost at this tick. What its app server has of it is known only if that
    /// has noticed, and was known before.
    pub(crate) fn lose_link(&mut self, loss: &LinkLoss, now: u32) {
        let since = match self.cold.old_stay {
            OldStay::Unknown { since } | OldStay::Asked { since } => since,
            OldStay::Clear | OldStay::Replaced { .. } => now,
        };
        let is_unknown = loss.may_be_unnoticed || self.is_sought(now);
        self.cold.old_stay = if is_unknown { OldStay::Unknown { since } } else { OldStay::Clear };
        self.cold.held_until = now.saturating_add(loss.noticed_within_s);
        self.cold.moving_to = None;
        self.cold.assignment.let_go.get_or_insert(LetGo::Ended);
    }

    /// Whether an answer of its app server would come too late.
    pub(crate) fn is_lost_for_too_long(&self) -> bool {
        let answered = self.cold.held_until.saturating_add(ANSWER_TICKS);
        matches!(self.cold.old_stay, OldStay::Unknown { since } if answered > since.saturating_add(LOST_TIMEOUT_TICKS))
    }

    /// Whether it is not certain what its app server has of it.
    pub(crate) fn is_sought(&self, now: u32) -> bool {
        match self.cold.old_stay {
            OldStay::Clear => false,
            OldStay::Unknown { .. } | OldStay::Asked { .. } => true,
            OldStay::Replaced { until } => now < until,
        }
    }

    /// Whether its app server may have two connections under its id, and still answer for the old one.
    fn may_be_had_twice(&self, now: u32) -> bool {
        matches!(self.cold.old_stay, OldStay::Replaced { until } if now < until)
    }

    /// Whether it can't go on now that its app server answers: that has two connections under its id, or has answered a
    /// hub handshake over the lost link.
    pub(crate) fn is_spoilt_by_answer(&self, now: u32) -> bool {
        match self.cold.old_stay {
            OldStay::Asked { .. } => !self.is_open(),
            // An answer may be that to another pause.
            _ => self.may_be_had_twice(now) && self.cold.moving_to.is_none() && !self.is_in_transit(),
        }
    }

    /// Ends the search for it: its app server has it. What that still streams to calls that have failed here is
    /// cancelled.
    pub(crate) fn end_probe(&mut self) {
        if !matches!(self.cold.old_stay, OldStay::Asked { .. }) {
            return;
        }
        self.cold.old_stay = OldStay::Clear;
        let Content::Hub(protocol) = self.content else { return };
        for id in self.cold.assignment.calls.failed() {
            let (cancel, mut encoded) =
                (CancelInvocation { headers: Vec::new(), invocation_id: id.into() }, BytesMut::new());
            protocol.encode(&HubMessage::CancelInvocation(cancel), &mut encoded);
            self.home.send_data(&self.id, &encoded, DataType::Invocation.number());
        }
    }
}
