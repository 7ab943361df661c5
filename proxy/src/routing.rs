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

mod description;
mod explanation;
mod hub_rules;
mod path_reading;
mod pattern;
mod route_condition;
mod rule;
mod rule_error;
mod rule_file;
mod rule_warning;
mod ruleset;
mod sample;
mod share;
mod target_table;
mod webhook_header;
mod webhook_table;

use std::borrow::Cow;

use crate::auth::AccessTables;

pub(crate) use hub_rules::{HubRules, MethodVerdict};
pub(crate) use pattern::Pattern;
pub(crate) use route_condition::RouteFacts;
pub(crate) use rule::{DEFAULT_GROUP, GroupRule, MirrorRule, Rejection, RouteAction, RouteRule, WeightedUpstream};
pub use rule_error::{TextPlace, nearest};
pub use rule_file::{NamedFiles, RULE_TABLES};
pub use ruleset::Ruleset;
pub use sample::RuleSample;
#[cfg(test)]
pub(crate) use share::Share;
pub use webhook_header::{WebhookHeader, WebhookHeaderError};
pub(crate) use webhook_table::{WebhookHubSettings, WebhookTable};

/// Folds a name so that names differing only in case become equal.
///
/// The SDK compares methods by lower case, ASP.NET Core by upper case. Names equal under either must be equal here, or
/// a denied method could be called by another spelling, such as with the Kelvin sign for `k`. So the name is converted
/// to lower, upper and again lower case.
pub(crate) fn fold(name: &str) -> Cow<'_, str> {
    if !name.is_ascii() {
        let upper = name.chars().flat_map(char::to_lowercase).flat_map(char::to_uppercase);
        return upper.flat_map(char::to_lowercase).collect::<String>().into();
    }
    match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => name.to_ascii_lowercase().into(),
        false => name.into(),
    }
}

/// Contents of a configuration file that are not flags.
#[derive(Debug, Clone, Default)]
pub struct RuleFile {
    /// Rules for connections and messages.
    pub rules: Ruleset,
    /// Keys of apps, and issuers of access tokens.
    pub access: AccessTables,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spellings_that_an_app_server_takes_for_one_name_are_one() {
        for (one, other) in [
            ("Kill", "kILL"),
            ("kill", "\u{212A}ill"),
            ("straße", "STRASSE"),
            ("straße", "STRA\u{1E9E}E"),
            ("ὈΔΟΣ", "ὀδος"),
            ("µ", "μ"),
            ("\u{17F}ay", "Say"),
        ] {
            assert_eq!(fold(one), fold(other), "{one} {other}");
        }
        assert_ne!(fold("Say"), fold("Says"));
    }

    #[test]
    fn a_name_in_lower_case_is_not_copied() {
        assert!(matches!(fold("say-it_1"), Cow::Borrowed("say-it_1")));
    }

    proptest! {
        #[test]
        fn names_with_one_lower_case_form_are_one(name in "\\PC{0,12}") {
            let lower = name.to_lowercase();
            prop_assert_eq!(fold(&name), fold(&lower));
        }
    }
}
