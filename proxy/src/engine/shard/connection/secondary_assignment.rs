//! Secondary assignments of a client connection: app servers for some of its methods.
//!
//! Besides its [`Assignment`], each tracks the client's streams to its calls and the client results that it has
//! requested, to forward later messages to the same app server. Pure.

use std::iter;
use std::sync::Arc;

use indexmap::IndexSet;
use trunkline_protocol::hub::{CallScan, HandshakeResponse, MessageKind};

use super::PauseReason;
use super::assignment::{Assignment, AssignmentStage, Role};
use crate::engine::upstream::{AppServerId, HomeLink};

/// Maximum number of open client streams to the calls of one secondary app server.
pub(crate) const SECONDARY_UPLOADS_MAX: usize = 1024;

/// Maximum bytes of all ids of such streams; ids are short.
const UPLOAD_ID_BYTES_MAX: usize = 64 * SECONDARY_UPLOADS_MAX;

/// Maximum number of pending client results per secondary app server. The oldest is evicted, and its reply goes to the
/// primary one.
const ASKED_MAX: usize = 1024;

/// Maximum size of an app server's hub handshake response.
const HANDSHAKE_MAX_BYTES: usize = 16 * 1024;

#[derive(Debug)]
pub(crate) struct SecondaryAssignment {
    pub group: Arc<str>,
    pub link: HomeLink,
    pub assignment: Assignment,
    /// Ids of streams that the client is sending to its calls.
    uploads: IndexSet<Box<str>>,
    upload_bytes: usize,
    /// Invocation ids of the client results that it requested.
    asked: IndexSet<Box<str>>,
}

/// Secondary assignments of a client connection, at most one per group.
#[derive(Debug, Default)]
pub(crate) struct SecondaryAssignments(Vec<SecondaryAssignment>);

impl SecondaryAssignment {
    /// Removes a pending hub handshake response from the front, and returns the rest. Fails if the app server refuses
    /// the connection or the response is invalid.
    pub(crate) fn answer_handshake<'a>(&mut self, payload: &'a [u8]) -> Result<&'a [u8], String> {
        if self.assignment.stage() != AssignmentStage::Opening {
            return Ok(payload);
        }
        match HandshakeResponse::read_response(payload, HANDSHAKE_MAX_BYTES) {
            Ok(Some((HandshakeResponse { error: None }, used))) => {
                self.assignment.accept();
                Ok(payload.get(used..).unwrap_or_default())
            }
            Ok(Some((HandshakeResponse { error: Some(error) }, _))) => Err(error),
            Ok(None) => Err("the answer to the hub handshake is not whole".into()),
            Err(error) => Err(error.to_string()),
        }
    }

    pub(crate) fn new(group: Arc<str>, link: HomeLink) -> Self {
        Self {
            group,
            link,
            assignment: Assignment::unassigned(),
            uploads: IndexSet::new(),
            upload_bytes: 0,
            asked: IndexSet::new(),
        }
    }

    /// Whether no calls are running there and no uploads are open.
    pub(crate) fn is_idle(&self) -> bool {
        !self.assignment.calls().are_pending() && self.uploads.is_empty() && self.assignment.waits_since().is_none()
    }

    /// Records a call forwarded there. Returns `false` if the client has too many open uploads.
    #[must_use]
    pub(crate) fn begin_call(&mut self, call: &CallScan<'_>) -> bool {
        if let Some(id) = &call.invocation_id {
            self.assignment.calls_mut().begin_call(id, call.kind);
        }
        for stream in &call.stream_ids {
            if self.uploads.insert((**stream).into()) {
                self.upload_bytes += stream.len();
            }
        }
        self.uploads.len() <= SECONDARY_UPLOADS_MAX && self.upload_bytes <= UPLOAD_ID_BYTES_MAX
    }

    /// Records a client result that its app server requested.
    pub(crate) fn ask(&mut self, invocation_id: &str) {
        if self.asked.len() >= ASKED_MAX {
            self.asked.shift_remove_index(0);
        }
        self.asked.insert(invocation_id.into());
    }

    /// Whether a message other than a call belongs to this secondary.
    fn claim(&mut self, message: &CallScan<'_>) -> bool {
        let Some(id) = message.invocation_id.as_deref() else { return false };
        match message.kind {
            MessageKind::StreamItem => self.uploads.contains(id),
            MessageKind::Completion if self.uploads.swap_remove(id) => {
                self.upload_bytes -= id.len();
                true
            }
            MessageKind::Completion => self.asked.swap_remove(id),
            MessageKind::CancelInvocation => self.assignment.calls().is_pending(id),
            _ => false,
        }
    }
}

