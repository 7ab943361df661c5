//! Core of a shard's state: clients, their outgoing data, and shared context.

use std::collections::HashMap;
use std::mem;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use tokio::time::Instant;
use tracing::{debug, warn};
use trunkline_protocol::fleet::Ownership;
use trunkline_protocol::hub::{Completion, HubMessage, MessageKind, Outcome};
use trunkline_protocol::service::{ClientInvocation, FlowOperation, GroupMember, OpenConnection, ServiceMessage};

use super::Resumption;
use super::command::audience::SendOrigin;
use super::command::member_query::MemberListing;
use super::command::{Audience, ConnectionCommand, MembershipChange, PendingAck, Receivers, ShardCommand};
use super::connection::{
    Assignment, Client, Connections, GroupRefusal, MembershipSets, Opening, OpeningInterner, PauseReason, Role,
    SecondaryAssignment, flow, moved_to,
};
use super::content::Content;
use super::delivery::framed::{frame_for, message_frame};
use super::delivery::outbox_budget::OutboxBudget;
use super::delivery::{BatchMode, Delivery, Flush, may_receive};
use super::followers::Followers;
use super::shard_context::{FIRST_TICK, ShardContext};
use super::shared::client_result::{no_such_connection, not_asked};
use super::shared::seams::ExpiredMembership;
use super::slot::Slot;
use super::tap::{Tap, TapEvent, TapView, UpwardMessages};
use super::unfinished_message::UnfinishedMessages;
use crate::engine::transport::websocket::Inflater;
use crate::engine::upstream::{AppServerId, HomeLink, Hub, HubIndex, ReplyTo, ServerGroup};
use crate::ground::auth::Signer;
use crate::ground::bounded::{TurnLine, TurnSource, largest};
use crate::ground::limits::HeadWeight;
use crate::ground::telemetry::OpenSpan;

/// Size of the single read buffer shared by all sockets of a shard. Large, so that a burst takes few system
/// calls.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// A client at the limit of names of groups evicts one of its hub that has this many times the bytes.
const EVICTED_PART: usize = 8;

/// Error for a caller without its app server.
pub(super) const CALL_LOST: &str =
    "The app server that ran this call is gone. Whether it was carried out is not known; it is not run again.";

/// Error for a caller after its app server handed the connection over.
pub(super) const CALL_UNFINISHED: &str = "The app server that ran this call was stopped before the call had ended.";

#[derive(Debug)]
pub(crate) struct ShardCore {
    pub(crate) context: ShardContext,
    /// Whole seconds since the shard started.
    pub(super) tick: u32,
    pub(crate) connections: Connections,
    pub(super) delivery: Delivery,
    pub(crate) unfinished: UnfinishedMessages,
    pub(crate) followers: Followers,
    openings: OpeningInterner,
    /// Read buffer of all sockets; empty while lent.
    read_buffer: Box<[u8]>,
    /// Decompressor of all clients; `None` while lent, and before its first use.
    pub(crate) inflater: Option<Box<Inflater>>,
    /// Turns of hubs whose clients have sent much since the last tick.
    client_lines: HashMap<HubIndex, Arc<TurnLine>>,
    /// Bytes of names of groups for which a client of a hub at the limit may evict another one, until the next tick.
    full_hubs: HashMap<HubIndex, usize>,
    /// Clients to close, because others needed the memory for the names of their groups.
    pub(super) evicted: Vec<Slot>,
}

impl ShardCore {
    pub(super) fn new(context: ShardContext, taps: Vec<Box<dyn Tap>>) -> Self {
        let (shared, counters) = (&context.shared, &context.counters);
        let settings = &shared.settings;
        let sets = MembershipSets::counted(shared.interest.clone(), shared.limits.group_names.clone());
        let budget = OutboxBudget::new(&settings.outbox, shared.shards().len(), counters.clone());
        Self {
            tick: FIRST_TICK,
            connections: Connections::new(context.index, shared.routes.clone(), sets),
            unfinished: UnfinishedMessages::new(
                settings.limits.unfinished_total_bytes,
                shared.shards().len(),
                counters.clone(),
            ),
            delivery: Delivery::new(&settings.outbox, budget, counters.clone(), taps),
            followers: Followers::default(),
            openings: OpeningInterner::default(),
            read_buffer: Box::default(),
            inflater: None,
            client_lines: HashMap::new(),
            full_hubs: HashMap::new(),
            evicted: Vec::new(),
            context,
        }
    }

