//! Moves of client connections between nodes, when a client reconnects to a node that does not have its
//! connection.
//!
//! ```text
//!  new owner                                old owner                       app servers of the hub
//!     ── Look ────────────────────────────────► cut the socket, describe the connection
//!   routable; sends wait
//!     ── Take ────────────────────────────────► buffer sends to the connection
//!                                               Pause ─► its app server ───────► holds direct data
//!                                                                        ◄───── PauseAck
//!                                               MoveConnection ────────────────► a new epoch begins
//!                                                                        ◄───── ConnectionMoved (epoch)
//!                                               (by dial-in: from and to the nodes, where sends enter the fleet)
//!     ◄───────────────────────────── state ─────
//!   has the state and the buffered sends
//!     ── Resume ───────────────────────────────────────────────────────────────► its app server continues
//!     ── MoveConnection ──────────────────────► (by dial-in) ── echo ──────────►
//!     ◄── late data, ConnectionMoved ──────────                 ◄────── echo ──
//!     ── Arrived ─────────────────────────────► remove the connection
//! ```
//!
//! The old owner keeps the connection until it sends the state. Afterwards the new owner has it, or no node.

pub(super) mod keep_alive;
pub(crate) mod reconnect;

use std::rc::Rc;

use bytes::Bytes;
use bytestring::ByteString;
use tokio::sync::oneshot;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::fleet::{MovedState, MovingConnection, Ownership};
use trunkline_protocol::hub::{HubProtocol, MessageKind};
use trunkline_protocol::manifest::{HubManifest, SlowClients};
use trunkline_protocol::service::{FlowOperation, MoveConnection, OpenConnection, ServiceMessage};

use super::assignments::auth_refresh::keep_log_in;
use super::connection::{Client, ClientOrigin, ClientTraits, DepartingState, Liveness, SetName, flow};
use super::content::Content;
use super::delivery::Flush;
use super::shard_core::ShardCore;
use super::shard_state::ShardState;
use super::slot::{Serial, Slot};
use super::tap::TapEvent;
use crate::engine::upstream::{AppServerId, HomeLink, HubIndex};
use crate::ground::clock::unix_ms;
use crate::ground::limits::HeadHolder;
use crate::ground::metrics::MoveCause;
use crate::ground::net::socket::Socket;
use reconnect::{may_return, sever};

/// Describes a connection that another node is about to take over, and cuts its socket. `None` if it can't
/// move.
pub(crate) fn inspect(state: &mut ShardState, hub: HubIndex, id: &str) -> Option<MovingConnection> {
    let slot = state.core.connections.find(hub, id)?;
    let client = state.core.connections.live(slot)?;
    let resumption = client.cold().resumption()?;
    let cause = resumption.move_cause();
    if !client.life().is_open()
        || !resumption.ownership().is_owned()
        || client.assignments().home().is_leaving()
        || client.cold().stay().is_moving()
        || client.cold().stay().is_uncertain(state.core.tick)
        || !client.moves_unnoticed()
        || !client.home().is_open()
        || (!client.home().capabilities.sends_to_all_nodes
            && !state.core.context.shared.other_nodes().let_move(client.home().hub()))
    {
        return None;
    }
    let opening = client.cold().read_opening()?;
    let moving = MovingConnection {
        app_server: ByteString::from(&*state.core.context.shared.hubs.instance(client.home().app)),
        opening: ServiceMessage::OpenConnection(opening).to_body(),
        user: state.core.connections.user_of(client).map(ByteString::from),
        groups: groups_of(&state.core, client),
        opened_ms: state.core.context.opened_ms(client),
        expires_s: state.assignments.token_expiries.expiry_of(slot),
        is_bound: client.cold().origin().is_bound,
        cause: cause.label().into(),
    };
    let (is_away, app) = (client.is_away(), client.home().app);
    state.core.context.shared.routes.begin_move(id);
    if !is_away {
        sever(state, slot, Cause::SocketEnded);
    }
    if let Some(resumption) = state.core.resumption_of(slot) {
        resumption.report_to_node(app);
    }
    Some(moving)
}

fn groups_of(core: &ShardCore, client: &Client) -> Vec<ByteString> {
    let groups = core.connections.sets().sets_of(client).filter_map(|set| match set {
        SetName::Group(name) => Some(ByteString::from(name)),
        SetName::Hub | SetName::User(_) => None,
    });
    groups.collect()
}

