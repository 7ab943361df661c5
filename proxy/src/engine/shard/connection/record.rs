//! Record of one client connection in its shard.

use std::rc::Rc;

use trunkline_protocol::fleet::Ownership;
use trunkline_protocol::hub::{HubProtocol, MessageKind};
use trunkline_protocol::manifest::Transport;

use super::assignment::Role;
use super::{Assignment, ClientAssignments, ColdState, LifeCycle, Liveness, PauseReason, Pauses, Resumption, Wire};
use crate::engine::shard::content::{Content, FrameForm};
use crate::engine::shard::slot::Serial;
use crate::engine::upstream::{AppServerId, HomeLink};
use crate::ground::net::socket::Socket;

/// Record of a client connection. An idle client costs little more memory.
///
/// Fields read by a delivery come first and together: with many clients, memory accesses determine the cost.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Client {
    life: LifeCycle,
    exclusion_epoch: u64,
    liveness: Liveness,
    form: FrameForm,
    /// Resumable over another socket: frames are numbered and kept.
    is_resumable: bool,
    wire: Wire,
    /// Distinguishes it from earlier clients in its slot.
    serial: Serial,
    traits: ClientTraits,
    /// Link that carries its upstream frames, and determines its hub and app server.
    home: HomeLink,
    pub(crate) id: Rc<str>,
    cold: Box<ColdState>,
    memberships: Vec<MembershipEntry>,
}

/// Immutable properties of a client connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientTraits {
    pub transport: Transport,
    /// The id comes from a token, so it has to be kept after the close.
    pub is_negotiated: bool,
    /// A slow client misses broadcasts instead of being closed.
    pub may_miss: bool,
}

impl Default for ClientTraits {
    fn default() -> Self {
        Self { transport: Transport::WebSockets, is_negotiated: false, may_miss: false }
    }
}

/// Back reference from a client to its entry in a set.
#[derive(Debug, Clone, Copy)]
pub(super) struct MembershipEntry {
    pub(super) set: u32,
    pub(super) place: u32,
}

