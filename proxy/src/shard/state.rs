//! State of one shard: the parts that own it, and the steps that need several of them.
//!
//! ```text
//!                 ┌ Connections    clients, sets, census, routes
//!                 ├ Delivery       outboxes, sockets, watches; effects that wait for the end of a batch
//!  ShardState ────┼ KeepAlive      wheel of due checks
//!                 ├ TokenExpiries  closes by the clock
//!                 ├ Reassignment   clients without a home, and those that have left one
//!                 ├ PresenceFeeds  app servers that are told who comes and goes
//!                 ├ TaskFeeds      app servers that stand for exclusive tasks
//!                 └ ClosedIds      ids that must not attach again
//! ```
//!
//! No method waits, and none calls back into the shard: links and sockets only take what they are given, and their wakers
//! only schedule tasks. Tasks are started by the driver, [`Shard`](super::Shard).

use std::mem;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use tokio::time::Instant;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::{Completion, HubMessage, Outcome};
use trunkline_protocol::manifest::{ITEMS_HEADER, Transport};
use trunkline_protocol::service::{OpenConnection, header};

use super::close_reason::CloseReason;
use super::closed_id::ClosedIds;
use super::command::{LinkLoss, MembershipChange, ShardCommand};
use super::connection::{Client, Connections, LetGo, Opening, OpeningInterner, PauseReason, Status};
use super::content::Content;
use super::delivery::{BatchMode, Delivery, Flush};
use super::drain_schedule::{DrainSchedule, chance};
use super::framed::message_frame;
use super::hand_over::HandOver;
use super::keep_alive::{KeepAlive, Overdue, keep_alive_frame};
use super::leaving::LeavingClients;
use super::levelling::Levelling;
use super::mirror::MirroredConnections;
use super::outbox_budget::{OutboxBudget, largest};
use super::presence_feed::PresenceFeeds;
use super::reassignment::{Reassignment, moved_to};
use super::reconnect::SeveredSockets;
use super::shard_context::ShardContext;
use super::side_assignment::SidedClients;
use super::slot::{Serial, Slot};
use super::task_feed::TaskFeeds;
use super::token_expiry::TokenExpiries;
use super::watch::{UpwardEnd, UpwardTrace};
use crate::clock::unix_seconds;
use crate::metrics::MoveCause;
use crate::net::socket::Socket;
use crate::telemetry::OpenSpan;
use crate::upstream::{AppServerId, HomeLink, HubIndex};

/// Ticks that a client may take to answer our close; as the official server has it.
const CLOSE_TIMEOUT_TICKS: u32 = 5;

/// Size of the buffer that all sockets of a shard are read into. Large, so that a burst takes few system calls; there is
/// only one.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// Error for a caller whose app server is gone.
pub(super) const CALL_LOST: &str =
    "The app server that ran this call is gone. Whether it was carried out is not known; it is not run again.";

/// Error for a caller whose app server has handed its connection over.
pub(super) const CALL_UNFINISHED: &str = "The app server that ran this call was stopped before the call had ended.";

/// State of one shard.
#[derive(Debug)]
pub(crate) struct ShardState {
    pub(crate) context: ShardContext,
    /// Whole seconds since the shard began.
    pub(super) tick: u32,
    pub(crate) connections: Connections,
    pub(super) delivery: Delivery,
    pub(super) keep_alive: KeepAlive,
    pub(super) token_expiries: TokenExpiries,
    pub(super) reassignment: Reassignment,
    /// App servers that are told who comes and goes.
    pub(super) presence: PresenceFeeds,
    pub(super) tasks: TaskFeeds,
    /// Client connections that have several app servers.
    pub(super) sided: SidedClients,
    /// Client connections that are being handed over at the door.
    pub(super) hand_overs: Vec<HandOver>,
    /// Client connections that go to app servers which have come.
    pub(super) levelling: Levelling,
    pub(super) closed_ids: ClosedIds,
    /// Client connections that have copies for mirrors.
    pub(super) mirrored: MirroredConnections,
    /// Sockets that clients have left which may come back.
    pub(super) severed: SeveredSockets,
    /// Client connections whose messages are acknowledged at the next tick.
    pub(super) acknowledgements: Vec<Slot>,
    /// Client connections that other nodes take over, with the tick at which that has failed.
    pub(super) departures: Vec<(Slot, Serial, u32)>,
    openings: OpeningInterner,
    /// Empty list for the commands of the next batch, with room.
    pub(super) spare_commands: Vec<ShardCommand>,
    /// Clients whose turn to leave has come, and whose calls still run.
    pub(super) leaving: LeavingClients,
    /// Spread of a drain that the driver has to start.
    pub(super) drain: Option<Duration>,
    /// Number of clients that the driver has to send elsewhere for a rebalance.
    pub(super) shed: usize,
    /// Slot at which the search for clients of the next shed begins, so that no client is chosen again and again.
    pub(super) shed_from: usize,
    /// The routes are to be asked anew for all clients at the next tick.
    pub(super) is_reroute_due: bool,
    /// All clients were told to leave: so is each that comes now.
    is_drained: bool,
    /// Buffer that all sockets are read into; empty while it is lent.
    read_buffer: Box<[u8]>,
}

