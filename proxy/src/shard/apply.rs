//! Application of commands: what the frames of a link change and write in one shard.

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use tokio::time::Instant;
use tracing::debug;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::service::{
    ClientInvocation, ErrorCompletion, FlowOperation, GroupMember, RawKind, ServiceMessage,
};

use super::close_reason::CloseReason;
use super::command::{Audience, ConnectionCommand, MembershipChange, PendingAck, ShardCommand};
use super::connection::{LeaveStage, PauseReason, Status};
use super::content::Content;
use super::delivery::{BatchMode, Flush};
use super::framed::{Framed, frame_for, raw_frame};
use super::member_query::MemberListing;
use super::send_origin::SendOrigin;
use super::slot::Slot;
use super::state::ShardState;
use super::user_group::ExpiredMembership;
use crate::transport::websocket::{Unframed, unframe_whole};
use crate::upstream::{AppServerId, Asker, HomeLink, HubIndex};

/// Capacity beyond which a list of commands is not kept.
const COMMANDS_KEPT_MAX: usize = 2048;

impl ShardState {
    /// Applies a batch that a link has brought, or another thread; it was read at this time, if anybody wants to know.
    pub(super) fn apply_read(&mut self, commands: Vec<ShardCommand>, read_at: Option<Instant>) {
        self.delivery.read_at = read_at;
        self.apply(commands);
        self.delivery.read_at = None;
    }

    /// Applies the commands of one batch in their order, then writes what they left to be written.
    pub(super) fn apply(&mut self, mut commands: Vec<ShardCommand>) {
        // A lone frame is written at once; the frames of a longer batch leave together.
        let mode = self.mode(if commands.len() == 1 { Flush::Now } else { Flush::Deferred });
        for command in commands.drain(..) {
            let before = self.delivery.deferred();
            self.apply_one(command, mode);
            self.delivery.flush_window(&mut self.connections, before);
        }
        self.finish_batch();
        if (self.spare_commands.capacity()..=COMMANDS_KEPT_MAX).contains(&commands.capacity()) {
            self.spare_commands = commands;
        }
    }

    fn apply_one(&mut self, command: ShardCommand, mode: BatchMode) {
        match command {
            ShardCommand::Send { hub, to, message, origin } => {
                self.delivery.send(&mut self.connections, hub, &to, &message, (origin, mode));
                if let Audience::Connections(ids) = &to.who
                    && self.are_streams_of_back_ends(hub)
                {
                    self.note_answers(hub, ids, &message);
                }
            }
            ShardCommand::One { hub, app, connection_id, slot, command } => {
                if self.connections.is_in(slot, hub, &connection_id) {
                    let is_own = self.connections.get(slot).is_some_and(|client| client.home.app() == app);
                    match if is_own { None } else { self.side_group_at(slot, app) } {
                        Some(group) => self.apply_from_side(slot, (app, &group), command, mode),
                        None => self.apply_to_connection(slot, (app, is_own), command, mode),
                    }
                } else {
                    self.reject(command);
                }
            }
            ShardCommand::UserGroup { hub, user, change, ack } => {
                self.change_user_groups(hub, user, &change, ack.as_deref());
            }
            ShardCommand::Check { hub, who, within_group, ack } => {
                let mut slots = self.connections.slots_of(hub, &who.into());
                if let Some(group) = within_group {
                    let members = self.connections.slots_of(hub, &Audience::Groups(vec![group]).into());
                    slots.retain(|slot| members.contains(slot));
                }
                if !slots.is_empty() {
                    ack.found();
                }
            }
            ShardCommand::ListMembers(listing) => self.list_members(listing),
            ShardCommand::CountMembers { hub, set, tally } => {
                tally.add(self.connections.members(hub, set.name()).len());
            }
            ShardCommand::CountReceivers { hub, to, tally } => {
                tally.add(self.connections.count_of(hub, &to));
            }
            ShardCommand::CloseMany { hub, app, to, reason, ack } => {
                let slots = self.connections.slots_of(hub, &to);
                if !slots.is_empty() {
                    ack.found();
                }
                self.close_many(app, &slots, reason.as_deref());
            }
            ShardCommand::LinkLost(loss) => self.lose_homes(&loss),
            ShardCommand::GivenAway { hub, app, connection_id } => self.given_away(hub, app, &connection_id),
            ShardCommand::LinkOpened(link) => self.link_opened(&link),
            ShardCommand::LeaveLink(link) => self.leave_link(&link),
            ShardCommand::AppShuttingDown { hub, app } => self.app_shutting_down(hub, app),
            // At once where an app ends: it does not wait for a task.
            ShardCommand::Drain(spread) if spread.is_zero() => self.close_all_drained(),
            ShardCommand::Drain(spread) => self.drain = Some(spread),
        }
    }

