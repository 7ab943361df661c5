//! State of one shard: the parts that own it, and the steps that need several of them.
//!
//! ```text
//!                 ┌ ShardCore      clients with their sets and routes, what is written to them, watches
//!                 ├ Assignments    app servers of a client: home, side homes, mirrors; its end
//!                 ├ Moves          other sockets and other nodes for a client; keep-alives
//!                 ├ Leaving, Shed, Drain, Rerouting, Levelling, HandOvers   clients that are to be elsewhere
//!  ShardState ────┴ PresenceFeeds, TaskFeeds   app servers that follow others
//! ```
//!
//! Each part is given the core, and parts that stand above it here, by `&mut`; none knows this file, so calls go one
//! way. No method waits, and none calls back into the shard: links and sockets only take what they are given, and their
//! wakers only schedule tasks. [`end_step`](ShardState::end_step) writes what a step has left, and returns the tasks
//! that the driver, [`Shard`](super::Shard), starts.

use std::collections::HashSet;
use std::mem;
use std::rc::Rc;
use std::time::Duration;

use bytestring::ByteString;
use tokio::sync::oneshot;
use trunkline_protocol::manifest::ITEMS_HEADER;
use trunkline_protocol::service::{FlowOperation, header};

use super::assignments::Assignments;
use super::assignments::hand_over::HandOvers;
use super::close_reason::CloseReason;
use super::command::{LinkLoss, MembershipChange, ShardCommand};
use super::connection::{Client, LetGo, Role, flow, moved_to};
use super::delivery::outbox_budget::largest;
use super::drain::Drain;
use super::drain::leaving::LeavingClients;
use super::drain::levelling::{LevelOrder, Levelling};
use super::drain::reroute::Rerouting;
use super::drain::shed::Shed;
use super::inbox::{Inspection, ShardMessage, ShardSender};
use super::inspection::{Inspector, WatchDesk};
use super::moving::Moves;
use super::presence_feed::PresenceFeeds;
use super::shard_context::ShardContext;
use super::shard_core::{CALL_UNFINISHED, ShardCore};
use super::slot::{Serial, Slot};
use super::task_feed::TaskFeeds;
use crate::metrics::{Limit, MoveCause};
use crate::upstream::{AppServerId, HomeLink, HubIndex, LinkId};

/// Task that a step asks the driver for.
#[derive(Debug)]
pub(super) enum ShardTask {
    /// Flushes the outbox of a client as its socket takes it.
    Flush(Slot, Serial),
    /// Ends the hold of a client after a while.
    EndHold(Slot, Serial),
    /// Tells all clients to leave, spread over this time.
    Drain(Duration),
    /// Sends this number of clients to other nodes.
    Shed(usize),
    /// Gives clients of one app server to another one.
    Level(LevelOrder),
    /// Looks at clients that are to leave, until none is left.
    WatchLeaving,
    /// Reports users and groups that come and go.
    ReportPresence,
}

/// State of one shard.
#[derive(Debug)]
pub(crate) struct ShardState {
    pub(crate) core: ShardCore,
    pub(crate) assignments: Assignments,
    pub(crate) moves: Moves,
    pub(crate) drain: Drain,
    pub(crate) leaving: LeavingClients,
    pub(crate) shed: Shed,
    pub(crate) rerouting: Rerouting,
    pub(crate) levelling: Levelling,
    pub(super) hand_overs: HandOvers,
    /// App servers that are told who comes and goes.
    pub(super) presence: PresenceFeeds,
    pub(super) tasks: TaskFeeds,
    /// Empty list for the commands of the next batch, with room.
    pub(super) spare_commands: Vec<ShardCommand>,
    /// Tasks that this step asks for.
    due: Vec<ShardTask>,
}

impl ShardState {
    pub(super) fn new(context: ShardContext) -> Self {
        Self {
            assignments: Assignments::new(&context),
            core: ShardCore::new(context),
            moves: Moves::default(),
            drain: Drain::default(),
            leaving: LeavingClients::default(),
            shed: Shed::default(),
            rerouting: Rerouting::default(),
            levelling: Levelling::default(),
            hand_overs: HandOvers::default(),
            presence: PresenceFeeds::default(),
            tasks: TaskFeeds::default(),
            spare_commands: Vec::new(),
            due: Vec::new(),
        }
    }

