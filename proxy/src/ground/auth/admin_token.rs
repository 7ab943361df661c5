//! Tokens of the admin port.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use subtle::ConstantTimeEq;
use tokio_util::sync::CancellationToken;
use trunkline_protocol::public_text::public_text;

/// Prefix of cookie names that carry the token, followed by the name of the node.
pub(crate) const ADMIN_COOKIE: &str = "trunkline_admin";

/// Minimum length of a token. A shorter one can be guessed.
const TOKEN_MIN_BYTES: usize = 16;

/// Maximum length of a token, so that it fits into any cookie or header.
const TOKEN_MAX_BYTES: usize = 1024;

/// Shared secret of the admin port. Its `Debug` output hides the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminToken(Arc<str>);

impl AdminToken {
    /// Checks a token after trimming white space.
    ///
    /// # Errors
    /// Returns the reason, phrased to follow the name of the flag.
    pub fn new(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        if public_text(text).is_some() {
            return Err("is a public key or a key set, and no secret: `trunkline token key` makes one");
        }
        if !(TOKEN_MIN_BYTES..=TOKEN_MAX_BYTES).contains(&text.len()) {
            return Err("must have from 16 to 1024 characters: `trunkline token key` makes one");
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("may hold only visible ASCII characters: `trunkline token key` makes one");
        }
        Ok(Self(text.into()))
    }

    /// Returns the secret itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Compares in constant time, so the duration does not reveal where the texts differ.
    #[must_use]
    pub fn is(&self, given: &str) -> bool {
        self.0.as_bytes().ct_eq(given.as_bytes()).into()
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken")
    }
}

/// Current token of an admin port, replaced when its file is reloaded. Clones share the token.
#[derive(Debug, Clone)]
pub struct AdminTokenInForce(Arc<ArcSwap<TokenInForce>>);

/// Token with the signal for its replacement.
#[derive(Debug)]
pub(crate) struct TokenInForce {
    pub(crate) token: AdminToken,
    /// Cancelled when another token replaces this one. Sessions opened with this token then end.
    pub(crate) replaced: CancellationToken,
}

impl AdminTokenInForce {
    pub(crate) fn load(&self) -> Arc<TokenInForce> {
        self.0.load_full()
    }

    /// Replaces the current token if the new one differs.
    pub(crate) fn replace(&self, token: AdminToken) {
        if self.load().token != token {
            self.0.swap(Arc::new(token.into())).replaced.cancel();
        }
    }
}

impl From<AdminToken> for TokenInForce {
    fn from(token: AdminToken) -> Self {
        Self { token, replaced: CancellationToken::new() }
    }
}

impl From<AdminToken> for AdminTokenInForce {
    fn from(token: AdminToken) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(token.into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_matches_as_a_whole_and_is_never_shown() {
        let token = AdminToken::new(" 0123456789abcdef\n").unwrap();
        assert!(token.is("0123456789abcdef"));
        for other in ["0123456789abcdeF", "0123456789abcde", "0123456789abcdef0", ""] {
            assert!(!token.is(other), "{other}");
        }
        assert_eq!(format!("{token:?}"), "AdminToken");
    }

    #[test]
    fn a_token_that_could_be_guessed_or_not_be_sent_is_refused() {
        assert!(AdminToken::new("short").unwrap_err().contains("16"));
        assert!(AdminToken::new("0123456789 abcdef").unwrap_err().contains("ASCII"));
        assert!(AdminToken::new(r#"{"keys":[{"kty":"RSA"}]}"#).unwrap_err().contains("no secret"));
    }
}