    /// Closes connections on the order of an app server, their own one or another.
    fn close_many(&mut self, app: AppServerId, slots: &[Slot], reason: Option<&str>) {
        let [own, other] = [Cause::AppClosed, Cause::Ordered].map(|cause| CloseReason::told_by_app(cause, reason));
        for &slot in slots {
            let is_own = self.connections.get(slot).is_some_and(|client| client.home.app() == app);
            self.close(slot, if is_own { &own } else { &other });
        }
    }

    /// Changes the groups of the connections of a user that are here.
    pub(super) fn change_user_groups(
        &mut self,
        hub: HubIndex,
        user: ByteString,
        change: &MembershipChange,
        ack: Option<&PendingAck>,
    ) {
        for slot in self.connections.slots_of(hub, &Audience::Users(vec![user]).into()) {
            self.change_groups(slot, change, ack);
            self.tell_home_of_group(slot, change);
        }
    }

    /// Has the connections of a user leave a group in which its time is over, unless it has been renewed since then.
    pub(super) fn expire_user_group(&mut self, hub: HubIndex, over: &ExpiredMembership) {
        let ExpiredMembership { hub: key, user, group } = over;
        if !self.context.shared.user_groups.contain(key, user, group) {
            self.change_user_groups(hub, user.clone(), &MembershipChange::Leave(group.clone()), None);
        }
    }

