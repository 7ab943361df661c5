//! Moves of client connections between nodes: a client has come back at another node than the one that has its connection.
//!
//! ```text
//!  new owner                                old owner                       app servers of the hub
//!     ── Look ────────────────────────────────► cut its socket, say what it is
//!   it is there for sends, which wait
//!     ── Take ────────────────────────────────► keep what is sent to it
//!                                               Pause ─► its own one ──────────► what is for it alone waits there
//!                                                                        ◄───── PauseAck
//!                                               MoveConnection ────────────────► a new epoch begins
//!                                                                        ◄───── ConnectionMoved (epoch)
//!                                               (at the door: from and to the nodes, where sends enter the fleet)
//!     ◄──────────────────────────── its state ──
//!   it has its state, and what waited
//!     ── Resume ───────────────────────────────────────────────────────────────► its own app server goes on
//!     ── Arrived ─────────────────────────────► forget it
//! ```
//!
//! Until the state has left, the old owner has the connection, and gets it back when the move fails. From then on the new one
//! has it, or nobody.

use bytes::Bytes;
use bytestring::ByteString;
use tokio::sync::oneshot;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::fleet::{MovedState, MovingConnection, Ownership};
use trunkline_protocol::hub::HubProtocol;
use trunkline_protocol::manifest::{HubManifest, SlowClients};
use trunkline_protocol::service::{FlowOperation, MoveConnection, OpenConnection, ServiceMessage};

use super::connection::{Arrival, Client, Opening, Resumption, SetName, Status};
use super::content::Content;
use super::delivery::Flush;
use super::hand_over::flow;
use super::slot::{Serial, Slot};
use super::state::ShardState;
use crate::clock::unix_ms;
use crate::metrics::MoveCause;
use crate::net::socket::Socket;
use crate::upstream::{AppServerId, HomeLink, HubIndex};

impl ShardState {
    /// Says what a connection is that another node is about to take over, and cuts its socket; `None` where it can't move.
    pub(crate) fn look(&mut self, hub: HubIndex, id: &str) -> Option<MovingConnection> {
        let slot = self.connections.find(hub, id)?;
        let client = self.connections.live(slot)?;
        let resumption = client.cold.resumption.as_ref()?;
        let cause = resumption.move_cause;
        let home_moves = client.home.lets_clients_move() && client.home.is_open();
        if !client.is_open()
            || !resumption.ownership.is_owned()
            || !client.can_move()
            || client.cold.is_leaving
            || client.cold.moving_to.is_some()
            // Another node would know nothing of its side homes.
            || client.cold.sides.is_some()
            || !home_moves
            || (client.home.of_door().is_some() && !self.context.shared.other_nodes().let_move(client.home.hub()))
        {
            return None;
        }
        let opening = client.cold.opening.as_ref().and_then(Opening::read)?;
        let age_ms = self.context.now_us().saturating_sub(client.cold.opened_us) / 1000;
        let moving = MovingConnection {
            app_server: ByteString::from(&*self.context.shared.hubs.instance(client.home.app())),
            opening: ServiceMessage::OpenConnection(opening).to_body(),
            user: self.connections.user_of(client).map(ByteString::from),
            groups: self.groups_of(client),
            opened_ms: unix_ms().saturating_sub(age_ms),
            expires_s: self.token_expiries.of(slot),
            is_bound: client.cold.is_bound,
            cause: cause.label().into(),
        };
        let (is_away, app) = (client.is_away(), client.home.app());
        self.context.shared.routes.begin_move(id);
        if !is_away {
            self.sever(slot, Cause::SocketEnded);
        }
        if let Some(resumption) = self.resumption_of(slot) {
            resumption.looked_app = Some(app);
        }
        Some(moving)
    }

    fn groups_of(&self, client: &Client) -> Vec<ByteString> {
        let groups = self.connections.sets_of(client).filter_map(|set| match set {
            SetName::Group(name) => Some(ByteString::from(name)),
            SetName::Hub | SetName::User(_) => None,
        });
        groups.collect()
    }

