//! Cold state of a client connection: how to open it at another app server, and its assignments.

use std::mem;
use std::rc::Rc;
use std::sync::Arc;

use trunkline_protocol::manifest::{ITEMS_HEADER, MIGRATE_FROM_HEADER};
use trunkline_protocol::service::OpenConnection;

use super::{ClientAssignments, HandshakeBacklog, HomeStay, MirrorCopies, MirrorCopy, Opening};
use super::{Pauses, RefusedCalls, Resumption};
use crate::limits::HeadWeight;
use crate::telemetry::ConnectionTrace;
use crate::upstream::{RouteChoice, ServerGroup};

/// Facts of a client connection's opening, which never change.
#[derive(Debug, Default)]
pub(crate) struct ClientOrigin {
    /// When it was opened, in microseconds since the node started.
    pub opened_us: u64,
    /// Trace that it belongs to, if it is sampled.
    pub trace: Option<Box<ConnectionTrace>>,
    /// It has to be at its app server, and at no other.
    pub is_bound: bool,
    /// It is a raw endpoint's that may go on at another app server.
    pub is_movable: bool,
}

/// Fields of a client connection that no delivery reads.
#[derive(Debug, Default)]
pub(crate) struct ColdState {
    origin: ClientOrigin,
    /// Opening frame, for another app server and for the observer. `None` in a node inside an app.
    opening: Option<Opening>,
    /// Weight of its head, if that is large.
    head: Option<Rc<HeadWeight>>,
    assignments: ClientAssignments,
    pauses: Pauses,
    stay: HomeStay,
    /// Copies of it for mirrors; `None` without any.
    mirrors: Option<Box<MirrorCopies>>,
    /// Group of app servers that it is routed to; `None` for the default one.
    group: Option<Arc<ServerGroup>>,
    /// Errors and messages behind the answer to the hub handshake; `None` without any.
    backlog: Option<Box<HandshakeBacklog>>,
    /// Calls that the operator's rules have refused.
    refused: RefusedCalls,
    /// State for another socket over which the client goes on; `None` where it can't.
    resumption: Option<Box<Resumption>>,
}

impl ColdState {
    /// Sets the facts of its opening.
    pub(crate) fn begin(&mut self, origin: ClientOrigin) {
        self.origin = origin;
    }

    #[must_use]
    pub(crate) fn origin(&self) -> &ClientOrigin {
        &self.origin
    }

    /// Keeps the opening frame for another app server, and the weight of its head.
    pub(crate) fn keep_opening(&mut self, opening: Option<Opening>, head: Option<Rc<HeadWeight>>) {
        (self.opening, self.head) = (opening, head);
    }

    /// Opening frame; `None` in a node inside an app.
    #[must_use]
    pub(crate) fn opening(&self) -> Option<&Opening> {
        self.opening.as_ref()
    }

    /// Decodes the opening frame.
    #[must_use]
    pub(crate) fn read_opening(&self) -> Option<OpenConnection> {
        self.opening.as_ref()?.read()
    }

    /// Weight of its head, if that is large.
    #[must_use]
    pub(crate) fn head(&self) -> Option<Rc<HeadWeight>> {
        self.head.clone()
    }

    /// Assignments to app servers.
    #[must_use]
    pub(super) fn assignments(&self) -> &ClientAssignments {
        &self.assignments
    }

    pub(super) fn assignments_mut(&mut self) -> &mut ClientAssignments {
        &mut self.assignments
    }

    /// Reasons for which the client is not read.
    #[must_use]
    pub(super) fn pauses(&self) -> &Pauses {
        &self.pauses
    }

    pub(super) fn pauses_mut(&mut self) -> &mut Pauses {
        &mut self.pauses
    }

    /// Stay at its home, over links of that app server.
    #[must_use]
    pub(crate) fn stay(&self) -> &HomeStay {
        &self.stay
    }

    pub(crate) fn stay_mut(&mut self) -> &mut HomeStay {
        &mut self.stay
    }

    /// Whether it has copies for mirrors.
    #[must_use]
    pub(crate) fn has_mirrors(&self) -> bool {
        self.mirrors.is_some()
    }

    /// Copies of it for mirrors.
    pub(crate) fn mirrors_mut(&mut self) -> impl Iterator<Item = &mut MirrorCopy> {
        self.mirrors.iter_mut().flat_map(|copies| copies.iter_mut())
    }

    /// Copies of it for mirrors, and the frame to open them with.
    pub(crate) fn mirrors_with_opening(&mut self) -> (impl Iterator<Item = &mut MirrorCopy>, Option<&Opening>) {
        (self.mirrors.iter_mut().flat_map(|copies| copies.iter_mut()), self.opening.as_ref())
    }

    /// Replaces the copies for mirrors, and returns those before.
    pub(crate) fn replace_mirrors(&mut self, copies: MirrorCopies) -> MirrorCopies {
        let copies = (!copies.is_empty()).then(|| Box::new(copies));
        mem::replace(&mut self.mirrors, copies).map(|copies| *copies).unwrap_or_default()
    }

    /// Group of app servers that it is routed to; `None` for the default one.
    #[must_use]
    pub(crate) fn group(&self) -> Option<&Arc<ServerGroup>> {
        self.group.as_ref()
    }

    /// Routes it to a group of app servers.
    pub(crate) fn set_group(&mut self, group: Option<Arc<ServerGroup>>) {
        self.group = group;
    }

    /// Name of the group of app servers that it is routed to.
    #[must_use]
    pub(crate) fn group_name(&self) -> &str {
        RouteChoice::group_name(self.group.as_ref())
    }

    /// Errors and messages behind the answer to the hub handshake.
    pub(crate) fn backlog_mut(&mut self) -> &mut HandshakeBacklog {
        self.backlog.get_or_insert_default()
    }

    pub(crate) fn take_backlog(&mut self) -> Option<Box<HandshakeBacklog>> {
        self.backlog.take()
    }

    /// Calls that the operator's rules have refused.
    pub(crate) fn refused_mut(&mut self) -> &mut RefusedCalls {
        &mut self.refused
    }

    /// State for another socket; `None` where it can't go on over one.
    #[must_use]
    pub(crate) fn resumption(&self) -> Option<&Resumption> {
        self.resumption.as_deref()
    }

    pub(crate) fn resumption_mut(&mut self) -> Option<&mut Resumption> {
        self.resumption.as_deref_mut()
    }

    /// Lets the connection go on over another socket.
    pub(super) fn set_resumption(&mut self, resumption: Resumption) {
        self.resumption = Some(Box::new(resumption));
    }

    /// Takes the state for another socket: the client does not come back.
    pub(crate) fn take_resumption(&mut self) -> Option<Box<Resumption>> {
        self.resumption.take()
    }

    /// Frame that opens it at an app server: `from` names the previous one, if the client knows that the connection is
    /// open, which has handed these items over.
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
    use super::super::interner::tests::open;
    use super::*;

    #[test]
    fn a_reassigned_connection_is_opened_with_its_old_frame_its_origin_and_its_items() {
        let mut cold = ColdState::default();
        let open = open("id", "me");
        cold.keep_opening(Some(OpeningInterner::default().intern_opening(&open, None)), None);
        assert_eq!(cold.opening_with(None, None), Some(open));
        let moved = cold.opening_with(Some("old"), Some("mine")).unwrap();
        let [.., from, items] = moved.headers.as_slice() else { panic!("{moved:?}") };
        assert_eq!(*from, (MIGRATE_FROM_HEADER.into(), vec!["old".into()]));
        assert_eq!(*items, (ITEMS_HEADER.into(), vec!["mine".into()]));
    }
}