/// Starts moving a connection to another node. `answer` receives its state, or `None` if the move fails.
pub(crate) fn move_out(state: &mut ShardState, hub: HubIndex, id: &str, answer: oneshot::Sender<Option<Bytes>>) {
    let Some(slot) = state.core.connections.find(hub, id) else { return };
    let Some(client) = state.core.connections.live_mut(slot) else { return };
    let (home, serial) = (client.home().clone(), client.serial());
    let is_settled = home.is_open()
        && !client.cold().stay().is_moving()
        && client.assignments().secondaries().is_none()
        && !client.assignments().home().is_leaving();
    let Some(resumption) = client.cold_mut().resumption_mut().filter(|_| is_settled) else { return };
    let Some(until) = resumption.depart(home.app, state.core.tick, answer) else { return };
    state.moves.moving_out.push((slot, serial), until);
    if state.core.pause_for_move(slot) {
        move_paused(state, slot);
    }
}

/// Handles this node's reply to its own move; see [`move_answered`].
pub(crate) fn move_answered_for(state: &mut ShardState, hub: HubIndex, id: &str, from: AppServerId, epoch: i64) {
    if let Some(slot) = state.core.connections.find(hub, id) {
        move_answered(state, slot, from, epoch);
    }
}

/// Handles an epoch reported by an app server, or for dial-in by a node: from that epoch on, it sends to the
/// new owner.
pub(super) fn move_answered(state: &mut ShardState, slot: Slot, from: AppServerId, epoch: i64) {
    if let Some(resumption) = state.core.resumption_of(slot) {
        resumption.move_answered(from, epoch);
    }
    send_state_if_ready(state, slot);
}

/// Drops `rest` once the old node has forwarded all late data.
pub(crate) fn await_rest(state: &mut ShardState, slot: Slot, rest: oneshot::Sender<()>) {
    if let Some(resumption) = state.core.resumption_of(slot) {
        resumption.await_rest(rest);
    }
}

/// Primary link of a connection that another node owns. Its app server may still send over the link.
pub(crate) fn home_of_given(state: &mut ShardState, hub: HubIndex, id: &str) -> Option<HomeLink> {
    let slot = state.core.connections.find(hub, id)?;
    state.core.ownership_of(slot).filter(|ownership| ownership.is_given())?;
    Some(state.core.connections.live(slot)?.home().clone())
}

/// Handles the pause of a connection's direct data: asks all app servers to redirect sends to the new owner.
pub(super) fn move_paused(state: &mut ShardState, slot: Slot) {
    if !state.core.ownership_of(slot).is_some_and(|ownership| ownership.pause_acknowledged()) {
        return;
    }
    let Some(client) = state.core.connections.live(slot) else { return };
    let (home, connection_id) = (client.home().clone(), ByteString::from(&*client.id));
    let Some(pools) = state.core.context.shared.hubs.at(home.hub()).map(|hub| hub.pools()) else { return };
    let mut asked = match home.capabilities.sends_to_all_nodes {
        true => Vec::new(),
        false => match state.core.context.shared.other_nodes().announce_move(home.hub(), &connection_id) {
            Some(asked) => asked,
            None => return state.core.stay_here(slot),
        },
    };
    let order = ServiceMessage::MoveConnection(MoveConnection { connection_id });
    for pool in pools.iter() {
        let link = if pool.app.id == home.app { Some(home.clone()) } else { pool.any_link() };
        // An app server without support for moves stamps no epochs; its sends count as the earliest epoch.
        if let Some(link) = link.filter(|link| link.supports_moves() && link.queue(&order)) {
            asked.push(link.app);
        }
    }
    if let Some(ownership) = state.core.ownership_of(slot) {
        ownership.asked(asked);
    }
    send_state_if_ready(state, slot);
}

/// Sends a connection's state to the new node, after the last data for it has arrived here.
fn send_state_if_ready(state: &mut ShardState, slot: Slot) {
    let now = state.core.tick;
    let Some(resumption) = state.core.resumption_of(slot) else { return };
    let before = resumption.ownership().bytes();
    let Some(DepartingState { state: moved, epochs, taker }) = resumption.let_go(now) else { return };
    let after = resumption.ownership().bytes();
    state.core.delivery.budget.replay_changed(before, after);
    let Some(client) = state.core.connections.live(slot) else { return };
    let calls = client.assignments().home().calls().pending().map(ByteString::from).collect();
    let hubs = &state.core.context.shared.hubs;
    let named = |(app, epoch): (AppServerId, i64)| (ByteString::from(&*hubs.instance(app)), epoch);
    let epochs = epochs.into_iter().map(named).collect();
    let groups = groups_of(&state.core, client);
    let moved = MovedState { calls, groups, epochs, follows: state.core.take_follows(slot), ..moved };
    if let Some(taker) = taker {
        // Fails if the other node has stopped waiting: no node has the connection, and it closes.
        drop(taker.send(Some(moved.encode())));
    }
}