    /// View of what the observer may read.
    #[must_use]
    pub(crate) fn inspector(&self) -> Inspector<'_> {
        let (core, token_expiries) = (&self.core, &self.assignments.token_expiries);
        Inspector { connections: &core.connections, token_expiries, tick: core.tick, now_us: core.context.now_us() }
    }

    /// Watches, with what they look at.
    pub(crate) fn watch_desk(&mut self) -> WatchDesk<'_> {
        let ShardCore { delivery, connections, context, .. } = &mut self.core;
        WatchDesk { watches: &mut delivery.watches, connections, context }
    }

    /// Takes a client connection in: from now on sends find it. With its token it closes, where that is wanted.
    pub(crate) fn open(&mut self, client: Client, user: Option<&str>, expires_s: Option<u64>) -> Slot {
        let serial = client.serial;
        self.core.context.record_open(&client);
        let hub = client.home.hub();
        let slot = self.core.connections.insert(client, user);
        if let Some(user) = user.filter(|_| !self.core.context.shared.user_groups.is_empty()) {
            for group in self.core.context.shared.kept_groups_of(hub, user) {
                self.core.change_groups(slot, &MembershipChange::Join(group), None);
            }
        }
        self.moves.keep_alive.schedule(slot, serial, self.core.tick, self.core.tick + 1);
        if let Some(expires_s) = expires_s {
            self.assignments.token_expiries.set(slot, expires_s);
        }
        slot
    }

    /// Ends a step: what it has left to be written leaves. Returns the tasks that have to be started.
    #[inline]
    pub(super) fn end_step(&mut self) -> Vec<ShardTask> {
        if self.leaving.take_start() {
            self.due.push(ShardTask::WatchLeaving);
        }
        if self.presence.take_start() {
            self.due.push(ShardTask::ReportPresence);
        }
        if !self.core.delivery.is_idle() {
            self.flush();
        }
        mem::take(&mut self.due)
    }

    #[inline(never)]
    fn flush(&mut self) {
        self.assignments.flush(&mut self.core);
        self.due.extend(self.core.delivery.flush_tasks().map(|(slot, serial)| ShardTask::Flush(slot, serial)));
        self.due.extend(self.core.delivery.holds().map(|(slot, serial)| ShardTask::EndHold(slot, serial)));
    }

    /// Has the driver start a task.
    pub(super) fn start(&mut self, task: ShardTask) {
        self.due.push(task);
    }

    /// Has the driver give clients of one app server to another one.
    pub(crate) fn level(&mut self, order: LevelOrder) {
        self.start(ShardTask::Level(order));
    }

    /// Has the driver send some clients elsewhere; returns how many. Those of earlier sheds whose calls still run are
    /// some of them: until they leave their node has as many clients as before, and would shed too many.
    pub(crate) fn shed(&mut self, clients: usize) -> usize {
        let others = clients.saturating_sub(self.leaving.count_of(MoveCause::Rebalance));
        if others > 0 {
            self.start(ShardTask::Shed(others));
        }
        others
    }

    /// Advances the shard by one second.
    pub(super) fn advance(&mut self) {
        self.core.tick += 1;
        self.core.context.counters.ticks.increment();
        self.moves.check_keep_alives(&mut self.core, &mut self.assignments);
        self.assignments.cut_silent(&mut self.core);
        for slot in self.core.unfinished.advance(&self.core.connections, self.core.tick) {
            self.core.context.counters.limit(Limit::MessageTime).increment();
            self.assignments.close(&mut self.core, slot, &CloseReason::message_timeout());
        }
        self.keep_unfinished_budget();
        self.moves.send_acknowledgements(&mut self.core);
        self.assignments.reassignment.forget_old_moves(self.core.tick);
        self.hand_overs.end_late_hand_overs(&mut self.core, &mut self.assignments);
        self.moves.end_late_moves(&mut self.core);
        self.levelling.forget_gone(&mut self.core);
        if self.core.context.index == 0 {
            self.core.context.shared.client_results.expire();
            self.core.context.shared.expire_user_groups();
        }
        self.retry_unassigned();
        self.assignments.sided.tick(&mut self.core, &mut self.assignments.reassignment);
        if self.rerouting.is_due {
            self.rerouting.reroute(&mut self.core, &mut self.assignments);
        }
        self.assignments.reassignment.tell_ends(&self.core.context.shared.hubs, self.core.tick);
        self.close_absent();
        self.assignments.close_expired(&mut self.core);
        self.assignments.closed_ids.forget_expired(self.core.tick);
        self.core.connections.give_back_room();
        self.core.context.shared.forget_old_closes(self.core.context.index);
        self.core.delivery.watches.tick();
        self.core.context.show_timed(self.core.delivery.watches.are_timed());
        self.assignments.mirrored.report_late_answers(&mut self.core);
        let (groups, users) = self.core.connections.sets().counts();
        self.core.context.counters.groups.set(groups);
        self.core.context.counters.users.set(users);
        self.core.context.counters.homeless.set(self.assignments.reassignment.unassigned().count());
    }

    /// Closes the clients with the largest unfinished messages while all together are over their budget.
    pub(crate) fn keep_unfinished_budget(&mut self) {
        let excess = self.core.unfinished.excess_bytes();
        if excess == 0 {
            return;
        }
        for slot in largest(self.core.unfinished.sizes(&self.core.connections), excess) {
            match self.core.connections.get_mut(slot) {
                // It was told, but has not ended: its memory goes with its socket.
                Some(client) if client.is_closing() => client.socket.cut(),
                _ => self.assignments.close(&mut self.core, slot, &CloseReason::unfinished_total()),
            }
        }
    }

    /// Looks for homes again, which may have been full; closes clients that have waited for too long.
    fn retry_unassigned(&mut self) {
        self.rerouting.reroute_unassigned(&mut self.core, &mut self.assignments);
        self.assignments.reassignment.open_unanswered(&mut self.core);
        self.assignments.reassignment.retry(&mut self.core);
        let timeout_s = self.core.context.shared.settings.rehoming.hold_timeout_s;
        for slot in self.assignments.reassignment.take_overdue(&mut self.core, timeout_s) {
            self.assignments.close(&mut self.core, slot, &CloseReason::no_app_server());
        }
    }

    /// Closes connections over HTTP whose clients send no requests any more. One shard does it for the whole node.
    fn close_absent(&mut self) {
        if self.core.context.index != 0 {
            return;
        }
        let shared = self.core.context.shared.clone();
        for outer in shared.admission.http_transports.sweep(shared.settings.http_transports.disconnect_timeout_s) {
            // The others end where they are, because their pipes do.
            if outer.take_inner_half().is_some() {
                self.assignments.close_id(&mut self.core, &Rc::from(&**outer.id()), true);
            }
        }
    }

    /// Reassigns all clients of a link whose session is over.
    pub(super) fn lose_homes(&mut self, loss: &LinkLoss) {
        self.assignments.reassignment.link_lost(loss);
        self.presence.link_lost(&mut self.core, loss);
        self.tasks.link_lost(&mut self.core, loss);
        self.assignments.sided.link_lost(&mut self.core, &mut self.assignments.reassignment, loss);
        self.hand_overs.link_lost(&mut self.core, &mut self.assignments, loss);
        for slot in self.core.connections.at_home(loss.link) {
            if let Some(client) = self.core.connections.live_mut(slot).filter(|_| loss.is_goodbye) {
                client.lose_link(loss, self.core.tick);
            }
            self.assignments.lose_home(&mut self.core, slot, loss.cause);
        }
        if loss.noticed_within_s > 0 {
            // With its last link an app server is gone: its clients wait no longer for it.
            self.assignments.reassignment.retry(&mut self.core);
        }
        self.assignments.reassignment.tell_ends(&self.core.context.shared.hubs, self.core.tick);
    }

    /// Gives a client connection that an app server hands over another one for its role, with the items that the app
    /// gives along.
    pub(super) fn hand_over(&mut self, slot: Slot, role: &Role, headers: &[(ByteString, Vec<ByteString>)]) {
        let Some(client) = self.core.connections.get_mut(slot) else { return };
        if client.is_closing() {
            let (hub, app, id) = (client.home.hub(), client.home.app(), client.id.clone());
            return self.assignments.reassignment.handed_over(hub, app, &id);
        }
        let Some(assignment) = client.assignment_mut(role).filter(|assignment| assignment.is_leaving) else { return };
        assignment.let_go = Some(LetGo::HandedOver);
        assignment.items = header(headers, ITEMS_HEADER).map(|items| Box::from(&**items));
        match (*role == Role::Home).then(|| self.levelling.take_level_target(&mut self.core, slot)).flatten() {
            Some(home) => self.assignments.reassign_to(&mut self.core, slot, &home),
            None => self.assignments.reassign(&mut self.core, slot, role, CALL_UNFINISHED),
        }
    }

    /// Gives clients without a home the link that has opened, and tells its app server which ones live elsewhere by
    /// now.
    pub(super) fn link_opened(&mut self, link: &HomeLink) {
        let hubs = &self.core.context.shared.hubs;
        for (id, to) in self.assignments.reassignment.take_moved_away(link.hub(), link.app()) {
            let client = self.core.connections.find(link.hub(), &id).and_then(|slot| self.core.connections.get(slot));
            // It may have come back.
            if client.is_none_or(|client| client.role_of(link.app()).is_none()) {
                // Where it is, or was: an empty name would ask to hand it over.
                let at = client.map_or(to, |client| client.home.app());
                link.send(&moved_to(&id, &hubs.instance(at)));
            }
        }
        self.assignments.reassignment.retry(&mut self.core);
        self.assignments.reassignment.tell_ends(&self.core.context.shared.hubs, self.core.tick);
        self.hand_overs.reassign_all_to(&mut self.core, &mut self.assignments, link);
        self.hand_overs.level_links(&mut self.core, link);
        self.assignments.sided.link_opened(&mut self.core, &mut self.assignments.reassignment, link);
        self.presence.link_opened(&mut self.core, link);
        self.tasks.link_opened(&mut self.core, link);
        self.rerouting.owe(&mut self.core);
    }

    /// Pauses the clients of an app server that shuts down, and asks it to hand each of them over once its calls have
    /// ended.
    pub(super) fn app_shutting_down(&mut self, hub: HubIndex, app: AppServerId) {
        self.assignments.mirrored.leave_mirrors(&mut self.core, hub, app);
        self.presence.app_stopping(hub, app);
        self.tasks.app_stopping(hub, app);
        if self.core.context.shared.hubs.at(hub).is_some_and(|hub| !hub.capabilities().confirms_hand_over) {
            return self.hand_overs.reassign_all(&mut self.core, &mut self.assignments, hub, app);
        }
        self.assignments.sided.app_stopping(&mut self.core, hub, app);
        self.core.connections.at_app(hub, app).into_iter().for_each(|slot| self.core.ask_for(slot, &Role::Home));
    }

    /// Homes of all clients here, and those of these hubs of which the end of a client is still to be reported.
    #[must_use]
    pub(crate) fn used_entries(&self, hubs: &[HubIndex]) -> (HashSet<(HubIndex, AppServerId)>, Vec<HubIndex>) {
        let has_ends = |hub: &HubIndex| self.assignments.reassignment.has_ends_of(*hub);
        (self.core.homes_of_clients().collect(), hubs.iter().copied().filter(has_ends).collect())
    }

    /// Finishes a move to another link, or goes on with one to another node: the app server sends nothing more for the
    /// client alone over its home link.
    pub(super) fn pause_acknowledged(&mut self, slot: Slot, by: LinkId) {
        let now = self.core.tick;
        let Some(client) = self.core.connections.live_mut(slot) else { return };
        if client.is_spoilt_by_answer(now) {
            return self.assignments.close(&mut self.core, slot, &CloseReason::had_twice());
        }
        if client.home.id() != by {
            return;
        }
        if client.cold.moving_to.is_none() {
            if !client.is_in_transit() {
                // It answers the pause of a move that has ended, and would stay paused.
                client.home.send(&flow(&client.id, FlowOperation::Resume));
            }
            return self.moves.move_paused(&mut self.core, slot);
        }
        client.end_probe();
        let Some(to) = client.cold.moving_to.take() else { return };
        // One that is lost by now is of no use: the old one has the client still.
        let to = if to.is_open() { to } else { client.home.clone() };
        to.send(&flow(&client.id, FlowOperation::Resume));
        if to.id() != by {
            self.hand_overs.note_move(slot, client.serial, by, now);
        }
        self.core.connections.set_home(slot, &to);
        self.core.context.counters.dial_in.moved.increment();
        self.hand_overs.end_move(&mut self.core, &mut self.assignments, slot);
    }
}

impl ShardSender {
    /// Has the shard run `act` behind what waits there, and returns its result. It must be short: meanwhile the shard
    /// serves no client. `None` when the shard is gone.
    pub(crate) async fn inspect<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut ShardState) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        // Sending fails when the caller waits no more: fine.
        self.post(move |state| drop(answer.send(act(state))));
        answered.await.ok()
    }

    /// Has the shard run `act`, without waiting for it.
    pub(crate) fn post(&self, act: impl FnOnce(&mut ShardState) + Send + 'static) {
        self.put(ShardMessage::Inspect(Inspection::of(act)));
    }
}
