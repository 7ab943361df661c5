//! Record of one client connection in its shard.

use std::iter;
use std::rc::Rc;

use tokio::sync::Notify;
use trunkline_protocol::hub::HubProtocol;
use trunkline_protocol::manifest::Transport;

use super::assignment::{Assignment, LetGo, Role};
use super::{ColdState, LeaveStage, PauseReason, PauseReasons};
use crate::net::socket::Socket;
use crate::shard::content::Content;
use crate::shard::delivery::outbox::Outbox;
use crate::shard::slot::Serial;
use crate::upstream::{AppServerId, HomeLink};

/// Record of a client connection. An idle one costs little more than this.
///
/// The fields that a delivery reads come first, together: with many clients its price is the memory it touches.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Client {
    pub status: Status,
    exclusion_epoch: u64,
    /// Tick at which a hub message was sent to it last; frames of the transport don't count.
    pub last_sent: u32,
    /// Batch in which deferred frames of it were written last.
    pub written_in: u32,
    pub content: Content,
    /// It has deferred frames, which leave at the end of this batch.
    pub is_dirty: bool,
    /// A task waits until its socket takes more.
    pub is_flushing: bool,
    /// Its time-out counts from its first ping on.
    pub has_pinged: bool,
    /// It may go on over another socket: what is sent to it is numbered and kept.
    pub is_resumable: bool,
    pub outbox: Outbox,
    /// Read by the connection's own task, written by each delivery.
    pub socket: Socket,
    /// Tick at which a hub message, or a part of one, came from it last; at a raw endpoint anything.
    pub last_heard: u32,
    /// Tells it from others that had its slot.
    pub serial: Serial,
    /// HomeLink link: carries all its upward frames, and names its hub and its app server.
    pub home: HomeLink,
    pub id: Rc<str>,
    /// Fields that no delivery reads.
    pub cold: Box<ColdState>,
    pause_reasons: PauseReasons,
    pub transport: Transport,
    /// A token names its id, so that the id has to be remembered after the close.
    pub is_negotiated: bool,
    /// When it reads too slowly it misses sends to many, and is not closed.
    pub may_miss: bool,
    /// Its transport shows by itself that it lives: no pings, no time-out.
    pub has_inherent_keep_alive: bool,
    pub(super) memberships: Vec<MembershipEntry>,
}

/// Back reference from a client to its place in a set.
#[derive(Debug, Clone, Copy)]
pub(super) struct MembershipEntry {
    pub(super) set: u32,
    pub(super) place: u32,
}

/// Stage in the life of a client connection.
///
/// ```text
///  Opening ──app server answers the hub handshake──► Open ◄── at once, at a raw endpoint
///     └───────────────a close───────────┬───────────┘
///                                        ▼
///                                     Closing ──socket ends, or it is time──► removed
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// The app server has not answered the hub handshake: only its answer may go out.
    Opening {
        /// Tick at which the client is closed for it.
        until: u32,
    },
    Open,
    /// Closed by either side; what waits is still flushed, nothing new is sent.
    Closing,
}

impl Client {
    #[must_use]
    pub(crate) fn new(id: Rc<str>, serial: Serial, home: HomeLink, content: Content, socket: Socket) -> Self {
        Self {
            id,
            serial,
            home,
            content,
            socket,
            outbox: Outbox::Empty,
            status: Status::Opening { until: u32::MAX },
            last_sent: 0,
            written_in: 0,
            last_heard: 0,
            transport: Transport::WebSockets,
            is_negotiated: false,
            has_inherent_keep_alive: false,
            has_pinged: false,
            is_resumable: false,
            may_miss: false,
            is_dirty: false,
            is_flushing: false,
            cold: Box::default(),
            pause_reasons: PauseReasons::default(),
            exclusion_epoch: 0,
            memberships: Vec::new(),
        }
    }

    /// Whether sends to many reach it.
    #[must_use]
    pub(crate) fn is_open(&self) -> bool {
        self.status == Status::Open
    }

    /// Whether it is closed, and only its socket is left.
    #[must_use]
    pub(crate) fn is_closing(&self) -> bool {
        self.status == Status::Closing
    }

    /// Whether it can be opened at another app server, whatever has become of its own. A raw endpoint's can't: nothing
    /// could tell the handler there where the one before had come to. Nor can a circuit of Blazor, which lives in its
    /// app server: its client comes back to it by itself.
    #[must_use]
    pub(crate) fn can_move(&self) -> bool {
        let is_mute = matches!(self.content, Content::Raw | Content::Hub(HubProtocol::BlazorPack));
        !is_mute && self.cold.opening.is_some()
    }

