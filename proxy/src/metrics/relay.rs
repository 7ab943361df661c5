//! What is counted of requests that are carried on: to app servers, and to the nodes that own a connection.

use super::{Counter, Exchange, Histogram};

/// Why a request that was carried on got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RelayFailure {
    /// No connection could be made, so nothing was sent.
    #[error("it can't be reached")]
    Unreachable,
    /// No answer came in time.
    #[error("it did not answer in time")]
    Timeout,
    /// The connection broke off, or the answer is none.
    #[error("it broke off")]
    Broken,
}

impl RelayFailure {
    /// All of them, with their labels.
    pub(crate) const ALL: [(Self, &'static str); 3] =
        [(Self::Unreachable, "unreachable"), (Self::Timeout, "timeout"), (Self::Broken, "broken")];
}

/// What became of a request that was for the app server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passed {
    /// The app server answered, whatever it said.
    Answered,
    /// No app server was linked.
    NoAppServer,
    /// The app server gave no answer.
    Failed(RelayFailure),
}

impl Passed {
    /// All outcomes, with their labels.
    pub(crate) const ALL: [(Self, &'static str); 5] = [
        (Self::Answered, "answered"),
        (Self::NoAppServer, "no_app_server"),
        (Self::Failed(RelayFailure::Unreachable), "unreachable"),
        (Self::Failed(RelayFailure::Timeout), "timeout"),
        (Self::Failed(RelayFailure::Broken), "broken"),
    ];
}

/// One counter for each [`RelayFailure`].
#[derive(Debug, Default)]
pub(crate) struct Failures {
    unreachable: Counter,
    timeout: Counter,
    broken: Counter,
}

impl Failures {
    /// How many of this kind there were.
    #[must_use]
    pub(crate) fn of(&self, failure: RelayFailure) -> &Counter {
        match failure {
            RelayFailure::Unreachable => &self.unreachable,
            RelayFailure::Timeout => &self.timeout,
            RelayFailure::Broken => &self.broken,
        }
    }
}

/// What one shard counts of it.
#[derive(Debug, Default)]
pub(crate) struct RelayCounters {
    /// Bytes of bodies and tunnels from clients to app servers.
    pub bytes_up: Counter,
    /// Bytes of bodies and tunnels from app servers to clients.
    pub bytes_down: Counter,
    /// Upgrades that app servers accepted.
    pub upgrades: Counter,
    /// Requests for paths of the fleet's own.
    pub private_paths: Counter,
    /// Requests carried to the node that owns their connection.
    pub hops: Counter,
    /// Those of them whose owner did not have the connection.
    pub hop_misses: Counter,
    /// How long it took until the head of their answers was there.
    pub hop_durations: Histogram<Exchange>,
    /// Those of them that got no answer.
    pub hop_failures: Failures,
    /// Marks of forwarded requests that no node of this fleet made, or not for this request.
    pub marks_refused: Counter,
    answered: Counter,
    no_app_server: Counter,
    failed: Failures,
}

impl RelayCounters {
    /// How many requests for the app server had this outcome.
    #[must_use]
    pub(crate) fn passed(&self, outcome: Passed) -> &Counter {
        match outcome {
            Passed::Answered => &self.answered,
            Passed::NoAppServer => &self.no_app_server,
            Passed::Failed(failure) => self.failed.of(failure),
        }
    }
}
