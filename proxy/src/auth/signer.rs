//! Signer of a token: the key that has signed it, and whose key that is.

use std::fmt;
use std::sync::Arc;

use trunkline_protocol::key::AccessKey;

/// Holder of keys that sign tokens, as shares count it: all its keys are one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) enum Signer {
    /// Holder of an access key, of the fleet.
    #[default]
    Fleet,
    /// App with this name.
    App(Arc<str>),
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fleet => f.write_str("the access key"),
            Self::App(name) => write!(f, "the key of app {name}"),
        }
    }
}

/// Key that has signed a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenSigner {
    pub key: AccessKey,
    pub signer: Signer,
}

impl TokenSigner {
    /// Whether it is the key of an app: good for hubs by their names, which say whose they are.
    #[must_use]
    pub(crate) fn is_of_app(&self) -> bool {
        self.signer != Signer::Fleet
    }
}
