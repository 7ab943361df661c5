//! Application of commands: what the frames of a link change and write in one shard.

use tokio::time::Instant;
use trunkline_protocol::service::FlowOperation;

use super::close_reason::CloseReason;
use super::command::{Audience, ConnectionCommand, ShardCommand};
use super::connection::PauseReason;
use super::delivery::{BatchMode, Flush};
use super::slot::Slot;
use super::state::ShardState;
use crate::upstream::AppServerId;

/// Capacity beyond which a list of commands is not kept.
const COMMANDS_KEPT_MAX: usize = 2048;

/// Applies a batch that a link has brought, or another thread; it was read at this time, if a watch wants to know.
pub(super) fn apply_read(state: &mut ShardState, commands: Vec<ShardCommand>, read_at: Option<Instant>) {
    state.core.delivery.read_at = read_at;
    apply(state, commands);
    state.core.delivery.read_at = None;
}

/// Applies the commands of one batch in their order, then writes what they left to be written.
pub(super) fn apply(state: &mut ShardState, mut commands: Vec<ShardCommand>) {
    // A lone frame is written at once; the frames of a longer batch leave together.
    let mode = state.core.mode(if commands.len() == 1 { Flush::Now } else { Flush::Deferred });
    for command in commands.drain(..) {
        let before = state.core.delivery.deferred();
        apply_one(state, command, mode);
        state.core.delivery.flush_window(&mut state.core.connections, before);
    }
    state.assignments.finish_batch(&mut state.core);
    if (state.spare_commands.capacity()..=COMMANDS_KEPT_MAX).contains(&commands.capacity()) {
        state.spare_commands = commands;
    }
}

fn apply_one(state: &mut ShardState, command: ShardCommand, mode: BatchMode) {
    match command {
        ShardCommand::Send { hub, to, message, origin } => {
            state.core.delivery.send(&mut state.core.connections, hub, &to, &message, (origin, mode));
            if let Audience::Connections(ids) = &to.who
                && state.core.are_streams_of_back_ends(hub)
            {
                state.assignments.note_answers(&mut state.core, hub, ids, &message);
            }
        }
        ShardCommand::One { hub, app, connection_id, slot, command } => {
            if state.core.connections.is_in(slot, hub, &connection_id) {
                let is_own = state.core.connections.get(slot).is_some_and(|client| client.home.app() == app);
                match if is_own { None } else { state.assignments.sided.side_group_at(&state.core, slot, app) } {
                    Some(group) => apply_from_side(state, slot, (app, &group), command, mode),
                    None => apply_to_connection(state, slot, (app, is_own), command, mode),
                }
            } else {
                state.core.reject(command);
            }
        }
        ShardCommand::UserGroup { hub, user, change, ack } => {
            state.core.change_user_groups(hub, user, &change, ack.as_deref());
        }
        ShardCommand::Check { hub, who, within_group, ack } => {
            let mut slots = state.core.connections.slots_of(hub, &who.into());
            if let Some(group) = within_group {
                let members = state.core.connections.slots_of(hub, &Audience::Groups(vec![group]).into());
                slots.retain(|slot| members.contains(slot));
            }
            if !slots.is_empty() {
                ack.found();
            }
        }
        ShardCommand::ListMembers(listing) => state.core.list_members(listing),
        ShardCommand::CountMembers { hub, set, tally } => {
            tally.add(state.core.connections.members(hub, set.name()).len());
        }
        ShardCommand::CountReceivers { hub, to, tally } => {
            tally.add(state.core.connections.count_of(hub, &to));
        }
        ShardCommand::CloseMany { hub, app, to, reason, ack } => {
            let slots = state.core.connections.slots_of(hub, &to);
            if !slots.is_empty() {
                ack.found();
            }
            state.assignments.close_many(&mut state.core, app, &slots, reason.as_deref());
        }
        ShardCommand::LinkLost(loss) => state.lose_homes(&loss),
        ShardCommand::GivenAway { hub, app, connection_id } => {
            state.assignments.given_away(&mut state.core, hub, app, &connection_id)
        }
        ShardCommand::LinkOpened(link) => state.link_opened(&link),
        ShardCommand::LeaveLink(link) => state.hand_overs.leave_link(&mut state.core, &link),
        ShardCommand::AppShuttingDown { hub, app } => state.app_shutting_down(hub, app),
        // At once where an app ends: it does not wait for a task.
        ShardCommand::Drain(spread) if spread.is_zero() => {
            state.drain.close_all_drained(&mut state.core, &mut state.assignments)
        }
        ShardCommand::Drain(spread) => state.drain.due = Some(spread),
        ShardCommand::Expire { hub, over } => state.core.expire_user_group(hub, &over),
        ShardCommand::Reroute(slots) => {
            state.rerouting.reroute_some(&mut state.core, &mut state.assignments, slots);
        }
    }
}

