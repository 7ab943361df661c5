//! Record of one client connection in its shard.

use std::rc::Rc;

use trunkline_protocol::fleet::Ownership;
use trunkline_protocol::hub::HubProtocol;
use trunkline_protocol::manifest::Transport;

use super::assignment::Role;
use super::{Assignment, ClientAssignments, ColdState, LifeCycle, Liveness, PauseReason, Pauses, Resumption, Wire};
use crate::net::socket::Socket;
use crate::shard::content::Content;
use crate::shard::slot::Serial;
use crate::upstream::{AppServerId, HomeLink};

/// Record of a client connection. An idle one costs little more than this.
///
/// The fields that a delivery reads come first, together: with many clients its price is the memory it touches.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Client {
    life: LifeCycle,
    exclusion_epoch: u64,
    liveness: Liveness,
    content: Content,
    /// It may go on over another socket: frames for it are numbered and kept.
    is_resumable: bool,
    wire: Wire,
    /// Distinguishes it from others that had its slot.
    serial: Serial,
    traits: ClientTraits,
    /// Carries all its upward frames, and names its hub and its app server.
    home: HomeLink,
    id: Rc<str>,
    cold: Box<ColdState>,
    memberships: Vec<MembershipEntry>,
}

/// Properties of a client connection that never change.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientTraits {
    pub transport: Transport,
    /// A token names its id, so the id has to be remembered after the close.
    pub is_negotiated: bool,
    /// A slow client misses sends to many instead of being closed.
    pub may_miss: bool,
}

impl Default for ClientTraits {
    fn default() -> Self {
        Self { transport: Transport::WebSockets, is_negotiated: false, may_miss: false }
    }
}

/// Back reference from a client to its place in a set.
#[derive(Debug, Clone, Copy)]
pub(super) struct MembershipEntry {
    pub(super) set: u32,
    pub(super) place: u32,
}

impl Client {
    #[must_use]
    pub(crate) fn new(id: Rc<str>, serial: Serial, home: HomeLink, content: Content, socket: Socket) -> Self {
        Self {
            id,
            serial,
            home,
            content,
            wire: Wire::new(socket),
            liveness: Liveness::default(),
            traits: ClientTraits::default(),
            life: LifeCycle::default(),
            is_resumable: false,
            cold: Box::default(),
            exclusion_epoch: 0,
            memberships: Vec::new(),
        }
    }

    /// Sets the properties that never change, and the liveness to begin with.
    pub(crate) fn begin(&mut self, traits: ClientTraits, liveness: Liveness) {
        (self.traits, self.liveness) = (traits, liveness);
    }

    #[must_use]
    #[inline]
    pub(crate) fn id(&self) -> &Rc<str> {
        &self.id
    }

    /// Link that carries all its upward frames, and names its hub and its app server.
    #[must_use]
    #[inline]
    pub(crate) fn home(&self) -> &HomeLink {
        &self.home
    }

    pub(super) fn set_home(&mut self, home: &HomeLink) {
        self.home = HomeLink::clone(home);
    }

    /// Its places in the sets that it belongs to.
    #[must_use]
    pub(super) fn memberships(&self) -> &[MembershipEntry] {
        &self.memberships
    }

    pub(super) fn memberships_mut(&mut self) -> &mut Vec<MembershipEntry> {
        &mut self.memberships
    }

    #[must_use]
    #[inline]
    pub(crate) fn content(&self) -> Content {
        self.content
    }

    /// Number that distinguishes it from others that had its slot.
    #[must_use]
    #[inline]
    pub(crate) fn serial(&self) -> Serial {
        self.serial
    }

    #[must_use]
    pub(crate) fn traits(&self) -> ClientTraits {
        self.traits
    }

    /// Its socket, and the frames that wait for it.
    #[must_use]
    #[inline]
    pub(crate) fn wire(&self) -> &Wire {
        &self.wire
    }

    #[inline]
    pub(crate) fn wire_mut(&mut self) -> &mut Wire {
        &mut self.wire
    }

    #[must_use]
    #[inline]
    pub(crate) fn liveness(&self) -> Liveness {
        self.liveness
    }

    #[inline]
    pub(crate) fn liveness_mut(&mut self) -> &mut Liveness {
        &mut self.liveness
    }

    /// Fields that no delivery reads.
    #[must_use]
    pub(crate) fn cold(&self) -> &ColdState {
        &self.cold
    }

    pub(crate) fn cold_mut(&mut self) -> &mut ColdState {
        &mut self.cold
    }

    /// Stage in its life.
    #[must_use]
    #[inline]
    pub(crate) fn life(&self) -> LifeCycle {
        self.life
    }

    #[inline]
    pub(crate) fn life_mut(&mut self) -> &mut LifeCycle {
        &mut self.life
    }

    /// Whether it can be opened at another app server, whatever has become of its own. A raw endpoint's can't: nothing
    /// could tell the handler there where the one before had come to. Nor can a circuit of Blazor, which lives in its
    /// app server: its client comes back to it by itself.
    #[must_use]
    pub(crate) fn can_move(&self) -> bool {
        let is_mute = matches!(self.content, Content::Raw | Content::Hub(HubProtocol::BlazorPack));
        !is_mute && self.cold.opening().is_some()
    }