impl ShardState {
    pub(super) fn new(context: ShardContext) -> Self {
        let (shared, counters) = (&context.shared, &context.counters);
        let settings = &shared.settings;
        let budget = OutboxBudget::new(settings.outbox.total_bytes, shared.shards().len(), counters.clone());
        Self {
            tick: 1,
            connections: Connections::new(context.index, shared.routes.clone(), shared.interest.clone()),
            delivery: Delivery::new(settings.outbox.client_bytes, budget, counters.clone()),
            keep_alive: KeepAlive::default(),
            token_expiries: TokenExpiries::default(),
            reassignment: Reassignment::new(
                settings.links.resume_window_ms,
                settings.rehoming.hold_timeout_s,
                counters.clone(),
            ),
            presence: PresenceFeeds::default(),
            tasks: TaskFeeds::default(),
            sided: SidedClients::default(),
            hand_overs: Vec::new(),
            levelling: Levelling::default(),
            closed_ids: ClosedIds::new(shared.routes.clone()),
            mirrored: MirroredConnections::default(),
            severed: SeveredSockets::default(),
            acknowledgements: Vec::new(),
            departures: Vec::new(),
            openings: OpeningInterner::default(),
            spare_commands: Vec::new(),
            leaving: LeavingClients::default(),
            drain: None,
            shed: 0,
            shed_from: 0,
            is_reroute_due: false,
            is_drained: false,
            read_buffer: Box::default(),
            context,
        }
    }

    /// Takes a client connection in: from now on sends find it. With its token it closes, where that is wanted.
    pub(crate) fn open(&mut self, client: Client, user: Option<&str>, expires_s: Option<u64>) -> Slot {
        let serial = client.serial;
        self.context.record_open(&client);
        let hub = client.home.hub();
        let slot = self.connections.insert(client, user);
        if let Some(user) = user.filter(|_| !self.context.shared.user_groups.is_empty()) {
            for group in self.context.shared.kept_groups_of(hub, user) {
                self.change_groups(slot, &MembershipChange::Join(group), None);
            }
        }
        self.keep_alive.schedule(slot, serial, self.tick, self.tick + 1);
        if let Some(expires_s) = expires_s {
            self.token_expiries.set(slot, expires_s);
        }
        slot
    }

    /// Interned opening frame, for the case that another app server has to open the connection.
    pub(crate) fn intern_opening(&mut self, open: &OpenConnection) -> Opening {
        self.openings.intern_opening(open)
    }

