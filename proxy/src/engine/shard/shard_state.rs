//! State of one shard, divided into parts that each own their state.
//!
//! ```text
//!                 ┌ ShardCore      clients with their sets and routes, outgoing data, taps
//!                 ├ Assignments    app servers of a client: primary, secondaries; closing
//!                 ├ Moves          resumption over other sockets and nodes; keep-alives
//!                 ├ LeavingClients, ServerRebalance, handovers   clients that have to move
//!  ShardState ────┴ ServerFeeds    features that report to app servers
//! ```
//!
//! A part imports neither this file nor other parts, and receives the core if it inspects clients. Steps that involve
//! several parts are in files above, with the whole state.
//!
//! ```text
//!  apply ── event ── drain ── moving ── assignments ── ShardState ── parts ── ShardCore
//! ```
//!
//! No step waits or calls back into the shard: links and sockets only accept data, and their wakers only schedule
//! tasks. [`end_step`](ShardState::end_step) flushes the output of a step and returns tasks for the driver,
//! [`Shard`](super::Shard).

use std::mem;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::assignments::reassignment::Reassignment;
use super::assignments::secondary_clients::SecondaryClients;
use super::assignments::token_expiry::{ClosedIds, TokenExpiries};
use super::command::ShardCommand;
use super::drain::leaving::LeavingClients;
use super::drain::rebalance_order::{RebalanceOrder, ServerRebalance};
use super::inbox::{Inspection, ShardMessage, ShardSender};
use super::moving::keep_alive::KeepAlive;
use super::server_feed::{ServerFeed, ServerFeeds};
use super::shard_context::ShardContext;
use super::shard_core::ShardCore;
use super::slot::{Serial, Slot};
use super::tap::Tap;
use crate::engine::upstream::LinkId;
use crate::ground::bounded::Deadlines;
use crate::ground::metrics::MoveCause;
use crate::ground::net::socket::Socket;

/// Client that has moved to another link of its app server.
#[derive(Debug)]
pub(crate) struct MovedClient {
    pub slot: Slot,
    pub id: Rc<str>,
    pub from: LinkId,
}

/// Task that a step requests from the driver.
#[derive(Debug)]
pub(super) enum ShardTask {
    /// Flushes a client's outbox as its socket accepts data.
    Flush(Slot, Serial),
    /// Ends a client's hold after a delay.
    EndHold(Slot, Serial),
    /// Closes all clients, spread over this period.
    Drain(Duration),
    /// Moves this number of clients to other nodes.
    Shed(usize),
    /// Moves clients from one app server to another.
    Rebalance(RebalanceOrder),
    /// Checks leaving clients until none is left.
    WatchLeaving,
    /// Flushes this feed, by index, on its signal.
    FlushFeed(usize, Rc<Notify>),
}

/// Features of one shard, given at its start.
#[derive(Debug)]
pub(crate) struct ShardFeatures {
    pub taps: Vec<Box<dyn Tap>>,
    pub feeds: Vec<Box<dyn ServerFeed>>,
}

#[derive(Debug)]
pub(crate) struct ShardState {
    pub(crate) core: ShardCore,
    pub(crate) assignments: Assignments,
    pub(super) moves: Moves,
    /// Set when all clients, including new ones, are asked to leave.
    pub(super) is_drained: bool,
    pub(super) leaving: LeavingClients,
    /// Start slot for the next shed, so that the same clients are not chosen repeatedly.
    pub(super) shed_from: usize,
    /// Set if the routes of all clients have to be evaluated again at the next tick.
    pub(super) reroute_due: bool,
    pub(crate) server_rebalance: ServerRebalance,
    pub(super) hand_overs: Deadlines<(Slot, Rc<str>)>,
    /// Recently moved clients, until their app servers have detected the loss of the old link.
    pub(super) moved: Deadlines<MovedClient>,
    pub(super) feeds: ServerFeeds,
    /// Empty list with capacity, for the commands of the next batch.
    pub(super) spare_commands: Vec<ShardCommand>,
    /// Tasks requested by this step.
    due: Vec<ShardTask>,
}

