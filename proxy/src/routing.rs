//! Rules of the operator: which group of app servers gets a connection, a message or a copy, and which methods are
//! refused.
//!
//! Pure: a rule sees facts and gives a verdict. Dialling groups, moving clients and sending copies is done above.
//!
//! ```text
//!  trunkline.toml ──► Ruleset ──┬─ facts of a connection ──► RouteRule ──► group, or rejection
//!                               └─ path of a hub ──► HubRules ──┬─ target ──► group of a message, or refusal
//!                                                               └─ connection ──► mirrors
//! ```

mod case_folding;
mod condition;
mod description;
mod explanation;
mod group_rule;
mod hub_rules;
mod message_rule;
mod method_rule;
mod mirror_rule;
mod path_reading;
mod pattern;
mod route_rule;
mod rule_error;
mod rule_file;
mod rule_warning;
mod ruleset;
mod sample;
mod share;
mod spelling;
mod target_table;
mod text_place;

pub(crate) use condition::RouteFacts;
pub(crate) use group_rule::{DEFAULT_GROUP, GroupRule, WeightedUpstream};
pub(crate) use hub_rules::{HubRules, MethodVerdict};
pub(crate) use mirror_rule::MirrorRule;
pub(crate) use pattern::Pattern;
pub(crate) use route_rule::{Rejection, RouteAction, RouteRule};
pub use ruleset::Ruleset;
#[cfg(test)]
pub(crate) use share::Share;
pub use {rule_file::RULE_TABLES, sample::RuleSample, spelling::nearest, text_place::TextPlace};
