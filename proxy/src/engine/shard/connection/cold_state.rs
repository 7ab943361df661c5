//! Cold state of a client connection: its assignments, and the data to open it at another app server.

use std::rc::Rc;
use std::sync::Arc;

use trunkline_protocol::manifest::{ITEMS_HEADER, MIGRATE_FROM_HEADER};
use trunkline_protocol::service::OpenConnection;

use super::{ClientAssignments, HandshakeBacklog, HomeStay, Opening, Pauses, RefusedCalls, Resumption};
use crate::engine::upstream::{RouteChoice, ServerGroup};
use crate::ground::limits::HeadWeight;
use crate::ground::telemetry::ConnectionTrace;

/// Immutable facts about the opening of a client connection.
#[derive(Debug, Default)]
pub(crate) struct ClientOrigin {
    /// Open time in microseconds since the node started.
    pub opened_us: u64,
    pub trace: Option<Box<ConnectionTrace>>,
    /// The connection is bound to its app server.
    pub is_bound: bool,
    /// A raw connection that may move to another app server.
    pub is_movable: bool,
}

/// Fields of a client connection that delivery doesn't read.
#[derive(Debug, Default)]
pub(crate) struct ColdState {
    origin: ClientOrigin,
    /// Opening frame, for another app server and the observer. `None` in an embedded node.
    opening: Option<Opening>,
    head: Option<Rc<HeadWeight>>,
    assignments: ClientAssignments,
    pauses: Pauses,
    stay: HomeStay,
    /// Server group; `None` for the default group.
    group: Option<Arc<ServerGroup>>,
    /// Errors and messages queued until the hub handshake response; `None` without any.
    backlog: Option<Box<HandshakeBacklog>>,
    /// Calls refused by the operator's rules.
    refused: RefusedCalls,
    /// State for resuming over another socket; `None` if not resumable.
    resumption: Option<Box<Resumption>>,
}

impl ColdState {
    pub(crate) fn set_origin(&mut self, origin: ClientOrigin) {
        self.origin = origin;
    }

    pub(crate) fn origin(&self) -> &ClientOrigin {
        &self.origin
    }

    /// Stores the opening frame for another app server, with the weight of its head.
    pub(crate) fn keep_opening(&mut self, opening: Option<Opening>, head: Option<Rc<HeadWeight>>) {
        (self.opening, self.head) = (opening, head);
    }

    pub(crate) fn opening(&self) -> Option<&Opening> {
        self.opening.as_ref()
    }

    pub(crate) fn read_opening(&self) -> Option<OpenConnection> {
        self.opening.as_ref()?.unpack()
    }

    #[must_use]
    pub(crate) fn head(&self) -> Option<Rc<HeadWeight>> {
        self.head.clone()
    }

    pub(super) fn assignments(&self) -> &ClientAssignments {
        &self.assignments
    }

    pub(super) fn assignments_mut(&mut self) -> &mut ClientAssignments {
        &mut self.assignments
    }

    pub(super) fn pauses(&self) -> &Pauses {
        &self.pauses
    }

    pub(super) fn pauses_mut(&mut self) -> &mut Pauses {
        &mut self.pauses
    }

    pub(crate) fn stay(&self) -> &HomeStay {
        &self.stay
    }

    pub(crate) fn stay_mut(&mut self) -> &mut HomeStay {
        &mut self.stay
    }

    pub(crate) fn group(&self) -> Option<&Arc<ServerGroup>> {
        self.group.as_ref()
    }

    pub(crate) fn set_group(&mut self, group: Option<Arc<ServerGroup>>) {
        self.group = group;
    }

    pub(crate) fn group_name(&self) -> &str {
        RouteChoice::group_name(self.group.as_ref())
    }

    pub(crate) fn backlog_mut(&mut self) -> &mut HandshakeBacklog {
        self.backlog.get_or_insert_default()
    }

    pub(crate) fn take_backlog(&mut self) -> Option<Box<HandshakeBacklog>> {
        self.backlog.take()
    }

    pub(crate) fn refused_mut(&mut self) -> &mut RefusedCalls {
        &mut self.refused
    }

    pub(crate) fn resumption(&self) -> Option<&Resumption> {
        self.resumption.as_deref()
    }

    pub(crate) fn resumption_mut(&mut self) -> Option<&mut Resumption> {
        self.resumption.as_deref_mut()
    }

    pub(super) fn set_resumption(&mut self, resumption: Resumption) {
        self.resumption = Some(Box::new(resumption));
    }

    /// Takes the resumption state; the client can't resume after that.
    pub(crate) fn take_resumption(&mut self) -> Option<Box<Resumption>> {
        self.resumption.take()
    }

    /// Opening frame for an app server. `from` is the previous app server, which handed over `items`, if the connection
    /// is already open for the client.
    pub(crate) fn opening_with(&self, from: Option<&str>, items: Option<&str>) -> Option<OpenConnection> {
        let mut open = self.read_opening()?;
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
    use super::super::interner::tests::open_connection;
    use super::*;

    #[test]
    fn a_reassigned_connection_is_opened_with_its_old_frame_its_origin_and_its_items() {
        let mut cold = ColdState::default();
        let open = open_connection("id", "me");
        cold.keep_opening(Some(OpeningInterner::default().intern_opening(&open, None)), None);
        assert_eq!(cold.opening_with(None, None), Some(open));
        let moved = cold.opening_with(Some("old"), Some("mine")).unwrap();
        let [.., from, items] = moved.headers.as_slice() else { panic!("{moved:?}") };
        assert_eq!(*from, (MIGRATE_FROM_HEADER.into(), vec!["old".into()]));
        assert_eq!(*items, (ITEMS_HEADER.into(), vec!["mine".into()]));
    }
}
