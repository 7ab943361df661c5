//! Stateful reconnect: a client connection outlives its socket and resumes over the next one.
//!
//! ```text
//!  Open, with a socket ──socket closes──► Open, away ──client resumes──► Open, with a socket
//!                                             └─ --disconnect-timeout ──► closed
//! ```
//!
//! Meanwhile the client stays in its groups, its app server is not notified, and data for it is kept. Tasks of an old
//! socket detect by its serial that they have lost the connection.
//!
//! The official JavaScript client starts counting received messages shortly after it has read its handshake response,
//! and then sends a ping. A message read together with that response would be delivered twice after the next
//! resumption. So the first counted messages wait for the client's first frame, or a short time.

use std::mem;

use bytestring::ByteString;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::HubMessage;
use trunkline_protocol::service::{ConnectionReconnect, ServiceMessage};

use crate::engine::shard::close_reason::CloseReason;
use crate::engine::shard::connection::Client;
use crate::engine::shard::content::Content;
use crate::engine::shard::delivery::Flush;
use crate::engine::shard::delivery::framed::message_frame;
use crate::engine::shard::moving::keep_alive::{Overdue, keep_alive_frame};
use crate::engine::shard::shard_state::ShardState;
use crate::engine::shard::shared::route_table::Location;
use crate::engine::shard::slot::{Serial, Slot};
use crate::ground::limits::ClientPermit;
use crate::ground::metrics::MoveCause;
use crate::ground::net::socket::Socket;

/// Ticks for which a detached socket is kept; its task has ended by then.
const DETACHED_KEPT_TICKS: u32 = 2;

/// Whether a client can resume after its socket closed for this cause. Not after a close message.
pub(super) fn may_return(client: &Client, cause: Cause) -> bool {
    client.life().is_open()
        && client.is_resumable()
        && matches!(cause, Cause::SocketEnded | Cause::SocketReset | Cause::TlsFailed)
}

/// Detaches the closed socket of a client that may resume. Returns whether it may.
pub(crate) fn let_away(state: &mut ShardState, slot: Slot, cause: Cause) -> bool {
    let may_return = state.core.connections.get(slot).is_some_and(|client| may_return(client, cause));
    if may_return {
        sever(state, slot, cause);
    }
    may_return
}

/// Detaches and cuts a client's socket. The client is then away for a limited time.
pub(crate) fn sever(state: &mut ShardState, slot: Slot, cause: Cause) {
    let (serial, now) = (state.core.connections.next_serial(), state.core.tick);
    let until =
        now.saturating_add(state.core.context.shared.settings.http_transports.disconnect_timeout_s).saturating_add(1);
    let Some(client) = state.core.connections.live_mut(slot) else { return };
    let Some(resumption) = client.cold_mut().resumption_mut() else { return };
    if resumption.ownership_mut().leave(until, cause) {
        state.core.context.counters.away.follow(0, 1);
    }
    state.core.delivery.budget.discard(client);
    state.core.delivery.end_flush(slot);
    client.liveness_mut().lose_socket();
    // Pending departures identify the client by its serial, which changes.
    client.life_mut().socket_lost();
    let socket = client.wire_mut().detach();
    socket.cut();
    state.moves.detached.push(socket, now.saturating_add(DETACHED_KEPT_TICKS));
    client.change_serial(serial);
    state.moves.keep_alive.schedule(slot, serial, now, until);
}

/// Cuts a client's socket so that it resumes at another node, for this cause. Returns `false` if it can't.
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

/// Stores the permit of a client with a resumable connection. Otherwise returns it, to be held with
/// the socket.
pub(crate) fn keep_permit(
    state: &mut ShardState,
    (slot, serial): (Slot, Serial),
    permit: Option<Box<ClientPermit>>,
) -> Option<Box<ClientPermit>> {
    let client = state.core.connections.get_current(slot, serial);
    match client.and_then(|client| client.cold_mut().resumption_mut()) {
        Some(resumption) => {
            resumption.set_permit(permit);
            None
        }
        None => permit,
    }
}

