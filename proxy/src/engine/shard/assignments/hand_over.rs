//! Handovers of clients of dialled-in app servers: to another app server when theirs stops, and between two
//! links when one opens or is given up.
//!
//! ```text
//!  to another app server:  paused ─► calls end ─► closed there (Migrate-To) ─► opened elsewhere (Migrate-From)
//!                             └─ 2 s ─► resumed, since calls may need input ─► calls end, or 10 s in all ──┘
//!  to another link:        paused ─► Pause ─► PauseAck ─► Resume over the other link ─► resumed without loss
//! ```

use std::sync::Arc;

use trunkline_protocol::service::FlowOperation;

use super::other_app;
use crate::engine::shard::command::LinkLoss;
use crate::engine::shard::connection::{Assignment, Role, flow};
use crate::engine::shard::shard_core::ShardCore;
use crate::engine::shard::shard_state::{MovedClient, ShardState};
use crate::engine::shard::slot::Slot;
use crate::engine::upstream::{AppServerId, HomeLink, HubIndex, LinkHandle, LinkId, Pool};

/// Maximum ticks of a handover: until the client's calls end or its app server replies.
const HAND_OVER_TICKS: u32 = 10;

/// Ticks after a move to another link during which the client may be lost with the old link. Later, both ends have
/// detected a loss.
const MOVED_TICKS: u32 = 40;

/// Ticks after which a client with running calls is read again, because they may need its input.
const READ_ON_TICKS: u32 = 2;

/// Maximum number of clients that one shard hands over to a new link.
const HANDED_OVER_MAX: usize = 1000;

/// Reassigns the clients of a stopping app server, each once its calls have ended. They stay if there is no
/// other app server.
pub(crate) fn reassign_all(state: &mut ShardState, hub: HubIndex, app: AppServerId) {
    if other_app(&state.core, hub, app).is_none() {
        return;
    }
    for slot in state.core.connections.at_app(hub, app) {
        let (now, until) = (state.core.tick, state.core.tick + HAND_OVER_TICKS);
        let Some(client) = state.core.connections.live_mut(slot) else { continue };
        if !client.can_move() || client.cold().origin().is_bound || client.assignments().home().is_leaving() {
            continue;
        }
        client.change_assignment(&Role::Home, now, Assignment::ask_to_hand_over);
        if !client.cold().stay().is_moving()
            && !client.assignments().home().calls().are_pending()
            && !state.core.context.shared.client_results.is_waiting_for(&client.id)
        {
            state.reassign_elsewhere(slot);
        } else {
            let id = client.id.clone();
            state.hand_overs.push((slot, id), until);
        }
    }
}

/// Reassigns the clients of stopping app servers to a new one.
pub(crate) fn reassign_all_to(state: &mut ShardState, link: &LinkHandle) {
    if link.hub_identity().capabilities().confirms_hand_over {
        return;
    }
    let Some(hub) = state.core.context.shared.hubs.at(link.hub()) else { return };
    for pool in hub.pools().iter().filter(|pool| pool.is_reassigning() && pool.app.id != link.app) {
        reassign_all(state, link.hub(), pool.app.id);
    }
}

/// Moves a share of the app server's clients to its new link.
pub(crate) fn rebalance_links(state: &mut ShardState, link: &HomeLink) {
    let Some(pool) = pool_of(&state.core, link) else { return };
    let homes = pool.homes();
    if !link.may_carry_clients() || homes.len() < 2 || pool.is_draining() {
        return;
    }
    let mut by_home: Vec<Vec<Slot>> = homes.iter().map(|home| state.core.connections.at_home(home.id)).collect();
    let share = by_home.iter().map(Vec::len).sum::<usize>() / homes.len();
    for clients in &mut by_home {
        let excess = clients.len().saturating_sub(share + 1).min(HANDED_OVER_MAX);
        clients.truncate(excess);
    }
    by_home.into_iter().flatten().take(share.min(HANDED_OVER_MAX)).for_each(|slot| move_to(state, slot, link));
}

/// Moves the clients of a link about to be given up to other links of its app server.
pub(crate) fn leave_link(state: &mut ShardState, link: &LinkHandle) {
    let Some(pool) = pool_of(&state.core, link) else { return };
    let others: Vec<_> = pool.homes().into_iter().filter(|home| home.id != link.id).collect();
    for (slot, to) in state.core.connections.at_home(link.id).into_iter().zip(others.iter().cycle()) {
        move_to(state, slot, to);
    }
}

