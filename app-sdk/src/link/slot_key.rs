//! Key of a slot: the place of a link in the pool of a node.

use std::sync::Arc;

/// A place in a pool, of one start of one node, for one hub. Its name is for people: two nodes may have one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct SlotKey {
    pub(crate) hub: Arc<str>,
    pub(crate) node: Arc<str>,
    pub(crate) boot: Arc<str>,
    pub(crate) slot: u32,
}

impl SlotKey {
    /// Whether both are of nodes with one name, which are not the same one.
    pub(super) fn shares_name(&self, other: &Self) -> bool {
        self.node == other.node && self.boot != other.boot
    }
}
