//! Latest reason of refused requests, by cause.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use trunkline_protocol::cause::Cause;

/// Maximum length of a stored reason; parts of it come from clients.
const REASON_MAX_BYTES: usize = 500;

#[derive(Debug, Default)]
pub(crate) struct RefusalReasons(Mutex<BTreeMap<Cause, String>>);

impl RefusalReasons {
    pub(crate) fn note(&self, cause: Cause, reason: &str) {
        let mut reasons = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stored = reasons.entry(cause).or_default();
        stored.clear();
        stored.push_str(reason.get(..reason.floor_char_boundary(REASON_MAX_BYTES)).unwrap_or_default());
    }

    #[must_use]
    pub(crate) fn reason(&self, cause: Cause) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&cause).filter(|reason| !reason.is_empty()).cloned()
    }
}
