//! Counters of the requests to the REST data plane, by how they were answered.

use http::StatusCode;

use super::Counter;

/// Labels of the answers: done, not there, refused for what the caller did, refused for what this node or another one
/// did.
const LABELS: [&str; 4] = ["done", "absent", "refused", "failed"];

/// Counters of the requests to the data plane.
#[derive(Debug, Default)]
pub(crate) struct RestCounters([Counter; LABELS.len()]);

impl RestCounters {
    /// Counts a request that was answered with this status.
    pub(crate) fn answered(&self, status: StatusCode) {
        let [done, absent, refused, failed] = &self.0;
        let counter = match status {
            StatusCode::NOT_FOUND => absent,
            status if status.is_client_error() => refused,
            status if status.is_server_error() => failed,
            _ => done,
        };
        counter.increment();
    }

    /// All counters with their labels.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        LABELS.into_iter().zip(self.0.iter().map(Counter::get))
    }
}
