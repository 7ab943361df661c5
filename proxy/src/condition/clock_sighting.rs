//! Clocks of other nodes that differ from this node's, by the address of the node.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

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
