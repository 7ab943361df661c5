//! Application of commands: state changes and writes in one shard that frames of a link cause.

use std::vec::Drain;

use bytestring::ByteString;
use tokio::time::Instant;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::service::{AckStatus, FlowOperation};

use super::assignments::auth_refresh::{refresh_auth, report_claims};
use super::assignments::hand_over::leave_link;
use super::close_reason::CloseReason;
use super::command::audience::SendOrigin;
use super::command::{Audience, ConnectionCommand, CopyOrder, PendingAck, Receivers, ShardCommand};
use super::connection::{Role, SetName};
use super::delivery::framed::Framed;
use super::delivery::send_run::SendRun;
use super::delivery::{BatchMode, Flush};
use super::drain::close_all_drained;
use super::drain::reroute::reroute_some;
use super::drain::server_rebalance::read_on;
use super::moving::{move_answered, move_paused};
use super::shard_core::ShardCore;
use super::shard_state::{ShardState, ShardTask};
use super::slot::Slot;
use super::tap::TapEvent;
use crate::engine::upstream::{AppServerId, HubIndex, LinkId};

/// Capacity above which a list of commands is not kept.
const COMMANDS_KEPT_MAX: usize = 2048;

/// Applies the commands of one batch in order. Deferred writes are flushed at the end of the step. `read_at` is the
/// time of the batch's read, if a tap is active.
pub(super) fn apply(state: &mut ShardState, mut commands: Vec<ShardCommand>, read_at: Option<Instant>) {
    state.core.delivery.read_at = read_at;
    // A single frame is written immediately; frames of a longer batch are flushed together.
    let mode = state.core.mode(if commands.len() == 1 { Flush::Now } else { Flush::Deferred });
    let mut batch = AppliedBatch { length: commands.len(), rest: commands.drain(..), mode };
    while let Some(command) = batch.rest.next() {
        let before = state.core.delivery.deferred();
        apply_one(state, command, &mut batch);
        state.core.delivery.flush_window(&mut state.core.connections, before);
    }
    drop(batch);
    state.core.delivery.read_at = None;
    if (state.spare_commands.capacity()..=COMMANDS_KEPT_MAX).contains(&commands.capacity()) {
        state.spare_commands = commands;
    }
}

struct AppliedBatch<'a> {
    length: usize,
    /// Commands after the current one.
    rest: Drain<'a, ShardCommand>,
    mode: BatchMode,
}

impl AppliedBatch<'_> {
    /// Takes the following sends to the same receivers that can be joined with the first one. If they make up the whole
    /// batch, they are flushed like a single frame.
    fn take_run(&mut self, hub: HubIndex, to: &Receivers, first: (Framed, SendOrigin)) -> (SendRun, BatchMode) {
        let mut run = SendRun::new(first);
        while let Some(next) = self.rest.as_slice().first().and_then(|next| next.send_to_set(hub, to))
            && run.take_send(next)
        {
            drop(self.rest.next());
        }
        run.join();
        let flush = if run.len() == self.length { Flush::Now } else { self.mode.flush };
        (run, BatchMode { flush, ..self.mode })
    }
}

