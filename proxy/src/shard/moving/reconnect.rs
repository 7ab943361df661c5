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
use crate::shard::close_reason::CloseReason;
use crate::shard::connection::Client;
use crate::shard::content::Content;
use crate::shard::delivery::Flush;
use crate::shard::delivery::framed::message_frame;
use crate::shard::moving::keep_alive::{Overdue, keep_alive_frame};
use crate::shard::shard_state::ShardState;
use crate::shard::slot::{Serial, Slot};

/// Ticks for which a detached socket is kept: its task has ended by then.
const DETACHED_KEPT_TICKS: u32 = 2;

/// Whether a client can come back after its socket has ended for this cause: not if it has said goodbye.
pub(super) fn may_return(client: &Client, cause: Cause) -> bool {
    client.life().is_open()
        && client.is_resumable()
        && matches!(cause, Cause::SocketEnded | Cause::SocketReset | Cause::TlsFailed)
}

/// Lets a client go whose socket has ended, if it may come back. Returns whether it may.
pub(crate) fn let_away(state: &mut ShardState, slot: Slot, cause: Cause) -> bool {
    let may_return = state.core.connections.get(slot).is_some_and(|client| may_return(client, cause));
    if may_return {
        sever(state, slot, cause);
    }
    may_return
}

/// Takes the socket of a client away: from now on it is away, for a time.
pub(crate) fn sever(state: &mut ShardState, slot: Slot, cause: Cause) {
    let (serial, now) = (state.core.connections.next_serial(), state.core.tick);
    let until =
        now.saturating_add(state.core.context.shared.settings.http_transports.disconnect_timeout_s).saturating_add(1);
    let Some(client) = state.core.connections.live_mut(slot) else { return };
    let Some(resumption) = client.cold_mut().resumption_mut() else { return };
    if resumption.ownership_mut().leave(until, cause) {
        state.core.context.counters.away.follow(0, 1);
    }
    state.core.delivery.budget().discard(client);
    state.core.delivery.end_flush(slot);
    client.liveness_mut().lose_socket();
    // Whoever was to tell it knew it by its serial.
    client.life_mut().socket_lost();
    let socket = client.wire_mut().detach();
    socket.cut();
    state.moves.detached.push(socket, now.saturating_add(DETACHED_KEPT_TICKS));
    client.change_serial(serial);
    state.moves.keep_alive.schedule(slot, serial, now, until);
}

/// Has a client come back at another node, for this cause: its socket is cut. `false` where it can't.
pub(crate) fn send_elsewhere(state: &mut ShardState, slot: Slot, cause: MoveCause) -> bool {
    let Some(client) = state.core.connections.live_mut(slot).filter(|client| client.life().is_open()) else {
        return false;
    };
    let (is_away, moves) = (client.is_away(), client.moves_unnoticed());
    let Some(resumption) = client.cold_mut().resumption_mut().filter(|_| moves) else { return false };
    resumption.send_elsewhere(cause);
    if !is_away {
        let end = if cause == MoveCause::Rebalance { Cause::Rebalanced } else { Cause::Drained };
        sever(state, slot, end);
    }
    true
}

/// Keeps the permit of a client's address for as long as its connection; gives it back where that is for as long as
/// its socket.
pub(crate) fn keep_permit(
    state: &mut ShardState,
    (slot, serial): (Slot, Serial),
    permit: Option<Box<AddressPermit>>,
) -> Option<Box<AddressPermit>> {
    let client = state.core.connections.get_current(slot, serial);
    match client.and_then(|client| client.cold_mut().resumption_mut()) {
        Some(resumption) => {
            resumption.set_permit(permit);
            None
        }
        None => permit,
    }
}

