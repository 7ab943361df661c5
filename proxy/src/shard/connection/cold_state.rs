//! Cold state of a client connection: how to open it at another app server, its assignments, and why it is paused.

use std::rc::Rc;
use std::sync::Arc;

use bytestring::ByteString;
use tokio::sync::Notify;
use trunkline_protocol::manifest::{ITEMS_HEADER, MIGRATE_FROM_HEADER};
use trunkline_protocol::service::OpenConnection;

use super::assignment::Assignment;
use super::{MirrorCopies, Opening, RefusedCalls, Resumption, SideHomes};
use crate::limits::HeadWeight;
use crate::metrics::MoveCause;
use crate::telemetry::ConnectionTrace;
use crate::upstream::{AppServerId, HomeLink, RouteChoice, ServerGroup};

/// Reason to pause reading a client. Bytes that it sends meanwhile wait in its socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum PauseReason {
    /// An app server of it asked for that.
    AppServer = 1,
    /// It has no home, or a message waits for an app server of its group.
    Unassigned = 2,
    /// Too many of its calls are not answered.
    PendingCalls = 4,
    /// An app server is about to hand it over.
    HandingOver = 8,
    /// A link to an app server of it has no room.
    FullLink = 16,
    /// It has sent more than its quota.
    Throttled = 32,
}

/// Stage of a client connection on its way to be told to leave.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeaveStage {
    /// Nobody has told it to leave.
    #[default]
    Stays,
    /// Its turn has come, and it has not called since.
    Waits,
    /// It has called since: it is told when none of its calls runs.
    Calls,
    /// It is told right behind the answer to its last call.
    BehindAnswer(MoveCause),
}

/// State of a client at its app server (dial-in) after the loss of their link, as far as the node knows.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OldStay {
    /// Nothing that is unknown here.
    #[default]
    Clear,
    /// It may have the connection as before, if it has not noticed the loss. It has not answered since this tick.
    Unknown { since: u32 },
    /// It is asked whether it has.
    Asked { since: u32 },
    /// It has not answered, and is to open the connection again. It did not have it if nothing comes before this tick.
    Replaced { until: u32 },
}

impl OldStay {
    /// Whether its app server is to open it again, or has.
    #[must_use]
    pub(crate) fn is_replaced(self) -> bool {
        matches!(self, Self::Replaced { .. })
    }
}

/// Set of reasons to pause reading a client.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PauseReasons(u8);

impl PauseReasons {
    #[must_use]
    pub(crate) fn contains(self, reason: PauseReason) -> bool {
        self.0 & reason as u8 != 0
    }

    #[must_use]
    pub(crate) fn are_none(self) -> bool {
        self.0 == 0
    }

    pub(super) fn add(&mut self, reason: PauseReason) {
        self.0 |= reason as u8;
    }

    pub(super) fn remove(&mut self, reason: PauseReason) {
        self.0 &= !(reason as u8);
    }
}

/// Fields of a client connection that no delivery reads.
#[derive(Debug, Default)]
pub(crate) struct ColdState {
    /// Opening frame, for another app server and for the observer. `None` in a node inside an app.
    pub opening: Option<Opening>,
    /// Weight of its head, if that is large.
    pub head: Option<Rc<HeadWeight>>,
    /// Assignment of its home.
    pub assignment: Assignment,
    /// Calls that have failed before the client had the answer to its hub handshake, with the text of each error.
    pub owed_errors: Vec<(ByteString, ByteString)>,
    /// Calls that the operator's rules have refused.
    pub refused: RefusedCalls,
    /// App servers that take some of its methods; `None` for a client without any.
    pub sides: Option<Box<SideHomes>>,
    /// Whether it is about to be told to leave.
    pub leave: LeaveStage,
    /// It is a raw endpoint's that may go on at another app server.
    pub is_movable: bool,
    /// It has to be at its app server, and at no other.
    pub is_bound: bool,
    /// Group of app servers that it is routed to; `None` for the default one.
    pub group: Option<Arc<ServerGroup>>,
    /// Trace that it belongs to, if it is sampled.
    pub trace: Option<Box<ConnectionTrace>>,
    /// Copies of it for mirrors; `None` without any.
    pub mirrors: Option<Box<MirrorCopies>>,
    /// App server that dials in at which it was last.
    pub left: Option<AppServerId>,
    /// It is not moved between links any more: its app server did not answer in time.
    pub is_settled: bool,
    /// Tick from which on its app server takes it again, after the link is lost by which it had it; or until which it
    /// answers whether it has it.
    pub held_until: u32,
    /// State at that app server, as far as the node knows.
    pub old_stay: OldStay,
    /// Link of its app server to which it is being moved.
    pub moving_to: Option<HomeLink>,
    /// When it was opened, in microseconds since the node started.
    pub opened_us: u64,
    /// State for another socket over which the client goes on; `None` where it can't.
    pub resumption: Option<Box<Resumption>>,
    pub(super) resumed: Option<Rc<Notify>>,
    /// Its socket was cut while it was paused.
    pub(super) is_cut: bool,
}

impl ColdState {
    /// Name of the group of app servers that it is routed to.
    #[must_use]
    pub(crate) fn group_name(&self) -> &str {
        RouteChoice::group_name(self.group.as_ref())
    }

    /// Frame that opens it at an app server: `from` names the previous one, if the client knows that the connection is
    /// open, which has handed these items over.
    pub(crate) fn opening_with(&self, from: Option<&str>, items: Option<&str>) -> Option<OpenConnection> {
        let mut open = self.opening.as_ref()?.read()?;
        let mut add = |name: &'static str, value: &str| open.headers.push((name.into(), vec![value.into()]));
        if let Some(from) = from {
            add(MIGRATE_FROM_HEADER, from);
        }
        if let Some(items) = items {
            add(ITEMS_HEADER, items);
        }
        Some(open)
    }
}

#[cfg(test)]
mod tests {
    use super::super::OpeningInterner;
    use super::super::interner::tests::open;
    use super::*;

    #[test]
    fn a_reassigned_connection_is_opened_with_its_old_frame_its_origin_and_its_items() {
        let mut cold = ColdState::default();
        let open = open("id", "me");
        cold.opening = Some(OpeningInterner::default().intern_opening(&open, None));
        assert_eq!(cold.opening_with(None, None), Some(open));
        let moved = cold.opening_with(Some("old"), Some("mine")).unwrap();
        let [.., from, items] = moved.headers.as_slice() else { panic!("{moved:?}") };
        assert_eq!(*from, (MIGRATE_FROM_HEADER.into(), vec!["old".into()]));
        assert_eq!(*items, (ITEMS_HEADER.into(), vec!["mine".into()]));
    }

    #[test]
    fn reading_resumes_when_no_reason_is_left() {
        let mut reasons = PauseReasons::default();
        reasons.add(PauseReason::AppServer);
        reasons.add(PauseReason::PendingCalls);
        reasons.remove(PauseReason::AppServer);
        assert!(
            !reasons.are_none()
                && reasons.contains(PauseReason::PendingCalls)
                && !reasons.contains(PauseReason::AppServer)
        );
        reasons.remove(PauseReason::PendingCalls);
        assert!(reasons.are_none());
    }
}
