//! State of one shard: its parts, each of which owns its own.
//!
//! ```text
//!                 ┌ ShardCore      clients with their sets and routes, what is written to them, watches
//!                 ├ Assignments    app servers of a client: home, side homes, mirrors; its end
//!                 ├ Moves          other sockets and other nodes for a client; keep-alives
//!                 ├ LeavingClients, Levelling, hand-overs   clients that are to be elsewhere
//!  ShardState ────┴ PresenceFeeds, TaskFeeds   app servers that follow others
//! ```
//!
//! A part knows neither this file nor the others; it is given the core where it looks at clients. Steps that need
//! several parts are in files above: each takes the whole state, or is a method of it.
//!
//! ```text
//!  apply ── event ── drain ── moving ── assignments ── ShardState ── parts ── ShardCore
//! ```
//!
//! No step waits, and none calls back into the shard: links and sockets only take what they are given, and their wakers
//! only schedule tasks. [`end_step`](ShardState::end_step) writes what a step has left, and returns the tasks that the
//! driver, [`Shard`](super::Shard), starts.

use std::mem;
use std::time::Duration;

use tokio::sync::oneshot;

use super::assignments::closed_id::ClosedIds;
use super::assignments::mirror::MirroredConnections;
use super::assignments::moved_client::MovedClient;
use super::assignments::reassignment::Reassignment;
use super::assignments::side_assignment::SidedClients;
use super::assignments::token_expiry::TokenExpiries;
use super::command::ShardCommand;
use super::drain::leaving::LeavingClients;
use super::drain::level_order::{LevelOrder, Levelling};
use super::inbox::{Inspection, ShardMessage, ShardSender};
use super::inspection::{Inspector, WatchDesk};
use super::moving::keep_alive::KeepAlive;
use super::presence_feed::PresenceFeeds;
use super::shard_context::ShardContext;
use super::shard_core::ShardCore;
use super::slot::{Serial, Slot};
use super::task_feed::TaskFeeds;
use crate::bounded::Deadlines;
use crate::metrics::MoveCause;
use crate::net::socket::Socket;

/// Task that a step asks the driver for.
#[derive(Debug)]
pub(super) enum ShardTask {
    /// Flushes the outbox of a client as its socket takes it.
    Flush(Slot, Serial),
    /// Ends the hold of a client after a while.
    EndHold(Slot, Serial),
    /// Closes all clients, spread over this time.
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
    pub(super) moves: Moves,
    /// All clients were told to leave: so is each that comes now.
    pub(super) is_drained: bool,
    pub(super) leaving: LeavingClients,
    /// Slot at which the search for clients of the next shed begins, so that no client is chosen again and again.
    pub(super) shed_from: usize,
    /// The routes are to be asked again for all clients at the next tick.
    pub(super) reroute_due: bool,
    pub(crate) levelling: Levelling,
    /// Clients that are being handed over.
    pub(super) hand_overs: Deadlines<(Slot, Serial)>,
    /// Clients that have moved to another link, until their app servers have noticed.
    pub(super) moved: Deadlines<MovedClient>,
    /// App servers that are told who comes and goes.
    pub(super) presence: PresenceFeeds,
    pub(super) tasks: TaskFeeds,
    /// Empty list for the commands of the next batch, with room.
    pub(super) spare_commands: Vec<ShardCommand>,
    /// Tasks that this step asks for.
    due: Vec<ShardTask>,
}

/// App servers of the client connections of one shard, and the ends of connections.
#[derive(Debug)]
pub(crate) struct Assignments {
    pub(super) reassignment: Reassignment,
    /// Client connections that have several app servers.
    pub(crate) sided: SidedClients,
    /// Client connections that have copies for mirrors.
    pub(crate) mirrored: MirroredConnections,
    pub(super) closed_ids: ClosedIds,
    /// Clients whose sockets are cut unless they answer the close of this node.
    pub(super) closing: Deadlines<(Slot, Serial)>,
    pub(super) token_expiries: TokenExpiries,
}

impl Assignments {
    pub(super) fn new(context: &ShardContext) -> Self {
        let settings = &context.shared.settings;
        let (window_ms, hold_s) = (settings.links.resume_window_ms, settings.rehoming.hold_timeout_s);
        Self {
            reassignment: Reassignment::new(window_ms, hold_s, context.counters.clone()),
            sided: SidedClients::default(),
            mirrored: MirroredConnections::default(),
            closed_ids: ClosedIds::new(context.shared.routes.clone()),
            closing: Deadlines::default(),
            token_expiries: TokenExpiries::default(),
        }
    }
}

/// Clients of one shard that come back over other sockets, or at other nodes.
#[derive(Debug, Default)]
pub(super) struct Moves {
    pub(super) keep_alive: KeepAlive,
    /// Sockets that clients have left which may come back. Their tasks still wait for them, and only a socket that is
    /// there wakes them.
    pub(super) detached: Deadlines<Socket>,
    /// Client connections whose messages are acknowledged at the next tick.
    pub(super) acknowledgements: Vec<Slot>,
    /// Client connections that other nodes take over, until the tick at which that has failed.
    pub(super) moving_out: Deadlines<(Slot, Serial)>,
}

impl ShardState {
    pub(super) fn new(context: ShardContext) -> Self {
        Self {
            assignments: Assignments::new(&context),
            core: ShardCore::new(context),
            moves: Moves::default(),
            is_drained: false,
            leaving: LeavingClients::default(),
            shed_from: 0,
            reroute_due: false,
            levelling: Levelling::default(),
            hand_overs: Deadlines::default(),
            moved: Deadlines::default(),
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
            self.write_left();
        }
        mem::take(&mut self.due)
    }

    #[inline(never)]
    fn write_left(&mut self) {
        self.flush();
        let [flushes, holds] = self.core.delivery.take_tasks();
        self.due.extend(flushes.map(|(slot, serial)| ShardTask::Flush(slot, serial)));
        self.due.extend(holds.map(|(slot, serial)| ShardTask::EndHold(slot, serial)));
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