/// Attaches the new socket to a claimed connection and replays unacknowledged data. Returns the serial for the reader
/// task; `None` if another socket was attached since, another node takes over, or the connection has closed.
pub(crate) fn come_back(
    state: &mut ShardState,
    slot: Slot,
    claimed: Serial,
    (socket, is_compressed): (Socket, bool),
) -> Option<Serial> {
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
    // A node that queried the connection did not take it over.
    let shared = &state.core.context.shared;
    shared.routes.open_route(&client.id, Location { shard: state.core.context.index, is_compressed, slot });
    if is_compressed && let Some(hub) = shared.hubs.at(client.home().hub()) {
        hub.note_compressed(protocol);
    }
    state.core.context.counters.away.follow(1, 0);
    client.wire_mut().attach(socket);
    client.set_compressed(is_compressed);
    client.change_serial(serial);
    client.liveness_mut().come_back(now);
    state.core.delivery.replay(slot, client, frames, mode);
    if client.home().capabilities.takes_reconnects {
        // The app server may have kept an incomplete message, which is now void.
        let connection_id = ByteString::from(&*client.id);
        client.home().send(&ServiceMessage::ConnectionReconnect(ConnectionReconnect { connection_id }));
    }
    state.moves.keep_alive.schedule(slot, serial, now, now + 1);
    state.core.context.counters.resumed.increment();
    owe_acknowledgement(state, slot);
    Some(serial)
}

/// Ends a client's hold after its first data, or after a timeout.
pub(crate) fn end_hold(state: &mut ShardState, slot: Slot) {
    let mode = state.core.mode(Flush::Deferred);
    if let Some(client) = state.core.connections.live_mut(slot) {
        state.core.delivery.end_hold(slot, client, mode);
    }
}

/// Handles a client's acknowledgement and releases held-back data.
pub(crate) fn acknowledged(state: &mut ShardState, slot: Slot, sequence_id: u64) {
    let mode = state.core.mode(Flush::Deferred);
    if let Some(client) = state.core.connections.live_mut(slot) {
        state.core.delivery.acknowledge(slot, client, sequence_id, mode);
    }
}

/// Schedules an acknowledgement of the client's messages for the next tick.
pub(crate) fn owe_acknowledgement(state: &mut ShardState, slot: Slot) {
    let resumption = state.core.connections.get_mut(slot).and_then(|client| client.cold_mut().resumption_mut());
    if resumption.is_some_and(|resumption| resumption.owe_acknowledgement()) {
        state.moves.acknowledgements.push(slot);
    }
}

pub(crate) fn send_acknowledgements(state: &mut ShardState) {
    let mode = state.core.mode(Flush::Deferred);
    for slot in mem::take(&mut state.moves.acknowledgements) {
        let Some(client) = state.core.connections.live_mut(slot) else { continue };
        let (Content::Hub(protocol), Some(resumption)) = (client.content(), client.cold_mut().resumption_mut()) else {
            continue;
        };
        if let Some(sequence_id) = resumption.take_acknowledgement() {
            let frame = message_frame(protocol, &HubMessage::Ack { sequence_id });
            state.core.delivery.put(slot, client, (&frame).into(), mode);
        }
    }
}

/// Ends the service of a socket. Its connection closes too, unless it may resume over another socket.
pub(crate) fn end_socket(state: &mut ShardState, slot: Slot, serial: Serial, cause: Cause) -> Option<Client> {
    state.core.connections.get_current(slot, serial)?;
    if let_away(state, slot, cause) { None } else { state.free(slot, cause) }
}

pub(crate) fn take_detached(state: &mut ShardState) -> Vec<Socket> {
    state.moves.detached.take_due(state.core.tick)
}

/// Sends due keep-alives, and closes clients that have been silent for too long.
pub(crate) fn check_keep_alives(state: &mut ShardState) {
    let mode = state.core.mode(Flush::Now);
    let hubs = state.core.context.shared.hubs.all();
    for (slot, action) in state.moves.keep_alive.check(&mut state.core.connections, &hubs, state.core.tick) {
        match action {
            Overdue::TimedOut => state.close_client(slot, &CloseReason::timed_out()),
            Overdue::NotOpened => state.close_client(slot, &CloseReason::not_opened()),
            Overdue::KeepAlive => {
                // A keep-alive would only queue behind the outbox. Its writes detect a dead socket as well.
                let is_idle = |client: &&mut Client| client.wire().is_idle();
                if let Some(client) = state.core.connections.live_mut(slot).filter(is_idle) {
                    state.core.context.counters.keep_alives.increment();
                    let frame = keep_alive_frame(client.content());
                    match client.content() {
                        Content::Hub(_) => state.core.delivery.put(slot, client, (&frame).into(), mode),
                        Content::Raw => state.core.delivery.put_transport(slot, client, &frame, mode),
                    }
                }
            }
            Overdue::Lost(cause) => state.close_client(slot, &CloseReason::by_client(cause)),
        }
    }
}