fn apply_one(state: &mut ShardState, command: ShardCommand, batch: &mut AppliedBatch<'_>) {
    let mode = batch.mode;
    match command {
        ShardCommand::Send { hub, to, message, origin } => {
            let (run, mode) = batch.take_run(hub, &to, (message, origin));
            state.core.delivery.send(&mut state.core.connections, hub, &to, &run, mode);
            if let Audience::Connections(ids) = &to.who
                && state.core.are_streams_of_back_ends(hub)
            {
                let answers = run.messages().map(|(message, _)| message);
                answers.for_each(|answer| state.note_answers(hub, ids, answer));
            }
        }
        ShardCommand::One { hub, app, connection_id, slot, command } => {
            if state.core.connections.is_in(slot, hub, &connection_id) {
                let role = state.core.connections.get(slot).and_then(|client| client.role_of(app));
                apply_to_connection(state, slot, (app, role), command, mode);
            } else {
                state.core.reject(command);
            }
        }
        ShardCommand::ChangeGroups { hub, to, change, ack } => {
            state.core.change_groups_of(hub, &to, &change, ack.as_deref());
        }
        ShardCommand::Check { hub, who, within_group, ack } => {
            let mut slots = state.core.connections.slots_of(hub, &who.into());
            if let Some(group) = within_group {
                let connections = &state.core.connections;
                let is_member = |client| connections.sets().has(client, hub, SetName::Group(&group));
                slots.retain(|slot| connections.get(*slot).is_some_and(is_member));
            }
            if !slots.is_empty() {
                ack.found();
            }
        }
        ShardCommand::ListMembers(listing) => state.core.list_members(listing),
        ShardCommand::CountMembers { hub, set, tally } => {
            tally.add_members(state.core.connections.members(hub, set.name()).len());
        }
        ShardCommand::CountReceivers { hub, to, tally } => {
            tally.add_members(state.core.connections.count_of(hub, &to));
        }
        ShardCommand::CloseMany { hub, app, to, reason, ack } => {
            let slots = state.core.connections.slots_of(hub, &to);
            if !slots.is_empty() {
                ack.found();
            }
            state.close_many(app, &slots, reason.as_deref());
        }
        ShardCommand::Recorded(recorded) => state.core.apply_recorded(&recorded, mode),
        ShardCommand::LinkLost(loss) => state.lose_homes(&loss),
        ShardCommand::HandedOver { hub, app, connection_id } => state.handed_over(hub, app, &connection_id),
        ShardCommand::LinkOpened(link) => state.link_opened(&link),
        ShardCommand::LeaveLink(link) => leave_link(state, &link),
        ShardCommand::AppShuttingDown { hub, app } => state.app_shutting_down(hub, app),
        // Immediate at process exit, which does not wait for a task.
        ShardCommand::Drain(spread) if spread.is_zero() => close_all_drained(state),
        ShardCommand::Drain(spread) => state.start(ShardTask::Drain(spread)),
        ShardCommand::Expire { hub, over } => state.core.expire_user_group(hub, &over),
        ShardCommand::Reroute(slots) => {
            reroute_some(state, slots);
        }
    }
}

/// Applies a command to a connection on this shard. `role` is the app server's role for the connection, if it
/// has one.
pub(super) fn apply_to_connection(
    state: &mut ShardState,
    slot: Slot,
    (app, role): (AppServerId, Option<Role>),
    command: ConnectionCommand,
    mode: BatchMode,
) {
    match (command, role) {
        (ConnectionCommand::Data { payload, kind, packed }, Some(Role::Home)) => {
            state.apply_data(slot, (&payload, packed.as_deref()), kind, mode)
        }
        (ConnectionCommand::Data { payload, .. }, Some(role)) => {
            state.apply_secondary_data(slot, &role, &payload, mode)
        }
        // Only an assigned app server may answer calls, so that no call is answered twice or fails.
        (ConnectionCommand::Data { .. } | ConnectionCommand::Skipped { .. }, None) => {
            state.core.context.counters.unknown_receivers.increment()
        }
        (ConnectionCommand::Copied(CopyOrder::Data { payload, kind }), Some(Role::Home)) => {
            state.apply_data(slot, (&payload, None), kind, mode)
        }
        (ConnectionCommand::Copied(order), _) => state.core.tap_event(slot, &TapEvent::Copied(app, &order)),
        (ConnectionCommand::Group { change, ack }, _) => state.core.change_groups(slot, &change, ack.as_deref()),
        (ConnectionCommand::Close { error, cause, by }, role) => {
            apply_close(state, slot, (app, role), (error, cause, by))
        }
        (ConnectionCommand::Skipped { problem }, Some(_)) => {
            state.close_client(slot, &CloseReason::app_frame_skipped(&problem))
        }
        // REST callers of any node wait for a client, too.
        (ConnectionCommand::Mark { number, reply_to }, role) if role.is_some() || app == AppServerId::OTHER_NODE => {
            let ShardCore { delivery, connections, .. } = &mut state.core;
            if let Some(client) = connections.live_mut(slot) {
                delivery.slow.mark(slot, client, (reply_to, number), mode.now);
            }
        }
        // From a previous app server, which no longer waits for the client.
        (ConnectionCommand::Mark { .. }, _) => {}
        (ConnectionCommand::Refresh { expires_s, ack }, _) => refresh(state, slot, expires_s, &ack),
        (ConnectionCommand::RefreshAuth { refresh, ack }, _) => refresh_auth(state, slot, *refresh, &ack),
        (ConnectionCommand::GetClaims { ack }, _) => report_claims(&state.core, slot, &ack),
        (ConnectionCommand::HandOver { headers }, Some(role)) => state.hand_over(slot, &role, &headers),
        // From any other app server it is a late reply.
        (ConnectionCommand::HandOver { .. }, None) => late_hand_over(state, slot, app),
        (ConnectionCommand::Invoke { reply_to, request, origin }, role) => {
            if let Some(Role::Secondary(group)) = &role
                && let Some(secondary) = state.core.secondary_mut(slot, group)
            {
                secondary.ask(&request.invocation_id);
            }
            // The reply goes directly to the caller, so the primary does not need to track a secondary's
            // invocation.
            state.core.apply_invoke(slot, role.is_some(), reply_to, request, (origin, mode));
        }
        (ConnectionCommand::Moved { from, epoch }, _) => move_answered(state, slot, from, epoch),
        (ConnectionCommand::Traced(report), _) => state.core.tap_event(slot, &TapEvent::Reported(&report)),
        (ConnectionCommand::Flow { operation, by }, role) => apply_flow(state, slot, role, (operation, by)),
    }
}

