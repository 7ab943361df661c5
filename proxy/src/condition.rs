//! Conditions: states that keep users from being served, or soon will.
//!
//! ```text
//!  evaluation, once a second ──► findings ──┐
//!  reports of events ───────────────────────┴─► registry ──► notices for the log
//!                                                  └───────► list for metrics, /readyz and the API
//! ```
//!
//! The catalogue is static. The registry holds one entry per condition and subject. It imports no channel.

mod catalogue;
mod clock_sighting;
mod condition_registry;
mod known_hub;
mod refusal_reason;
mod refused_app_server;

pub(crate) use catalogue::ConditionKind;
pub use catalogue::{CatalogueEntry, Severity, condition_entries};
pub(crate) use clock_sighting::ClockSightings;
pub(crate) use condition_registry::{ActiveCondition, ConditionNotice, ConditionRegistry, Finding, NoticeKind, quoted};
pub(crate) use known_hub::{HubSight, KnownHub, KnownHubs};
pub(crate) use refusal_reason::RefusalReasons;
pub(crate) use refused_app_server::UNKNOWN_HUB;
