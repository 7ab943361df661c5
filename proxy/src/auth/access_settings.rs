//! Settings of access: keys of apps, the policy for tokens of users, and the tables of the configuration file.

use super::{AppKey, Issuer, TokenPolicy};

/// Keys and tokens that a node accepts, in addition to its access keys.
#[derive(Debug, Clone, Default)]
pub struct AccessSettings {
    /// Keys of apps, each valid only for its hubs. The configuration file may add more.
    pub app_keys: Vec<AppKey>,
    /// Requirements on access tokens of users.
    pub tokens: TokenPolicy,
    /// Tables of the configuration file at startup.
    pub tables: AccessTables,
}

/// Tables `[app-keys.NAME]` and `[issuers.NAME]` of the configuration file.
#[derive(Debug, Clone, Default)]
pub struct AccessTables {
    /// Keys of apps, beside those from flags.
    pub app_keys: Vec<AppKey>,
    /// Issuers of access tokens, beside the one from flags.
    pub issuers: Vec<Issuer>,
}

impl AccessTables {
    /// Returns one line per entry, for people.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let app_keys = self.app_keys.iter().map(ToString::to_string);
        app_keys.chain(self.issuers.iter().map(ToString::to_string))
    }
}
