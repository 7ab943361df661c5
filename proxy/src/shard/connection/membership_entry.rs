//! Entry of a client's list of memberships.

/// Back reference from a client to its place in a set.
#[derive(Debug, Clone, Copy)]
pub(super) struct MembershipEntry {
    pub(super) set: u32,
    pub(super) place: u32,
}
