//! Counters of the webhook of one hub: requests by outcome, further attempts, events that were dropped.

use super::{Counter, DurationBuckets, Histogram};

/// Outcome of a request to a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WebhookOutcome {
    /// Answered as it should be.
    Done,
    /// Answered with another status than 200 or 204.
    Status,
    /// Answered with a redirect, which is not followed.
    Redirect,
    /// Not sent: nobody listens there, or nobody accepts in time.
    Unreachable,
    /// Cut off before the answer was whole.
    Broken,
    Timeout,
    /// Answered with more bytes than are allowed.
    TooLarge,
    /// Answered with something that is no completion of the call.
    Malformed,
}

impl WebhookOutcome {
    /// All outcomes with their labels.
    pub(crate) const ALL: [(Self, &'static str); 8] = [
        (Self::Done, "ok"),
        (Self::Status, "status"),
        (Self::Redirect, "redirect"),
        (Self::Unreachable, "unreachable"),
        (Self::Broken, "broken"),
        (Self::Timeout, "timeout"),
        (Self::TooLarge, "too_large"),
        (Self::Malformed, "malformed"),
    ];
}

/// Counters of one webhook.
#[derive(Debug, Default)]
pub(crate) struct WebhookCounters {
    outcomes: [Counter; WebhookOutcome::ALL.len()],
    /// Further attempts of requests that had failed in a way that allows for one.
    pub retries: Counter,
    /// Events that nobody was told of.
    pub dropped: Counter,
    /// Time from the beginning of a request to the end of its answer.
    pub durations: Histogram<DurationBuckets>,
}

impl WebhookCounters {
    /// Returns the counter of one outcome.
    #[must_use]
    pub(crate) fn of(&self, outcome: WebhookOutcome) -> &Counter {
        let [done, status, redirect, unreachable, broken, timeout, too_large, malformed] = &self.outcomes;
        match outcome {
            WebhookOutcome::Done => done,
            WebhookOutcome::Status => status,
            WebhookOutcome::Redirect => redirect,
            WebhookOutcome::Unreachable => unreachable,
            WebhookOutcome::Broken => broken,
            WebhookOutcome::Timeout => timeout,
            WebhookOutcome::TooLarge => too_large,
            WebhookOutcome::Malformed => malformed,
        }
    }
}
