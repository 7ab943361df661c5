//! Counters and histograms: one set per shard, written by that shard alone, summed when metrics are read.
//!
//! Names and help texts of metrics stand in one place, `admin::exposition`.

mod cause_counters;
mod client_protocol;
mod counter;
mod dial_in_counters;
mod histogram;
mod hub_counters;
mod limit;
mod link_traffic;
mod mirror_counters;
mod move_counters;
mod outcome_counters;
mod relay_counters;
mod rest_counters;
mod restore_counters;
mod rule_counters;
mod send_counters;
mod session_counters;
mod shard_counters;
mod webhook_counters;

pub(crate) use cause_counters::CauseCounters;
pub(crate) use client_protocol::ClientProtocol;
pub(crate) use counter::{Counter, Gauge};
pub(crate) use dial_in_counters::DialInCounters;
pub(crate) use histogram::{Buckets, Distribution, DurationBuckets, FanOutBuckets, Histogram, LifetimeBuckets};
pub(crate) use hub_counters::{ConnectionCounters, HubCounters};
pub(crate) use limit::Limit;
pub(crate) use link_traffic::{Direction, FrameKind, LinkTraffic};
pub(crate) use mirror_counters::MirrorCounters;
pub(crate) use move_counters::{MoveCause, MoveCounters};
pub(crate) use outcome_counters::{Outcome, OutcomeCounters};
pub(crate) use relay_counters::{HopRefusal, PassThroughOutcome, RelayCounters, RelayFailure, ReservationOutcome};
pub(crate) use rest_counters::RestCounters;
pub(crate) use restore_counters::{RestoreCounters, RestoreOutcome};
pub(crate) use rule_counters::{LabelledCounters, RuleCounters};
pub(crate) use send_counters::{SendCounters, SendKind};
pub(crate) use session_counters::{SessionCloseReason, SessionCounters};
pub(crate) use shard_counters::Counters;
pub(crate) use webhook_counters::{WebhookCounters, WebhookOutcome};
