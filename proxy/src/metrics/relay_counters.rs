//! Counters of forwarded requests: passed through to app servers, or carried to the owner of their connection.

use super::{Counter, DurationBuckets, Histogram};

/// Error of a forwarded request that got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RelayFailure {
    /// No connection was made, so nothing was sent.
    #[error("it can't be reached")]
    Unreachable,
    #[error("it did not answer in time")]
    Timeout,
    /// The connection broke off, or the answer is not HTTP.
    #[error("it broke off")]
    Broken,
    /// The client let its body stand still.
    #[error("the client's body stood still")]
    ClientLate,
}

impl RelayFailure {
    /// All failures with their labels.
    pub(crate) const ALL: [(Self, &'static str); 4] = [
        (Self::Unreachable, "unreachable"),
        (Self::Timeout, "timeout"),
        (Self::Broken, "broken"),
        (Self::ClientLate, "client_late"),
    ];
}

/// Outcome of a request for the app server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PassThroughOutcome {
    /// The app server answered, with any status.
    Answered,
    /// No app server was linked.
    NoAppServer,
    /// A limit of requests under way was reached.
    Limited,
    Failed(RelayFailure),
}

impl PassThroughOutcome {
    /// All outcomes with their labels.
    pub(crate) const ALL: [(Self, &'static str); 7] = [
        (Self::Answered, "answered"),
        (Self::NoAppServer, "no_app_server"),
        (Self::Limited, "limited"),
        (Self::Failed(RelayFailure::Unreachable), "unreachable"),
        (Self::Failed(RelayFailure::Timeout), "timeout"),
        (Self::Failed(RelayFailure::Broken), "broken"),
        (Self::Failed(RelayFailure::ClientLate), "client_late"),
    ];
}

/// Counters of forwarded requests by [`RelayFailure`].
#[derive(Debug, Default)]
pub(crate) struct RelayFailureCounters {
    unreachable: Counter,
    timeout: Counter,
    broken: Counter,
    client_late: Counter,
}

impl RelayFailureCounters {
    /// Returns the counter of one failure.
    #[must_use]
    pub(crate) fn of(&self, failure: RelayFailure) -> &Counter {
        match failure {
            RelayFailure::Unreachable => &self.unreachable,
            RelayFailure::Timeout => &self.timeout,
            RelayFailure::Broken => &self.broken,
            RelayFailure::ClientLate => &self.client_late,
        }
    }
}

/// Counters of the forwarded requests of one shard.
#[derive(Debug, Default)]
pub(crate) struct RelayCounters {
    /// Bytes of bodies and tunnels from clients to app servers.
    pub bytes_up: Counter,
    /// Bytes of bodies and tunnels from app servers to clients.
    pub bytes_down: Counter,
    /// Upgrades that app servers accepted.
    pub upgrades: Counter,
    /// Requests from outside for paths of the fleet.
    pub private_paths: Counter,
    /// Requests carried to the owner of their connection.
    pub hops: Counter,
    /// Hops whose owner did not have the connection.
    pub hop_misses: Counter,
    /// Time until the head of the owner's answer was there.
    pub hop_durations: Histogram<DurationBuckets>,
    /// Hops without an answer.
    pub hop_failures: RelayFailureCounters,
    /// Forward marks that no node of this fleet made, or not for this request.
    pub marks_refused: Counter,
    answered: Counter,
    no_app_server: Counter,
    limited: Counter,
    failed: RelayFailureCounters,
}

impl RelayCounters {
    /// Returns the counter of one outcome of requests for the app server.
    #[must_use]
    pub(crate) fn passed(&self, outcome: PassThroughOutcome) -> &Counter {
        match outcome {
            PassThroughOutcome::Answered => &self.answered,
            PassThroughOutcome::NoAppServer => &self.no_app_server,
            PassThroughOutcome::Limited => &self.limited,
            PassThroughOutcome::Failed(failure) => self.failed.of(failure),
        }
    }
}
