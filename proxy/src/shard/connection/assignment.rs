//! Assignment of a client connection to an app server: its home, or a side home for some of its methods.
//!
//! ```text
//!  unassigned ──► opening ──answer to the hub handshake──► open ◄── opened elsewhere (Migrate-From)
//!    ▲  │ ▲          └─ an error ──► refused                 │
//!    │  │ └──────────── lost, or handed over ────────────────┘
//!    │  └─ --hold-timeout ──► a home: closed; a side home: given up, its calls are errors
//!    └───────────────────────────────────────────────────────────────┘ an app server comes
//! ```
//!
//! Each has the calls that its app server runs. Whether a client with any assignment is read is their common concern:
//! see [`PauseReason`](super::PauseReason). Pure.

use std::sync::Arc;

use bytestring::ByteString;
use trunkline_protocol::hub::HandshakeRequest;
use trunkline_protocol::manifest::MIGRATE_TO_HEADER;
use trunkline_protocol::service::{
    CloseConnection, ConnectionFlowControl, FlowOperation, FlowSubject, OpenConnection, ServiceMessage,
};

use super::PendingCalls;
use crate::shard::content::{Content, DATA_TYPE_HANDSHAKE};
use crate::upstream::{AppServerId, LinkHandle};

/// Role of an app server for a client connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    /// It takes all messages that no other one takes.
    Home,
    /// It takes the methods that rules give to its group.
    Side(Arc<str>),
}

/// Stage in the life of an assignment.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AssignmentStage {
    /// It has no app server. The client waits for one since this tick, if it does.
    Unassigned { waits_since: Option<u32> },
    /// The app server of a side home has not answered the hub handshake.
    Opening,
    #[default]
    Open,
    /// No app server came in time.
    GivenUp,
    /// The app server has refused the connection.
    Refused,
}

/// Reason why an app server no longer has a connection that goes on elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReleaseReason {
    /// It has handed the connection over, without an end for the app.
    HandedOver,
    /// It has ended all its connections when it stopped.
    Ended,
}

/// Departure of a connection from its app server, which was asked to hand it over (not that of a drained client from
/// the node). It may take a while, and the client is read in parts of it only.
///
/// ```text
///  Staying ──hold──► Held ──read on──► Staying              Staying, Held ──ask──► Leaving
///  Leaving ──read on, lost──► LeavingReadOn ──hold──► Leaving    any ──stay, open──► Staying
/// ```
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Departure {
    #[default]
    Staying,
    /// It stays; the client is not read while it moves to another link of the app server.
    Held,
    /// The app server was asked to hand it over; the client is not read until it has.
    Leaving,
    /// The app server was asked to hand it over, and waits for a message of the client, or is lost by now.
    LeavingReadOn,
}

/// Assignment of a client connection to an app server; its link is with its role.
#[derive(Debug, Default)]
pub(crate) struct Assignment {
    stage: AssignmentStage,
    /// Calls that the app server runs.
    calls: PendingCalls,
    /// App server at which it was open before, which the next one takes it over from; or none.
    was_at: AppServerId,
    /// `Items` that the previous app server handed over with it.
    items: Option<Box<str>>,
    /// The app server wants the client not to be read.
    is_paused: bool,
    departure: Departure,
    /// Set when the app server no longer has the connection.
    released: Option<ReleaseReason>,
}

impl Role {
    /// Whether the client waits for an app server from the moment at which it has none, and closes if none comes: its
    /// home is what it is connected to. A side home is waited for by its messages.
    #[must_use]
    pub(crate) fn is_needed_always(&self) -> bool {
        matches!(self, Self::Home)
    }

    /// Stage of one that was just opened. The app server of a home answers the hub handshake of the client itself; that
    /// of a side home answers it to the node, unless it takes an open connection over.
    #[must_use]
    pub(crate) fn stage_at_first(&self, is_taken_over: bool) -> AssignmentStage {
        match self {
            Self::Side(_) if !is_taken_over => AssignmentStage::Opening,
            Self::Home | Self::Side(_) => AssignmentStage::Open,
        }
    }

    /// Whether the app server gets back what a lost connection of the client had.
    #[must_use]
    pub(crate) fn restores(&self) -> bool {
        matches!(self, Self::Home)
    }
}

impl Assignment {
    /// Assignment without an app server, for which nothing waits.
    #[must_use]
    pub(crate) fn unassigned() -> Self {
        Self { stage: AssignmentStage::Unassigned { waits_since: None }, ..Self::default() }
    }

