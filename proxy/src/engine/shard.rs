//! One thread of a node: its client connections, and the inbox through which other threads reach them.
//!
//! [`ShardState`] owns the state and never waits; [`Shard`] drives it on the same thread and never waits for another
//! thread. Others send [`ShardMessage`]s to the shard's inbox, which is bounded in bytes. `node/shard_thread.rs`
//! empties the inbox and ticks; `frontend` claims connections of returning clients, and `fleet` moves them between
//! nodes.
//!
//! | file and folder | contents, lowest first |
//! |---|---|
//! | `shared` `command` `inbox` | state shared between shards; commands from links and other threads |
//! | `slot` `content` `close_reason` | place of a client, its protocol, and why it ends |
//! | `connection` | client connections, their sets, and their assignments to app servers |
//! | `tap` `delivery` | seam for features that follow messages; frames for sockets |
//! | `shard_core` | the parts above, as passed to each part below |
//! | `firewall` `unfinished_message` | rules for client messages; budget of incomplete ones |
//! | `record_news` `followers` `follow` | clients that follow records, and readers without a hub protocol |
//! | `server_feed` | seam for features that report to app servers |
//! | `shard_state` | all parts together; parts of the folders below are in their own files |
//! | `assignments` `moving` `drain` | app servers of a client; moves to other sockets and nodes; clients asked to reconnect |
//! | `event` `apply` `client_step` | effects of a tick, a link or a command; long commands in steps |

mod apply;
mod assignments;
mod client_step;
mod close_reason;
mod command;
mod connection;
mod content;
mod delivery;
pub(crate) mod drain;
mod event;
pub(crate) mod firewall;
mod follow;
mod followers;
mod inbox;
pub(crate) mod moving;
mod record_news;
mod server_feed;
mod shard_context;
mod shard_core;
mod shard_state;
mod shared;
mod slot;
mod tap;
#[cfg(test)]
pub(crate) mod testbed;
mod unfinished_message;

use shard_core::ShardCore;
use std::cell::{RefCell, RefMut};
use std::future::poll_fn;
use std::mem;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{spawn_local, yield_now};
use tokio::time::{Instant, sleep, sleep_until};
use trunkline_protocol::cause::Cause;

use crate::ground::metrics::Counters;

pub(crate) use assignments::reassignment::opening_until;
pub(crate) use close_reason::CloseReason;
pub(crate) use command::audience::SendOrigin;
pub(crate) use command::member_query::{ListQuery, MemberListing, MemberTally};
pub(crate) use command::{
    Audience, ConnectionCommand, CopyOrder, LinkLoss, MembershipChange, PendingAck, Receivers, RecordEvent,
    RecordedCommand, RecordedSend, ShardCommand, SteppedFilter,
};
pub(crate) use connection::{
    Census, Client, ClientKind, ClientOrigin, ClientTraits, Connections, LifeStage, Liveness, PauseReason, Presence,
    Resumption, Role, SetChanges, SetName, open_over,
};
pub(crate) use content::{Content, DATA_TYPE_HANDSHAKE};
pub(crate) use delivery::framed::{Framed, LARGE_BYTES, message_frame};
pub(crate) use delivery::outbox::{Need, Outbox};
pub(crate) use drain::rebalance_order::{RebalanceCount, RebalanceOrder};
pub(crate) use event::close_with_heads;
pub(crate) use firewall::Verdict;
pub(crate) use follow::{FOLLOW_CLAIM, name_of_set};
pub(crate) use inbox::{
    AppSocket, ClientStream, CommandBatch, DirectUpgrade, Inbox, PendingConnection, ShardMessage, ShardSender,
};
pub(crate) use record_news::{NewsKind, RecordNews, recorded_json};
pub(crate) use server_feed::{FlushOutcome, ServerFeed};
pub(crate) use shard_context::ShardContext;
pub(crate) use shard_state::{ShardFeatures, ShardState};
pub(crate) use shared::client_result::{WaitingResult, no_such_connection, not_asked};
pub(crate) use shared::history::{PastConnection, REMEMBERED_MS, short};
pub(crate) use shared::other_nodes::{OtherNodes, Reachability, SoughtConnection, TakeOver, TakenOver, TargetVerdict};
pub(crate) use shared::route_table::{Location, ReserveError, RouteTable};
pub(crate) use shared::seams::{
    AccessRules, ExpiredMembership, InterestHold, KeptMemberships, MEMBERSHIP_S, MembershipRefused, Recorder,
    RefreshRefused, RequestOrigin, RevocationMark, Seams, SetInterest,
};
pub(crate) use shared::{AnnouncedMove, Connectors, Shared, Sockets};
pub(crate) use slot::{Serial, Slot, SlotWalk};
pub(crate) use tap::{Recipients, Tap, TapEvent, TapView, UpwardMessages};
pub(crate) use unfinished_message::MessageRest;

