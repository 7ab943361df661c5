//! Assignment of a client connection to an app server: primary, or secondary for some methods.
//!
//! ```text
//!  unassigned ──► opening ──handshake response───────────► open ◄── opened elsewhere (Migrate-From)
//!    ▲  │ ▲          └─ an error ──► refused                 │
//!    │  │ └──────────── lost, or handed over ────────────────┘
//!    │  └─ --hold-timeout ──► primary: closed; secondary: given up, its calls fail
//!    └───────────────────────────────────────────────────────────────┘ an app server becomes available
//! ```
//!
//! Each assignment has the calls that its app server is running. Together they decide whether the client is read: see
//! [`PauseReason`](super::PauseReason). Pure.

use std::sync::Arc;

use bytestring::ByteString;
use trunkline_protocol::hub::HandshakeRequest;
use trunkline_protocol::manifest::MIGRATE_TO_HEADER;
use trunkline_protocol::service::{
    CloseConnection, ConnectionFlowControl, FlowOperation, FlowSubject, OpenConnection, ServiceMessage,
};

use super::PendingCalls;
use crate::engine::shard::content::{Content, DATA_TYPE_HANDSHAKE};
use crate::engine::upstream::{AppServerId, LinkHandle};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    /// Primary: receives all messages that no secondary receives.
    Home,
    /// Secondary: receives the methods that rules assign to its group.
    Secondary(Arc<str>),
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AssignmentStage {
    /// No app server. Contains the tick since which the client waits, if it does.
    Unassigned { waits_since: Option<u32> },
    /// Secondary without a response to the hub handshake.
    Opening,
    #[default]
    Open,
    /// No app server became available in time.
    GivenUp,
    /// The app server refused the connection.
    Refused,
}

/// Reason why an app server released a connection that continues elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReleaseReason {
    /// Handed over, without a disconnect in the app.
    HandedOver,
    /// Closed by the app server when it stopped.
    Ended,
}

/// Departure of a connection from an app server that was asked to hand it over (not of a drained client from the node),
/// during which input is paused for a while.
///
/// ```text
///  Staying ──hold──► Held ──read on──► Staying              Staying, Held ──ask──► Leaving
///  Leaving ──read on, lost──► LeavingReadOn ──hold──► Leaving    any ──stay, open──► Staying
/// ```
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Departure {
    #[default]
    Staying,
    /// Stays; input is paused during a move to another link of the app server.
    Held,
    /// Handover requested; input is paused until it happens.
    Leaving,
    /// Handover requested, but the app server needs client input or has been lost.
    LeavingReadOn,
}

/// Assignment of a client connection to an app server. The link is stored with the role.
#[derive(Debug, Default)]
pub(crate) struct Assignment {
    stage: AssignmentStage,
    /// Calls that the app server is running.
    calls: PendingCalls,
    /// Previous app server, from which the next one takes over; may be none.
    was_at: AppServerId,
    /// `Items` handed over by the previous app server.
    items: Option<Box<str>>,
    /// The app server has paused the client.
    is_paused: bool,
    departure: Departure,
    /// Set when the app server has released the connection.
    released: Option<ReleaseReason>,
}

impl Role {
    /// Whether the client waits for an app server as soon as it has none, and closes if none becomes available. True
    /// for the primary; for a secondary, only messages wait.
    pub(crate) fn is_needed_always(&self) -> bool {
        matches!(self, Self::Home)
    }

    /// First stage after opening. A primary's handshake response goes to the client; a secondary's goes to the
    /// node, unless it takes over an open connection.
    pub(crate) fn stage_at_first(&self, is_taken_over: bool) -> AssignmentStage {
        match self {
            Self::Secondary(_) if !is_taken_over => AssignmentStage::Opening,
            Self::Home | Self::Secondary(_) => AssignmentStage::Open,
        }
    }
}

impl Assignment {
    /// Unassigned, with no client waiting.
    pub(crate) fn unassigned() -> Self {
        Self { stage: AssignmentStage::Unassigned { waits_since: None }, ..Self::default() }
    }

    /// Whether the app server has the connection.
    pub(crate) fn is_known_there(&self) -> bool {
        matches!(self.stage, AssignmentStage::Opening | AssignmentStage::Open) && self.released.is_none()
    }

    pub(crate) fn stage(&self) -> AssignmentStage {
        self.stage
    }

    pub(crate) fn calls(&self) -> &PendingCalls {
        &self.calls
    }

    pub(crate) fn calls_mut(&mut self) -> &mut PendingCalls {
        &mut self.calls
    }

    pub(crate) fn was_at(&self) -> Option<AppServerId> {
        Some(self.was_at).filter(|app| *app != AppServerId::NONE)
    }

