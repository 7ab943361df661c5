//! Rules of the operator: routing of connections and messages to groups of app servers, mirroring, and refusal of
//! methods.
//!
//! Pure: rules map facts to verdicts. Callers dial groups, move clients and send copies.
//!
//! ```text
//!  trunkline.toml ──► Ruleset ──┬─ facts of a connection ──► RouteRule ──► group, or rejection
//!                               └─ path of a hub ──► HubRules ──┬─ target ──► group of a message, or refusal
//!                                                               └─ connection ──► mirrors
//! ```

mod explanation;
mod hub_rules;
mod path_reading;
mod route_condition;
mod rule;
mod rule_error;
mod rule_file;
mod rule_warning;
mod ruleset;
mod sample;
mod target_table;
mod webhook_table;

pub(crate) use hub_rules::{HubRules, MethodVerdict};
pub(crate) use route_condition::RouteFacts;
#[cfg(test)]
pub(crate) use route_condition::Share;
pub(crate) use rule::{
    DEFAULT_GROUP, GroupRule, HistoryTerms, MirrorRule, Rejection, RouteAction, RouteRule, WeightedUpstream,
};
pub use rule_error::{TextPlace, nearest};
pub use rule_file::{NamedFiles, RULE_TABLES, RuleFile};
pub use ruleset::Ruleset;
pub use sample::RuleSample;
pub use webhook_table::WebhookHeader;
pub(crate) use webhook_table::{WebhookHubSettings, WebhookTable};
