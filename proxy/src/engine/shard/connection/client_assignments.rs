//! All assignments of a client connection: the primary and the secondaries.

use std::iter;

use super::assignment::{Assignment, Role};
use super::{PauseReason, SecondaryAssignments};

#[derive(Debug, Default)]
pub(crate) struct ClientAssignments {
    home: Assignment,
    /// Secondaries; `None` for a client without any.
    sides: Option<Box<SecondaryAssignments>>,
}

impl ClientAssignments {
    pub(crate) fn home(&self) -> &Assignment {
        &self.home
    }

    pub(crate) fn home_mut(&mut self) -> &mut Assignment {
        &mut self.home
    }

    pub(crate) fn sides(&self) -> Option<&SecondaryAssignments> {
        self.sides.as_deref()
    }

    pub(crate) fn sides_mut(&mut self) -> Option<&mut SecondaryAssignments> {
        self.sides.as_deref_mut()
    }

    /// Secondaries, created if missing.
    pub(crate) fn sides_to_fill(&mut self) -> &mut SecondaryAssignments {
        self.sides.get_or_insert_default()
    }

    pub(crate) fn take_sides(&mut self) -> Option<Box<SecondaryAssignments>> {
        self.sides.take()
    }

    pub(crate) fn of(&self, role: &Role) -> Option<&Assignment> {
        match role {
            Role::Home => Some(&self.home),
            Role::Side(group) => Some(&self.sides()?.find(group)?.assignment),
        }
    }

    pub(crate) fn of_mut(&mut self, role: &Role) -> Option<&mut Assignment> {
        match role {
            Role::Home => Some(&mut self.home),
            Role::Side(group) => Some(&mut self.sides_mut()?.of_group(group)?.assignment),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Assignment> {
        let sides = self.sides().into_iter().flat_map(|sides| sides.iter());
        iter::once(&self.home).chain(sides.map(|side| &side.assignment))
    }

    /// Whether the client has the maximum number of pending calls at any app server.
    pub(crate) fn have_too_many_calls(&self, calls_max: usize) -> bool {
        self.all().any(|assignment| assignment.calls().is_full(calls_max))
    }

    /// Wait of each call at any app server, in ticks.
    pub(crate) fn call_waits(&mut self, now: u32) -> impl Iterator<Item = u32> {
        let sides = self.sides.as_deref_mut().into_iter().flat_map(|sides| sides.iter_mut());
        let all = iter::once(&mut self.home).chain(sides.map(|side| &mut side.assignment));
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