    /// Clients with this many bytes in total: of the app with the most bytes, those with the most.
    pub(super) fn largest(&self, held: Vec<(usize, Slot)>, excess: usize) -> Vec<Slot> {
        let mut owners = HashMap::new();
        let app_of = |slot| {
            let hub = self.connections.get(slot)?.home().hub_identity();
            let owner = || self.context.shared.access.owner_of(hub.name());
            Some(owners.entry(hub.index).or_insert_with(owner).clone())
        };
        largest(held, app_of, excess)
    }

    /// Interned opening frame, kept for reopening the connection at another app server.
    pub(crate) fn intern_opening(&mut self, open: &OpenConnection, weight: Option<Rc<HeadWeight>>) -> Opening {
        self.openings.intern_opening(open, weight)
    }

    /// Shows complete client messages to the taps before they are forwarded. Returns the mark of the first message if
    /// the app server has to report on them.
    #[inline]
    pub(crate) fn tap_up(&mut self, slot: Slot, messages: &UpwardMessages<'_>) -> Option<i64> {
        if !self.delivery.taps.is_active() {
            return None;
        }
        let Self { context, connections, delivery, tick, .. } = self;
        delivery.taps.up(&TapView { context, connections, now: *tick }, slot, messages)
    }

    #[inline]
    pub(crate) fn tap_event(&mut self, slot: Slot, event: &TapEvent<'_>) {
        let Self { context, connections, delivery, tick, .. } = self;
        delivery.taps.event(&TapView { context, connections, now: *tick }, slot, event);
    }