use apply::apply;
use drain::departure_search::{DepartureSearch, SHED_SPREAD};
use drain::drain_schedule::longest_spread;
use drain::leaving::{LOOK_INTERVAL, wait_within};
use drain::server_rebalance::{rebalance_due, rebalance_search, step_rebalance_search};
use drain::{
    Departures, close_all_drained, close_leaving, has_clients_left, leave_drained, leave_shed, search_for_shed,
};
use moving::reconnect::{end_hold, end_socket, take_detached};
use shard_state::ShardTask;

/// Interval at which a stopping node asks clients to reconnect, until they have left.
const TRY_ELSEWHERE: Duration = Duration::from_millis(500);

/// Time over which changes are batched before a feed sends them to app servers.
const FEED_WINDOW: Duration = Duration::from_millis(50);

/// Maximum delay of the first message to a client with stateful reconnect, while waiting for the client's first frame.
/// Official clients send one immediately after the handshake response, so the delay is not noticeable.
const FIRST_FRAME_WAIT: Duration = Duration::from_millis(50);

/// Pause between two parts of a snapshot, during which the shard serves its clients.
const FEED_STEP: Duration = Duration::from_millis(10);

/// Driver of one shard: borrows its state for one step at a time, and starts the tasks that a step requests.
///
/// The state is never borrowed across an await.
#[derive(Debug)]
pub(crate) struct Shard {
    context: ShardContext,
    state: RefCell<ShardState>,
}

impl Shard {
    pub(crate) fn new(index: u16, shared: Arc<Shared>, features: ShardFeatures) -> Rc<Self> {
        let counters = shared.counters_of(index);
        let context = ShardContext { index, shared, counters };
        Rc::new(Self { state: RefCell::new(ShardState::new(context.clone(), features)), context })
    }

    pub(crate) fn index(&self) -> u16 {
        self.context.index
    }