    /// Changes the groups of a connection that is here, and tells the app whether that was done, if it asked.
    pub(super) fn change_groups(&mut self, slot: Slot, change: &MembershipChange, ack: Option<&PendingAck>) {
        let context = &self.context;
        let refusal = self.connections.change_groups(slot, change, &context.shared.settings.groups).err();
        self.delivery.watches.regrouped(&self.connections, slot);
        if let Some(arrival) = self.arrival_of(slot) {
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

    /// Tells the app server of a connection of a change that it can't know of: it restores the groups when the client is lost.
    fn tell_home_of_group(&self, slot: Slot, change: &MembershipChange) {
        let hubs = &self.context.shared.hubs;
        if let Some(client) = self.connections.get(slot).filter(|client| hubs.restores(&client.home)) {
            client.home.send(&change.notice(&client.id));
        }
    }

    /// Adds the members of a set that are here to a page of them, as far as there is room, and sends it on its way: to
    /// the next shard, or to the app server. One step reads each entry of the set's list once, as a send to it does.
    fn list_members(&mut self, mut listing: Box<MemberListing>) {
        let slots = self.connections.members_from(listing.hub(), listing.set(), listing.slot(), listing.room());
        for slot in slots {
            if listing.room() == 0 {
                break;
            }
            if let Some(client) = self.connections.get(slot) {
                let user_id = self.connections.user_of(client).map(ByteString::from);
                listing.add(slot, GroupMember { connection_id: ByteString::from(&*client.id), user_id });
            }
        }
        if listing.room() == 0 {
            return listing.answer();
        }
        listing.leave_shard();
        match self.context.shared.shards().get(usize::from(listing.shard())) {
            Some(next) => next.post(move |state| state.list_members(listing)),
            None => listing.answer_last(),
        }
    }

    /// Applies a command to a connection that is here; `is_own` if its own app server sent it.
    pub(super) fn apply_to_connection(
        &mut self,
        slot: Slot,
        (app, is_own): (AppServerId, bool),
        command: ConnectionCommand,
        mode: BatchMode,
    ) {
        match command {
            ConnectionCommand::Data { payload, kind } if is_own => self.apply_data(slot, &payload, kind, mode),
            ConnectionCommand::Mirrored { payload, kind } if is_own => self.apply_data(slot, &payload, kind, mode),
            ConnectionCommand::Mirrored { payload, .. } => self.take_mirrored(slot, app, &payload),
            ConnectionCommand::Mirror(order) => self.control_copy(slot, app, order),
            // Only its own app server may answer its calls, so that none is answered twice.
            ConnectionCommand::Data { .. } => self.context.counters.unknown_receivers.increment(),
            ConnectionCommand::Group { change, ack } => {
                self.change_groups(slot, &change, ack.as_deref());
                if !is_own {
                    self.tell_home_of_group(slot, &change);
                }
            }
            // Its own app server has sent a close message; for any other one we do.
            ConnectionCommand::Close { .. } if !is_own && self.has_left(slot, app) => {}
            ConnectionCommand::Close { error, cause, by } => {
                let error = error.as_deref().filter(|error| !error.is_empty());
                // By another link of its app server it comes from a part of that which does not have the connection.
                let home = self.connections.get(slot).map(|client| client.home.id());
                let is_own = is_own && by.is_none_or(|by| Some(by) == home);
                let reason = if is_own { CloseReason::by_app(error, cause) } else { CloseReason::ordered(error) };
                self.close(slot, &reason);
            }
            ConnectionCommand::Refresh { expires_s, ack } => self.refresh(slot, expires_s, &ack),
            ConnectionCommand::HandOver { headers } if is_own => self.hand_over(slot, &headers),
            // From any other than its own it is an answer that comes too late.
            ConnectionCommand::HandOver { .. } => self.late_hand_over(slot, app),
            ConnectionCommand::Invoke { asker, request, origin } => {
                self.apply_invoke(slot, is_own, asker, request, (origin, mode));
            }
            ConnectionCommand::Moved { from, epoch } => self.move_answered(slot, from, epoch),
            ConnectionCommand::Traced(report) => self.delivery.watches.reported(slot, &report),
            ConnectionCommand::Flow { operation: FlowOperation::PauseAck, by } if is_own => match by {
                Some(by) => self.pause_acknowledged(slot, by),
                None => self.departure_paused(slot),
            },
            ConnectionCommand::Flow { operation, .. } => self.apply_flow(slot, is_own, operation),
        }
    }

    /// Takes a hand-over of an app server that may have had a side home of a connection which has ended since.
    fn late_hand_over(&mut self, slot: Slot, app: AppServerId) {
        if let Some(client) = self.connections.get(slot).filter(|client| client.is_closing()) {
            let (hub, id) = (client.home.hub(), client.id.clone());
            self.given_away(hub, app, &id);
        }
    }

    /// Whether a connection was at this app server before, which may still end it for itself.
    fn has_left(&self, slot: Slot, app: AppServerId) -> bool {
        self.connections.get(slot).is_some_and(|client| client.cold.left == Some(app))
    }

    /// Rejects a command whose connection is not here.
    fn reject(&self, command: ConnectionCommand) {
        match command {
            ConnectionCommand::Invoke { asker, request, .. } => asker.answer(&no_such_connection(request)),
            // The ack that goes with it says that nobody was found.
            ConnectionCommand::Group { .. } | ConnectionCommand::Refresh { .. } => {}
            ConnectionCommand::HandOver { .. } | ConnectionCommand::Moved { .. } | ConnectionCommand::Traced(_) => {}
            ConnectionCommand::Mirrored { .. } | ConnectionCommand::Mirror(_) => {}
            ConnectionCommand::Data { .. } | ConnectionCommand::Close { .. } | ConnectionCommand::Flow { .. } => {
                self.context.counters.unknown_receivers.increment();
            }
        }
    }

    /// Gives a client that closes with its token another time for that.
    fn refresh(&mut self, slot: Slot, expires_s: u64, ack: &PendingAck) {
        if self.token_expiries.of(slot).is_some() {
            self.token_expiries.set(slot, expires_s);
        }
        ack.found();
    }

    /// Delivers bytes to one connection; the first are the answer to its hub handshake, if it had one.
    fn apply_data(&mut self, slot: Slot, payload: &[u8], kind: RawKind, mode: BatchMode) {
        let Some(client) = self.connections.live_mut(slot) else { return };
        if client.cold.is_leaving && self.take_goodbye(slot, payload) {
            return;
        }
        let Some(client) = self.connections.live_mut(slot) else { return };
        let is_handshake = matches!(client.status, Status::Opening { .. });
        client.status = Status::Open;
        self.compare_down(slot, payload);
        let Some(client) = self.connections.live_mut(slot) else { return };
        let Some(frame) =
            client.frame_data(payload, kind, self.context.shared.settings.rehoming.pending_calls_max, mode.now)
        else {
            return;
        };
        if is_handshake {
            self.context.record_app_handshake(client);
            self.delivery.put(slot, client, &frame, mode);
            if let Some(resumption) = client.cold.resumption.as_deref_mut() {
                resumption.ownership.hold();
            }
            self.send_owed_errors(slot, mode);
            self.open_sides(slot, payload);
            return self.refresh_pauses(slot);
        }
        self.delivery.put_counted(slot, client, &frame, mode);
        let leaves = client.cold.leave != LeaveStage::Stays;
        if client.cold.is_leaving {
            self.migrate_if_ready(slot);
        }
        if leaves {
            self.leave_behind_answer(slot);
        }
    }

    /// Whether calls of a hub may be answered by sends to one connection: its webhook ends a stream so. An app server's
    /// streams are its own.
    fn are_streams_of_back_ends(&self, hub: HubIndex) -> bool {
        self.context.shared.hubs.all().get(hub.get()).is_some_and(|hub| hub.has_webhook())
    }

    /// Notes that calls of these clients are answered by a back end, which has sent the end of a stream.
    fn note_answers(&mut self, hub: HubIndex, ids: &[ByteString], message: &Framed) {
        let (calls_max, now) = (self.context.shared.settings.rehoming.pending_calls_max, self.tick);
        for id in ids {
            let Some(slot) = self.connections.find(hub, id) else { continue };
            let Some(client) = self.connections.live_mut(slot) else { continue };
            let Content::Hub(protocol) = client.content else { continue };
            if client.cold.calls.are_none() {
                continue;
            }
            if let Some(Unframed::Payload(payload)) = message.get(client.content).and_then(unframe_whole) {
                client.cold.calls.filter(protocol, &payload);
            }
            if client.pause_reasons().contains(PauseReason::PendingCalls) && !client.has_too_many_calls(calls_max) {
                client.resume(PauseReason::PendingCalls, now);
            }
            let (is_leaving, leaves) = (client.cold.is_leaving, client.cold.leave != LeaveStage::Stays);
            if is_leaving {
                self.migrate_if_ready(slot);
            }
            if leaves {
                self.leave_behind_answer(slot);
            }
        }
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
        if let Some(arrival) = self.arrival_of(slot) {
            return arrival.requests.push((asker, request, origin));
        }
        if self.ownership_of(slot).is_some_and(|ownership| ownership.is_given()) {
            // The new owner asks it.
            return;
        }
        let (results, hubs) = (&self.context.shared.client_results, self.context.shared.hubs.all());
        let is_of_door = |home: &HomeLink| hubs.get(home.hub().get()).is_some_and(|hub| hub.is_of_door());
        if let Some(client) = self.connections.get_mut(slot).filter(|client| client.is_open())
            && let Content::Hub(protocol) = client.content
            && let Some(payload) = request.payloads.get(protocol)
            && (is_own || !is_of_door(&client.home) || results.begin(&asker, &request, Some(client.home.app())))
        {
            let frame = frame_for(protocol, payload);
            if !is_own {
                client.home.send(&ServiceMessage::ClientInvocation(request));
            }
            self.delivery.put_from(slot, client, &frame, (origin, mode));
        } else {
            asker.answer(&no_such_connection(request));
        }
    }

    fn apply_flow(&mut self, slot: Slot, is_own: bool, operation: FlowOperation) {
        let now = self.tick();
        match operation {
            FlowOperation::ReadOn if is_own => return self.read_on(slot),
            FlowOperation::EndInput if is_own => return self.end_input(slot),
            _ => {}
        }
        let Some(client) = self.connections.get_mut(slot).filter(|_| is_own) else { return };
        match operation {
            FlowOperation::Pause => client.pause(PauseReason::AppServer),
            FlowOperation::Resume => client.resume(PauseReason::AppServer, now),
            FlowOperation::PauseAck | FlowOperation::Offline | FlowOperation::ReadOn | FlowOperation::EndInput => {}
        }
    }
}

impl super::connection::Client {
    /// Transport frame around bytes of its app server, without late answers to failed calls; `None` if nothing is left.
    fn frame_data(&mut self, payload: &[u8], kind: RawKind, calls_max: usize, now: u32) -> Option<Bytes> {
        let protocol = match self.content {
            Content::Raw => return Some(raw_frame(kind, payload)),
            Content::Hub(protocol) => protocol,
        };
        if self.cold.calls.are_none() {
            return Some(frame_for(protocol, payload));
        }
        let payload = self.cold.calls.filter(protocol, payload);
        let frame = (!payload.is_empty()).then(|| frame_for(protocol, &payload));
        if self.pause_reasons().contains(PauseReason::PendingCalls) && !self.has_too_many_calls(calls_max) {
            self.resume(PauseReason::PendingCalls, now);
        }
        frame
    }
}

/// Error for an app server that asks a client which is not here for a result. Text of the official server.
#[must_use]
pub(crate) fn no_such_connection(request: ClientInvocation) -> ServiceMessage {
    let ClientInvocation { invocation_id, connection_id, caller_server_id, .. } = request;
    let error = format!("Connection '{connection_id}' does not exist.").into();
    ServiceMessage::ErrorCompletion(ErrorCompletion { invocation_id, connection_id, caller_server_id, error })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::command::MembershipChange;
    use crate::shard::connection::SetName;
    use crate::shard::testbed::{Testbed, whole_id};
    use crate::upstream::LinkHandle;

    const OWN: u32 = 7;

    fn one(bed: &Testbed, id: &str, slot: Slot, app: u32, command: ConnectionCommand) -> ShardCommand {
        let (hub, app, connection_id) = (bed.hub.index(), AppServerId::from(app), whole_id(id).into());
        ShardCommand::One { hub, app, connection_id, slot, command }
    }

    fn data(text: &str) -> ConnectionCommand {
        ConnectionCommand::Data { payload: Bytes::copy_from_slice(text.as_bytes()), kind: RawKind::Text }
    }

    #[test]
    fn only_the_own_app_server_may_send_data() {
        let mut bed = Testbed::new();
        let ann = bed.client("ann");
        let commands = vec![one(&bed, "ann", ann, OWN, data("own")), one(&bed, "ann", ann, 8, data("strange"))];
        bed.state.apply(commands);
        assert_eq!(bed.received(ann), ["own"]);
        assert_eq!(bed.state.context.counters.unknown_receivers.get(), 1);
    }

    #[test]
    fn another_node_is_not_the_app_server_of_a_client_that_has_none() {
        let mut bed = Testbed::new();
        let (ann, hub) = (bed.client("ann"), bed.hub.index());
        bed.state.connections.set_home(ann, &std::sync::Arc::new(LinkHandle::nowhere(hub)));
        let (app, connection_id) = (AppServerId::OTHER_NODE, whole_id("ann").into());
        bed.state.apply(vec![ShardCommand::One { hub, app, connection_id, slot: ann, command: data("strange") }]);
        assert_eq!(bed.received(ann), [""; 0]);
    }

    #[test]
    fn a_slot_that_another_connection_has_by_now_gets_nothing() {
        let mut bed = Testbed::new();
        let ann = bed.client("ann");
        bed.state.apply(vec![one(&bed, "ben", ann, OWN, data("for ben"))]);
        assert_eq!(bed.received(ann), [""; 0]);
    }

    #[test]
    fn the_first_data_opens_a_connection() {
        let mut bed = Testbed::new();
        let ann = bed.client("ann");
        bed.state.connections.get_mut(ann).unwrap().status = Status::Opening { until: 99 };
        bed.state.apply(vec![one(&bed, "ann", ann, OWN, data("{};"))]);
        assert!(bed.state.connections.get(ann).unwrap().is_open());
    }

    #[test]
    fn groups_change_by_command_and_outlive_no_close() {
        let mut bed = Testbed::new();
        let (ann, hub) = (bed.client("ann"), bed.hub.index());
        let join = ConnectionCommand::Group { change: MembershipChange::Join("g".into()), ack: None };
        bed.state.apply(vec![one(&bed, "ann", ann, OWN, join)]);
        assert_eq!(bed.state.connections.members(hub, SetName::Group("g")).len(), 1);
        let close = ConnectionCommand::Close { error: None, cause: None, by: None };
        bed.state.apply(vec![one(&bed, "ann", ann, OWN, close)]);
        assert!(bed.state.connections.members(hub, SetName::Group("g")).is_empty());
        assert_eq!(bed.received(ann), ["close"]);
    }

    #[test]
    fn a_close_by_another_app_server_sends_the_close_message_that_the_own_one_would() {
        let mut bed = Testbed::new();
        let ann = bed.client("ann");
        bed.state.apply(vec![one(
            &bed,
            "ann",
            ann,
            8,
            ConnectionCommand::Close { error: None, cause: None, by: None },
        )]);
        assert_eq!(bed.received(ann), [r#"{"type":7};"#, "close"]);
    }

    #[test]
    fn an_app_server_pauses_and_resumes_a_client() {
        let mut bed = Testbed::new();
        let ann = bed.client("ann");
        bed.state.apply(vec![one(
            &bed,
            "ann",
            ann,
            OWN,
            ConnectionCommand::Flow { operation: FlowOperation::Pause, by: None },
        )]);
        assert!(bed.state.connections.get(ann).unwrap().pause_reasons().contains(PauseReason::AppServer));
        bed.state.apply(vec![one(
            &bed,
            "ann",
            ann,
            OWN,
            ConnectionCommand::Flow { operation: FlowOperation::Resume, by: None },
        )]);
        assert!(bed.state.connections.get(ann).unwrap().pause_reasons().are_none());
    }

    #[test]
    fn a_client_with_the_maximum_of_pending_calls_is_paused_until_one_is_answered() {
        let mut bed = Testbed::with(|settings| settings.rehoming.pending_calls_max = 1);
        let ann = bed.client("ann");
        bed.state.begin_call(ann, "1");
        assert!(bed.state.connections.get(ann).unwrap().pause_reasons().contains(PauseReason::PendingCalls));
        let answer = "{\"type\":3,\"invocationId\":\"1\",\"result\":2}\u{1e}";
        bed.state.apply(vec![one(&bed, "ann", ann, OWN, data(answer))]);
        assert!(bed.state.connections.get(ann).unwrap().pause_reasons().are_none());
        assert_eq!(bed.received(ann).len(), 1);
    }
}