    /// Begins to let a connection go to another node; `answer` gets its state, or nothing when that fails.
    pub(crate) fn depart(&mut self, hub: HubIndex, id: &str, answer: oneshot::Sender<Option<Bytes>>) {
        let Some(slot) = self.connections.find(hub, id) else { return };
        let Some(client) = self.connections.live_mut(slot) else { return };
        let (home, serial) = (client.home.clone(), client.serial);
        let is_settled =
            home.is_open() && client.cold.moving_to.is_none() && client.cold.sides.is_none() && !client.cold.is_leaving;
        let Some(resumption) = client.cold.resumption.as_deref_mut().filter(|_| is_settled) else { return };
        if resumption.looked_app != Some(home.app()) {
            // The other node would resume it at the one that it was told of.
            return;
        }
        let Some(until) = resumption.ownership.depart(self.tick) else { return };
        resumption.taker = Some(answer);
        home.send(&flow(id, FlowOperation::Pause));
        self.departures.push((slot, serial, until));
    }

    /// Takes the answer of this node to its own move, as [`move_answered`](Self::move_answered).
    pub(crate) fn move_answered_for(&mut self, hub: HubIndex, id: &str, from: AppServerId, epoch: i64) {
        if let Some(slot) = self.connections.find(hub, id) {
            self.move_answered(slot, from, epoch);
        }
    }

    /// Takes the answer of an app server to a move, or at the door of a node: from which of its epochs on it sends elsewhere.
    pub(super) fn move_answered(&mut self, slot: Slot, from: AppServerId, epoch: i64) {
        if let Some(ownership) = self.ownership_of(slot) {
            ownership.answered(from, epoch);
        }
        self.let_go_if_ready(slot);
    }

    /// Takes note that the app server of a connection sends it alone nothing more here: now all are asked to send elsewhere
    /// what is for many.
    pub(super) fn departure_paused(&mut self, slot: Slot) {
        if !self.ownership_of(slot).is_some_and(|ownership| ownership.pause_acknowledged()) {
            return;
        }
        let Some(client) = self.connections.live(slot) else { return };
        let (home, connection_id) = (client.home.clone(), ByteString::from(&*client.id));
        let hubs = self.context.shared.hubs.all();
        let Some(pools) = hubs.get(home.hub().get()).map(|hub| hub.pools()) else { return };
        let mut asked = match home.of_door() {
            None => Vec::new(),
            Some(_) => match self.context.shared.other_nodes().announce_move(home.hub(), &connection_id) {
                Some(asked) => asked,
                None => return self.stay_here(slot),
            },
        };
        let order = ServiceMessage::MoveConnection(MoveConnection { connection_id });
        for pool in pools.iter() {
            let link = if pool.app().id == home.app() { Some(home.clone()) } else { pool.any_link() };
            // One that knows no moves stamps nothing: its sends are of the epoch before all others.
            if let Some(link) = link.filter(|link| link.knows_moves() && link.queue(&order)) {
                asked.push(link.app());
            }
        }
        if let Some(ownership) = self.ownership_of(slot) {
            ownership.asked(asked);
        }
        self.let_go_if_ready(slot);
    }

    /// Ownership of a connection that may move.
    pub(super) fn ownership_of(&mut self, slot: Slot) -> Option<&mut Ownership<AppServerId>> {
        Some(&mut self.resumption_of(slot)?.ownership)
    }

    /// Work that waits for the arrival of a connection, if it has not arrived.
    pub(super) fn arrival_of(&mut self, slot: Slot) -> Option<&mut Arrival> {
        self.resumption_of(slot)?.arrival.as_deref_mut()
    }

    fn resumption_of(&mut self, slot: Slot) -> Option<&mut Resumption> {
        let client = self.connections.live_mut(slot).filter(|client| client.is_resumable)?;
        client.cold.resumption.as_deref_mut()
    }

    /// Gives the state of a connection away, when nothing more comes for it here.
    fn let_go_if_ready(&mut self, slot: Slot) {
        let now = self.tick;
        let Some(resumption) = self.resumption_of(slot) else { return };
        let before = resumption.ownership.bytes();
        let Some((state, epochs)) = resumption.ownership.let_go(now) else { return };
        let (taker, after) = (resumption.taker.take(), resumption.ownership.bytes());
        self.delivery.replay_changed(before, after);
        let Some(client) = self.connections.live(slot) else { return };
        let calls = client.cold.calls.pending().map(ByteString::from).collect();
        let hubs = &self.context.shared.hubs;
        let named = |(app, epoch): (AppServerId, i64)| (ByteString::from(&*hubs.instance(app)), epoch);
        let epochs = epochs.into_iter().map(named).collect();
        let state = MovedState { calls, groups: self.groups_of(client), epochs, ..state };
        if let Some(taker) = taker {
            // It fails when the other node waits no more: then nobody has the connection any more, and it ends.
            drop(taker.send(Some(state.encode())));
        }
    }