    /// Runs `act` on the tap of this type; `None` if the shard has none.
    pub(crate) fn run_tap<T: Tap, R>(&mut self, act: impl FnOnce(&mut T, &TapView<'_>) -> R) -> Option<R> {
        let Self { context, connections, delivery, tick, .. } = self;
        let shard = TapView { context, connections, now: *tick };
        delivery.taps.run(&shard, |tap| act(tap, &shard))
    }

    /// Current time, if a tap is active.
    #[inline]
    pub(crate) fn time_for_taps(&self) -> Option<Instant> {
        self.delivery.taps.is_active().then(Instant::now)
    }

    /// Records a client's call as pending. Too many pending calls pause the client.
    pub(crate) fn begin_call(&mut self, slot: Slot, invocation_id: &str, kind: MessageKind) {
        let calls_max = self.context.shared.settings.rehoming.pending_calls_max;
        if let Some(client) = self.connections.get_mut(slot) {
            client.begin_call((invocation_id, kind), calls_max);
            self.delivery.pause_unread(slot, client, self.tick);
        }
    }

    /// Keeps the span of a pending call until the primary or secondary answers. Ends the span if there is no
    /// such call.
    pub(crate) fn keep_call_span(&mut self, slot: Slot, invocation_id: &str, span: OpenSpan) {
        let Some(client) = self.connections.get_mut(slot) else { return };
        let mut kept = client.assignments_mut().home_mut().calls_mut().keep_span(invocation_id, span);
        let secondaries =
            client.assignments_mut().secondaries_mut().into_iter().flat_map(|secondaries| secondaries.iter_mut());
        for secondary in secondaries {
            kept = kept.and_then(|span| secondary.assignment.calls_mut().keep_span(invocation_id, span));
        }
    }

    #[must_use]
    pub(crate) fn tick(&self) -> u32 {
        self.tick
    }

    pub(super) fn mode(&self, flush: Flush) -> BatchMode {
        BatchMode { flush, now: self.tick }
    }

    /// Lends the read buffer; give it back with [`return_read_buffer`](Self::return_read_buffer).
    pub(crate) fn lend_read_buffer(&mut self) -> Box<[u8]> {
        match mem::take(&mut self.read_buffer) {
            // On first use, and after its borrower panicked.
            empty if empty.is_empty() => vec![0; READ_BUFFER_BYTES].into_boxed_slice(),
            buffer => buffer,
        }
    }

    pub(crate) fn return_read_buffer(&mut self, buffer: Box<[u8]>) {
        self.read_buffer = buffer;
    }

    /// Turns of a hub's clients. The app of a hub is found by a pass over all keys, so it is kept until the next tick.
    pub(crate) fn client_line(&mut self, hub: &Hub) -> &Arc<TurnLine> {
        let ShardContext { shared, index, .. } = &self.context;
        self.client_lines
            .entry(hub.index())
            .or_insert_with(|| shared.turn_line(&Signer::Fleet, Some(&hub.identity), TurnSource::Clients(*index)))
    }

    pub(super) fn end_client_lines(&mut self) {
        self.client_lines.clear();
        self.full_hubs.clear();
    }

    pub(crate) fn send_transport(&mut self, slot: Slot, frame: &Bytes) {
        let mode = self.mode(Flush::Now);
        if let Some(client) = self.connections.get_mut(slot) {
            self.delivery.put_transport(slot, client, frame, mode);
        }
    }

    /// Detaches an app server from a client in this role, and answers its pending calls with an error.
    pub(super) fn leave(&mut self, slot: Slot, role: &Role, error_of_calls: &str) {
        let Some(client) = self.connections.live_mut(slot) else { return };
        let Some(app) = client.link_of(role).map(|link| link.app) else { return };
        if let Some(assignment) = client.assignments_mut().of_mut(role) {
            assignment.leave(app);
        }
        if *role == Role::Home && client.life().is_opening() {
            client.cold_mut().backlog_mut().clear_frames();
        }
        self.fail_calls(slot, role, error_of_calls);
    }

    /// Fails all calls of a client that an app server is running.
    fn fail_calls(&mut self, slot: Slot, role: &Role, text: &str) {
        let (mode, calls_max) = (self.mode(Flush::Deferred), self.context.shared.settings.rehoming.pending_calls_max);
        let Some(client) = self.connections.live_mut(slot) else { return };
        if *role == Role::Home && !client.home().capabilities.names_callers {
            // Client results for other callers won't be forwarded either.
            self.context.shared.client_results.connection_ended(&client.id);
        }
        let failed =
            client.assignments_mut().of_mut(role).map(|assignment| assignment.calls_mut().fail()).unwrap_or_default();
        self.context.counters.calls_failed.add(failed.len() as u64);
        let text = ByteString::from(text);
        if !failed.is_empty() {
            client.cold_mut().backlog_mut().add_errors(failed.into_iter().map(|id| (id, text.clone())));
        }
        if !client.assignments().have_too_many_calls(calls_max) {
            client.resume(PauseReason::PendingCalls, self.tick);
        }
        // A client would mistake them for the handshake response.
        if !client.life().is_opening() {
            self.send_backlog(slot, mode);
        }
    }

    /// Sends data that waited for the hub handshake response: errors of failed calls, then early messages.
    pub(super) fn send_backlog(&mut self, slot: Slot, mode: BatchMode) {
        let Some(client) = self.connections.get_mut(slot) else { return };
        let Content::Hub(protocol) = client.content() else { return };
        let mut backlog = client.cold_mut().take_backlog().unwrap_or_default();
        for (invocation_id, text) in backlog.take_errors() {
            let outcome = Outcome::Error(text);
            let completion = HubMessage::Completion(Completion { headers: Vec::new(), invocation_id, outcome });
            self.delivery.put_counted(slot, client, (&message_frame(protocol, &completion), None), mode);
        }
        for frame in backlog.into_frames() {
            self.delivery.put(slot, client, (&frame).into(), mode);
        }
        if !client.assignments().have_too_many_calls(self.context.shared.settings.rehoming.pending_calls_max) {
            client.resume(PauseReason::PendingCalls, self.tick);
        }
    }

    /// Answers a call with an error, now or after the hub handshake response. Queued frames are flushed with
    /// the batch.
    pub(super) fn answer_with_error(&mut self, slot: Slot, invocation_id: &str, text: &str) {
        let (mode, calls_max) = (self.mode(Flush::Deferred), self.context.shared.settings.rehoming.pending_calls_max);
        let Some(client) = self.connections.live_mut(slot) else { return };
        let failed = client.cold_mut().backlog_mut().add_errors([(invocation_id.into(), text.into())]);
        if client.life().is_opening() {
            if failed >= calls_max {
                client.pauses_mut().add_reason(PauseReason::PendingCalls);
            }
            return;
        }
        self.send_backlog(slot, mode);
        if let Some(client) = self.connections.live_mut(slot) {
            self.delivery.pause_unread(slot, client, self.tick);
        }
    }

    pub(super) fn change_assignment(&mut self, slot: Slot, role: &Role, change: impl FnOnce(&mut Assignment, u32)) {
        let now = self.tick;
        if let Some(client) = self.connections.live_mut(slot) {
            client.change_assignment(role, now, |assignment| change(assignment, now));
        }
    }

    /// Asks a stopping app server, once, to hand a client over when its calls have ended.
    pub(super) fn ask_for(&mut self, slot: Slot, role: &Role) {
        let Some(client) = self.connections.live(slot) else { return };
        let is_leaving = client.assignments().assignment_of(role).is_none_or(|assignment| assignment.is_leaving());
        // Secondaries are handed over even if the primary can't be.
        if !is_leaving && (*role != Role::Home || client.can_be_handed_over()) {
            let order = moved_to(&client.id, "");
            self.ask_to_hand_over(slot, role, &order);
        }
    }

    /// Stops reading from a client, and sends its app server this handover request after all earlier messages.
    pub(super) fn ask_to_hand_over(&mut self, slot: Slot, role: &Role, order: &ServiceMessage) {
        self.change_assignment(slot, role, |assignment, _| assignment.ask_to_hand_over());
        if let Some(link) = self.connections.live(slot).and_then(|client| client.link_of(role)) {
            link.send(order);
        }
    }

    /// Executes an app server's flow-control operation. After its input has ended, the handover request is
    /// repeated.
    pub(super) fn control(&mut self, slot: Slot, role: &Role, operation: FlowOperation) {
        self.change_assignment(slot, role, |assignment, _| assignment.obey(operation));
        let Some(client) = self.connections.live(slot).filter(|_| operation == FlowOperation::EndInput) else { return };
        if client.assignments().assignment_of(role).is_some_and(|assignment| assignment.is_leaving())
            && let Some(link) = client.link_of(role)
        {
            link.send(&moved_to(&client.id, ""));
        }
    }

    /// Asks the primary to pause a client for a move, unless already paused as slow. Returns whether the pause is
    /// already acknowledged.
    pub(super) fn pause_for_move(&mut self, slot: Slot) -> bool {
        let Self { connections, delivery, .. } = self;
        let Some(client) = connections.live(slot) else { return false };
        let pause = delivery.slow.take_pause(slot, client);
        if pause.is_none() {
            client.home().send(&flow(&client.id, FlowOperation::Pause));
        }
        pause == Some(true)
    }

    /// Whether a client waits for its hub handshake response or a call, or an app server waits for its client
    /// result.
    pub(super) fn is_busy(&self, client: &Client) -> bool {
        let secondaries = || client.assignments().secondaries().into_iter().flat_map(|secondaries| secondaries.iter());
        let asks_it = || {
            !client.home().capabilities.names_callers && self.context.shared.client_results.is_waiting_for(&client.id)
        };
        !client.life().is_open()
            || client.assignments().home().calls().are_pending()
            || secondaries().any(|secondary| !secondary.is_idle())
            || asks_it()
    }

    /// Whether calls of a group go to a secondary.
    pub(super) fn is_beside_home(&self, slot: Slot, group: &str) -> bool {
        let Some(client) = self.connections.live(slot) else { return false };
        // An embedded node has no opening frames and a single app server.
        client.cold().opening().is_some()
            && self.hub_of(client).is_some_and(|hub| *hub.group_of(client.home().app()) != *group)
    }

    pub(super) fn hub_of(&self, client: &Client) -> Option<Arc<Hub>> {
        self.context.shared.hubs.at(client.home().hub())
    }

    pub(super) fn ownership_of(&mut self, slot: Slot) -> Option<&mut Ownership<AppServerId>> {
        Some(self.resumption_of(slot)?.ownership_mut())
    }

    pub(super) fn resumption_of(&mut self, slot: Slot) -> Option<&mut Resumption> {
        let client = self.connections.live_mut(slot).filter(|client| client.is_resumable())?;
        client.cold_mut().resumption_mut()
    }

    /// Cancels a move before its state is sent: the connection stays here and waits for its client.
    pub(super) fn stay_here(&mut self, slot: Slot) {
        let Some(client) = self.connections.live_mut(slot) else { return };
        let Some(resumption) = client.cold_mut().resumption_mut() else { return };
        let before = resumption.ownership().bytes();
        if resumption.stay() {
            self.delivery.budget.replay_changed(before, resumption.ownership().bytes());
            self.context.shared.routes.end_move(&client.id);
            client.home().send(&flow(&client.id, FlowOperation::Resume));
        }
    }

    pub(super) fn homes_of_clients(&self) -> impl Iterator<Item = (HubIndex, AppServerId)> {
        self.connections.census().iter().map(|(kind, _)| (kind.hub, kind.app))
    }

    /// Evaluates the routes again for a client that needs another primary: if its group is down, a fallback may apply.
    pub(super) fn refresh_group(&mut self, slot: Slot) {
        if !self.context.shared.hubs.has_routes() {
            return;
        }
        let Some((_, group)) = self.route_of(slot) else { return };
        if let Some(client) = self.connections.live_mut(slot) {
            client.cold_mut().set_group(group);
        }
    }

    /// Hub of a client, and its group under the current routes; `None` if routes don't apply to the client.
    pub(super) fn route_of(&self, slot: Slot) -> Option<(Arc<Hub>, Option<Arc<ServerGroup>>)> {
        let (client, hubs) = (self.connections.live(slot)?, &self.context.shared.hubs);
        let hub = hubs.at(client.home().hub()).filter(|hub| hub.capabilities().has_server_groups)?;
        let open = client.cold().read_opening()?;
        let kept = || client.cold().group().cloned().filter(|group| hubs.rules().has_group(&group.name));
        let group = hubs.route_of(&hub, &open, self.connections.user_of(client)).unwrap_or_else(kept);
        Some((hub, group))
    }

    pub(super) fn change_groups_of(
        &mut self,
        hub: HubIndex,
        to: &Receivers,
        change: &MembershipChange,
        ack: Option<&PendingAck>,
    ) {
        for slot in self.connections.slots_of(hub, to) {
            self.change_groups(slot, change, ack);
        }
    }

    /// Removes a user's connections from a group after the membership expired, unless it was renewed.
    pub(super) fn expire_user_group(&mut self, hub: HubIndex, over: &ExpiredMembership) {
        let ExpiredMembership { hub: key, user, group } = over;
        if !self.context.shared.user_groups.contain(key, user, group) {
            let to = Audience::Users(vec![user.clone()]).into();
            self.change_groups_of(hub, &to, &MembershipChange::Leave(group.clone()), None);
        }
    }

    /// Client of the same hub that has [many times](EVICTED_PART) the bytes of names of groups that a client needs.
    fn much_larger_than(&mut self, slot: Slot, needed: usize) -> Option<Slot> {
        let hub = self.connections.live(slot)?.home().hub();
        if self.full_hubs.get(&hub).is_some_and(|most| needed > *most) {
            return None;
        }
        let (bytes, largest) = self.connections.most_names(hub)?;
        self.full_hubs.insert(hub, bytes / EVICTED_PART);
        (needed <= bytes / EVICTED_PART).then_some(largest)
    }

    /// Changes the groups of a connection, and reports the result if the app asked for an ack.
    pub(super) fn change_groups(&mut self, slot: Slot, change: &MembershipChange, ack: Option<&PendingAck>) {
        let shared = self.context.shared.clone();
        let left = |hub| shared.group_names_left(hub);
        let limits = &shared.settings.groups;
        let mut refusal = self.connections.change_groups(slot, change, limits, left).err();
        if let Some(GroupRefusal::NamesFull { own, .. }) = refusal
            && let Some(evicted) = self.much_larger_than(slot, own)
        {
            self.connections.leave_groups(evicted);
            self.evicted.push(evicted);
            refusal = self.connections.change_groups(slot, change, limits, |_| (Signer::Fleet, usize::MAX)).err();
        }
        self.tap_event(slot, &TapEvent::GroupsChanged);
        if !self.followers.is_empty() {
            self.follow_groups(slot);
        }
        if let Some(arrival) = self.resumption_of(slot).and_then(|resumption| resumption.arrival_mut()) {
            arrival.group_changes.push(change.clone());
        }
        let context = &self.context;
        if let Some(refusal) = &refusal {
            context.counters.limit(refusal.limit()).increment();
            if let GroupRefusal::NamesFull { app, .. } = refusal {
                context.shared.limits.refusals.count("group_names", app.label());
            }
            match ack {
                // The app gets no error: a stored membership of a user, or a join that it does not await.
                None if context.may_log() => warn!(slot, %refusal, "group join refused"),
                _ => debug!(slot, %refusal, "group join refused"),
            }
        }
        match (ack, refusal) {
            (Some(ack), Some(refusal)) => ack.failed(refusal.to_string()),
            (Some(ack), None) => ack.found(),
            (None, _) => {}
        }
    }

    /// Adds this shard's members of a set to a page, up to its limit, and forwards the page to the next shard or the
    /// app server. Reads each member once, like a send.
    pub(super) fn list_members(&mut self, mut listing: Box<MemberListing>) {
        let slots = self.connections.members_from(listing.hub(), listing.set(), listing.slot(), listing.room());
        for slot in slots {
            if listing.room() == 0 {
                break;
            }
            if let Some(client) = self.connections.get(slot) {
                let user_id = self.connections.user_of(client).map(ByteString::from);
                listing.add_member(slot, GroupMember { connection_id: ByteString::from(&*client.id), user_id });
            }
        }
        if listing.room() == 0 {
            return listing.answer_full();
        }
        listing.leave_shard();
        match self.context.shared.shards().get(usize::from(listing.shard())) {
            Some(next) => next.order(ShardCommand::ListMembers(listing)),
            None => listing.answer_last(),
        }
    }

    pub(super) fn reject(&self, command: ConnectionCommand) {
        match command {
            ConnectionCommand::Invoke { reply_to, request, .. } => reply_to.answer(&no_such_connection(request)),
            // The dropped ack reports that no receiver was found.
            ConnectionCommand::Group { .. } | ConnectionCommand::Refresh { .. } => {}
            ConnectionCommand::RefreshAuth { .. } | ConnectionCommand::GetClaims { .. } => {}
            ConnectionCommand::HandOver { .. } | ConnectionCommand::Moved { .. } | ConnectionCommand::Traced(_) => {}
            ConnectionCommand::Mark { .. } => {}
            ConnectionCommand::Copied(_) => {}
            ConnectionCommand::Data { .. }
            | ConnectionCommand::Close { .. }
            | ConnectionCommand::Skipped { .. }
            | ConnectionCommand::Flow { .. } => {
                self.context.counters.unknown_receivers.increment();
            }
        }
    }

    /// Whether a send to one connection may answer a call of this hub: only webhooks end streams that way.
    pub(super) fn are_streams_of_back_ends(&self, hub: HubIndex) -> bool {
        self.context.shared.hubs.at(hub).is_some_and(|hub| hub.has_webhook())
    }

    /// Invokes a client for a result. The client's own app server is notified first, so that it can match the reply.
    ///
    /// For an arriving connection the invocation waits, in case the other node has not made it.
    pub(super) fn apply_invoke(
        &mut self,
        slot: Slot,
        is_own: bool,
        reply_to: Arc<dyn ReplyTo>,
        request: ClientInvocation,
        (origin, mode): (SendOrigin, BatchMode),
    ) {
        if let Some(arrival) = self.resumption_of(slot).and_then(|resumption| resumption.arrival_mut()) {
            return arrival.requests.push((reply_to, request, origin));
        }
        if self.ownership_of(slot).is_some_and(|ownership| ownership.is_given()) {
            // The new owner invokes it.
            return;
        }
        let shared = &self.context.shared;
        let note = |home: &HomeLink| match home.hub_identity() {
            hub if !is_own && !hub.capabilities().names_callers => {
                let share = shared.share_of_asker(&*reply_to, hub.name());
                shared.client_results.begin_wait(&reply_to, &request, Some(home.app()), &share)
            }
            _ => Ok(()),
        };
        if let Some(client) = self.connections.get_mut(slot).filter(|client| may_receive(client))
            && let Content::Hub(protocol) = client.content()
            && let Some(payload) = request.payloads.get(protocol)
        {
            if let Err(refused) = note(client.home()) {
                return reply_to.answer(&not_asked(request, &refused));
            }
            let frame = frame_for(protocol, payload);
            if !is_own {
                client.home().send(&ServiceMessage::ClientInvocation(request));
            }
            self.delivery.put_from(slot, client, &frame, (origin, mode));
        } else {
            reply_to.answer(&no_such_connection(request));
        }
    }

    pub(super) fn secondary_mut(&mut self, slot: Slot, group: &str) -> Option<&mut SecondaryAssignment> {
        self.connections.live_mut(slot)?.assignments_mut().secondaries_mut()?.of_group(group)
    }
}

#[cfg(test)]
mod tests;