    /// Closes a client connection; a second time is fine.
    ///
    /// It leaves its sets and its route first, so that nothing more is sent to it; then its app server and its client are
    /// told. Its slot is freed when its socket has ended.
    pub(super) fn close(&mut self, slot: Slot, reason: &CloseReason) {
        if self.withdraw(slot) {
            return;
        }
        // Before that no app server has run anything for it.
        self.end_mirrors(slot, reason.cause);
        let is_known = self.connections.live(slot).is_some_and(|client| client.is_open() && client.has_successor());
        if let Some(sides) = self.connections.live_mut(slot).and_then(|client| client.cold.sides.take()) {
            self.end_sides(slot, &sides, reason);
        }
        let mode = self.mode(Flush::Deferred);
        let Some(client) = self.connections.close(slot, self.tick + CLOSE_TIMEOUT_TICKS) else { return };
        self.context.record_close(client, reason);
        self.delivery.watches.closed(slot, Some(reason.cause), reason.detail.as_deref());
        if client.home.of_door().is_some() {
            self.context.shared.client_results.connection_ended(&client.id);
        }
        self.closed_ids.close(&client.id, client.is_negotiated, self.tick);
        self.delivery.end_hold(slot, client, mode);
        if let Some(notice) = reason.notice_to_app(client) {
            let is_told = client.cold.is_let_go.is_none() && client.home.queue(&notice);
            if is_known && client.cold.is_let_go != Some(LetGo::Ended) {
                let at = (&client.home, client.cold.group.clone(), client.cold.is_let_go);
                self.reassignment.ended(client, at, reason, is_told, self.tick);
            }
        }
        self.context.counters.away.follow(usize::from(client.is_away()), 0);
        self.delivery.forget_kept(client);
        if matches!(client.socket, Socket::Away) {
            // No task serves it, whose end would free the slot.
            self.token_expiries.forget(slot);
            self.connections.remove(slot);
            return;
        }
        if reason.is_slow_client() {
            return self.delivery.cut(client);
        }
        if client.transport == Transport::WebSockets && reason.is_end_of_socket() {
            return;
        }
        let frames = reason.frames(client.content, self.context.with_details(client));
        self.delivery.put_last(slot, client, frames);
    }

    /// Closes the route of an id that never became a connection.
    pub(crate) fn close_id(&mut self, id: &Rc<str>, is_negotiated: bool) {
        self.closed_ids.close(id, is_negotiated, self.tick);
    }

    /// Ends the service of a socket: its connection ends too, unless it may go on over another one.
    pub(super) fn end_socket(&mut self, slot: Slot, serial: Serial, cause: Cause) -> Option<Client> {
        self.connections.get_current(slot, serial)?;
        if self.let_away(slot, cause) { None } else { self.free(slot, cause) }
    }

    /// Sockets that were left some time ago.
    pub(super) fn take_severed(&mut self) -> Vec<Socket> {
        self.severed.take_old(self.tick)
    }

    /// Frees the slot of a client connection whose socket has ended, for this cause unless it was closed before.
    pub(super) fn free(&mut self, slot: Slot, cause: Cause) -> Option<Client> {
        self.close(slot, &CloseReason::by_client(cause));
        self.token_expiries.forget(slot);
        let mut client = self.connections.remove(slot)?;
        // What only a task would have written leaves now or never: our answer to a close, for one.
        let _: Poll<()> = self.delivery.poll_flush(&mut client, &mut Context::from_waker(Waker::noop()));
        self.delivery.discard(&mut client);
        Some(client)
    }

    /// Sends one frame of the transport's own.
    pub(crate) fn send_frame(&mut self, slot: Slot, frame: &Bytes) {
        let mode = self.mode(Flush::Now);
        if let Some(client) = self.connections.get_mut(slot) {
            self.delivery.put(slot, client, frame, mode);
        }
        self.finish_batch();
    }

    /// Shows whole messages of a client to its watches. Returns them if one waits to know where they went.
    #[inline]
    pub(crate) fn watch_up(
        &mut self,
        slot: Slot,
        messages: &[u8],
        data_type: i64,
        read_at: Option<Instant>,
    ) -> Option<Box<UpwardTrace>> {
        if !self.delivery.watches.are_any() {
            return None;
        }
        self.delivery.watches.up(&self.connections, slot, (messages, data_type), read_at)
    }

    /// Shows watches the fate of messages that were about to go up.
    #[cold]
    pub(crate) fn watched_up(&mut self, upward: UpwardTrace, end: UpwardEnd) {
        self.delivery.watches.went_up(upward, end);
    }

    /// Shows watches a client that opens, with its opening frame as it goes to the app server.
    pub(crate) fn watch_opening(&mut self, slot: Slot, open: &OpenConnection, handshake: &[u8]) {
        if self.delivery.watches.are_any() {
            self.delivery.watches.opened(&self.connections, slot, open, handshake);
        }
    }

