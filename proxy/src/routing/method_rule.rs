//! Method firewall: which methods of a hub clients may call, how often, and with messages of which size.

use std::sync::Arc;

use super::condition::PathPattern;
use super::target_table::TargetPattern;
use crate::metrics::Counter;

/// Methods that are refused or limited.
#[derive(Debug, Clone)]
pub(crate) struct MethodRule {
    /// Name in metrics, logs and on the observer page.
    pub label: Arc<str>,
    pub hub: PathPattern,
    /// Methods that are refused.
    pub deny: Vec<TargetPattern>,
    /// Methods beside which all others are refused; `None` refuses none.
    pub allow: Option<Vec<TargetPattern>>,
    /// Calls per second of one user; all methods of one pattern count together.
    pub per_second: Vec<(TargetPattern, u32)>,
    /// Largest messages, in bytes.
    pub max_bytes: Vec<(TargetPattern, usize)>,
    /// Calls that were refused.
    pub refused: Arc<Counter>,
}
