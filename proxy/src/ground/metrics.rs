//! Counters and histograms: one set per shard, written only by that shard and summed on reading.
//!
//! A metric is declared at the counting field (`metered!`), or in `admin::exposition` for values that are looked up
//! (`metric_rows!`). The book's metrics page is generated from both.

mod counter;
mod histogram;
mod hub_counters;
mod metric_family;
mod metric_label;
mod metric_proto;
mod shard_counters;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use http::StatusCode;

pub(crate) use counter::{Counter, Gauge};
pub(crate) use histogram::{Buckets, Distribution, DurationBuckets, FanOutBuckets, Histogram, LifetimeBuckets};
pub(crate) use hub_counters::{
    CauseCounters, ClientProtocol, ConnectionCounters, HubCounters, LabelledCounters, MirrorCounters, RuleCounters,
};
pub(crate) use metric_family::{
    Families, LabelledSample, Measure, Metered, MetricKind, MetricRow, Sample, label, metered, metric_rows,
};
pub(crate) use metric_label::{
    HopRefusal, HopRefusalCounters, Limit, LimitCounts, MoveCause, MoveCounters, Outcome, OutcomeCounters,
    PassThroughCounters, PassThroughOutcome, RefreshCounters, RefreshOutcome, RelayFailure, RelayFailureCounters,
    ReservationCounters, ReservationOutcome, RestOutcome, RestRequestCounters, SendCounters, SendKind,
    SessionCloseReason, SessionEndCounters, WebhookOutcome, WebhookRequestCounters,
};
pub(crate) use shard_counters::{Counters, Direction, FrameKind, HUBS_MAX, RelayCounters};

metered! {
    pub(crate) struct WebhookCounters {
        #[metric("trunkline_webhook_requests_total", "Requests to webhooks, by outcome.")]
        pub requests: WebhookRequestCounters,
        #[metric("trunkline_webhook_retries_total", "Retries of requests to webhooks.")]
        pub retries: Counter,
        #[metric("trunkline_webhook_events_dropped_total", "Events dropped without a successful request to a webhook.")]
        pub dropped: Counter,
        #[metric("trunkline_webhook_duration_seconds", "Duration of requests to webhooks until the end of the answer.")]
        pub durations: Histogram<DurationBuckets>,
    }
}

metered! {
    /// Counters of REST data plane requests, by response.
    pub(crate) struct RestCounters {
        #[metric("trunkline_rest_requests_total", "Requests to the REST data plane, by outcome.")]
        requests: RestRequestCounters,
        #[metric(
            "trunkline_rest_displaced_total",
            "REST requests displaced by other callers, because their bodies did not arrive."
        )]
        pub displaced: Counter,
    }
}

metered! {
    /// Counters of the records at this node.
    pub(crate) struct HistoryCounters {
        #[metric("trunkline_history_appended_total", "Messages recorded at this node.")]
        pub appended: Counter,
        #[metric("trunkline_history_refused_total", "Sends to records and ends of records that were refused.")]
        pub refused: Counter,
        #[metric(
            "trunkline_history_resets_total",
            "Reads from a position that was no longer kept, or of another record."
        )]
        pub resets: Counter,
    }
}

metered! {
    /// Counters of the store.
    pub(crate) struct StoreCounters {
        #[metric("trunkline_store_writes_total", "Writes to the store that succeeded.")]
        pub writes: Counter,
        #[metric("trunkline_store_retries_total", "Attempts of writes to the store that were repeated.")]
        pub retries: Counter,
        #[metric("trunkline_store_untrusted_total", "Values of the store that this fleet has not sealed.")]
        pub untrusted: Counter,
        #[metric("trunkline_store_write_duration_seconds", "Duration of single writes until the answer of the store.")]
        pub durations: Histogram<DurationBuckets>,
        #[metric("trunkline_broker_ignored_total", "Messages of the broker that no node of this fleet has sealed, and copies.")]
        pub broker_ignored: Counter,
        #[metric("trunkline_broker_gaps_total", "Sockets between nodes that ended because the broker lost a message.")]
        pub broker_gaps: Counter,
    }
}

impl RestCounters {
    pub(crate) fn answered(&self, status: StatusCode) {
        let outcome = match status {
            StatusCode::NOT_FOUND => RestOutcome::Absent,
            status if status.is_client_error() => RestOutcome::Refused,
            status if status.is_server_error() => RestOutcome::Failed,
            _ => RestOutcome::Done,
        };
        self.requests.of(outcome).increment();
    }
}

/// Maximum number of resources and keys with their own counters. Each is a line in every scrape.
const KEYS_MAX: usize = 1000;

/// Key that counts all others.
const OTHERS: &str = "(others)";

#[derive(Debug, Default)]
pub(crate) struct PermitRefusals(Mutex<BTreeMap<(&'static str, Box<str>), u64>>);

impl PermitRefusals {
    /// Counts a refusal. `key` is the holder of an exhausted share, or the exhausted limit in parentheses.
    pub(crate) fn count(&self, what: &'static str, key: &str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_room = counts.len() < KEYS_MAX || counts.contains_key(&(what, key.into()));
        *counts.entry((what, if is_room { key } else { OTHERS }.into())).or_default() += 1;
    }

    pub(crate) fn all(&self) -> Vec<(&'static str, Box<str>, u64)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|((what, key), count)| (*what, key.clone(), *count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_a_counter_and_keys_beyond_the_limit_share_one() {
        let refusals = PermitRefusals::default();
        for number in 0..2 * KEYS_MAX {
            refusals.count("links", &number.to_string());
        }
        refusals.count("links", "7");
        let all = refusals.all();
        let count = |key: &str| all.iter().find(|(_, known, _)| **known == *key).map(|(.., count)| *count);
        assert_eq!((count("7"), count(OTHERS), all.len()), (Some(2), Some(KEYS_MAX as u64), KEYS_MAX + 1));
    }
}
