//! Core of a shard's state: its clients, what is written to them, and what each part needs to know beside them.

use std::mem;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use tokio::time::Instant;
use tracing::debug;
use trunkline_protocol::fleet::Ownership;
use trunkline_protocol::hub::{Completion, HubMessage, Outcome};
use trunkline_protocol::service::{ClientInvocation, FlowOperation, GroupMember, OpenConnection, ServiceMessage};

use super::Resumption;
use super::command::audience::SendOrigin;
use super::command::member_query::MemberListing;
use super::command::{Audience, ConnectionCommand, MembershipChange, PendingAck, Receivers, ShardCommand};
use super::connection::{
    Assignment, Client, Connections, Opening, OpeningInterner, PauseReason, Role, SideHome, flow, moved_to,
};
use super::content::Content;
use super::delivery::framed::{frame_for, message_frame};
use super::delivery::outbox_budget::OutboxBudget;
use super::delivery::{BatchMode, Delivery, Flush, may_receive};
use super::shard_context::ShardContext;
use super::shared::client_result::{no_such_connection, not_asked};
use super::shared::user_group::ExpiredMembership;
use super::slot::Slot;
use super::unfinished_message::UnfinishedMessages;
use super::watch::{UpwardEnd, UpwardTrace};
use crate::limits::HeadWeight;
use crate::telemetry::OpenSpan;
use crate::upstream::{AppServerId, Asker, HomeLink, Hub, HubIndex, ServerGroup};

/// Size of the buffer that all sockets of a shard are read into. Large, so that a burst takes few system calls; there
/// is only one.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// Error for a caller whose app server is gone.
pub(super) const CALL_LOST: &str =
    "The app server that ran this call is gone. Whether it was carried out is not known; it is not run again.";

/// Error for a caller whose app server has handed its connection over.
pub(super) const CALL_UNFINISHED: &str = "The app server that ran this call was stopped before the call had ended.";

/// Clients of one shard, and what is written to them.
#[derive(Debug)]
pub(crate) struct ShardCore {
    pub(crate) context: ShardContext,
    /// Whole seconds since the shard began.
    pub(super) tick: u32,
    pub(crate) connections: Connections,
    pub(super) delivery: Delivery,
    /// Messages of clients that have begun and not ended.
    pub(crate) unfinished: UnfinishedMessages,
    openings: OpeningInterner,
    /// Buffer that all sockets are read into; empty while it is lent.
    read_buffer: Box<[u8]>,
}

impl ShardCore {
    pub(super) fn new(context: ShardContext) -> Self {
        let (shared, counters) = (&context.shared, &context.counters);
        let settings = &shared.settings;
        let budget = OutboxBudget::new(&settings.outbox, shared.shards().len(), counters.clone());
        Self {
            tick: 1,
            connections: Connections::new(context.index, shared.routes.clone(), shared.fleet.interest.clone()),
            unfinished: UnfinishedMessages::new(
                settings.limits.unfinished_total_bytes,
                shared.shards().len(),
                counters.clone(),
            ),
            delivery: Delivery::new(&settings.outbox, budget, counters.clone()),
            openings: OpeningInterner::default(),
            read_buffer: Box::default(),
            context,
        }
    }

