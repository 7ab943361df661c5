//! OutcomeCounters of steps that precede HTTP: TLS handshakes, PROXY protocol headers; and of reading certificates.

use super::Counter;

/// Outcome of such a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Timeout,
    /// The peer closed the socket.
    Closed,
    /// The peer broke the protocol, or offered nothing that this node speaks.
    Invalid,
    /// The peer sent a TLS alert: it may not know who signed the certificate.
    Alert,
}

impl Outcome {
    /// All outcomes with their labels.
    pub(crate) const ALL: [(Outcome, &'static str); 5] = [
        (Outcome::Done, "ok"),
        (Outcome::Timeout, "timeout"),
        (Outcome::Closed, "closed"),
        (Outcome::Invalid, "invalid"),
        (Outcome::Alert, "alert"),
    ];
}

/// One counter for each outcome.
#[derive(Debug, Default)]
pub(crate) struct OutcomeCounters([Counter; Outcome::ALL.len()]);

impl OutcomeCounters {
    /// Returns the counter of one outcome.
    #[must_use]
    pub(crate) fn of(&self, outcome: Outcome) -> &Counter {
        let [done, timeout, closed, invalid, alert] = &self.0;
        match outcome {
            Outcome::Done => done,
            Outcome::Timeout => timeout,
            Outcome::Closed => closed,
            Outcome::Invalid => invalid,
            Outcome::Alert => alert,
        }
    }
}
