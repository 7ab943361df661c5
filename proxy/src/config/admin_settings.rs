//! Settings of the admin port: tokens and peers.

use std::fmt;
use std::sync::Arc;

use crate::net::Address;

/// Least length of a token; a shorter one could be guessed.
const TOKEN_MIN_BYTES: usize = 16;

/// Largest length of a token, which has to fit a cookie and a header.
const TOKEN_MAX_BYTES: usize = 1024;

/// Settings of the admin port.
#[derive(Debug, Clone, Default)]
pub struct AdminSettings {
    /// Token that permits actions everywhere, and reading beyond loopback.
    pub token: Option<AdminToken>,
    /// Token that `/metrics` requires; `None` leaves it open.
    pub metrics_token: Option<AdminToken>,
    /// Admin ports of the other nodes.
    pub peers: Vec<Address>,
}

/// Token of the admin port. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminToken(Arc<str>);

impl AdminToken {
    /// Checks a token, after trimming whitespace around it.
    ///
    /// # Errors
    /// When it is too short, too long or not visible ASCII; the text continues a sentence that begins with its flag.
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

    /// Returns the secret text.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Compares a given token in constant time, so that timing does not tell where they differ.
    #[must_use]
    pub fn is(&self, given: &str) -> bool {
        let differences = self.0.bytes().zip(given.bytes()).fold(0, |all, (one, other)| all | (one ^ other));
        self.0.len() == given.len() && std::hint::black_box(differences) == 0
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_matches_only_as_a_whole_and_is_never_shown() {
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
        assert!(AdminToken::new(&"x".repeat(TOKEN_MAX_BYTES + 1)).unwrap_err().contains("1024"));
        assert!(AdminToken::new("0123456789 abcdef").unwrap_err().contains("ASCII"));
    }
}
