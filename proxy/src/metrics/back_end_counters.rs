//! Counters of back ends: webhooks, and callers of the REST data plane.

use http::StatusCode;

use super::{Counter, DurationBuckets, Histogram, RestOutcome, RestRequestCounters, WebhookRequestCounters, metered};

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
