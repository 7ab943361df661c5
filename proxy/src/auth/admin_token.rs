//! Tokens of the admin port.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use subtle::ConstantTimeEq;
use tokio_util::sync::CancellationToken;

/// Beginning of the names of cookies that stand for the token; the name of the node follows.
pub(crate) const ADMIN_COOKIE: &str = "trunkline_admin";

/// A shorter token could be guessed.
const TOKEN_MIN_BYTES: usize = 16;

/// Largest token, so that every cookie and header can carry it.
const TOKEN_MAX_BYTES: usize = 1024;

/// Shared secret of the admin port; its `Debug` form does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminToken(Arc<str>);

impl AdminToken {
    /// Checks a token; white space around it is dropped.
    ///
    /// # Errors
    /// Why it is refused, as the end of a sentence that begins with the name of its flag.
    pub fn new(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
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

    /// Compares in constant time: how long it takes tells nothing of where the texts differ.
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

/// Token of an admin port, which a reload of its file replaces; its clones are one.
#[derive(Debug, Clone)]
pub struct AdminTokenInForce(Arc<ArcSwap<TokenInForce>>);

/// A token, and its end.
#[derive(Debug)]
pub(crate) struct TokenInForce {
    pub(crate) token: AdminToken,
    /// Cancelled when another token takes its place: sessions that it has begun end with it.
    pub(crate) replaced: CancellationToken,
}

impl AdminTokenInForce {
    /// Returns the token at this moment.
    #[must_use]
    pub(crate) fn load(&self) -> Arc<TokenInForce> {
        self.0.load_full()
    }

    /// Puts a token in force, unless it is the same.
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
    }
}
