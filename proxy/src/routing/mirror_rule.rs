//! Mirror: copies of the messages of sampled connections for another group.

use std::sync::Arc;

/// Mirror of a hub's connections.
#[derive(Debug, Clone)]
pub(crate) struct MirrorRule {
    /// Name in metrics, logs and on the observer page.
    pub label: Arc<str>,
    pub group: Arc<str>,
    /// Whether its answers are compared with those of the primary app server.
    pub is_diff: bool,
}