/// Gives a claimed connection its new socket, with what the client has not acknowledged. Returns the serial for the
/// task that reads it; `None` if another socket has come since, another node takes the
/// connection over, or it has ended.
pub(crate) fn come_back(state: &mut ShardState, slot: Slot, claimed: Serial, socket: Socket) -> Option<Serial> {
    let (serial, now, mode) = (state.core.connections.next_serial(), state.core.tick, state.core.mode(Flush::Deferred));
    let client = state.core.connections.get_current(slot, claimed).filter(|client| client.life().is_open())?;
    let (Content::Hub(protocol), Some(resumption)) = (client.content(), client.cold_mut().resumption_mut()) else {
        return None;
    };
    if !resumption.come_back() {
        return None;
    }
    let (sequence_id, kept) = resumption.ownership().replay();
    let sequence = message_frame(protocol, &HubMessage::Sequence { sequence_id });
    let frames: Vec<_> = [sequence].into_iter().chain(kept.cloned()).collect();
    // A node that has asked for it did not take it.
    state.core.context.shared.routes.end_move(client.id());
    state.core.context.counters.away.follow(1, 0);
    client.wire_mut().attach(socket);
    client.change_serial(serial);
    client.liveness_mut().come_back(now);
    state.core.delivery.replay(slot, client, frames, mode);
    if client.home().capabilities().takes_reconnects {
        // It may keep a part of a message, which does not come any more.
        let connection_id = ByteString::from(&**client.id());
        client.home().send(&ServiceMessage::ConnectionReconnect(ConnectionReconnect { connection_id }));
    }
    state.moves.keep_alive.schedule(slot, serial, now, now + 1);
    state.core.context.counters.resumed.increment();
    owe_acknowledgement(state, slot);
    Some(serial)
}

/// Ends the hold of a client, which has sent something since it was accepted, or nothing for a while.
pub(crate) fn end_hold(state: &mut ShardState, slot: Slot) {
    let mode = state.core.mode(Flush::Deferred);
    if let Some(client) = state.core.connections.live_mut(slot) {
        state.core.delivery.end_hold(slot, client, mode);
    }
}

/// Takes an acknowledgement of a client: what was held back for it may leave.
pub(crate) fn acknowledged(state: &mut ShardState, slot: Slot, sequence_id: u64) {
    let mode = state.core.mode(Flush::Deferred);
    if let Some(client) = state.core.connections.live_mut(slot) {
        state.core.delivery.acknowledge(slot, client, sequence_id, mode);
    }
}

/// Has the messages that a client has sent acknowledged at the next tick.
pub(crate) fn owe_acknowledgement(state: &mut ShardState, slot: Slot) {
    let resumption = state.core.connections.get_mut(slot).and_then(|client| client.cold_mut().resumption_mut());
    if resumption.is_some_and(|resumption| resumption.owe_acknowledgement()) {
        state.moves.acknowledgements.push(slot);
    }
}

/// Acknowledges what clients have sent since the last tick.
pub(crate) fn send_acknowledgements(state: &mut ShardState) {
    let mode = state.core.mode(Flush::Deferred);
    for slot in mem::take(&mut state.moves.acknowledgements) {
        let Some(client) = state.core.connections.live_mut(slot) else { continue };
        let (Content::Hub(protocol), Some(resumption)) = (client.content(), client.cold_mut().resumption_mut()) else {
            continue;
        };
        if let Some(sequence_id) = resumption.take_acknowledgement() {
            let frame = message_frame(protocol, &HubMessage::Ack { sequence_id });
            state.core.delivery.put(slot, client, &frame, mode);
        }
    }
}

/// Ends the service of a socket: its connection ends too, unless it may go on over another one.
pub(crate) fn end_socket(state: &mut ShardState, slot: Slot, serial: Serial, cause: Cause) -> Option<Client> {
    state.core.connections.get_current(slot, serial)?;
    if let_away(state, slot, cause) { None } else { state.free(slot, cause) }
}

/// Sockets that were left some time ago.
pub(crate) fn take_detached(state: &mut ShardState) -> Vec<Socket> {
    state.moves.detached.take_due(state.core.tick)
}

/// Sends the keep-alives that are due, and closes clients that have been silent for too long.
pub(crate) fn check_keep_alives(state: &mut ShardState) {
    let mode = state.core.mode(Flush::Now);
    let hubs = state.core.context.shared.hubs.all();
    for (slot, action) in state.moves.keep_alive.check(&mut state.core.connections, &hubs, state.core.tick) {
        match action {
            Overdue::TimedOut => state.close(slot, &CloseReason::timed_out()),
            Overdue::NotOpened => state.close(slot, &CloseReason::not_opened()),
            Overdue::KeepAlive => {
                // Behind an outbox it would only wait: what is there shows as much, and its write shows a dead socket.
                let is_idle = |client: &&mut Client| client.wire().is_idle();
                if let Some(client) = state.core.connections.live_mut(slot).filter(is_idle) {
                    state.core.context.counters.keep_alives.increment();
                    let frame = keep_alive_frame(client.content());
                    match client.content() {
                        Content::Hub(_) => state.core.delivery.put(slot, client, &frame, mode),
                        Content::Raw => state.core.delivery.put_transport(slot, client, &frame, mode),
                    }
                }
            }
            Overdue::Lost(cause) => state.close(slot, &CloseReason::by_client(cause)),
        }
    }
}