    /// Time of now, if a watch wants to know.
    #[inline]
    pub(crate) fn time_for_watches(&self) -> Option<Instant> {
        self.delivery.watches.are_timed().then(Instant::now)
    }

    /// Notes a call of a client: it waits for the answer. One with too many pending calls is paused.
    pub(crate) fn begin_call(&mut self, slot: Slot, invocation_id: &str) {
        let calls_max = self.context.shared.settings.rehoming.pending_calls_max;
        if let Some(client) = self.connections.get_mut(slot) {
            client.begin_call(invocation_id, calls_max);
        }
    }

    /// Keeps the span of a pending call until its home or side home answers. Without such a call it ends here.
    pub(crate) fn keep_call_span(&mut self, slot: Slot, invocation_id: &str, span: OpenSpan) {
        let Some(client) = self.connections.get_mut(slot) else { return };
        let mut kept = client.cold.calls.keep_span(invocation_id, span);
        let sides = client.cold.sides.iter_mut().flat_map(|sides| sides.iter_mut());
        for side in sides {
            kept = kept.and_then(|span| side.calls.keep_span(invocation_id, span));
        }
    }

    /// Current tick: whole seconds since the shard began.
    #[must_use]
    pub(crate) fn tick(&self) -> u32 {
        self.tick
    }

    pub(super) fn mode(&self, flush: Flush) -> BatchMode {
        BatchMode { flush, now: self.tick }
    }

    /// Ends a batch: deferred frames leave, slow clients are closed, and the budget of all outboxes is kept.
    pub(crate) fn finish_batch(&mut self) {
        self.delivery.flush_deferred(&mut self.connections);
        if self.delivery.watches.has_copies() {
            self.copy_down();
        }
        self.delivery.watches.note_written(&self.connections);
        let slow = self.delivery.take_slow();
        slow.iter().for_each(|&slot| self.close(slot, &CloseReason::slow_client()));
        self.delivery.reuse(slow);
        let excess = self.delivery.excess_bytes();
        if excess > 0 {
            self.free_outboxes(excess);
        }
    }

    /// Closes the clients with the largest outboxes, until the excess is gone.
    fn free_outboxes(&mut self, excess: usize) {
        for slot in largest(self.connections.waiting(), excess) {
            match self.connections.get_mut(slot) {
                // It was told, but does not read that either.
                Some(client) if client.is_closing() => self.delivery.cut(client),
                _ => self.close(slot, &CloseReason::outbox_total()),
            }
        }
    }

    /// Advances the shard by one second.
    pub(super) fn advance(&mut self) {
        self.tick += 1;
        self.context.counters.ticks.increment();
        self.check_keep_alives();
        self.send_acknowledgements();
        self.reassignment.forget_old_moves(self.tick);
        self.end_late_hand_overs();
        self.end_late_departures();
        self.forget_levelled();
        if self.context.index == 0 {
            self.context.shared.client_results.expire();
            self.context.shared.expire_user_groups();
        }
        self.retry_unassigned();
        self.tick_sides();
        if self.is_reroute_due {
            self.reroute();
        }
        self.reassignment.tell_ends(&self.context.shared.hubs, self.tick);
        self.close_absent();
        self.close_expired();
        self.closed_ids.forget_expired(self.tick);
        self.connections.give_back_room();
        self.delivery.watches.tick();
        self.context.show_timed(self.delivery.watches.are_timed());
        self.report_late_answers();
        self.finish_batch();
        let (groups, users) = self.connections.group_and_user_counts();
        self.context.counters.groups.set(groups);
        self.context.counters.users.set(users);
        self.context.counters.homeless.set(self.reassignment.waiting());
    }

