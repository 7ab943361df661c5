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

/// Reason why a request is not carried to the owner of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HopRefusal {
    /// Another start of a node has the owner's address.
    OwnerGone,
    /// The connection token is older than any connection whose requests are carried.
    TooOld,
    /// As many requests are being carried to the owner as may be.
    OwnerFull,
    /// As many requests of the connection are being carried as may be.
    ConnectionFull,
}

impl HopRefusal {
    /// All reasons with their labels.
    pub(crate) const ALL: [(Self, &'static str); 4] = [
        (Self::OwnerGone, "owner_gone"),
        (Self::TooOld, "too_old"),
        (Self::OwnerFull, "owner_full"),
        (Self::ConnectionFull, "connection_full"),
    ];
}

/// Outcome of asking the owner of a connection token for its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReservationOutcome {
    Granted,
    /// The connection is at its owner, or about to be.
    Taken,
    /// The token was used before, or is too old.
    Unknown,
    /// The owner gave no answer, or can't be asked: the app is, where it has named the user.
    Unanswered,
}

impl ReservationOutcome {
    /// All outcomes with their labels.
    pub(crate) const ALL: [(Self, &'static str); 4] = [
        (Self::Granted, "granted"),
        (Self::Taken, "taken"),
        (Self::Unknown, "unknown"),
        (Self::Unanswered, "unanswered"),
    ];
}

/// Outcome of a request for the app server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PassThroughOutcome {
    /// The app server answered, with any status.
    Answered,
    /// No app server was linked.
    /// A route of the configuration file rejects it.
    Rejected,
    NoAppServer,
    /// A limit of requests under way was reached.
    Limited,
    Failed(RelayFailure),
}

impl PassThroughOutcome {
    /// All outcomes with their labels.
    pub(crate) const ALL: [(Self, &'static str); 8] = [
        (Self::Answered, "answered"),
        (Self::Rejected, "rejected"),
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
    hops_refused: [Counter; HopRefusal::ALL.len()],
    reservations: [Counter; ReservationOutcome::ALL.len()],
    /// Forward marks that no node of this fleet made, or not for this request.
    pub marks_refused: Counter,
    answered: Counter,
    rejected: Counter,
    no_app_server: Counter,
    limited: Counter,
    failed: RelayFailureCounters,
}

impl RelayCounters {
    /// Returns the counter of one reason not to carry a request to its owner.
    #[must_use]
    pub(crate) fn hops_refused(&self, refusal: HopRefusal) -> &Counter {
        let [owner_gone, too_old, owner_full, connection_full] = &self.hops_refused;
        match refusal {
            HopRefusal::OwnerGone => owner_gone,
            HopRefusal::TooOld => too_old,
            HopRefusal::OwnerFull => owner_full,
            HopRefusal::ConnectionFull => connection_full,
        }
    }

    /// Returns the counter of one outcome of asking an owner for an id.
    #[must_use]
    pub(crate) fn reservations(&self, outcome: ReservationOutcome) -> &Counter {
        let [granted, taken, unknown, unanswered] = &self.reservations;
        match outcome {
            ReservationOutcome::Granted => granted,
            ReservationOutcome::Taken => taken,
            ReservationOutcome::Unknown => unknown,
            ReservationOutcome::Unanswered => unanswered,
        }
    }

    /// Returns the counter of one outcome of requests for the app server.
    #[must_use]
    pub(crate) fn passed(&self, outcome: PassThroughOutcome) -> &Counter {
        match outcome {
            PassThroughOutcome::Answered => &self.answered,
            PassThroughOutcome::Rejected => &self.rejected,
            PassThroughOutcome::NoAppServer => &self.no_app_server,
            PassThroughOutcome::Limited => &self.limited,
            PassThroughOutcome::Failed(failure) => self.failed.of(failure),
        }
    }
}