    /// Whether another node may take it over. Not one with side homes, of which that would know nothing.
    #[must_use]
    pub(crate) fn moves_unnoticed(&self) -> bool {
        self.can_move() && self.cold.sides.is_none() && self.home.lets_clients_move()
    }

    /// Whether its app server can hand it over. A raw endpoint's app may let it: the handler that was there has read
    /// all that came before.
    #[must_use]
    pub(crate) fn can_be_handed_over(&self) -> bool {
        let is_raw = self.content == Content::Raw && self.cold.is_movable && self.cold.opening.is_some();
        is_raw || self.can_move()
    }

    /// Whether it goes on when its home is lost now.
    #[must_use]
    pub(crate) fn outlives_home(&self) -> bool {
        self.can_move() || (self.can_be_handed_over() && self.cold.assignment.let_go == Some(LetGo::HandedOver))
    }

    /// Whether another app server hears of its end, if its own does not: one that it was handed over by does not.
    #[must_use]
    pub(crate) fn has_successor(&self) -> bool {
        self.can_move() || (self.can_be_handed_over() && self.cold.assignment.is_leaving)
    }

    /// Notes a pending call, if another app server may have to answer it. A client with the maximum of them is paused.
    pub(crate) fn begin_call(&mut self, invocation_id: &str, calls_max: usize) {
        if self.can_move() {
            self.cold.assignment.calls.begin(invocation_id);
            if self.cold.leave == LeaveStage::Waits {
                self.cold.leave = LeaveStage::Calls;
            }
            if self.cold.assignment.calls.is_full(calls_max) {
                self.pause(PauseReason::PendingCalls);
            }
        }
    }

    /// Whether it has the maximum of pending calls at any of its app servers.
    #[must_use]
    pub(crate) fn has_too_many_calls(&self, calls_max: usize) -> bool {
        self.assignments().any(|assignment| assignment.calls.is_full(calls_max))
    }

    /// Role of an app server for it; `None` of one that does not have it.
    #[must_use]
    pub(crate) fn role_of(&self, app: AppServerId) -> Option<Role> {
        if self.home.app() == app {
            return Some(Role::Home);
        }
        let side = self.cold.sides.as_ref()?.at_app(app)?;
        Some(Role::Side(side.group.clone()))
    }

    /// Link of an app server of it.
    #[must_use]
    pub(crate) fn link_of(&self, role: &Role) -> Option<&HomeLink> {
        match role {
            Role::Home => Some(&self.home),
            Role::Side(group) => Some(&self.cold.sides.as_ref()?.find(group)?.link),
        }
    }

    #[must_use]
    pub(crate) fn assignment(&self, role: &Role) -> Option<&Assignment> {
        match role {
            Role::Home => Some(&self.cold.assignment),
            Role::Side(group) => Some(&self.cold.sides.as_ref()?.find(group)?.assignment),
        }
    }

    pub(crate) fn assignment_mut(&mut self, role: &Role) -> Option<&mut Assignment> {
        match role {
            Role::Home => Some(&mut self.cold.assignment),
            Role::Side(group) => Some(&mut self.cold.sides.as_mut()?.of_group(group)?.assignment),
        }
    }

    /// Assignments of its home and of its side homes.
    pub(crate) fn assignments(&self) -> impl Iterator<Item = &Assignment> {
        let sides = self.cold.sides.iter().flat_map(|sides| sides.iter());
        iter::once(&self.cold.assignment).chain(sides.map(|side| &side.assignment))
    }

    /// Whether it has no home, and waits for one.
    #[must_use]
    pub(crate) fn is_unassigned(&self) -> bool {
        !self.is_closing() && self.cold.assignment.waits_since().is_some()
    }

    /// Changes one of its assignments, and pauses or resumes reading it as they all want it then.
    pub(crate) fn change_assignment(&mut self, role: &Role, now: u32, change: impl FnOnce(&mut Assignment)) {
        if let Some(assignment) = self.assignment_mut(role) {
            change(assignment);
        }
        self.refresh_pauses(now);
    }

