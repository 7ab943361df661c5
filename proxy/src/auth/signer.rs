//! Signer of a token: the key that signed it, and the holder of that key.

use std::fmt;
use std::sync::Arc;

use trunkline_protocol::key::AccessKey;

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