    /// Whether any app server has run code for the connection.
    pub(crate) fn was_open(&self) -> bool {
        self.stage == AssignmentStage::Open || self.was_at != AppServerId::NONE
    }

    pub(crate) fn items(&self) -> Option<&str> {
        self.items.as_deref()
    }

    pub(crate) fn released(&self) -> Option<ReleaseReason> {
        self.released
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// Whether a handover was requested.
    pub(crate) fn is_leaving(&self) -> bool {
        matches!(self.departure, Departure::Leaving | Departure::LeavingReadOn)
    }

    /// Whether input is paused for a handover or a move to another link.
    #[must_use]
    pub(crate) fn holds_input(&self) -> bool {
        matches!(self.departure, Departure::Held | Departure::Leaving)
    }

    /// Tick since which the client waits for an app server, if it does.
    pub(crate) fn waits_since(&self) -> Option<u32> {
        match self.stage {
            AssignmentStage::Unassigned { waits_since } => waits_since,
            _ => None,
        }
    }

    /// Whether the assignment needs an app server.
    pub(crate) fn wants_link(&self) -> bool {
        matches!(self.stage, AssignmentStage::Unassigned { .. } | AssignmentStage::GivenUp)
    }

    /// Starts the wait for an app server at this tick, unless already waiting.
    pub(crate) fn wait(&mut self, now: u32) {
        if let AssignmentStage::Unassigned { waits_since } = &mut self.stage {
            waits_since.get_or_insert(now);
        }
    }

    /// Records that this app server no longer has the connection, for any reason.
    pub(crate) fn leave(&mut self, app: AppServerId) {
        if self.stage == AssignmentStage::Open && app != AppServerId::NONE {
            self.was_at = app;
        }
        if !matches!(self.stage, AssignmentStage::Unassigned { .. }) {
            self.stage = AssignmentStage::Unassigned { waits_since: None };
        }
        self.is_paused = false;
        self.read_on();
    }

    /// Records the opening at an app server. Late replies of a different one are ignored.
    pub(crate) fn open_at(&mut self, app: AppServerId, stage: AssignmentStage) {
        (self.stage, self.released, self.is_paused) = (stage, None, false);
        self.departure = Departure::Staying;
        if self.was_at != app {
            self.calls.remove_failed();
        }
    }

    /// Records that the app server has accepted the node's hub handshake.
    pub(crate) fn accept(&mut self) {
        if self.stage == AssignmentStage::Opening {
            self.stage = AssignmentStage::Open;
        }
    }

    pub(crate) fn refuse(&mut self) {
        self.stage = AssignmentStage::Refused;
    }

    pub(crate) fn give_up(&mut self) {
        self.stage = AssignmentStage::GivenUp;
    }

    /// Records a handover with these items. Returns `false` if none was requested.
    #[must_use]
    pub(crate) fn hand_over(&mut self, items: Option<Box<str>>) -> bool {
        if self.is_leaving() {
            (self.released, self.items) = (Some(ReleaseReason::HandedOver), items);
        }
        self.is_leaving()
    }

    /// Records that the app server has stopped and closed its connections.
    pub(crate) fn end_assignment(&mut self) {
        self.released.get_or_insert(ReleaseReason::Ended);
    }

    /// Drops the items after the next app server has received them.
    pub(crate) fn clear_items(&mut self) {
        self.items = None;
    }

    /// Records that a handover was requested.
    pub(crate) fn ask_to_hand_over(&mut self) {
        self.departure = Departure::Leaving;
    }

    /// Records that the connection stays with its app server after all.
    pub(crate) fn stay(&mut self) {
        self.departure = Departure::Staying;
    }

    /// Pauses input during a move.
    pub(crate) fn hold_input(&mut self) {
        self.departure = match self.departure {
            Departure::Staying | Departure::Held => Departure::Held,
            Departure::Leaving | Departure::LeavingReadOn => Departure::Leaving,
        };
    }

    /// Resumes input, whether or not the client is leaving.
    pub(crate) fn read_on(&mut self) {
        self.departure = match self.departure {
            Departure::Staying | Departure::Held => Departure::Staying,
            Departure::Leaving | Departure::LeavingReadOn => Departure::LeavingReadOn,
        };
    }

    /// Executes the app server's flow-control operation.
    pub(crate) fn obey(&mut self, operation: FlowOperation) {
        match operation {
            FlowOperation::Pause => self.is_paused = true,
            FlowOperation::Resume => self.is_paused = false,
            // The app server starts or stops waiting for client input.
            FlowOperation::ReadOn if self.is_leaving() => self.read_on(),
            FlowOperation::EndInput if self.is_leaving() => self.hold_input(),
            FlowOperation::ReadOn | FlowOperation::EndInput | FlowOperation::PauseAck | FlowOperation::Offline => {}
        }
    }
}

/// Opens a connection over a link, with the client's hub handshake. Returns `false` if the link's session has
/// ended.
pub(crate) fn open_over(link: &LinkHandle, open: OpenConnection, (id, content): (&str, Content)) -> bool {
    let is_queued = link.queue(&ServiceMessage::OpenConnection(open));
    if let Content::Hub(protocol) = content {
        link.send_data(id, &HandshakeRequest { protocol, version: 1 }.encode(), DATA_TYPE_HANDSHAKE);
    }
    is_queued
}

/// Notice that a connection has moved to this instance. An empty name requests a handover.
pub(crate) fn moved_to(id: &str, instance: &str) -> ServiceMessage {
    let headers = vec![(MIGRATE_TO_HEADER.into(), vec![instance.into()])];
    ServiceMessage::CloseConnection(CloseConnection { connection_id: id.into(), error: None, headers })
}

/// Flow-control message for one client's app server.
pub(crate) fn flow(id: &str, operation: FlowOperation) -> ServiceMessage {
    let (connection_id, subject) = (ByteString::from(id), FlowSubject::Client);
    ServiceMessage::ConnectionFlowControl(ConnectionFlowControl { connection_id, subject, operation })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app() -> AppServerId {
        AppServerId::from(7)
    }

    #[test]
    fn a_waiting_assignment_needs_an_app_server_and_waits_since_its_first_message() {
        let mut assignment = Assignment::unassigned();
        assert!(assignment.wants_link() && assignment.waits_since().is_none());
        assignment.wait(5);
        assignment.wait(7);
        assert_eq!(assignment.waits_since(), Some(5));
        assignment.open_at(app(), AssignmentStage::Open);
        assignment.wait(9);
        assert!(!assignment.wants_link() && assignment.waits_since().is_none());
    }

    #[test]
    fn only_where_it_was_open_it_was() {
        let mut assignment = Assignment::unassigned();
        assignment.open_at(app(), AssignmentStage::Opening);
        assignment.leave(app());
        assert_eq!(assignment.was_at(), None);
        assignment.open_at(app(), AssignmentStage::Open);
        assignment.leave(app());
        assert_eq!(assignment.was_at(), Some(app()));
        assignment.open_at(app(), AssignmentStage::Open);
        assignment.leave(AppServerId::NONE);
        assert_eq!(assignment.was_at(), Some(app()), "nowhere is no app server");
    }

    #[test]
    fn a_handed_over_connection_is_unknown_there_until_it_is_opened_again() {
        let mut assignment = Assignment::default();
        assignment.ask_to_hand_over();
        assert!(assignment.is_known_there() && assignment.is_leaving() && assignment.holds_input());
        assert!(assignment.hand_over(None));
        assert!(!assignment.is_known_there());
        assignment.open_at(app(), AssignmentStage::Opening);
        assert!(assignment.is_known_there() && !assignment.is_leaving() && !assignment.holds_input());
    }

    #[test]
    fn a_connection_that_was_not_asked_for_is_not_handed_over() {
        let mut assignment = Assignment::default();
        assignment.hold_input();
        assert!(!assignment.hand_over(Some("mine".into())) && assignment.items().is_none());
        assert!(assignment.is_known_there() && assignment.holds_input());
    }

    #[test]
    fn the_end_of_an_app_server_does_not_undo_a_hand_over() {
        let mut assignment = Assignment::default();
        assignment.ask_to_hand_over();
        assert!(assignment.hand_over(None));
        assignment.end_assignment();
        assert_eq!(assignment.released(), Some(ReleaseReason::HandedOver));
    }

    #[test]
    fn only_a_leaving_connection_is_resumed_and_held_again() {
        let mut assignment = Assignment::default();
        assignment.obey(FlowOperation::EndInput);
        assert!(!assignment.holds_input());
        assignment.ask_to_hand_over();
        assignment.obey(FlowOperation::ReadOn);
        assert!(!assignment.holds_input() && assignment.is_leaving());
        assignment.obey(FlowOperation::EndInput);
        assert!(assignment.holds_input());
    }

    #[test]
    fn the_orders_of_an_app_server_end_with_its_stay() {
        let mut assignment = Assignment::default();
        assignment.obey(FlowOperation::Pause);
        assert!(assignment.is_paused());
        assignment.leave(app());
        assert!(!assignment.is_paused() && assignment.wants_link());
    }

    #[test]
    fn a_connection_lost_twice_waits_since_the_first_loss() {
        let mut assignment = Assignment::default();
        assignment.leave(app());
        assignment.wait(5);
        assignment.leave(app());
        assignment.wait(9);
        assert_eq!(assignment.waits_since(), Some(5));
    }
}