/// Applies flow control of an app server with this role.
fn apply_flow(
    state: &mut ShardState,
    slot: Slot,
    role: Option<Role>,
    (operation, by): (FlowOperation, Option<LinkId>),
) {
    match (operation, role) {
        (FlowOperation::PauseAck, Some(Role::Home)) => match by {
            Some(by) => state.pause_acknowledged(slot, by),
            None => move_paused(state, slot),
        },
        (FlowOperation::ReadOn, Some(Role::Home)) => read_on(state, slot),
        (operation, Some(role)) => state.core.control(slot, &role, operation),
        (_, None) => {}
    }
}

/// Handles a handover from an app server that may have had a secondary assignment of a closed connection.
fn late_hand_over(state: &mut ShardState, slot: Slot, app: AppServerId) {
    if let Some(client) = state.core.connections.get(slot).filter(|client| client.life().is_closed()) {
        let (hub, id) = (client.home().hub(), client.id.clone());
        state.handed_over(hub, app, &id);
    }
}

/// Updates the expiry of a client that closes with its token. Only the node can close clients of a webhook, so there
/// the caller learns that the time has no effect.
fn refresh(state: &mut ShardState, slot: Slot, expires_s: u64, ack: &PendingAck) {
    let hub = state.core.connections.live(slot).and_then(|client| state.core.hub_of(client));
    if state.assignments.token_expiries.expiry_of(slot).is_some() {
        state.assignments.token_expiries.set(slot, expires_s);
    } else if let Some(hub) = hub.filter(|hub| hub.has_webhook()) {
        let name = hub.name();
        let text = match hub.settings().close_on_token_expiry {
            true => "the client connected without an access token that expires".to_owned(),
            false => format!(
                "the hub does not close connections with their tokens: set close-on-token-expiry in [webhooks.{name}]"
            ),
        };
        return ack.refused(AckStatus::Forbidden, text);
    }
    ack.found();
}

fn apply_close(
    state: &mut ShardState,
    slot: Slot,
    (app, role): (AppServerId, Option<Role>),
    (error, cause, by): (Option<ByteString>, Option<Cause>, Option<LinkId>),
) {
    let error = error.as_deref().filter(|error| !error.is_empty());
    let reason = match role {
        Some(Role::Secondary(group)) => {
            // The secondary closed it itself, so only the others are notified.
            if let Some(secondaries) =
                state.core.connections.live_mut(slot).and_then(|client| client.assignments_mut().secondaries_mut())
            {
                drop(secondaries.remove(&group));
            }
            CloseReason::by_secondary(error, cause)
        }
        // A close over another link is from a part of the app server without the connection.
        Some(Role::Home)
            if by.is_none_or(|by| state.core.connections.get(slot).is_some_and(|it| it.home().id == by)) =>
        {
            CloseReason::by_app(error, cause)
        }
        // The client's own app server sent a close message; for others the proxy sends it.
        None if state.core.connections.get(slot).is_some_and(|client| client.cold().stay().was_at(app)) => return,
        Some(Role::Home) | None => CloseReason::on_request(Cause::Ordered, error),
    };
    state.close_client(slot, &reason);
}

#[cfg(test)]
mod tests;
