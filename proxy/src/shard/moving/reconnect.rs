//! Stateful reconnect: a client connection outlives its socket, and goes on over the next one.
//!
//! ```text
//!  Open, with a socket ──socket ends──► Open, away ──client comes back──► Open, with a socket
//!                                           └─ --disconnect-timeout ──► closed
//! ```
//!
//! To everybody else nothing happens: it stays in its groups, its app server hears nothing, and what is sent to it is
//! kept. The record has another serial for each socket, so that tasks of an older one find out that it is not theirs
//! any more.
//!
//! A client that has just been accepted may not count what it gets yet: the official JavaScript client begins to a
//! moment after it has read the answer to its handshake, and then sends a ping. A message that it reads in one go with
//! that answer is one that it gets twice after its next move. So the first counted messages wait for its first frame,
//! or a short time.

use std::mem;

use bytestring::ByteString;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::HubMessage;
use trunkline_protocol::service::{ConnectionReconnect, ServiceMessage};

use crate::limits::AddressPermit;
use crate::metrics::MoveCause;
use crate::net::socket::Socket;
use crate::shard::assignments::Assignments;
use crate::shard::close_reason::CloseReason;
use crate::shard::connection::{Client, LeaveStage};
use crate::shard::content::Content;
use crate::shard::delivery::Flush;
use crate::shard::delivery::framed::message_frame;
use crate::shard::moving::Moves;
use crate::shard::moving::keep_alive::{Overdue, keep_alive_frame};
use crate::shard::shard_core::ShardCore;
use crate::shard::slot::{Serial, Slot};
use crate::upstream::HubIndex;

/// Whether a client can come back after its socket has ended for this cause: not if it has said goodbye.
fn may_return(client: &Client, cause: Cause) -> bool {
    client.is_open()
        && client.is_resumable
        && matches!(cause, Cause::SocketEnded | Cause::SocketReset | Cause::TlsFailed)
}

impl Moves {
    /// Lets a client go whose socket has ended, if it may come back. Returns whether it may.
    pub(crate) fn let_away(&mut self, core: &mut ShardCore, slot: Slot, cause: Cause) -> bool {
        let may_return = core.connections.get(slot).is_some_and(|client| may_return(client, cause));
        if may_return {
            self.sever(core, slot, cause);
        }
        may_return
    }

    /// Takes the socket of a client away: from now on it is away, for a time.
    pub(crate) fn sever(&mut self, core: &mut ShardCore, slot: Slot, cause: Cause) {
        let (serial, now) = (core.connections.next_serial(), core.tick);
        let until =
            now.saturating_add(core.context.shared.settings.http_transports.disconnect_timeout_s).saturating_add(1);
        let Some(client) = core.connections.live_mut(slot) else { return };
        let Some(resumption) = &mut client.cold.resumption else { return };
        if resumption.ownership.leave(until, cause) {
            core.context.counters.away.follow(0, 1);
        }
        core.delivery.discard(client);
        core.delivery.end_flush(slot);
        (client.is_flushing, client.has_pinged) = (false, false);
        // Whoever was to tell it knew it by its serial.
        client.cold.leave = LeaveStage::Stays;
        self.severed.add(mem::replace(&mut client.socket, Socket::Away), now);
        client.change_serial(serial);
        self.keep_alive.schedule(slot, serial, now, until);
    }

    /// Has a client come back at another node, for this cause: its socket is cut. `false` where it can't.
    pub(crate) fn send_elsewhere(&mut self, core: &mut ShardCore, slot: Slot, cause: MoveCause) -> bool {
        let Some(client) = core.connections.live_mut(slot).filter(|client| client.is_open()) else { return false };
        let can_move = client.moves_unnoticed();
        let (is_away, Some(resumption)) = (client.is_away(), &mut client.cold.resumption) else { return false };
        if !can_move {
            return false;
        }
        resumption.move_cause = cause;
        if !is_away {
            let end = if cause == MoveCause::Rebalance { Cause::Rebalanced } else { Cause::Drained };
            self.sever(core, slot, end);
        }
        true
    }

    /// Claims a connection for a new socket of its client; an older one is cut. `None` where no client can come back to
    /// it. One that was moved is forgotten: the new owner has it, before this node hears of that.
    pub(crate) fn claim(
        &mut self,
        core: &mut ShardCore,
        assignments: &mut Assignments,
        hub: HubIndex,
        id: &str,
    ) -> Option<(Slot, Serial)> {
        let slot = core.connections.find(hub, id)?;
        let client = core.connections.live(slot)?;
        if !may_return(client, Cause::SocketEnded) || client.is_in_transit() {
            self.forget_moved(core, assignments, hub, id);
            return None;
        }
        self.sever(core, slot, Cause::SocketEnded);
        let client = core.connections.get_mut(slot)?;
        // The new socket brings its own.
        client.cold.resumption.as_mut()?.permit = None;
        Some((slot, client.serial))
    }

