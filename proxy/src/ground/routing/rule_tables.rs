//! Tables of a configuration file, apart from flags.

use super::ruleset::Ruleset;
use crate::ground::auth::AccessTables;

/// Contents of a configuration file that are not flags.
#[derive(Debug, Clone, Default)]
pub struct RuleFile {
    /// Rules for connections and messages.
    pub rules: Ruleset,
    /// Keys of apps, and issuers of access tokens.
    pub access: AccessTables,
}