    fn check_keep_alives(&mut self) {
        let mode = self.mode(Flush::Now);
        let hubs = self.context.shared.hubs.all();
        for (slot, action) in self.keep_alive.check(&mut self.connections, &hubs, self.tick) {
            match action {
                Overdue::TimedOut => self.close(slot, &CloseReason::timed_out()),
                Overdue::NotOpened => self.close(slot, &CloseReason::not_opened()),
                Overdue::KeepAlive => {
                    if let Some(client) = self.connections.live_mut(slot) {
                        self.context.counters.keep_alives.increment();
                        self.delivery.put(slot, client, &keep_alive_frame(client.content), mode);
                    }
                }
                Overdue::Lost(cause) => self.close(slot, &CloseReason::by_client(cause)),
                Overdue::Cut => {
                    if let Some(client) = self.connections.get_mut(slot) {
                        client.socket.cut();
                    }
                }
            }
        }
    }

    /// Looks for homes again, which may have been full; closes clients that have waited for too long.
    fn retry_unassigned(&mut self) {
        self.reroute_unassigned();
        self.reassignment.retry(&mut self.connections, &self.context.shared.hubs, self.tick);
        let timeout_s = self.context.shared.settings.rehoming.hold_timeout_s;
        for slot in self.reassignment.take_overdue(timeout_s, self.tick) {
            self.close(slot, &CloseReason::no_app_server());
        }
    }

    /// Closes connections over HTTP whose clients send no requests any more. One shard does it for the whole node.
    fn close_absent(&mut self) {
        if self.context.index != 0 {
            return;
        }
        let shared = self.context.shared.clone();
        for outer in shared.http_transports.sweep(shared.settings.http_transports.disconnect_timeout_s) {
            // The others end where they are, because their pipes do.
            if outer.take_inner_half().is_some() {
                self.close_id(&Rc::from(&**outer.id()), true);
            }
        }
    }

    fn close_expired(&mut self) {
        if self.token_expiries.is_empty() {
            return;
        }
        let now_s = unix_seconds();
        while let Some(slot) = self.token_expiries.next_due(now_s) {
            self.close(slot, &CloseReason::token_expired());
        }
    }

    /// Tells the clients that are due in a drain since this moment to reconnect elsewhere; those with running calls after
    /// this wait at the latest.
    pub(super) fn leave_due(
        &mut self,
        schedule: &mut DrainSchedule<(Slot, Serial)>,
        (begun, wait): (Instant, Duration),
    ) {
        let now = Instant::now();
        while let Some((slot, serial)) = schedule.next(now - begun, chance) {
            let is_there = self.connections.get_current(slot, serial).is_some();
            let may_move = || self.context.shared.other_nodes().are_ready();
            if is_there && !(may_move() && self.send_elsewhere(slot, MoveCause::Drain)) {
                self.leave(slot, MoveCause::Drain, (now, wait));
            }
        }
        self.finish_batch();
    }

    /// Whether all clients were told to leave: so is each that comes now.
    #[must_use]
    pub(crate) fn is_drained(&self) -> bool {
        self.is_drained
    }

    /// Buffer that sockets are read into, to be given back by [`return_read_buffer`](Self::return_read_buffer).
    pub(crate) fn lend_read_buffer(&mut self) -> Box<[u8]> {
        match mem::take(&mut self.read_buffer) {
            // At first, and after a panic of its borrower.
            empty if empty.is_empty() => vec![0; READ_BUFFER_BYTES].into_boxed_slice(),
            buffer => buffer,
        }
    }

    pub(crate) fn return_read_buffer(&mut self, buffer: Box<[u8]>) {
        self.read_buffer = buffer;
    }

    /// Tells all clients to reconnect elsewhere, and each that comes from now on.
    pub(super) fn close_all_drained(&mut self) {
        self.is_drained = true;
        for (slot, _) in self.connections.everyone() {
            self.close(slot, &CloseReason::drained());
        }
        self.finish_batch();
    }

    /// Reassigns all clients of a link whose session is over.
    pub(super) fn lose_homes(&mut self, loss: &LinkLoss) {
        self.reassignment.link_lost(loss);
        self.presence_link_lost(loss);
        self.task_link_lost(loss);
        self.lose_sides(loss);
        for slot in self.connections.at_home(loss.link) {
            if let Some(client) = self.connections.live_mut(slot).filter(|_| loss.is_goodbye) {
                client.cold.is_let_go.get_or_insert(LetGo::Ended);
                client.cold.held_until = self.tick.saturating_add(loss.noticed_within_s);
            }
            self.lose_home(slot, loss.cause);
        }
        if loss.noticed_within_s > 0 {
            // With its last link an app server is gone: its clients wait no longer for it.
            self.reassignment.retry(&mut self.connections, &self.context.shared.hubs, self.tick);
        }
        self.reassignment.tell_ends(&self.context.shared.hubs, self.tick);
    }