/// Applies a command that the app server of a side home sends.
pub(super) fn apply_from_side(
    state: &mut ShardState,
    slot: Slot,
    (app, group): (AppServerId, &str),
    command: ConnectionCommand,
    mode: BatchMode,
) {
    match command {
        ConnectionCommand::Data { payload, .. } => {
            state.assignments.apply_side_data(&mut state.core, slot, group, &payload, mode)
        }
        ConnectionCommand::Close { error, cause, .. } => {
            let error = error.as_deref().filter(|error| !error.is_empty());
            // It has ended it: only the others are told.
            if let Some(sides) = state.core.connections.live_mut(slot).and_then(|client| client.cold.sides.as_mut()) {
                drop(sides.remove(group));
            }
            state.assignments.close(&mut state.core, slot, &CloseReason::by_side_home(error, cause));
        }
        ConnectionCommand::HandOver { headers } => state.assignments.sided.hand_side_over(
            &mut state.core,
            &mut state.assignments.reassignment,
            slot,
            group,
            &headers,
        ),
        ConnectionCommand::Invoke { asker, request, origin } => {
            if let Some(side) = state.core.side_mut(slot, group) {
                side.ask(&request.invocation_id);
            }
            // The answer goes to it, so the home need not know.
            state.core.apply_invoke(slot, true, asker, request, (origin, mode));
        }
        ConnectionCommand::Flow { operation, .. } => {
            state.assignments.sided.apply_side_flow(&mut state.core, slot, group, operation)
        }
        other @ (ConnectionCommand::Group { .. }
        | ConnectionCommand::Refresh { .. }
        | ConnectionCommand::Moved { .. }
        | ConnectionCommand::Traced(_)
        | ConnectionCommand::Mirrored { .. }
        | ConnectionCommand::Mirror(_)) => {
            apply_to_connection(state, slot, (app, false), other, mode);
        }
    }
}

/// Applies a command to a connection that is here; `is_own` if its own app server sent it.
pub(super) fn apply_to_connection(
    state: &mut ShardState,
    slot: Slot,
    (app, is_own): (AppServerId, bool),
    command: ConnectionCommand,
    mode: BatchMode,
) {
    match command {
        ConnectionCommand::Data { payload, kind } if is_own => {
            state.assignments.apply_data(&mut state.core, slot, &payload, kind, mode)
        }
        ConnectionCommand::Mirrored { payload, kind } if is_own => {
            state.assignments.apply_data(&mut state.core, slot, &payload, kind, mode)
        }
        ConnectionCommand::Mirrored { payload, .. } => {
            state.assignments.mirrored.take_mirrored(&mut state.core, slot, app, &payload)
        }
        ConnectionCommand::Mirror(order) => state.assignments.mirrored.control_copy(&mut state.core, slot, app, order),
        // Only its own app server may answer its calls, so that none is answered twice.
        ConnectionCommand::Data { .. } => state.core.context.counters.unknown_receivers.increment(),
        ConnectionCommand::Group { change, ack } => {
            state.core.change_groups(slot, &change, ack.as_deref());
            if !is_own {
                state.core.tell_home_of_group(slot, &change);
            }
        }
        // Its own app server has sent a close message; for any other one we do.
        ConnectionCommand::Close { .. } if !is_own && state.core.has_left(slot, app) => {}
        ConnectionCommand::Close { error, cause, by } => {
            let error = error.as_deref().filter(|error| !error.is_empty());
            // By another link of its app server it comes from a part of that which does not have the connection.
            let home = state.core.connections.get(slot).map(|client| client.home.id());
            let is_own = is_own && by.is_none_or(|by| Some(by) == home);
            let reason = if is_own { CloseReason::by_app(error, cause) } else { CloseReason::ordered(error) };
            state.assignments.close(&mut state.core, slot, &reason);
        }
        ConnectionCommand::Refresh { expires_s, ack } => state.assignments.refresh(slot, expires_s, &ack),
        ConnectionCommand::HandOver { headers } if is_own => state.hand_over(slot, &headers),
        // From any other than its own it is an answer that comes too late.
        ConnectionCommand::HandOver { .. } => state.assignments.late_hand_over(&mut state.core, slot, app),
        ConnectionCommand::Invoke { asker, request, origin } => {
            state.core.apply_invoke(slot, is_own, asker, request, (origin, mode));
        }
        ConnectionCommand::Moved { from, epoch } => state.moves.move_answered(&mut state.core, slot, from, epoch),
        ConnectionCommand::Traced(report) => state.core.delivery.watches.reported(slot, &report),
        ConnectionCommand::Flow { operation: FlowOperation::PauseAck, by } if is_own => match by {
            Some(by) => state.pause_acknowledged(slot, by),
            None => state.moves.departure_paused(&mut state.core, slot),
        },
        ConnectionCommand::Flow { operation, .. } => apply_flow(state, slot, is_own, operation),
    }
}

fn apply_flow(state: &mut ShardState, slot: Slot, is_own: bool, operation: FlowOperation) {
    let now = state.core.tick();
    match operation {
        FlowOperation::ReadOn if is_own => {
            return state.levelling.read_on(&mut state.core, &mut state.assignments, &mut state.rerouting, slot);
        }
        FlowOperation::EndInput if is_own => return state.core.end_input(slot),
        _ => {}
    }
    let Some(client) = state.core.connections.get_mut(slot).filter(|_| is_own) else { return };
    match operation {
        FlowOperation::Pause => client.pause(PauseReason::AppServer),
        FlowOperation::Resume => client.resume(PauseReason::AppServer, now),
        FlowOperation::PauseAck | FlowOperation::Offline | FlowOperation::ReadOn | FlowOperation::EndInput => {}
    }
}

#[cfg(test)]
mod tests;