    /// Forgets a connection that another node has by now, or that has not arrived: nobody is told of it.
    pub(crate) fn forget_moved(&mut self, hub: HubIndex, id: &str) {
        let Some(slot) = self.connections.find(hub, id) else { return };
        let Some(resumption) = self.connections.get(slot).and_then(|client| client.cold.resumption.as_ref()) else {
            return;
        };
        if resumption.ownership.is_given() {
            self.context.counters.moved_out.of(resumption.move_cause).increment();
            self.forget_silently(slot);
        }
    }

    fn forget_silently(&mut self, slot: Slot) {
        self.end_mirrors(slot, Cause::ClientClosed);
        let Some(client) = self.connections.close(slot, 0) else { return };
        self.context.record_departure(client);
        self.context.counters.away.follow(usize::from(client.is_away()), 0);
        self.delivery.watches.closed(slot, None, None);
        self.delivery.forget_kept(client);
        // Its token must not begin another one here, or elsewhere by leave of this node.
        let age_us = self.context.now_us().saturating_sub(client.cold.opened_us);
        self.closed_ids.move_away(&client.id, age_us / 1_000_000, self.tick);
        self.token_expiries.forget(slot);
        self.connections.remove(slot);
    }

    /// Ends the moves that have taken too long: their connections stay here.
    pub(super) fn end_late_departures(&mut self) {
        let now = self.tick;
        let late: Vec<_> = self.departures.extract_if(.., |(.., until)| *until <= now).collect();
        for (slot, serial, _) in late {
            let client = self.connections.get_current(slot, serial);
            let resumption = client.and_then(|client| client.cold.resumption.as_ref());
            if resumption.is_some_and(|resumption| resumption.ownership.is_late(now)) {
                self.stay_here(slot);
            }
        }
    }

    /// Ends a move whose state has not left: the connection stays here, and waits for its client as before.
    pub(super) fn stay_here(&mut self, slot: Slot) {
        let Some(client) = self.connections.live_mut(slot) else { return };
        let Some(resumption) = client.cold.resumption.as_deref_mut() else { return };
        let before = resumption.ownership.bytes();
        if resumption.ownership.stay() {
            resumption.taker = None;
            self.delivery.replay_changed(before, resumption.ownership.bytes());
            self.context.shared.routes.end_move(&client.id);
            client.home.send(&flow(&client.id, FlowOperation::Resume));
        }
    }

    /// Takes a connection in that is about to arrive from another node: sends find it from now on, and wait. `None` where its
    /// app server can't be reached from here.
    pub(crate) fn arrive(
        &mut self,
        hub: HubIndex,
        settings: &HubManifest,
        id: &str,
        moving: &MovingConnection,
    ) -> Option<(Slot, Serial)> {
        let shared = self.context.shared.clone();
        if shared.routes.find(id).is_some() {
            // For another socket of its client, which has given up since.
            return None;
        }
        let hubs = shared.hubs.all();
        let home = hubs.get(hub.get())?.choose_home_at(shared.hubs.number(&moving.app_server))?;
        let Ok(Some(ServiceMessage::OpenConnection(opening))) = ServiceMessage::decode(&moving.opening) else {
            return None;
        };
        let limit_bytes = settings.stateful_reconnect_buffer_bytes?;
        let now = self.tick;
        let (ownership, until) = Ownership::arriving(limit_bytes, now);
        let mut client = self.arriving(&home, &opening, id, (ownership, moving))?;
        client.may_miss = settings.slow_clients == SlowClients::Drop;
        let serial = client.serial;
        self.context.counters.away.follow(0, 1);
        let slot = self.connections.insert(client, moving.user.as_deref());
        shared.routes.begin_move(id);
        moving.groups.iter().for_each(|group| self.connections.join(slot, hub, SetName::Group(group)));
        self.delivery.watches.arrived(&self.connections, slot);
        if let Some(expires_s) = moving.expires_s {
            self.token_expiries.set(slot, expires_s);
        }
        self.keep_alive.schedule(slot, serial, now, until);
        self.join_rules(slot);
        Some((slot, serial))
    }