impl SecondaryAssignments {
    pub(crate) fn find(&self, group: &str) -> Option<&SecondaryAssignment> {
        self.0.iter().find(|secondary| *secondary.group == *group)
    }

    #[must_use]
    pub(crate) fn of_group(&mut self, group: &str) -> Option<&mut SecondaryAssignment> {
        self.0.iter_mut().find(|secondary| *secondary.group == *group)
    }

    pub(crate) fn at_app(&self, app: AppServerId) -> Option<&SecondaryAssignment> {
        self.0.iter().find(|secondary| secondary.link.app == app && secondary.assignment.is_known_there())
    }

    /// Secondary for a message other than a call.
    #[must_use]
    pub(crate) fn owner_of(&mut self, message: &CallScan<'_>) -> Option<&mut SecondaryAssignment> {
        self.0.iter_mut().find_map(|secondary| secondary.claim(message).then_some(secondary))
    }

    pub(crate) fn add_assignment(&mut self, secondary: SecondaryAssignment) {
        self.0.push(secondary);
    }

    pub(crate) fn remove(&mut self, group: &str) -> Option<SecondaryAssignment> {
        let place = self.0.iter().position(|secondary| *secondary.group == *group)?;
        Some(self.0.remove(place))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut SecondaryAssignment> {
        self.0.iter_mut()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &SecondaryAssignment> {
        self.0.iter()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// All assignments of a client connection: the primary and the secondaries.
#[derive(Debug, Default)]
pub(crate) struct ClientAssignments {
    home: Assignment,
    /// Secondaries; `None` for a client without any.
    secondaries: Option<Box<SecondaryAssignments>>,
}

impl ClientAssignments {
    pub(crate) fn home(&self) -> &Assignment {
        &self.home
    }

    pub(crate) fn home_mut(&mut self) -> &mut Assignment {
        &mut self.home
    }

    pub(crate) fn secondaries(&self) -> Option<&SecondaryAssignments> {
        self.secondaries.as_deref()
    }

    pub(crate) fn secondaries_mut(&mut self) -> Option<&mut SecondaryAssignments> {
        self.secondaries.as_deref_mut()
    }

    /// Secondaries, created if missing.
    pub(crate) fn secondaries_to_fill(&mut self) -> &mut SecondaryAssignments {
        self.secondaries.get_or_insert_default()
    }

    pub(crate) fn take_secondaries(&mut self) -> Option<Box<SecondaryAssignments>> {
        self.secondaries.take()
    }

    pub(crate) fn assignment_of(&self, role: &Role) -> Option<&Assignment> {
        match role {
            Role::Home => Some(&self.home),
            Role::Secondary(group) => Some(&self.secondaries()?.find(group)?.assignment),
        }
    }

    pub(crate) fn of_mut(&mut self, role: &Role) -> Option<&mut Assignment> {
        match role {
            Role::Home => Some(&mut self.home),
            Role::Secondary(group) => Some(&mut self.secondaries_mut()?.of_group(group)?.assignment),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Assignment> {
        let secondaries = self.secondaries().into_iter().flat_map(|secondaries| secondaries.iter());
        iter::once(&self.home).chain(secondaries.map(|secondary| &secondary.assignment))
    }

    /// Whether the client has the maximum number of pending calls at any app server.
    pub(crate) fn have_too_many_calls(&self, calls_max: usize) -> bool {
        self.all().any(|assignment| assignment.calls().is_full(calls_max))
    }

    /// Wait of each call at any app server, in ticks.
    pub(crate) fn call_waits(&mut self, now: u32) -> impl Iterator<Item = u32> {
        let secondaries = self.secondaries.as_deref_mut().into_iter().flat_map(|secondaries| secondaries.iter_mut());
        let all = iter::once(&mut self.home).chain(secondaries.map(|secondary| &mut secondary.assignment));
        all.flat_map(move |assignment| assignment.calls_mut().waits(now))
    }

    /// Whether each assignment-related pause reason applies now.
    pub(super) fn wanted_pauses(&self) -> [(PauseReason, bool); 3] {
        let any = |wants: fn(&Assignment) -> bool| self.all().any(wants);
        [
            (PauseReason::AppServer, any(|assignment| assignment.is_paused())),
            (PauseReason::HandingOver, any(|assignment| assignment.holds_input())),
            (PauseReason::Unassigned, any(|assignment| assignment.waits_since().is_some())),
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::engine::upstream::{HubIdentity, LinkHandle};

    fn message<'a>(kind: MessageKind, id: &'a str, streams: &[&'a str]) -> CallScan<'a> {
        let stream_ids = streams.iter().copied().map(Cow::Borrowed).collect();
        CallScan { kind, invocation_id: Some(id.into()), target: None, stream_ids }
    }

    fn secondary(group: &str) -> SecondaryAssignment {
        SecondaryAssignment::new(group.into(), Arc::new(LinkHandle::nowhere(HubIdentity::detached())))
    }

    #[test]
    fn what_belongs_to_a_call_goes_where_the_call_went() {
        let mut secondaries = SecondaryAssignments::default();
        for (group, call, stream) in [("a", "1", "s"), ("b", "2", "t")] {
            let mut secondary = secondary(group);
            assert!(secondary.begin_call(&message(MessageKind::Invocation, call, &[stream])));
            secondaries.add_assignment(secondary);
        }
        let mut owner =
            |kind, id| secondaries.owner_of(&message(kind, id, &[])).map(|secondary| secondary.group.to_string());
        assert_eq!(owner(MessageKind::StreamItem, "t").as_deref(), Some("b"));
        assert_eq!(owner(MessageKind::StreamItem, "1"), None, "a call is no upload");
        assert_eq!(owner(MessageKind::CancelInvocation, "1").as_deref(), Some("a"));
        assert_eq!(owner(MessageKind::Completion, "t").as_deref(), Some("b"));
        assert_eq!(owner(MessageKind::Completion, "t"), None, "it has ended");
    }

    #[test]
    fn a_result_goes_once_to_the_secondary_that_asked() {
        let mut secondary = secondary("a");
        secondary.ask("q");
        let answer = message(MessageKind::Completion, "q", &[]);
        assert!(secondary.claim(&answer) && !secondary.claim(&answer));
        for number in 0..=ASKED_MAX {
            secondary.ask(&number.to_string());
        }
        assert!(!secondary.claim(&message(MessageKind::Completion, "0", &[])), "the oldest is forgotten");
        assert!(secondary.claim(&message(MessageKind::Completion, "1", &[])));
    }

    #[test]
    fn uploads_are_bounded_in_number_and_bytes() {
        let mut many = secondary("a");
        for number in 0..SECONDARY_UPLOADS_MAX {
            assert!(many.begin_call(&message(MessageKind::Invocation, "1", &[&number.to_string()])));
        }
        assert!(!many.begin_call(&message(MessageKind::Invocation, "1", &["one more"])));
        let long = "x".repeat(UPLOAD_ID_BYTES_MAX + 1);
        assert!(!secondary("a").begin_call(&message(MessageKind::Invocation, "1", &[&long])));
    }
}