    /// Whether its app server knows of the connection.
    #[must_use]
    pub(crate) fn is_known_there(&self) -> bool {
        matches!(self.stage, AssignmentStage::Opening | AssignmentStage::Open) && self.released.is_none()
    }

    #[must_use]
    pub(crate) fn stage(&self) -> AssignmentStage {
        self.stage
    }

    /// Calls that the app server runs.
    #[must_use]
    pub(crate) fn calls(&self) -> &PendingCalls {
        &self.calls
    }

    pub(crate) fn calls_mut(&mut self) -> &mut PendingCalls {
        &mut self.calls
    }

    /// App server at which it was open before.
    #[must_use]
    pub(crate) fn was_at(&self) -> Option<AppServerId> {
        Some(self.was_at).filter(|app| *app != AppServerId::NONE)
    }

    /// Whether any app server has run something for it.
    #[must_use]
    pub(crate) fn was_open(&self) -> bool {
        self.stage == AssignmentStage::Open || self.was_at != AppServerId::NONE
    }

    /// `Items` that the previous app server handed over, for the next one.
    #[must_use]
    pub(crate) fn items(&self) -> Option<&str> {
        self.items.as_deref()
    }

    /// Reason why the app server no longer has it.
    #[must_use]
    pub(crate) fn released(&self) -> Option<ReleaseReason> {
        self.released
    }

    /// Whether the app server wants the client not to be read.
    #[must_use]
    pub(crate) fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// Whether the app server was asked to hand it over.
    #[must_use]
    pub(crate) fn is_leaving(&self) -> bool {
        matches!(self.departure, Departure::Leaving | Departure::LeavingReadOn)
    }

    /// Whether the client is not read until it is handed over, or has another link.
    #[must_use]
    pub(crate) fn holds_input(&self) -> bool {
        matches!(self.departure, Departure::Held | Departure::Leaving)
    }

    /// Tick since which the client waits for an app server, if it does.
    #[must_use]
    pub(crate) fn waits_since(&self) -> Option<u32> {
        match self.stage {
            AssignmentStage::Unassigned { waits_since } => waits_since,
            _ => None,
        }
    }

    /// Whether it is to get an app server when there is one.
    #[must_use]
    pub(crate) fn wants_link(&self) -> bool {
        matches!(self.stage, AssignmentStage::Unassigned { .. } | AssignmentStage::GivenUp)
    }

    /// Has the client wait for an app server, from this tick on unless it does already.
    pub(crate) fn wait(&mut self, now: u32) {
        if let AssignmentStage::Unassigned { waits_since } = &mut self.stage {
            waits_since.get_or_insert(now);
        }
    }

    /// Notes that this app server no longer has the connection, for whatever reason.
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

    /// Notes that it is opened at an app server. Late answers of another one no longer matter.
    pub(crate) fn open(&mut self, app: AppServerId, stage: AssignmentStage) {
        (self.stage, self.released, self.is_paused) = (stage, None, false);
        self.departure = Departure::Staying;
        if self.was_at != app {
            self.calls.forget_failed();
        }
    }

    /// Notes that the app server has accepted the hub handshake of the node.
    pub(crate) fn accept(&mut self) {
        if self.stage == AssignmentStage::Opening {
            self.stage = AssignmentStage::Open;
        }
    }

    /// Notes that the app server has refused the connection.
    pub(crate) fn refuse(&mut self) {
        self.stage = AssignmentStage::Refused;
    }

    /// Ends the wait for an app server.
    pub(crate) fn give_up(&mut self) {
        self.stage = AssignmentStage::GivenUp;
    }

    /// Notes that the app server has handed the connection over with these items; `false` if it was not asked to.
    #[must_use]
    pub(crate) fn hand_over(&mut self, items: Option<Box<str>>) -> bool {
        if self.is_leaving() {
            (self.released, self.items) = (Some(ReleaseReason::HandedOver), items);
        }
        self.is_leaving()
    }

    /// Notes that the app server has stopped and ended its connections.
    pub(crate) fn end(&mut self) {
        self.released.get_or_insert(ReleaseReason::Ended);
    }

    /// Drops the items: the next app server has them.
    pub(crate) fn clear_items(&mut self) {
        self.items = None;
    }