/// App servers of the client connections of one shard, and closing connections.
#[derive(Debug)]
pub(crate) struct Assignments {
    pub(crate) reassignment: Reassignment,
    pub(crate) secondary_clients: SecondaryClients,
    pub(super) closed_ids: ClosedIds,
    /// Clients that must answer this node's close in time, or their sockets are cut.
    pub(super) closing: Deadlines<(Slot, Serial)>,
    pub(crate) token_expiries: TokenExpiries,
}

impl Assignments {
    pub(super) fn new(context: &ShardContext) -> Self {
        let settings = &context.shared.settings;
        let (window_ms, hold_s) = (settings.links.resume_window_ms, settings.rehoming.hold_timeout_s);
        Self {
            reassignment: Reassignment::new(window_ms, hold_s, context.counters.clone()),
            secondary_clients: SecondaryClients::default(),
            closed_ids: ClosedIds::new(context.shared.routes.clone()),
            closing: Deadlines::default(),
            token_expiries: TokenExpiries::default(),
        }
    }
}

/// Clients of one shard that resume over other sockets or nodes.
#[derive(Debug, Default)]
pub(super) struct Moves {
    pub(super) keep_alive: KeepAlive,
    /// Sockets detached from resumable clients. Their tasks are still parked, and only a socket event wakes
    /// them.
    pub(super) detached: Deadlines<Socket>,
    /// Client connections with an acknowledgement due at the next tick.
    pub(super) acknowledgements: Vec<Slot>,
    /// Client connections being moved to other nodes, with the tick at which the move fails.
    pub(super) moving_out: Deadlines<(Slot, Serial)>,
}

impl ShardState {
    pub(super) fn new(context: ShardContext, features: ShardFeatures) -> Self {
        Self {
            assignments: Assignments::new(&context),
            core: ShardCore::new(context, features.taps),
            moves: Moves::default(),
            is_drained: false,
            leaving: LeavingClients::default(),
            shed_from: 0,
            reroute_due: false,
            server_rebalance: ServerRebalance::default(),
            hand_overs: Deadlines::default(),
            moved: Deadlines::default(),
            feeds: ServerFeeds::new(features.feeds),
            spare_commands: Vec::new(),
            due: Vec::new(),
        }
    }

    /// Ends a step: flushes its output and returns the tasks to start.
    #[inline]
    pub(super) fn end_step(&mut self) -> Vec<ShardTask> {
        if self.leaving.take_start() {
            self.due.push(ShardTask::WatchLeaving);
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

    pub(super) fn start(&mut self, task: ShardTask) {
        self.due.push(task);
    }

    pub(crate) fn rebalance(&mut self, order: RebalanceOrder) {
        self.start(ShardTask::Rebalance(order));
    }

    /// Requests moving some clients to other nodes, and returns how many. Subtracts clients of earlier sheds that still
    /// finish their calls: they count as the node's clients, so it would shed too many.
    pub(crate) fn shed(&mut self, clients: usize) -> usize {
        let others = clients.saturating_sub(self.leaving.count_of(MoveCause::Rebalance));
        if others > 0 {
            self.start(ShardTask::Shed(others));
        }
        others
    }
}

impl ShardSender {
    /// Runs `act` on the shard after the queued messages, and returns its result; `None` if the shard is gone. `act`
    /// must be short: the shard serves no clients meanwhile.
    pub(crate) async fn inspect<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut ShardState) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        // Fails if the caller has stopped waiting.
        self.post(move |state| drop(answer.send(act(state))));
        answered.await.ok()
    }

    /// Runs `act` on the shard without waiting.
    pub(crate) fn post(&self, act: impl FnOnce(&mut ShardState) + Send + 'static) {
        self.put(ShardMessage::Inspect(Inspection::boxed(act)));
    }
}