/// Removes a connection that another node owns or that has not arrived, without notices.
pub(crate) fn remove_moved(state: &mut ShardState, hub: HubIndex, id: &str) {
    let Some(slot) = state.core.connections.find(hub, id) else { return };
    let Some(resumption) = state.core.connections.get(slot).and_then(|client| client.cold().resumption()) else {
        return;
    };
    if resumption.ownership().is_given() {
        state.core.context.counters.moved_out.of(resumption.move_cause()).increment();
        state.remove_silently(slot);
    }
}

/// Claims a connection for a new socket of its client and cuts the old socket. `None` if the client can't resume it.
/// Removes a connection that has moved: the new owner may have it before this node is notified.
pub(crate) fn claim(state: &mut ShardState, hub: HubIndex, id: &str) -> Option<(Slot, Serial)> {
    let slot = state.core.connections.find(hub, id)?;
    let client = state.core.connections.live(slot)?;
    if !may_return(client, Cause::SocketEnded) || client.is_in_transit() {
        remove_moved(state, hub, id);
        return None;
    }
    sever(state, slot, Cause::SocketEnded);
    let client = state.core.connections.get_mut(slot)?;
    // The new socket has its own permit.
    client.cold_mut().resumption_mut()?.set_permit(None);
    Some((slot, client.serial()))
}

/// Cancels moves that have taken too long; their connections stay here.
pub(super) fn end_late_moves(state: &mut ShardState) {
    let now = state.core.tick;
    for (slot, serial) in state.moves.moving_out.take_due(now) {
        let client = state.core.connections.get_current(slot, serial);
        let resumption = client.and_then(|client| client.cold().resumption());
        if resumption.is_some_and(|resumption| resumption.ownership().is_late(now)) {
            state.core.stay_here(slot);
        }
    }
}

/// Adds a connection that arrives from another node. Sends find it and wait. `None` if its app server can't be
/// reached from this node.
pub(crate) fn arrive(
    state: &mut ShardState,
    hub: HubIndex,
    settings: &HubManifest,
    id: &str,
    moving: &MovingConnection,
) -> Option<(Slot, Serial)> {
    let shared = state.core.context.shared.clone();
    if shared.routes.find(id).is_some() {
        // From an earlier attempt over another socket, since abandoned.
        return None;
    }
    if shared.access.has_closed(moving.user.as_deref(), moving.opened_ms) {
        // The other node is about to be asked to close the connection.
        return None;
    }
    let home = shared.hubs.at(hub)?.choose_home_at(shared.hubs.app_servers.known(&moving.app_server)?)?;
    let Ok(Some(ServiceMessage::OpenConnection(opening))) = ServiceMessage::decode(&moving.opening) else {
        return None;
    };
    let limit_bytes = settings.stateful_reconnect_buffer_bytes?;
    let now = state.core.tick;
    let (ownership, until) = Ownership::arriving(limit_bytes, now);
    let mut client = arriving(state, &home, &opening, id, (ownership, moving))?;
    let may_miss = settings.slow_clients == SlowClients::Drop;
    client.set_traits(
        ClientTraits { is_negotiated: true, may_miss, ..ClientTraits::default() },
        Liveness::new(now, false),
    );
    let serial = client.serial();
    state.core.context.counters.away.follow(0, 1);
    let slot = state.core.connections.insert(client, moving.user.as_deref());
    shared.routes.begin_move(id);
    moving.groups.iter().for_each(|group| state.core.connections.join(slot, hub, SetName::Group(group)));
    if let Some(expires_s) = moving.expires_s {
        state.assignments.token_expiries.set(slot, expires_s);
    }
    state.moves.keep_alive.schedule(slot, serial, now, until);
    join_rules(state, slot);
    Some((slot, serial))
}