    /// Whether its client can come back at another node without noticing it. Not one with side homes, which that node
    /// does not know.
    #[must_use]
    pub(crate) fn moves_unnoticed(&self) -> bool {
        let comes_back = self.cold.resumption().is_some() && self.assignments().sides().is_none();
        comes_back && self.can_move() && self.home.lets_clients_move()
    }

    /// Whether its app server can hand it over. A raw endpoint's app may let it: the handler that was there has read
    /// all that came before.
    #[must_use]
    pub(crate) fn can_be_handed_over(&self) -> bool {
        let is_raw = self.content == Content::Raw && self.cold.origin().is_movable && self.cold.opening().is_some();
        is_raw || self.can_move()
    }

    /// Notes a pending call, if another app server may have to answer it. A client with the maximum of them is paused.
    pub(crate) fn begin_call(&mut self, invocation_id: &str, calls_max: usize) {
        if self.can_move() {
            let calls = self.assignments_mut().home_mut().calls_mut();
            calls.begin(invocation_id);
            let is_full = calls.is_full(calls_max);
            self.life.called();
            if is_full {
                self.cold.pauses_mut().add(PauseReason::PendingCalls);
            }
        }
    }

    /// Role of an app server for it; `None` of one that does not have it.
    #[must_use]
    pub(crate) fn role_of(&self, app: AppServerId) -> Option<Role> {
        if self.home.app() == app {
            return Some(Role::Home);
        }
        let side = self.assignments().sides()?.at_app(app)?;
        Some(Role::Side(side.group.clone()))
    }

    /// Link of an app server of it.
    #[must_use]
    pub(crate) fn link_of(&self, role: &Role) -> Option<&HomeLink> {
        match role {
            Role::Home => Some(&self.home),
            Role::Side(group) => Some(&self.assignments().sides()?.find(group)?.link),
        }
    }

    /// Whether it has no home, and waits for one.
    #[must_use]
    pub(crate) fn is_unassigned(&self) -> bool {
        !self.life.is_closed() && self.assignments().home().waits_since().is_some()
    }

    /// Changes one of its assignments, and pauses or resumes reading it as they all want it then.
    pub(crate) fn change_assignment(&mut self, role: &Role, now: u32, change: impl FnOnce(&mut Assignment)) {
        if let Some(assignment) = self.assignments_mut().of_mut(role) {
            change(assignment);
        }
        self.refresh_pauses(now);
    }

    /// Reasons for which it is not read.
    #[must_use]
    #[inline]
    pub(crate) fn pauses(&self) -> &Pauses {
        self.cold.pauses()
    }

    #[inline]
    pub(crate) fn pauses_mut(&mut self) -> &mut Pauses {
        self.cold.pauses_mut()
    }

    /// Its assignments to app servers.
    #[must_use]
    pub(crate) fn assignments(&self) -> &ClientAssignments {
        self.cold.assignments()
    }

    pub(crate) fn assignments_mut(&mut self) -> &mut ClientAssignments {
        self.cold.assignments_mut()
    }

    /// Pauses or resumes reading it as its assignments want it.
    pub(crate) fn refresh_pauses(&mut self, now: u32) {
        if self.life.is_closed() {
            return;
        }
        let wanted = self.assignments().wanted_pauses();
        // One that goes from a reason to another is not read in between.
        wanted.iter().filter(|(_, is_wanted)| *is_wanted).for_each(|(reason, _)| self.cold.pauses_mut().add(*reason));
        wanted.iter().filter(|(_, is_wanted)| !is_wanted).for_each(|(reason, _)| self.resume(*reason, now));
    }

    /// Removes a reason to pause. When none is left it is read again, from this tick on: its silence while it was not
    /// read is not held against it.
    pub(crate) fn resume(&mut self, reason: PauseReason, now: u32) {
        if self.cold.pauses_mut().remove(reason) {
            self.liveness.heard(now);
        }
    }

    pub(crate) fn cut(&mut self) {
        self.wire.socket().cut();
        self.cold.pauses_mut().cut();
    }

    /// Takes it from the tasks that serve its socket: those of this serial do from now on.
    pub(crate) fn change_serial(&mut self, serial: Serial) {
        self.serial = serial;
        self.cold.pauses_mut().change_reader();
    }

    /// Lets it go on over another socket: frames for it are numbered and kept from now on.
    pub(crate) fn make_resumable(&mut self, ownership: Ownership<AppServerId>) {
        self.is_resumable = true;
        self.cold.set_resumption(Resumption::new(ownership));
    }

    /// Whether it may go on over another socket.
    #[must_use]
    #[inline]
    pub(crate) fn is_resumable(&self) -> bool {
        self.is_resumable
    }

    /// Whether it has no socket, and may come back.
    #[must_use]
    pub(crate) fn is_away(&self) -> bool {
        self.is_resumable && self.cold.resumption().is_some_and(Resumption::is_away)
    }

    /// Whether it is on its way to another node, or from one.
    #[must_use]
    pub(crate) fn is_in_transit(&self) -> bool {
        self.is_resumable && self.cold.resumption().is_some_and(|resumption| !resumption.ownership().is_owned())
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
        assert!(offset_of!(Client, wire) + size_of::<Wire>() <= 128);
        assert!(size_of::<Client>() <= 192, "{}", size_of::<Client>());
    }
}