    /// Pauses or resumes reading it as its assignments want it.
    pub(crate) fn refresh_pauses(&mut self, now: u32) {
        if self.is_closing() {
            return;
        }
        let any = |wants: fn(&Assignment) -> bool| self.assignments().any(wants);
        let wanted = [
            (PauseReason::AppServer, any(|assignment| assignment.is_paused)),
            (PauseReason::HandingOver, any(|assignment| assignment.holds_input)),
            (PauseReason::Unassigned, any(|assignment| assignment.waits_since().is_some())),
        ];
        // One that goes from a reason to another is not read in between.
        wanted.iter().filter(|(_, is_wanted)| *is_wanted).for_each(|(reason, _)| self.pause(*reason));
        wanted.iter().filter(|(_, is_wanted)| !is_wanted).for_each(|(reason, _)| self.resume(*reason, now));
    }

    /// Pauses reading it, for this reason.
    pub(crate) fn pause(&mut self, reason: PauseReason) {
        self.pause_reasons.add(reason);
    }

    /// Removes a reason to pause. When none is left it is read again, from this tick on: its silence while it was not
    /// read is not held against it.
    pub(crate) fn resume(&mut self, reason: PauseReason, now: u32) {
        if !self.pause_reasons.contains(reason) {
            return;
        }
        self.pause_reasons.remove(reason);
        if self.pause_reasons.are_none() {
            self.last_heard = now;
            self.wake_reader();
        }
    }

    /// Removes all reasons to pause: the connection is closing.
    pub(crate) fn resume_all(&mut self) {
        self.pause_reasons = PauseReasons::default();
        self.wake_reader();
    }

    /// Whether it is not read for now.
    #[must_use]
    pub(crate) fn is_paused(&self) -> bool {
        !self.pause_reasons.are_none()
    }

    #[must_use]
    pub(crate) fn pause_reasons(&self) -> PauseReasons {
        self.pause_reasons
    }

    /// Notification that its reader waits for; `None` unless it is paused.
    pub(crate) fn resumed(&mut self) -> Option<Rc<Notify>> {
        (self.is_paused() && !self.cold.is_cut).then(|| Rc::clone(self.cold.resumed.get_or_insert_default()))
    }

    /// Cuts its socket. A reader that waits because the client is paused reads nothing but the end.
    pub(crate) fn cut(&mut self) {
        self.socket.cut();
        self.cold.is_cut = self.is_paused();
        if self.cold.is_cut {
            self.wake_reader();
        }
    }

    /// Whether its socket was cut while it was paused.
    #[must_use]
    pub(crate) fn is_cut(&self) -> bool {
        self.cold.is_cut
    }

    /// Takes it from the tasks that serve its socket: those of this serial do from now on.
    pub(crate) fn change_serial(&mut self, serial: Serial) {
        self.serial = serial;
        self.cold.is_cut = false;
        // Reasons of its reader, which is another one from now on.
        [PauseReason::FullLink, PauseReason::Throttled].into_iter().for_each(|it| self.pause_reasons.remove(it));
        self.wake_reader();
    }

    /// Whether it has no socket, and may come back.
    #[must_use]
    pub(crate) fn is_away(&self) -> bool {
        self.is_resumable && self.cold.resumption.as_ref().is_some_and(|it| it.ownership.absence().is_some())
    }

    /// Whether it is on its way to another node, or from one.
    #[must_use]
    pub(crate) fn is_in_transit(&self) -> bool {
        self.is_resumable && self.cold.resumption.as_ref().is_some_and(|resumption| !resumption.ownership.is_owned())
    }

    /// Bytes that wait because its socket takes no more, or because it does not acknowledge them.
    #[must_use]
    pub(crate) fn waiting_bytes(&self) -> usize {
        let unwritten = if self.is_flushing { self.outbox.bytes() } else { 0 };
        unwritten + self.cold.resumption.as_ref().map_or(0, |resumption| resumption.ownership.bytes())
    }

    fn wake_reader(&mut self) {
        if let Some(resumed) = self.cold.resumed.take() {
            resumed.notify_waiters();
        }
    }

    /// Excludes it from the send of this epoch.
    pub(super) fn exclude(&mut self, epoch: u64) {
        self.exclusion_epoch = epoch;
    }

    /// Whether it was excluded from the send of this epoch.
    #[must_use]
    pub(crate) fn is_excluded(&self, epoch: u64) -> bool {
        self.exclusion_epoch == epoch
    }
}

#[cfg(test)]
mod tests {
    use std::mem::{offset_of, size_of};

    use super::*;

    #[test]
    fn a_delivery_touches_two_cache_lines_of_a_client_and_all_of_it_is_small() {
        assert!(offset_of!(Client, socket) + size_of::<Socket>() <= 128);
        assert!(size_of::<Client>() <= 192, "{}", size_of::<Client>());
    }
}
