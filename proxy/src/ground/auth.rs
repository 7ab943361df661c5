//! Authentication as plain values: keys and policies of access tokens, the users that they identify, and the admin
//! token.
//!
//! The type of a key determines its algorithm. A token selects only the key: `none` selects no key, and a public key is
//! never used as a secret. Module `admission` verifies tokens with these values.

mod admin_token;
mod app_key;
mod client_terms;
pub(crate) mod jwks;
pub(crate) mod key;
mod policy;

use std::fmt;
use std::sync::Arc;

use trunkline_protocol::key::AccessKey;

pub(crate) use admin_token::ADMIN_COOKIE;
pub use admin_token::{AdminToken, AdminTokenInForce};
pub(crate) use app_key::{APPS_MAX, HubScope};
pub use app_key::{AppKey, AppKeySetError};
pub(crate) use client_terms::{ClientTerms, SERVICE_USER_CLAIMS, StickyServer, user_in_claims};
pub use jwks::JwksSource;
pub use key::VerifyingKey;
pub(crate) use policy::ISSUERS_MAX;
pub use policy::{Issuer, TokenPolicy};
pub(crate) use trunkline_protocol::access_token::User;

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

/// Holder of signing keys. Shares count all keys of a holder together.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Signer {
    #[default]
    Fleet,
    App(Arc<str>),
}

impl Signer {
    pub(crate) fn label(&self) -> &str {
        match self {
            Self::Fleet => "(fleet)",
            Self::App(name) => name,
        }
    }
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fleet => f.write_str("the access key"),
            Self::App(name) => write!(f, "the key of app {name}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenSigner {
    pub key: AccessKey,
    pub signer: Signer,
}

impl TokenSigner {
    /// Returns whether an app's key signed the token. Such a key covers only the app's hubs.
    pub(crate) fn is_of_app(&self) -> bool {
        self.signer != Signer::Fleet
    }
}