impl Client {
    pub(crate) fn new(id: Rc<str>, serial: Serial, home: HomeLink, content: Content, socket: Socket) -> Self {
        Self {
            id,
            serial,
            home,
            form: FrameForm::new(content, false),
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

    pub(crate) fn set_traits(&mut self, traits: ClientTraits, liveness: Liveness) {
        (self.traits, self.liveness) = (traits, liveness);
    }

    #[inline]
    pub(crate) fn home(&self) -> &HomeLink {
        &self.home
    }

    pub(super) fn set_home(&mut self, home: &HomeLink) {
        self.home = HomeLink::clone(home);
    }

    pub(super) fn memberships(&self) -> &[MembershipEntry] {
        &self.memberships
    }

    pub(super) fn memberships_mut(&mut self) -> &mut Vec<MembershipEntry> {
        &mut self.memberships
    }

    #[inline]
    pub(crate) fn content(&self) -> Content {
        self.form.content()
    }

    #[inline]
    pub(crate) fn form(&self) -> FrameForm {
        self.form
    }

    /// Sets whether the client's socket negotiated compression.
    pub(crate) fn set_compressed(&mut self, is_compressed: bool) {
        self.form = FrameForm::new(self.content(), is_compressed);
    }

    #[inline]
    pub(crate) fn serial(&self) -> Serial {
        self.serial
    }

    pub(crate) fn traits(&self) -> ClientTraits {
        self.traits
    }

    #[inline]
    pub(crate) fn wire(&self) -> &Wire {
        &self.wire
    }

    #[inline]
    pub(crate) fn wire_mut(&mut self) -> &mut Wire {
        &mut self.wire
    }

    #[inline]
    pub(crate) fn liveness(&self) -> Liveness {
        self.liveness
    }

    #[inline]
    pub(crate) fn liveness_mut(&mut self) -> &mut Liveness {
        &mut self.liveness
    }

    pub(crate) fn cold(&self) -> &ColdState {
        &self.cold
    }

    pub(crate) fn cold_mut(&mut self) -> &mut ColdState {
        &mut self.cold
    }

    #[inline]
    pub(crate) fn life(&self) -> LifeCycle {
        self.life
    }

    #[inline]
    pub(crate) fn life_mut(&mut self) -> &mut LifeCycle {
        &mut self.life
    }

    /// Whether the client can be opened at another app server. Not a raw connection, whose new handler could not obtain
    /// the position of the old one; nor a Blazor circuit, which exists only in its app server and whose client
    /// reconnects automatically.
    pub(crate) fn can_move(&self) -> bool {
        let is_mute = matches!(self.content(), Content::Raw | Content::Hub(HubProtocol::BlazorPack));
        !is_mute && self.cold.opening().is_some()
    }

    /// Whether the client can resume at another node without noticing. Not with secondaries, which that node would not
    /// have.
    pub(crate) fn moves_unnoticed(&self) -> bool {
        let comes_back = self.cold.resumption().is_some() && self.assignments().secondaries().is_none();
        comes_back && self.can_move() && self.home.lets_clients_move()
    }

    /// Whether the app server can hand the client over. For a raw endpoint the app may permit this, since the old
    /// handler has read all earlier data.
    pub(crate) fn can_be_handed_over(&self) -> bool {
        let is_raw = self.content() == Content::Raw && self.cold.origin().is_movable && self.cold.opening().is_some();
        is_raw || self.can_move()
    }

    /// Records a pending call if another app server may have to answer it. Pauses the client at the maximum.
    pub(crate) fn begin_call(&mut self, (invocation_id, kind): (&str, MessageKind), calls_max: usize) {
        if self.can_move() {
            let calls = self.assignments_mut().home_mut().calls_mut();
            calls.begin_call(invocation_id, kind);
            let is_full = calls.is_full(calls_max);
            self.life.called();
            if is_full {
                self.cold.pauses_mut().add_reason(PauseReason::PendingCalls);
            }
        }
    }

    /// Role of an app server for this client; `None` if not assigned.
    pub(crate) fn role_of(&self, app: AppServerId) -> Option<Role> {
        if self.home.app == app {
            return Some(Role::Home);
        }
        let secondary = self.assignments().secondaries()?.at_app(app)?;
        Some(Role::Secondary(secondary.group.clone()))
    }

    pub(crate) fn link_of(&self, role: &Role) -> Option<&HomeLink> {
        match role {
            Role::Home => Some(&self.home),
            Role::Secondary(group) => Some(&self.assignments().secondaries()?.find(group)?.link),
        }
    }

    pub(crate) fn is_unassigned(&self) -> bool {
        !self.life.is_closed() && self.assignments().home().waits_since().is_some()
    }

    /// Changes one assignment, and pauses or resumes reading accordingly.
    pub(crate) fn change_assignment(&mut self, role: &Role, now: u32, change: impl FnOnce(&mut Assignment)) {
        if let Some(assignment) = self.assignments_mut().of_mut(role) {
            change(assignment);
        }
        self.refresh_pauses(now);
    }

    #[inline]
    pub(crate) fn pauses(&self) -> &Pauses {
        self.cold.pauses()
    }

    #[inline]
    pub(crate) fn pauses_mut(&mut self) -> &mut Pauses {
        self.cold.pauses_mut()
    }

    pub(crate) fn assignments(&self) -> &ClientAssignments {
        self.cold.assignments()
    }

    pub(crate) fn assignments_mut(&mut self) -> &mut ClientAssignments {
        self.cold.assignments_mut()
    }

    /// Pauses or resumes reading as its assignments require.
    pub(crate) fn refresh_pauses(&mut self, now: u32) {
        if self.life.is_closed() {
            return;
        }
        let wanted = self.assignments().wanted_pauses();
        // Added first, so that reading never resumes between two reasons.
        wanted
            .iter()
            .filter(|(_, is_wanted)| *is_wanted)
            .for_each(|(reason, _)| self.cold.pauses_mut().add_reason(*reason));
        wanted.iter().filter(|(_, is_wanted)| !is_wanted).for_each(|(reason, _)| self.resume(*reason, now));
    }

    /// Removes a pause reason. If it was the last one, reading resumes and the silence timeout restarts.
    pub(crate) fn resume(&mut self, reason: PauseReason, now: u32) {
        if self.cold.pauses_mut().remove(reason) {
            self.liveness.note_received(now);
        }
    }

    pub(crate) fn cut(&mut self) {
        self.wire.socket().cut();
        self.cold.pauses_mut().cut();
    }

    /// Detaches the client from the tasks of its old socket. Tasks with this serial serve it from now on.
    pub(crate) fn change_serial(&mut self, serial: Serial) {
        self.serial = serial;
        self.cold.pauses_mut().change_reader();
    }

    pub(crate) fn make_resumable(&mut self, ownership: Ownership<AppServerId>) {
        self.is_resumable = true;
        self.cold.set_resumption(Resumption::new(ownership));
    }

    #[inline]
    pub(crate) fn is_resumable(&self) -> bool {
        self.is_resumable
    }

    /// Whether the client has no socket but may return.
    pub(crate) fn is_away(&self) -> bool {
        self.is_resumable && self.cold.resumption().is_some_and(Resumption::is_away)
    }

    /// Whether the client is moving to or from another node.
    pub(crate) fn is_in_transit(&self) -> bool {
        self.is_resumable && self.cold.resumption().is_some_and(|resumption| !resumption.ownership().is_owned())
    }

    /// Excludes the client from the send of this epoch.
    pub(super) fn exclude(&mut self, epoch: u64) {
        self.exclusion_epoch = epoch;
    }

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
