//! Latest differences between the answers of mirrors and primaries, for the operator.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Maximum number of differences kept for the operator.
const SEEN_MAX: usize = 100;

/// Difference as shown to an operator, without content.
#[derive(Debug, Clone)]
pub(crate) struct SeenDifference {
    /// Time in milliseconds since 1970.
    pub at_ms: u64,
    /// Label of the mirror's rule.
    pub mirror: Arc<str>,
    pub hub: Box<str>,
    /// Connection id, or the first 22 characters if the id serves as a token.
    pub connection: Box<str>,
    pub target: Box<str>,
    pub invocation_id: Box<str>,
    pub primary: String,
    pub answer: String,
}

/// Newest differences of a node.
#[derive(Debug, Default)]
pub(crate) struct SeenDifferences(Mutex<VecDeque<SeenDifference>>);

impl SeenDifferences {
    pub(crate) fn add(&self, difference: SeenDifference) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.truncate(SEEN_MAX - 1);
        seen.push_front(difference);
    }

    pub(crate) fn newest(&self) -> Vec<SeenDifference> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}