/// Sets the server group of a client that arrived from another node, and shows it to the taps.
fn join_rules(state: &mut ShardState, slot: Slot) {
    let ShardCore { connections, context, .. } = &mut state.core;
    let Some(client) = connections.live_mut(slot) else { return };
    let (hubs, home) = (&context.shared.hubs, client.home());
    let group = hubs.at(home.hub()).and_then(|hub| hubs.groups.find(&hub.group_of(home.app)));
    client.cold_mut().set_group(group);
    state.core.tap_event(slot, &TapEvent::Arrived);
}

fn arriving(
    state: &mut ShardState,
    home: &HomeLink,
    opening: &OpenConnection,
    id: &str,
    (ownership, moving): (Ownership<AppServerId>, &MovingConnection),
) -> Option<Client> {
    let protocol = HubProtocol::from_name(opening.protocol.as_deref()?)?;
    let serial = state.core.connections.next_serial();
    let mut client = Client::new(id.into(), serial, home.clone(), Content::Hub(protocol), Socket::Away);
    client.life_mut().answered();
    let age_us = unix_ms().saturating_sub(moving.opened_ms).saturating_mul(1000);
    let opened_us = state.core.context.now_us().saturating_sub(age_us);
    client.cold_mut().set_origin(ClientOrigin { opened_us, is_bound: moving.is_bound, ..ClientOrigin::default() });
    let shared = &state.core.context.shared;
    // The address of the client is known to the other node only.
    let app = shared.access.owner_of(home.hub_identity().name());
    let holder = HeadHolder { connection_id: id.into(), app, address: None };
    let head = shared.limits.heads.weigh(moving.opening.len(), holder).map(Rc::new);
    client.cold_mut().keep_opening(Some(state.core.intern_opening(opening, head.clone())), head);
    client.make_resumable(ownership);
    Some(client)
}

/// Applies the state of an arriving connection, from then on owned by this node. Returns its primary link; `None` if
/// the connection has closed.
pub(crate) fn settle(
    state: &mut ShardState,
    (slot, serial): (Slot, Serial),
    hub: HubIndex,
    (moving, moved): (&MovingConnection, MovedState),
) -> Option<HomeLink> {
    let (shared, now) = (state.core.context.shared.clone(), state.core.tick);
    let until = now.saturating_add(shared.settings.http_transports.disconnect_timeout_s).saturating_add(1);
    let calls_max = shared.settings.rehoming.pending_calls_max;
    let client = state.core.connections.get_current(slot, serial).filter(|client| client.life().is_open())?;
    let (home, resumption) = (client.home().clone(), client.cold_mut().resumption_mut()?);
    let before = resumption.ownership().bytes();
    let epochs = moved.epochs.iter().map(|(name, epoch)| (shared.hubs.number(name), *epoch)).collect();
    let (calls, groups, follows) = (moved.calls.clone(), moved.groups.clone(), moved.follows.clone());
    let (arrival, refreshed) = resumption.settle(moved, epochs, until)?;
    if !home.capabilities.sends_to_all_nodes {
        resumption.ownership_mut().keep_behind(shared.fleet.origin);
    }
    state.core.delivery.budget.replay_changed(before, resumption.ownership().bytes());
    // The kinds of moved calls are not known; a stream may take any time.
    calls.iter().for_each(|call| client.begin_call((call, MessageKind::StreamInvocation), calls_max));
    client.home().send(&flow(&client.id, FlowOperation::Resume));
    shared.routes.end_move(&client.id);
    state.core.context.record_arrival(client);
    state.core.context.counters.moved_in.of(MoveCause::from_label(&moving.cause)).increment();
    for group in moving.groups.iter().filter(|group| !groups.contains(group)) {
        state.core.connections.leave(slot, hub, SetName::Group(group));
    }
    groups.iter().for_each(|group| state.core.connections.join(slot, hub, SetName::Group(group)));
    // The other node may have sent the state before it received these.
    arrival.group_changes.iter().for_each(|change| state.core.change_groups(slot, change, None));
    state.core.continue_follows(slot, follows);
    if let Some(log_in) = refreshed {
        keep_log_in(state, slot, log_in);
    }
    let mode = state.core.mode(Flush::Deferred);
    for (reply_to, request, origin) in arrival.requests {
        if state.core.ownership_of(slot).is_some_and(|ownership| ownership.is_of_new_owner(origin)) {
            state.core.apply_invoke(slot, false, reply_to, request, (origin, mode));
        }
    }
    Some(home)
}

pub(crate) fn give_up_arrival(state: &mut ShardState, (slot, serial): (Slot, Serial)) {
    if state.core.connections.get_current(slot, serial).is_some() {
        state.withdraw(slot);
    }
}