    /// Reassigns a client whose home is lost; one that can't be is closed.
    pub(super) fn lose_home(&mut self, slot: Slot, cause: Cause) {
        if self.withdraw(slot) {
            return;
        }
        self.stay_here(slot);
        let Some(client) = self.connections.live(slot) else { return };
        let (hubs, home) = (self.context.shared.hubs.all(), &client.home);
        let keeps_app = || hubs.get(home.hub().get()).is_some_and(|hub| hub.choose_home_at(home.app()).is_some());
        if !client.outlives_home() || (client.cold.is_bound && !keeps_app()) {
            return self.close(slot, &CloseReason::home_lost(cause));
        }
        self.reassign(slot, CALL_LOST);
    }

    /// Gives a client connection that its app server hands over another home, with the items that the app gives along.
    pub(super) fn hand_over(&mut self, slot: Slot, headers: &[(ByteString, Vec<ByteString>)]) {
        let Some(client) = self.connections.get_mut(slot) else { return };
        if client.is_closing() {
            let (hub, app, id) = (client.home.hub(), client.home.app(), client.id.clone());
            return self.reassignment.given_away(hub, app, &id);
        }
        if !client.cold.is_leaving {
            return;
        }
        client.cold.is_let_go = Some(LetGo::HandedOver);
        client.pause(PauseReason::HandingOver);
        client.cold.items = header(headers, ITEMS_HEADER).map(|items| Box::from(&**items));
        match self.take_level_target(slot) {
            Some(home) => self.reassign_to(slot, &home),
            None => self.reassign(slot, CALL_UNFINISHED),
        }
    }

    fn reassign(&mut self, slot: Slot, error_of_calls: &'static str) {
        self.fail_calls(slot, error_of_calls);
        self.refresh_group(slot);
        self.reassignment.assign_or_wait(&mut self.connections, &self.context.shared.hubs, slot, self.tick);
    }

    /// Gives a client connection that its app server gives up this home.
    pub(super) fn reassign_to(&mut self, slot: Slot, home: &HomeLink) {
        self.fail_calls(slot, CALL_UNFINISHED);
        if let Some(client) = self.connections.get_mut(slot) {
            client.cold.is_let_go = Some(LetGo::HandedOver);
        }
        self.reassignment.assign_to(&mut self.connections, &self.context.shared.hubs, slot, home, self.tick);
        if home.is_closed() {
            self.lose_home(slot, Cause::LinkLost);
        }
    }

    /// Answers all pending calls of a client with an error.
    fn fail_calls(&mut self, slot: Slot, text: &'static str) {
        let mode = self.mode(Flush::Deferred);
        let Some(client) = self.connections.get_mut(slot) else { return };
        if client.home.of_door().is_some() {
            // Nor will it pass on what the client answers to others.
            self.context.shared.client_results.connection_ended(&client.id);
        }
        let failed = client.cold.calls.fail();
        self.context.counters.calls_failed.add(failed.len() as u64);
        client.cold.owed_errors.extend(failed.into_iter().map(|id| (id, ByteString::from_static(text))));
        client.resume(PauseReason::PendingCalls, self.tick);
        // A client that has no answer to its hub handshake would take them for it.
        if !matches!(client.status, Status::Opening { .. }) {
            self.send_owed_errors(slot, mode);
        }
    }

    /// Answers the calls of a client that have failed.
    pub(super) fn send_owed_errors(&mut self, slot: Slot, mode: BatchMode) {
        let Some(client) = self.connections.get_mut(slot) else { return };
        let Content::Hub(protocol) = client.content else { return };
        for (invocation_id, text) in mem::take(&mut client.cold.owed_errors) {
            let outcome = Outcome::Error(text);
            let completion = HubMessage::Completion(Completion { headers: Vec::new(), invocation_id, outcome });
            self.delivery.put_counted(slot, client, &message_frame(protocol, &completion), mode);
        }
        if !client.has_too_many_calls(self.context.shared.settings.rehoming.pending_calls_max) {
            client.resume(PauseReason::PendingCalls, self.tick);
        }
    }

