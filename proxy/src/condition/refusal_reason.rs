//! Latest reason of refused clients, by cause, and the number of refused app servers.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use trunkline_protocol::cause::Cause;

/// Maximum length of a stored reason; parts of it come from clients.
const REASON_MAX_BYTES: usize = 500;

#[derive(Debug, Default)]
pub(crate) struct RefusalReasons(Mutex<BTreeMap<Cause, RefusalNote>>);

#[derive(Debug, Default)]
struct RefusalNote {
    reason: String,
    /// Number of refused app servers. The counters of requests include them.
    app_servers: u64,
}

impl RefusalReasons {
    pub(crate) fn note(&self, cause: Cause, reason: &str) {
        let mut notes = self.lock();
        let stored = &mut notes.entry(cause).or_default().reason;
        stored.clear();
        stored.push_str(reason.get(..reason.floor_char_boundary(REASON_MAX_BYTES)).unwrap_or_default());
    }

    pub(crate) fn reason(&self, cause: Cause) -> Option<String> {
        self.lock().get(&cause).map(|note| note.reason.clone()).filter(|reason| !reason.is_empty())
    }

    pub(crate) fn count_app_server(&self, cause: Cause) {
        self.lock().entry(cause).or_default().app_servers += 1;
    }

    pub(crate) fn app_servers(&self, cause: Cause) -> u64 {
        self.lock().get(&cause).map_or(0, |note| note.app_servers)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Cause, RefusalNote>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