    /// Interned opening frame, for the case that another app server has to open the connection.
    pub(crate) fn intern_opening(&mut self, open: &OpenConnection, weight: Option<Rc<HeadWeight>>) -> Opening {
        self.openings.intern_opening(open, weight)
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
        let mut kept = client.assignments_mut().home_mut().calls_mut().keep_span(invocation_id, span);
        let sides = client.assignments_mut().sides_mut().into_iter().flat_map(|sides| sides.iter_mut());
        for side in sides {
            kept = kept.and_then(|span| side.assignment.calls_mut().keep_span(invocation_id, span));
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

    /// Sends one frame of the transport.
    pub(crate) fn send_transport(&mut self, slot: Slot, frame: &Bytes) {
        let mode = self.mode(Flush::Now);
        if let Some(client) = self.connections.get_mut(slot) {
            self.delivery.put_transport(slot, client, frame, mode);
        }
    }

    /// Takes the app server from a client connection in a role, and answers the calls that it has run with this error.
    pub(super) fn leave(&mut self, slot: Slot, role: &Role, error_of_calls: &str) {
        let Some(client) = self.connections.live_mut(slot) else { return };
        let Some(app) = client.link_of(role).map(|link| link.app()) else { return };
        if let Some(assignment) = client.assignments_mut().of_mut(role) {
            assignment.leave(app);
        }
        self.fail_calls(slot, role, error_of_calls);
    }

    /// Answers all calls of a client that an app server runs with an error.
    fn fail_calls(&mut self, slot: Slot, role: &Role, text: &str) {
        let (mode, calls_max) = (self.mode(Flush::Deferred), self.context.shared.settings.rehoming.pending_calls_max);
        let Some(client) = self.connections.live_mut(slot) else { return };
        if *role == Role::Home && !client.home().capabilities().names_callers {
            // Nor will it pass on what the client answers to others.
            self.context.shared.client_results.connection_ended(client.id());
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
        // A client that has no answer to its hub handshake would take them for it.
        if !client.life().is_opening() {
            self.send_backlog(slot, mode);
        }
    }

    /// Sends what waited for the answer to the hub handshake: errors of failed calls, then early messages.
    pub(super) fn send_backlog(&mut self, slot: Slot, mode: BatchMode) {
        let Some(client) = self.connections.get_mut(slot) else { return };
        let Content::Hub(protocol) = client.content() else { return };
        let mut backlog = client.cold_mut().take_backlog().unwrap_or_default();
        for (invocation_id, text) in backlog.take_errors() {
            let outcome = Outcome::Error(text);
            let completion = HubMessage::Completion(Completion { headers: Vec::new(), invocation_id, outcome });
            self.delivery.put_counted(slot, client, &message_frame(protocol, &completion), mode);
        }
        for frame in backlog.into_frames() {
            self.delivery.put(slot, client, &frame, mode);
        }
        if !client.assignments().have_too_many_calls(self.context.shared.settings.rehoming.pending_calls_max) {
            client.resume(PauseReason::PendingCalls, self.tick);
        }
    }

    /// Answers a call with an error that is not run: at once, or behind the answer to the hub handshake. What it leaves
    /// to be written leaves with the batch.
    pub(super) fn answer_with_error(&mut self, slot: Slot, invocation_id: &str, text: &str) {
        let (mode, calls_max) = (self.mode(Flush::Deferred), self.context.shared.settings.rehoming.pending_calls_max);
        let Some(client) = self.connections.live_mut(slot) else { return };
        let failed = client.cold_mut().backlog_mut().add_errors([(invocation_id.into(), text.into())]);
        if !client.life().is_opening() {
            return self.send_backlog(slot, mode);
        }
        if failed >= calls_max {
            client.pauses_mut().add(PauseReason::PendingCalls);
        }
    }

    /// Changes an assignment of a client at this tick, which is paused or resumed as it wants it then.
    pub(super) fn change_assignment(&mut self, slot: Slot, role: &Role, change: impl FnOnce(&mut Assignment, u32)) {
        let now = self.tick;
        if let Some(client) = self.connections.live_mut(slot) {
            client.change_assignment(role, now, |assignment| change(assignment, now));
        }
    }

    /// Asks an app server that shuts down to hand a client over once its calls have ended, unless that was done.
    pub(super) fn ask_for(&mut self, slot: Slot, role: &Role) {
        let Some(client) = self.connections.live(slot) else { return };
        let is_leaving = client.assignments().of(role).is_none_or(|assignment| assignment.is_leaving());
        // A side home is left to others as long as the client has its home.
        if !is_leaving && (*role != Role::Home || client.can_be_handed_over()) {
            let order = moved_to(client.id(), "");
            self.ask_to_hand_over(slot, role, &order);
        }
    }

    /// Stops reading a client, and asks an app server by this order to hand it over, behind all that it has sent.
    pub(super) fn ask_to_hand_over(&mut self, slot: Slot, role: &Role, order: &ServiceMessage) {
        self.change_assignment(slot, role, |assignment, _| assignment.ask_to_hand_over());
        if let Some(link) = self.connections.live(slot).and_then(|client| client.link_of(role)) {
            link.send(order);
        }
    }

    /// Obeys an order of an app server about reading a client. One that has ended its input is asked for once more.
    pub(super) fn control(&mut self, slot: Slot, role: &Role, operation: FlowOperation) {
        self.change_assignment(slot, role, |assignment, _| assignment.obey(operation));
        let Some(client) = self.connections.live(slot).filter(|_| operation == FlowOperation::EndInput) else { return };
        if client.assignments().of(role).is_some_and(|assignment| assignment.is_leaving())
            && let Some(link) = client.link_of(role)
        {
            link.send(&moved_to(client.id(), ""));
        }
    }

    /// Asks the home of a client to pause it for a move, unless that was asked because the client is slow. Returns
    /// whether the client is paused already.
    pub(super) fn pause_for_move(&mut self, slot: Slot) -> bool {
        let Self { connections, delivery, .. } = self;
        let Some(client) = connections.live(slot) else { return false };
        let pause = delivery.slow.take_pause(slot, client);
        if pause.is_none() {
            client.home().send(&flow(client.id(), FlowOperation::Pause));
        }
        pause == Some(true)
    }

    /// Whether a client waits for something: the answer to its hub handshake or to a call; or somebody for its answer.
    pub(super) fn is_busy(&self, client: &Client) -> bool {
        let sides = || client.assignments().sides().into_iter().flat_map(|sides| sides.iter());
        let asks_it = || {
            !client.home().capabilities().names_callers
                && self.context.shared.client_results.is_waiting_for(client.id())
        };
        !client.life().is_open()
            || client.assignments().home().calls().count() > 0
            || sides().any(|side| !side.is_idle())
            || asks_it()
    }

    /// Whether calls for a group go to another app server than the home of their client.
    pub(super) fn is_beside_home(&self, slot: Slot, group: &str) -> bool {
        let Some(client) = self.connections.live(slot) else { return false };
        // A node inside an app has no opening frames, and one app server.
        client.cold().opening().is_some()
            && self.hub_of(client).is_some_and(|hub| *hub.group_of(client.home().app()) != *group)
    }

    pub(super) fn hub_of(&self, client: &Client) -> Option<Arc<Hub>> {
        self.context.shared.hubs.at(client.home().hub())
    }

    /// Ownership of a connection that may move.
    pub(super) fn ownership_of(&mut self, slot: Slot) -> Option<&mut Ownership<AppServerId>> {
        Some(self.resumption_of(slot)?.ownership_mut())
    }

    pub(super) fn resumption_of(&mut self, slot: Slot) -> Option<&mut Resumption> {
        let client = self.connections.live_mut(slot).filter(|client| client.is_resumable())?;
        client.cold_mut().resumption_mut()
    }

    /// Ends a move whose state has not left: the connection stays here, and waits for its client as before.
    pub(super) fn stay_here(&mut self, slot: Slot) {
        let Some(client) = self.connections.live_mut(slot) else { return };
        let Some(resumption) = client.cold_mut().resumption_mut() else { return };
        let before = resumption.ownership().bytes();
        if resumption.stay() {
            self.delivery.budget().replay_changed(before, resumption.ownership().bytes());
            self.context.shared.routes.end_move(client.id());
            client.home().send(&flow(client.id(), FlowOperation::Resume));
        }
    }

    /// Hubs of clients here, with the app servers at which these are at home.
    pub(super) fn homes_of_clients(&self) -> impl Iterator<Item = (HubIndex, AppServerId)> {
        self.connections.census().iter().map(|(kind, _)| (kind.hub, kind.app))
    }

    /// Asks the routes anew for a client that needs another home: its group may be down by now, and a route may lead
    /// on.
    pub(super) fn refresh_group(&mut self, slot: Slot) {
        if !self.context.shared.hubs.has_routes() {
            return;
        }
        let Some((_, group)) = self.route_of(slot) else { return };
        if let Some(client) = self.connections.live_mut(slot) {
            client.cold_mut().set_group(group);
        }
    }

    /// The hub of a client, and its group by the routes in force; `None` where they don't count for it.
    pub(super) fn route_of(&self, slot: Slot) -> Option<(Arc<Hub>, Option<Arc<ServerGroup>>)> {
        let (client, hubs) = (self.connections.live(slot)?, &self.context.shared.hubs);
        let hub = hubs.at(client.home().hub()).filter(|hub| hub.capabilities().has_server_groups)?;
        let open = client.cold().read_opening()?;
        let kept = || client.cold().group().cloned().filter(|group| hubs.rules().has_group(group.name()));
        let group = hubs.route_of(&hub, &open, self.connections.user_of(client)).unwrap_or_else(kept);
        Some((hub, group))
    }

    /// Changes the groups of the connections of a user that are here.
    pub(super) fn change_groups_of(
        &mut self,
        hub: HubIndex,
        to: &Receivers,
        change: &MembershipChange,
        ack: Option<&PendingAck>,
    ) {
        for slot in self.connections.slots_of(hub, to) {
            self.change_groups(slot, change, ack);
            self.tell_home_of_group(slot, change);
        }
    }

    /// Has the connections of a user leave a group in which its time is over, unless it has been renewed since then.
    pub(super) fn expire_user_group(&mut self, hub: HubIndex, over: &ExpiredMembership) {
        let ExpiredMembership { hub: key, user, group } = over;
        if !self.context.shared.user_groups.contain(key, user, group) {
            let to = Audience::Users(vec![user.clone()]).into();
            self.change_groups_of(hub, &to, &MembershipChange::Leave(group.clone()), None);
        }
    }

    /// Changes the groups of a connection that is here, and tells the app whether that was done, if it asked.
    pub(super) fn change_groups(&mut self, slot: Slot, change: &MembershipChange, ack: Option<&PendingAck>) {
        let context = &self.context;
        let refusal = self.connections.change_groups(slot, change, &context.shared.settings.groups).err();
        self.delivery.watches.regrouped(&self.connections, slot);
        if let Some(arrival) = self.resumption_of(slot).and_then(|resumption| resumption.arrival_mut()) {
            arrival.group_changes.push(change.clone());
        }
        let context = &self.context;
        if let Some(refusal) = refusal {
            context.counters.limit(refusal.limit()).increment();
            debug!(slot, %refusal, "a connection does not join a group");
        }
        match (ack, refusal) {
            (Some(ack), Some(refusal)) => ack.failed(refusal.to_string()),
            (Some(ack), None) => ack.found(),
            (None, _) => {}
        }
    }

    /// Tells the app server of a connection of a change that it can't know of: it restores the groups when the client
    /// is lost.
    pub(super) fn tell_home_of_group(&self, slot: Slot, change: &MembershipChange) {
        let hubs = &self.context.shared.hubs;
        if let Some(client) = self.connections.get(slot).filter(|client| hubs.restores(client.home())) {
            client.home().send(&change.notice(client.id()));
        }
    }

    /// Adds the members of a set that are here to a page of them, as far as there is room, and sends it on its way: to
    /// the next shard, or to the app server. One step reads each entry of the set's list once, as a send to it does.
    pub(super) fn list_members(&mut self, mut listing: Box<MemberListing>) {
        let slots = self.connections.members_from(listing.hub(), listing.set(), listing.slot(), listing.room());
        for slot in slots {
            if listing.room() == 0 {
                break;
            }
            if let Some(client) = self.connections.get(slot) {
                let user_id = self.connections.user_of(client).map(ByteString::from);
                listing.add(slot, GroupMember { connection_id: ByteString::from(&**client.id()), user_id });
            }
        }
        if listing.room() == 0 {
            return listing.answer();
        }
        listing.leave_shard();
        match self.context.shared.shards().get(usize::from(listing.shard())) {
            Some(next) => next.order(ShardCommand::ListMembers(listing)),
            None => listing.answer_last(),
        }
    }

    /// Rejects a command whose connection is not here.
    pub(super) fn reject(&self, command: ConnectionCommand) {
        match command {
            ConnectionCommand::Invoke { asker, request, .. } => asker.answer(&no_such_connection(request)),
            // The ack that goes with it says that nobody was found.
            ConnectionCommand::Group { .. } | ConnectionCommand::Refresh { .. } => {}
            ConnectionCommand::RefreshAuth { .. } | ConnectionCommand::GetClaims { .. } => {}
            ConnectionCommand::HandOver { .. } | ConnectionCommand::Moved { .. } | ConnectionCommand::Traced(_) => {}
            ConnectionCommand::Mark { .. } => {}
            ConnectionCommand::Mirrored { .. } | ConnectionCommand::Mirror(_) => {}
            ConnectionCommand::Data { .. }
            | ConnectionCommand::Close { .. }
            | ConnectionCommand::Skipped { .. }
            | ConnectionCommand::Flow { .. } => {
                self.context.counters.unknown_receivers.increment();
            }
        }
    }

    /// Whether calls of a hub may be answered by sends to one connection: its webhook ends a stream so. An app server's
    /// streams are its own.
    pub(super) fn are_streams_of_back_ends(&self, hub: HubIndex) -> bool {
        self.context.shared.hubs.at(hub).is_some_and(|hub| hub.has_webhook())
    }

    /// Asks a client for a result. Its own app server is told first, so that it knows what the client's answer is for.
    ///
    /// One that has not arrived from another node is asked when it has, if the other node has not asked it by then.
    pub(super) fn apply_invoke(
        &mut self,
        slot: Slot,
        is_own: bool,
        asker: Arc<dyn Asker>,
        request: ClientInvocation,
        (origin, mode): (SendOrigin, BatchMode),
    ) {
        if let Some(arrival) = self.resumption_of(slot).and_then(|resumption| resumption.arrival_mut()) {
            return arrival.requests.push((asker, request, origin));
        }
        if self.ownership_of(slot).is_some_and(|ownership| ownership.is_given()) {
            // The new owner asks it.
            return;
        }
        let shared = &self.context.shared;
        let note = |home: &HomeLink| match home.hub_identity() {
            hub if !is_own && !hub.capabilities().names_callers => {
                let share = shared.admission.share_of_asker(&*asker, hub.name());
                shared.client_results.begin(&asker, &request, Some(home.app()), &share)
            }
            _ => Ok(()),
        };
        if let Some(client) = self.connections.get_mut(slot).filter(|client| may_receive(client))
            && let Content::Hub(protocol) = client.content()
            && let Some(payload) = request.payloads.get(protocol)
        {
            if let Err(refused) = note(client.home()) {
                return asker.answer(&not_asked(request, &refused));
            }
            let frame = frame_for(protocol, payload);
            if !is_own {
                client.home().send(&ServiceMessage::ClientInvocation(request));
            }
            self.delivery.put_from(slot, client, &frame, (origin, mode));
        } else {
            asker.answer(&no_such_connection(request));
        }
    }

    /// Side home of a client in a group.
    pub(super) fn side_mut(&mut self, slot: Slot, group: &str) -> Option<&mut SideHome> {
        self.connections.live_mut(slot)?.assignments_mut().sides_mut()?.of_group(group)
    }
}

#[cfg(test)]
mod tests;
