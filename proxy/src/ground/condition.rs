//! Conditions: states that keep users from being served, or soon will.
//!
//! ```text
//!  evaluation, once a second ──► findings ──┐
//!  reports of events ───────────────────────┴─► registry ──► notices for the log
//!                                                  └───────► list for metrics, /readyz and the API
//! ```
//!
//! The catalogue is static. The registry holds one entry per condition and subject. It imports no channel.

mod catalogue;
mod condition_registry;
mod known_hub;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use trunkline_protocol::cause::Cause;

pub(crate) use catalogue::ConditionKind;
pub use catalogue::{CatalogueEntry, Severity, condition_entries};
pub(crate) use condition_registry::{ActiveCondition, ConditionNotice, ConditionRegistry, Finding, NoticeKind, quoted};
pub(crate) use known_hub::{HubSight, KnownHub, KnownHubs};

/// Maximum number of addresses; further ones are ignored.
const ADDRESSES_MAX: usize = 64;

/// Time for which a difference is reported; a node without links retries every few seconds.
const SEEN_FOR: Duration = Duration::from_secs(30);

/// Differences seen in refused hellos, which only holders of the key can make.
#[derive(Debug, Default)]
pub(crate) struct ClockSightings(Mutex<BTreeMap<IpAddr, (Instant, i64)>>);

impl ClockSightings {
    /// Notes by how many minutes the clock of a node is ahead.
    pub(crate) fn note(&self, from: IpAddr, ahead_min: i64) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() < ADDRESSES_MAX || seen.contains_key(&from) {
            seen.insert(from, (Instant::now(), ahead_min));
        }
    }

    /// Removes the difference of a node that has opened a channel. A refused hello may be answered later than the
    /// first hello after a repair.
    pub(crate) fn agree(&self, from: IpAddr) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&from);
    }

    /// Returns the recent differences, and removes older ones.
    pub(crate) fn recent(&self, now: Instant) -> Vec<(IpAddr, i64)> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|_, (at, _)| now.saturating_duration_since(*at) < SEEN_FOR);
        seen.iter().map(|(from, (_, ahead_min))| (*from, *ahead_min)).collect()
    }
}

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

/// Time for which a refusal is reported; an app server retries more often.
const REFUSED_FOR: Duration = Duration::from_secs(90);

/// Subject of a refusal at a hub that this node does not know: strangers choose these names.
pub(crate) const UNKNOWN_HUB: &str = "(unknown hub)";

impl ConditionRegistry {
    pub(crate) fn report_refused_app(&self, hub: &str, detail: String) {
        self.report(Finding::new(ConditionKind::AppServerRefused, hub, detail), Some(REFUSED_FOR));
    }

    /// Ends the report of a hub, because an app server of the hub was accepted. The hub may have been unknown before.
    pub(crate) fn clear_refused_app(&self, hub: &str) {
        self.clear(ConditionKind::AppServerRefused, hub);
        let named = format!("hub {:?}, ", hub.to_ascii_lowercase());
        let is_of_hub = |detail: &str| !detail.starts_with("hub ") || detail.starts_with(&named);
        self.clear_if(ConditionKind::AppServerRefused, UNKNOWN_HUB, is_of_hub);
    }
}
