//! Route of single messages: invocations of some methods go to another group than the rest of their connection.

use std::sync::Arc;

use super::condition::PathPattern;
use super::target_table::TargetPattern;

/// Route of the invocations of some methods of a hub.
#[derive(Debug, Clone)]
pub(crate) struct MessageRule {
    /// Name in the output of `trunkline check` and on the observer page.
    pub label: Arc<str>,
    pub hub: PathPattern,
    pub targets: Vec<TargetPattern>,
    pub group: Arc<str>,
}
