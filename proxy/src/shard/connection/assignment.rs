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

/// End of the stay of a connection that goes on at an app server which has let it go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LetGo {
    /// It has handed it over: nobody there was told of an end.
    HandedOver,
    /// It has ended all its connections when it stopped.
    Ended,
}

/// Assignment of a client connection to an app server; its link is with its role.
#[derive(Debug, Default)]
pub(crate) struct Assignment {
    pub stage: AssignmentStage,
    /// Calls that the app server runs.
    pub calls: PendingCalls,
    /// App server at which it was open before: the next one takes it over.
    pub was_at: Option<AppServerId>,
    /// `Items` that the previous app server handed over with it.
    pub items: Option<Box<str>>,
    /// The app server wants the client not to be read.
    pub is_paused: bool,
    /// The app server was asked to hand the connection over.
    pub is_leaving: bool,
    /// The client is not read until it is handed over.
    pub holds_input: bool,
    /// The app server knows nothing of it any more.
    pub let_go: Option<LetGo>,
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
        matches!(self.stage, AssignmentStage::Opening | AssignmentStage::Open) && self.let_go.is_none()
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

    /// Takes note that this app server has the connection no more, whatever has become of that.
    pub(crate) fn leave(&mut self, app: AppServerId) {
        if self.stage == AssignmentStage::Open && app != AppServerId::NONE {
            self.was_at = Some(app);
        }
        if !matches!(self.stage, AssignmentStage::Unassigned { .. }) {
            self.stage = AssignmentStage::Unassigned { waits_since: None };
        }
        (self.is_paused, self.holds_input) = (false, false);
    }

    /// Takes note that it is opened at an app server. What has failed at another one is answered by that no more.
    pub(crate) fn open(&mut self, app: AppServerId, stage: AssignmentStage) {
        (self.stage, self.let_go, self.is_leaving) = (stage, None, false);
        (self.is_paused, self.holds_input) = (false, false);
        if self.was_at != Some(app) {
            self.calls.forget_failed();
        }
    }

    /// Takes note that the app server is asked to hand the connection over.
    pub(crate) fn ask_to_hand_over(&mut self) {
        (self.is_leaving, self.holds_input) = (true, true);
    }

    /// Takes note that the connection stays with its app server after all.
    pub(crate) fn stay(&mut self) {
        (self.is_leaving, self.holds_input) = (false, false);
    }

    /// Obeys an order of the app server about reading the client.
    pub(crate) fn obey(&mut self, operation: FlowOperation) {
        match operation {
            FlowOperation::Pause => self.is_paused = true,
            FlowOperation::Resume => self.is_paused = false,
            // Something of it is waited for, or that has come.
            FlowOperation::ReadOn if self.is_leaving => self.holds_input = false,
            FlowOperation::EndInput if self.is_leaving => self.holds_input = true,
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
        assert_eq!(assignment.was_at, None);
        assignment.open(app(), AssignmentStage::Open);
        assignment.leave(app());
        assert_eq!(assignment.was_at, Some(app()));
        assignment.open(app(), AssignmentStage::Open);
        assignment.leave(AppServerId::NONE);
        assert_eq!(assignment.was_at, Some(app()), "nowhere is no app server");
    }

    #[test]
    fn one_that_is_handed_over_is_not_known_there_any_more_until_it_is_opened_again() {
        let mut assignment = Assignment::default();
        assignment.ask_to_hand_over();
        assert!(assignment.is_known_there() && assignment.is_leaving && assignment.holds_input);
        assignment.let_go = Some(LetGo::HandedOver);
        assert!(!assignment.is_known_there());
        assignment.open(app(), AssignmentStage::Opening);
        assert!(assignment.is_known_there() && !assignment.is_leaving && !assignment.holds_input);
    }

    #[test]
    fn only_one_that_leaves_is_read_on_and_held_again() {
        let mut assignment = Assignment::default();
        assignment.obey(FlowOperation::EndInput);
        assert!(!assignment.holds_input);
        assignment.ask_to_hand_over();
        assignment.obey(FlowOperation::ReadOn);
        assert!(!assignment.holds_input && assignment.is_leaving);
        assignment.obey(FlowOperation::EndInput);
        assert!(assignment.holds_input);
    }

    #[test]
    fn the_orders_of_an_app_server_end_with_its_stay() {
        let mut assignment = Assignment::default();
        assignment.obey(FlowOperation::Pause);
        assert!(assignment.is_paused);
        assignment.leave(app());
        assert!(!assignment.is_paused && assignment.wants_link());
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