    /// Keeps the permit of a client's address for as long as its connection; gives it back where that is for as long as
    /// its socket.
    pub(crate) fn keep_permit(
        &mut self,
        core: &mut ShardCore,
        (slot, serial): (Slot, Serial),
        permit: Option<Box<AddressPermit>>,
    ) -> Option<Box<AddressPermit>> {
        let client = core.connections.get_current(slot, serial);
        match client.and_then(|client| client.cold.resumption.as_mut()) {
            Some(resumption) => {
                resumption.permit = permit;
                None
            }
            None => permit,
        }
    }

    /// Gives a claimed connection its new socket, with what the client has not acknowledged. Returns the serial for the
    /// task that reads it; `None` if another socket has come since, another node takes the
    /// connection over, or it has ended.
    pub(crate) fn come_back(
        &mut self,
        core: &mut ShardCore,
        slot: Slot,
        claimed: Serial,
        socket: Socket,
    ) -> Option<Serial> {
        let (serial, now, mode) = (core.connections.next_serial(), core.tick, core.mode(Flush::Deferred));
        let client = core.connections.get_current(slot, claimed).filter(|client| client.is_open())?;
        let (Content::Hub(protocol), Some(resumption)) = (client.content, &mut client.cold.resumption) else {
            return None;
        };
        if !resumption.ownership.come_back() {
            return None;
        }
        // A node that has asked for it did not take it.
        core.context.shared.routes.end_move(&client.id);
        core.context.counters.away.follow(1, 0);
        // Its node has it again: a later move has another cause.
        resumption.move_cause = MoveCause::default();
        let (sequence_id, kept) = resumption.ownership.replay();
        let sequence = message_frame(protocol, &HubMessage::Sequence { sequence_id });
        let frames: Vec<_> = [sequence].into_iter().chain(kept.cloned()).collect();
        client.socket = socket;
        client.change_serial(serial);
        (client.last_heard, client.last_sent) = (now, now);
        core.delivery.replay(slot, client, frames, mode);
        if client.home.capabilities().takes_reconnects {
            // It may keep a part of a message, which does not come any more.
            let connection_id = ByteString::from(&*client.id);
            client.home.send(&ServiceMessage::ConnectionReconnect(ConnectionReconnect { connection_id }));
        }
        self.keep_alive.schedule(slot, serial, now, now + 1);
        core.context.counters.resumed.increment();
        self.owe_acknowledgement(core, slot);
        Some(serial)
    }

    /// Has the messages that a client has sent acknowledged at the next tick.
    pub(crate) fn owe_acknowledgement(&mut self, core: &mut ShardCore, slot: Slot) {
        let resumption = core.connections.get_mut(slot).and_then(|client| client.cold.resumption.as_deref_mut());
        if resumption.is_some_and(|resumption| !mem::replace(&mut resumption.owes_acknowledgement, true)) {
            self.acknowledgements.push(slot);
        }
    }

    /// Acknowledges what clients have sent since the last tick.
    pub(crate) fn send_acknowledgements(&mut self, core: &mut ShardCore) {
        let mode = core.mode(Flush::Deferred);
        for slot in mem::take(&mut self.acknowledgements) {
            let Some(client) = core.connections.live_mut(slot) else { continue };
            let (Content::Hub(protocol), Some(resumption)) = (client.content, &mut client.cold.resumption) else {
                continue;
            };
            resumption.owes_acknowledgement = false;
            if resumption.ownership.absence().is_none()
                && let Some(sequence_id) = resumption.ownership.received.acknowledgement()
            {
                let frame = message_frame(protocol, &HubMessage::Ack { sequence_id });
                core.delivery.put(slot, client, &frame, mode);
            }
        }
    }

    /// Ends the service of a socket: its connection ends too, unless it may go on over another one.
    pub(crate) fn end_socket(
        &mut self,
        core: &mut ShardCore,
        assignments: &mut Assignments,
        slot: Slot,
        serial: Serial,
        cause: Cause,
    ) -> Option<Client> {
        core.connections.get_current(slot, serial)?;
        if self.let_away(core, slot, cause) { None } else { assignments.free(core, slot, cause) }
    }

    /// Sockets that were left some time ago.
    pub(crate) fn take_severed(&mut self, core: &mut ShardCore) -> Vec<Socket> {
        self.severed.take_old(core.tick)
    }

    pub(crate) fn check_keep_alives(&mut self, core: &mut ShardCore, assignments: &mut Assignments) {
        let mode = core.mode(Flush::Now);
        let hubs = core.context.shared.hubs.all();
        for (slot, action) in self.keep_alive.check(&mut core.connections, &hubs, core.tick) {
            match action {
                Overdue::TimedOut => assignments.close(core, slot, &CloseReason::timed_out()),
                Overdue::NotOpened => assignments.close(core, slot, &CloseReason::not_opened()),
                Overdue::KeepAlive => {
                    if let Some(client) = core.connections.live_mut(slot) {
                        core.context.counters.keep_alives.increment();
                        let frame = keep_alive_frame(client.content);
                        match client.content {
                            Content::Hub(_) => core.delivery.put(slot, client, &frame, mode),
                            Content::Raw => core.delivery.put_transport(slot, client, &frame, mode),
                        }
                    }
                }
                Overdue::Lost(cause) => assignments.close(core, slot, &CloseReason::by_client(cause)),
            }
        }
    }
}