    /// Notes that the app server is asked to hand the connection over.
    pub(crate) fn ask_to_hand_over(&mut self) {
        self.departure = Departure::Leaving;
    }

    /// Notes that the connection stays with its app server after all.
    pub(crate) fn stay(&mut self) {
        self.departure = Departure::Staying;
    }

    /// Stops reading the client while it moves.
    pub(crate) fn hold_input(&mut self) {
        self.departure = match self.departure {
            Departure::Staying | Departure::Held => Departure::Held,
            Departure::Leaving | Departure::LeavingReadOn => Departure::Leaving,
        };
    }

    /// Reads the client again, whether or not it leaves.
    pub(crate) fn read_on(&mut self) {
        self.departure = match self.departure {
            Departure::Staying | Departure::Held => Departure::Staying,
            Departure::Leaving | Departure::LeavingReadOn => Departure::LeavingReadOn,
        };
    }

    /// Obeys an order of the app server about reading the client.
    pub(crate) fn obey(&mut self, operation: FlowOperation) {
        match operation {
            FlowOperation::Pause => self.is_paused = true,
            FlowOperation::Resume => self.is_paused = false,
            // The app server waits for a message of the client, or no longer does.
            FlowOperation::ReadOn if self.is_leaving() => self.read_on(),
            FlowOperation::EndInput if self.is_leaving() => self.hold_input(),
            FlowOperation::ReadOn | FlowOperation::EndInput | FlowOperation::PauseAck | FlowOperation::Offline => {}
        }
    }
}

/// Opens a connection over a link, with the hub handshake that its client has made; `false` if the link's session is
/// over.
#[must_use]
pub(crate) fn open_over(link: &LinkHandle, open: OpenConnection, (id, content): (&str, Content)) -> bool {
    let is_queued = link.queue(&ServiceMessage::OpenConnection(open));
    if let Content::Hub(protocol) = content {
        link.send_data(id, &HandshakeRequest { protocol, version: 1 }.encode(), DATA_TYPE_HANDSHAKE);
    }
    is_queued
}

/// Notice to an app server that a connection goes on at this instance; an empty name asks to hand it over.
pub(crate) fn moved_to(id: &str, instance: &str) -> ServiceMessage {
    let headers = vec![(MIGRATE_TO_HEADER.into(), vec![instance.into()])];
    ServiceMessage::CloseConnection(CloseConnection { connection_id: id.into(), error: None, headers })
}

/// Flow control of one client, for its app server.
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
    fn one_that_waits_is_to_get_an_app_server_and_counts_from_the_first_message_on() {
        let mut assignment = Assignment::unassigned();
        assert!(assignment.wants_link() && assignment.waits_since().is_none());
        assignment.wait(5);
        assignment.wait(7);
        assert_eq!(assignment.waits_since(), Some(5));
        assignment.open(app(), AssignmentStage::Open);
        assignment.wait(9);
        assert!(!assignment.wants_link() && assignment.waits_since().is_none());
    }

    #[test]
    fn only_where_it_was_open_it_was() {
        let mut assignment = Assignment::unassigned();
        assignment.open(app(), AssignmentStage::Opening);
        assignment.leave(app());
        assert_eq!(assignment.was_at(), None);
        assignment.open(app(), AssignmentStage::Open);
        assignment.leave(app());
        assert_eq!(assignment.was_at(), Some(app()));
        assignment.open(app(), AssignmentStage::Open);
        assignment.leave(AppServerId::NONE);
        assert_eq!(assignment.was_at(), Some(app()), "nowhere is no app server");
    }

    #[test]
    fn one_that_is_handed_over_is_not_known_there_any_more_until_it_is_opened_again() {
        let mut assignment = Assignment::default();
        assignment.ask_to_hand_over();
        assert!(assignment.is_known_there() && assignment.is_leaving() && assignment.holds_input());
        assert!(assignment.hand_over(None));
        assert!(!assignment.is_known_there());
        assignment.open(app(), AssignmentStage::Opening);
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
        assignment.end();
        assert_eq!(assignment.released(), Some(ReleaseReason::HandedOver));
    }

    #[test]
    fn only_one_that_leaves_is_read_on_and_held_again() {
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
    fn one_that_is_lost_twice_waits_since_the_first_time() {
        let mut assignment = Assignment::default();
        assignment.leave(app());
        assignment.wait(5);
        assignment.leave(app());
        assignment.wait(9);
        assert_eq!(assignment.waits_since(), Some(5));
    }
}
