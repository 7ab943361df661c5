//! Source of a view of presence: the stream of one shard of one node.

use std::collections::HashSet;
use std::sync::Arc;

use trunkline_protocol::service::PresenceChanges;

/// Place of a source in its view.
pub(super) type SourceId = usize;

/// Thing that a source holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Held {
    User(Arc<str>),
    /// Member of a group, by its connection id.
    Member(Arc<str>, Arc<str>),
}

impl Held {
    /// Name by which the app server is chosen that tells of it.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::User(name) | Self::Member(name, _) => name,
        }
    }
}

/// A shard of a node, as it tells of itself.
#[derive(Debug)]
pub(super) struct Source<N> {
    pub(super) node: N,
    pub(super) shard: i64,
    pub(super) stream: i64,
    /// Its first snapshot is under way, in whichever stream, and was told before.
    pub(super) is_known: bool,
    /// It can't be reached, and may be gone.
    pub(super) is_suspended: bool,
    /// Instances that hear of its changes.
    pub(super) listed: Arc<[Arc<str>]>,
    /// Holdings of its former stream, as far as the snapshot of this one has not confirmed them.
    pub(super) stale: HashSet<Held>,
}

impl<N> Source<N> {
    /// Source whose first update this is.
    pub(super) fn new(node: N, update: &PresenceChanges, is_known: bool) -> Self {
        let listed = update.app_servers.iter().flatten().map(|instance| Arc::from(&**instance)).collect();
        let (shard, stream) = (update.shard, update.stream);
        Self { node, shard, stream, is_known, is_suspended: false, listed, stale: HashSet::new() }
    }
}