    #[must_use]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.context.shared
    }

    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.context.counters
    }

    /// Returns whether the drain has asked all clients to leave. New clients are asked, too.
    pub(crate) fn is_drained(&self) -> bool {
        self.state().is_drained
    }

    /// Microseconds since the node started.
    pub(crate) fn now_us(&self) -> u64 {
        self.context.now_us()
    }

    /// Borrows the state for reads, and for changes without frames to write or tasks to start.
    pub(crate) fn state(&self) -> RefMut<'_, ShardState> {
        self.state.borrow_mut()
    }

    /// Runs a step. At its end, deferred frames are written and requested tasks start.
    ///
    /// A step returns the sockets that it removes: they must outlive the borrow, because dropping a socket wakes its
    /// peer.
    pub(crate) fn step<T>(self: &Rc<Self>, step: impl FnOnce(&mut ShardState) -> T) -> T {
        let mut state = self.state();
        let result = step(&mut state);
        let tasks = state.end_step();
        drop(state);
        tasks.into_iter().for_each(|task| self.start(task));
        result
    }

    pub(crate) fn apply(self: &Rc<Self>, commands: Vec<ShardCommand>) {
        self.step(|state| {
            let read_at = state.core.time_for_taps();
            apply(state, commands, read_at);
        });
    }

    pub(crate) fn apply_batch(self: &Rc<Self>, batch: CommandBatch) {
        let CommandBatch { commands, read_at, turn, _room } = batch;
        let act = || self.step(|state| apply(state, commands, read_at));
        match turn {
            Some(turn) => turn.work(act),
            None => act(),
        }
    }

    /// Returns an empty, allocated list for commands, whose allocation would be the largest cost of a batch of small
    /// frames.
    pub(crate) fn spare_commands(&self) -> Vec<ShardCommand> {
        mem::take(&mut self.state().spare_commands)
    }

    pub(crate) fn advance(self: &Rc<Self>) {
        let detached = self.step(|state| {
            state.advance();
            take_detached(state)
        });
        drop(detached);
    }

    pub(crate) fn inspect(self: &Rc<Self>, inspection: inbox::Inspection) {
        self.step(|state| inspection.run(state));
    }

    pub(crate) fn close_client(self: &Rc<Self>, slot: Slot, reason: &CloseReason) {
        self.step(|state| state.close_client(slot, reason));
    }

    pub(crate) fn close_id(self: &Rc<Self>, id: &Rc<str>, is_negotiated: bool) {
        self.step(|state| state.close_id(id, is_negotiated));
    }

    /// Ends a client connection after its socket, with this cause unless already closed. A connection that can resume
    /// on another socket stays.
    pub(crate) fn free(self: &Rc<Self>, slot: Slot, serial: Serial, cause: Cause) {
        let client = self.step(|state| end_socket(state, slot, serial, cause));
        drop(client);
    }

    pub(crate) fn lose_home(self: &Rc<Self>, slot: Slot, cause: Cause) {
        self.step(|state| state.lose_home(slot, cause));
    }

    fn start(self: &Rc<Self>, task: ShardTask) {
        let shard = self.clone();
        match task {
            ShardTask::Flush(slot, serial) => {
                drop(spawn_local(async move { poll_fn(|cx| shard.poll_flush(cx, slot, serial)).await }));
            }
            ShardTask::EndHold(slot, serial) => drop(spawn_local(shard.end_hold(slot, serial))),
            ShardTask::Drain(spread) => drop(spawn_local(shard.drain(spread))),
            ShardTask::Shed(clients) => drop(spawn_local(shard.shed(clients))),
            ShardTask::Rebalance(order) => drop(spawn_local(shard.rebalance(order))),
            ShardTask::WatchLeaving => drop(spawn_local(shard.watch_leaving())),
            ShardTask::FlushFeed(feed, has_changed) => drop(spawn_local(shard.flush_feed(feed, has_changed))),
        }
    }

    /// Checks clients that are leaving, until none has calls in progress.
    async fn watch_leaving(self: Rc<Self>) {
        let mut are_left = true;
        while are_left {
            sleep(LOOK_INTERVAL).await;
            are_left = self.step(|state| close_leaving(state, Instant::now()));
        }
    }

    /// Flushes a feed on changes while an app server is subscribed.
    async fn flush_feed(self: Rc<Self>, feed: usize, has_changed: Rc<Notify>) {
        let mut outcome = FlushOutcome::All;
        while outcome != FlushOutcome::NoSubscribers {
            if outcome == FlushOutcome::All {
                has_changed.notified().await;
                sleep(FEED_WINDOW).await;
            } else {
                sleep(FEED_STEP).await;
            }
            outcome = self.step(|state| state.feeds.flush(&mut state.core, feed));
        }
    }

    /// Releases held frames of a newly accepted client if the client sends nothing meanwhile.
    async fn end_hold(self: Rc<Self>, slot: Slot, serial: Serial) {
        sleep(FIRST_FRAME_WAIT).await;
        self.step(|state| {
            // A different serial belongs to another socket.
            if state.core.connections.get_current(slot, serial).is_some() {
                end_hold(state, slot);
            }
        });
    }

    fn poll_flush(&self, cx: &mut Context<'_>, slot: Slot, serial: Serial) -> Poll<()> {
        let mut state = self.state();
        let ShardCore { connections, delivery, .. } = &mut state.core;
        match connections.get_current(slot, serial) {
            Some(client) => {
                let flushed = delivery.poll_flush_by_task(slot, client, cx);
                delivery.taps.settle(connections);
                flushed
            }
            None => Poll::Ready(()),
        }
    }

    /// Asks all clients to reconnect elsewhere, between their calls and spread over at most this time. Afterwards no
    /// new client is accepted.
    async fn drain(self: Rc<Self>, spread: Duration) {
        let (begun, last) = (Instant::now(), Instant::now() + spread);
        let everyone = self.state().core.connections.everyone();
        let wait = wait_within(spread);
        let spread = (spread - wait).min(longest_spread(everyone.len(), self.shared().shards().len()));
        let departures = Departures::new(everyone, begun, spread);
        self.depart(departures, |state, slot| leave_drained(state, slot, wait)).await;
        // Clients that reconnected here try again, because load balancers need time to notice, while the calls of
        // others complete.
        while self.step(has_clients_left) && Instant::now() < last {
            sleep(TRY_ELSEWHERE).await;
        }
        // Also close clients that were connecting when the others were asked.
        self.step(close_all_drained);
    }

    /// Asks some clients to reconnect elsewhere for a rebalance, spread over most of a second.
    async fn shed(self: Rc<Self>, clients: usize) {
        let begun = Instant::now();
        let mut search = DepartureSearch::new(clients, self.state().shed_from);
        while !self.step(|state| search_for_shed(state, &mut search)) {
            yield_now().await;
        }
        self.depart(Departures::new(search.chosen(), begun, SHED_SPREAD), leave_shed).await;
    }

    /// Moves some clients from one app server to another, spread over most of a second.
    async fn rebalance(self: Rc<Self>, order: RebalanceOrder) {
        let begun = Instant::now();
        let mut search = rebalance_search(&order);
        while !step_rebalance_search(&self.state().core, &order, &mut search) {
            yield_now().await;
        }
        let departures = Departures::new(search.chosen(), begun, SHED_SPREAD);
        self.depart(departures, |state, slot| rebalance_due(state, slot, &order)).await;
    }

    /// Processes departures one by one, as they become due.
    async fn depart(self: &Rc<Self>, mut departures: Departures, go: impl Fn(&mut ShardState, Slot)) {
        while let Some(next_at) = departures.next_at() {
            sleep_until(next_at).await;
            self.step(|state| departures.depart_due(state, &go));
        }
    }
}