fn pool_of(core: &ShardCore, link: &LinkHandle) -> Option<Arc<Pool>> {
    core.context.shared.hubs.pool_of(link).filter(|_| link.capabilities.moves_between_links)
}

/// Starts moving a client to another link of its app server.
fn move_to(state: &mut ShardState, slot: Slot, link: &HomeLink) {
    let (now, until) = (state.core.tick, state.core.tick + HAND_OVER_TICKS);
    let Some(client) = state.core.connections.live_mut(slot).filter(|client| client.life().is_open()) else { return };
    let stays = client.assignments().home().is_leaving() || client.home().id == link.id || client.is_in_transit();
    if stays || !client.cold_mut().stay_mut().begin_move(link, now) {
        return;
    }
    client.change_assignment(&Role::Home, now, |home| home.hold_input());
    let (id, home) = (client.id.clone(), client.home().id);
    state.hand_overs.push((slot, id), until);
    if state.core.pause_for_move(slot) {
        state.pause_acknowledged(slot, home);
    }
}

/// Records that a client has moved from this link to another.
pub(crate) fn note_move(state: &mut ShardState, slot: Slot, from: LinkId) {
    let until = state.core.tick.saturating_add(MOVED_TICKS);
    if let Some(client) = state.core.connections.get(slot) {
        state.moved.push(MovedClient { slot, id: client.id.clone(), from }, until);
    }
}

/// Probes clients that were moving or had moved when a link was lost: the old link, where the app server may have
/// closed them before their resume, or the new one, before the resume was read.
pub(crate) fn moving_link_lost(state: &mut ShardState, loss: &LinkLoss) {
    let (now, at) = (state.core.tick, state.core.tick.saturating_add(loss.noticed_within_s));
    for (until, (slot, id)) in state.hand_overs.iter() {
        if let Some(client) = state.core.connections.get_named(*slot, id)
            && client.home().id == loss.link
            && client.cold().stay().is_moving()
            && !client.cold().stay().is_uncertain(now)
        {
            // Not read since then.
            client.cold_mut().stay_mut().mark_lost(until.saturating_sub(HAND_OVER_TICKS));
        }
    }
    for (_, MovedClient { slot, id, from }) in state.moved.iter() {
        if let Some(client) = state.core.connections.get_named(*slot, id)
            && (*from == loss.link || client.home().id == loss.link)
            && !client.cold().stay().is_uncertain(now)
        {
            client.cold_mut().stay_mut().mark_lost(now);
            let serial = client.serial();
            state.assignments.reassignment.ask_at(at, *slot, serial);
        }
    }
}

/// Resumes reading from a client after its move, unless it is leaving its app server.
pub(crate) fn end_move(state: &mut ShardState, slot: Slot) {
    let now = state.core.tick;
    let Some(client) = state.core.connections.live_mut(slot) else { return };
    match client.assignments().home().is_leaving() {
        true => state.reassign_if_ready(slot),
        false => client.change_assignment(&Role::Home, now, |home| home.read_on()),
    }
}

/// Resumes reading from clients with calls that may need input, and ends overdue handovers.
pub(crate) fn end_late_hand_overs(state: &mut ShardState) {
    let now = state.core.tick;
    drop(state.moved.take_due(now));
    for (until, (slot, id)) in state.hand_overs.iter() {
        let client = state.core.connections.get_named(*slot, id);
        if until.saturating_sub(HAND_OVER_TICKS - READ_ON_TICKS) <= now
            && let Some(client) =
                client.filter(|client| client.assignments().home().is_leaving() && !client.cold().stay().is_moving())
        {
            client.change_assignment(&Role::Home, now, |home| home.read_on());
        }
    }
    // Client results don't arrive with the replies to calls.
    let waiting: Vec<_> = state.hand_overs.iter().map(|(_, client)| client.clone()).collect();
    for (slot, id) in waiting {
        if state.core.connections.get_named(slot, &id).is_some() {
            state.reassign_if_ready(slot);
        }
    }
    for (slot, id) in state.hand_overs.take_due(now) {
        let Some(client) = state.core.connections.get_named(slot, &id) else { continue };
        if client.cold().stay().is_probing() {
            // The move has ended, and its app server is being probed.
        } else if client.cold_mut().stay_mut().give_up_move() {
            // A late reply could be mistaken for the reply to the next pause.
            client.home().send(&flow(&client.id, FlowOperation::Resume));
            end_move(state, slot);
        } else if client.assignments().home().is_leaving() && !client.home().capabilities.confirms_hand_over {
            state.reassign_elsewhere(slot);
        }
    }
}

#[cfg(test)]
mod tests;
