//! What becomes of something that a peer has to do first: a TLS handshake, a PROXY protocol header.

use super::Counter;

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// It took too long.
    Timeout,
    /// The peer went away.
    Closed,
    /// The peer broke a rule, or offered nothing that we speak.
    Invalid,
    /// The peer refused us: it may not know who signed our certificate.
    Alert,
}

impl Outcome {
    /// All outcomes, with their labels.
    pub(crate) const ALL: [(Outcome, &'static str); 5] = [
        (Outcome::Done, "ok"),
        (Outcome::Timeout, "timeout"),
        (Outcome::Closed, "closed"),
        (Outcome::Invalid, "invalid"),
        (Outcome::Alert, "alert"),
    ];
}

/// How often each outcome came.
#[derive(Debug, Default)]
pub(crate) struct Outcomes([Counter; Outcome::ALL.len()]);

impl Outcomes {
    /// How often this one did.
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
