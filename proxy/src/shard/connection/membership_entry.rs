//! Entry of a client's list of memberships, and the name of a set.

use std::rc::Rc;

/// Name of a set, shared by the set and the map that finds it.
pub(super) type SharedName = Rc<str>;

/// Back reference from a client to its place in a set.
#[derive(Debug, Clone, Copy)]
pub(super) struct MembershipEntry {
    pub(super) set: u32,
    pub(super) place: u32,
}