    fn arriving(
        &mut self,
        home: &HomeLink,
        opening: &OpenConnection,
        id: &str,
        (ownership, moving): (Ownership<AppServerId>, &MovingConnection),
    ) -> Option<Client> {
        let protocol = HubProtocol::from_name(opening.protocol.as_deref()?)?;
        let (serial, now) = (self.connections.next_serial(), self.tick);
        let mut client = Client::new(id.into(), serial, home.clone(), Content::Hub(protocol), Socket::Away);
        (client.status, client.is_negotiated, client.is_resumable) = (Status::Open, true, true);
        (client.last_sent, client.last_heard) = (now, now);
        let age_us = unix_ms().saturating_sub(moving.opened_ms).saturating_mul(1000);
        client.cold.opened_us = self.context.now_us().saturating_sub(age_us);
        client.cold.opening = Some(self.intern_opening(opening));
        client.cold.is_bound = moving.is_bound;
        client.cold.resumption = Some(Box::new(Resumption::new(ownership)));
        Some(client)
    }

    /// Gives a connection that arrives its state: from now on this node has it. `false` if it is not there any more.
    pub(crate) fn settle(
        &mut self,
        (slot, serial): (Slot, Serial),
        hub: HubIndex,
        (moving, state): (&MovingConnection, MovedState),
    ) -> bool {
        let (shared, now) = (self.context.shared.clone(), self.tick);
        let until = now.saturating_add(shared.settings.http_transports.disconnect_timeout_s);
        let calls_max = shared.settings.rehoming.pending_calls_max;
        let Some(client) = self.connections.get_current(slot, serial).filter(|client| client.is_open()) else {
            return false;
        };
        let Some(resumption) = client.cold.resumption.as_deref_mut() else { return false };
        let before = resumption.ownership.bytes();
        let epochs = state.epochs.iter().map(|(name, epoch)| (shared.hubs.number(name), *epoch)).collect();
        let (calls, groups) = (state.calls.clone(), state.groups.clone());
        if !resumption.ownership.settle(state, epochs, until) {
            return false;
        }
        let arrival = resumption.arrival.take().map(|arrival| *arrival).unwrap_or_default();
        self.delivery.replay_changed(before, resumption.ownership.bytes());
        calls.iter().for_each(|call| client.begin_call(call, calls_max));
        client.home.send(&flow(&client.id, FlowOperation::Resume));
        shared.routes.end_move(&client.id);
        self.context.record_arrival(client);
        self.context.counters.moved_in.of(MoveCause::from_label(&moving.cause)).increment();
        for group in moving.groups.iter().filter(|group| !groups.contains(group)) {
            self.connections.leave(slot, hub, SetName::Group(group));
        }
        groups.iter().for_each(|group| self.connections.join(slot, hub, SetName::Group(group)));
        // The other node may have given the state away before it heard of these.
        arrival.group_changes.iter().for_each(|change| self.change_groups(slot, change, None));
        let mode = self.mode(Flush::Deferred);
        for (asker, request, origin) in arrival.requests {
            if self.ownership_of(slot).is_some_and(|ownership| ownership.is_of_new_owner(origin)) {
                self.apply_invoke(slot, false, asker, request, (origin, mode));
            }
        }
        self.finish_batch();
        true
    }

    /// Gives a connection up whose state has not come.
    pub(crate) fn give_up_arrival(&mut self, (slot, serial): (Slot, Serial)) {
        if self.connections.get_current(slot, serial).is_some() {
            self.withdraw(slot);
        }
    }

    /// Forgets a connection that has not arrived, or that another node has by now, whatever is to become of it here. Returns
    /// whether it was such a one.
    pub(super) fn withdraw(&mut self, slot: Slot) -> bool {
        let now = self.tick;
        let Some(ownership) = self.ownership_of(slot) else { return false };
        let is_arriving = ownership.is_arriving();
        // When its time is over the node that took it has died: then its app server is told of the end.
        let is_given = ownership.is_given() && ownership.absence().is_some_and(|absence| absence.until > now);
        let move_cause = match self.connections.live(slot).and_then(|client| client.cold.resumption.as_ref()) {
            Some(resumption) if is_arriving || is_given => resumption.move_cause,
            _ => return false,
        };
        if is_given {
            self.context.counters.moved_out.of(move_cause).increment();
        } else if let Some(client) = self.connections.live(slot) {
            self.context.record_arrival(client);
        }
        self.forget_silently(slot);
        true
    }
}
