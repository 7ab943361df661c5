//! Counters and histograms: one set per shard, written only by that shard and summed on reading.
//!
//! A metric is declared at the counting field (`metered!`), or in `admin::exposition` for values that are looked up
//! (`metric_rows!`). The book's metrics page is generated from both.

mod back_end_counters;
mod counter;
mod histogram;
mod hub_counters;
mod metric_family;
mod metric_label;
mod metric_proto;
mod permit_refusal;
mod rule_counters;
mod shard_counters;

pub(crate) use back_end_counters::{RestCounters, StoreCounters, WebhookCounters};
pub(crate) use counter::{Counter, Gauge};
pub(crate) use histogram::{Buckets, Distribution, DurationBuckets, FanOutBuckets, Histogram, LifetimeBuckets};
pub(crate) use hub_counters::{CauseCounters, ClientProtocol, ConnectionCounters, HubCounters};
pub(crate) use metric_family::{
    Families, LabelledSample, Measure, Metered, MetricKind, MetricRow, Sample, label, metered, metric_rows,
};
pub(crate) use metric_label::{
    HopRefusal, HopRefusalCounters, Limit, LimitCounts, MoveCause, MoveCounters, Outcome, OutcomeCounters,
    PassThroughCounters, PassThroughOutcome, RefreshCounters, RefreshOutcome, RelayFailure, RelayFailureCounters,
    ReservationCounters, ReservationOutcome, RestOutcome, RestRequestCounters, SendCounters, SendKind,
    SessionCloseReason, SessionEndCounters, WebhookOutcome, WebhookRequestCounters,
};
pub(crate) use permit_refusal::PermitRefusals;
pub(crate) use rule_counters::{LabelledCounters, MirrorCounters, RuleCounters};
pub(crate) use shard_counters::{Counters, Direction, FrameKind, HUBS_MAX, RelayCounters};