    /// Answers a call with an error that is not run: at once, or behind the answer to the hub handshake. What it leaves to be
    /// written leaves with the batch.
    pub(super) fn answer_with_error(&mut self, slot: Slot, invocation_id: &str, text: &str) {
        let (mode, calls_max) = (self.mode(Flush::Deferred), self.context.shared.settings.rehoming.pending_calls_max);
        let Some(client) = self.connections.live_mut(slot) else { return };
        client.cold.owed_errors.push((invocation_id.into(), text.into()));
        if !matches!(client.status, Status::Opening { .. }) {
            return self.send_owed_errors(slot, mode);
        }
        if client.cold.owed_errors.len() >= calls_max {
            client.pause(PauseReason::PendingCalls);
        }
    }

    /// Gives clients without a home the link that has opened, and tells its app server which ones live elsewhere by now.
    pub(super) fn link_opened(&mut self, link: &HomeLink) {
        let hubs = &self.context.shared.hubs;
        for (id, to) in self.reassignment.take_moved_away(link.hub(), link.app()) {
            let client = self.connections.find(link.hub(), &id).and_then(|slot| self.connections.get(slot));
            // It may have come back.
            if client.is_none_or(|client| !client.is_at(link.app())) {
                // Where it is, or was: an empty name would ask to hand it over.
                let at = client.map_or(to, |client| client.home.app());
                link.send(&moved_to(&id, &hubs.instance(at)));
            }
        }
        self.reassignment.retry(&mut self.connections, hubs, self.tick);
        self.reassignment.tell_ends(hubs, self.tick);
        self.migrate_to(link);
        self.level_links(link);
        self.link_opened_for_sides(link);
        self.presence_link_opened(link);
        self.task_link_opened(link);
        self.owe_reroute();
    }

    /// Pauses the clients of an app server that shuts down, and asks it to hand each of them over once its calls have
    /// ended.
    pub(super) fn app_shutting_down(&mut self, hub: HubIndex, app: AppServerId) {
        self.leave_mirrors(hub, app);
        self.presence_app_stopping(hub, app);
        self.task_app_stopping(hub, app);
        if self.context.shared.hubs.all().get(hub.get()).is_some_and(|hub| hub.is_of_door()) {
            return self.migrate_all(hub, app);
        }
        self.side_app_shutting_down(hub, app);
        self.connections.at_app(hub, app).into_iter().for_each(|slot| self.ask_for(slot));
    }

    /// Stops reading a client, and asks its app server to hand it over once its calls have ended.
    pub(super) fn ask_for(&mut self, slot: Slot) {
        let Some(client) = self.connections.live_mut(slot) else { return };
        if client.can_be_handed_over() && !client.cold.is_leaving {
            client.cold.is_leaving = true;
            client.pause(PauseReason::HandingOver);
            client.home.send(&moved_to(&client.id, ""));
        }
    }

    /// Learns that an app server has handed a connection over that has ended here.
    pub(super) fn given_away(&mut self, hub: HubIndex, app: AppServerId, id: &str) {
        self.reassignment.given_away(hub, app, id);
        self.reassignment.tell_ends(&self.context.shared.hubs, self.tick);
    }

    /// Reads a client on that is about to be handed over, because something of it is waited for.
    pub(super) fn read_on(&mut self, slot: Slot) {
        let now = self.tick;
        if self.stay_unlevelled(slot) {
            return;
        }
        if let Some(client) = self.connections.live_mut(slot).filter(|client| client.cold.is_leaving) {
            client.resume(PauseReason::HandingOver, now);
        }
    }

    /// Stops reading it again, and asks its app server once more to hand it over: behind all that the client has sent.
    pub(super) fn end_input(&mut self, slot: Slot) {
        if let Some(client) = self.connections.live_mut(slot).filter(|client| client.cold.is_leaving) {
            client.pause(PauseReason::HandingOver);
            client.home.send(&moved_to(&client.id, ""));
        }
    }
}

#[cfg(test)]
mod tests;
