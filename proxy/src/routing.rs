//! Rules of the operator: which group of app servers gets a connection, a message or a copy, and which methods are refused.
//!
//! Pure: a rule sees facts and gives a verdict. Dialling groups, moving clients and sending copies is done above.
//!
//! ```text
//!  trunkline.toml ──► Ruleset ──┬─ facts of a connection ──► RouteRule ──► group, or rejection
//!                               └─ path of a hub ──► HubRules ──┬─ target ──► group of a message, or refusal
//!                                                               └─ connection ──► mirrors
//! ```

#![allow(dead_code, unused_imports, reason = "being built")]

mod group_rule;
mod hub_rules;
mod mirror_rule;
mod route_rule;
mod ruleset;

pub(crate) use group_rule::{DEFAULT_GROUP, DefaultGroup, GroupRule, WeightedUpstream};
pub(crate) use hub_rules::{HubRules, MethodVerdict};
pub(crate) use mirror_rule::MirrorRule;
pub(crate) use route_rule::{Rejection, RouteAction, RouteFacts, RouteRule};
pub(crate) use ruleset::Ruleset;
