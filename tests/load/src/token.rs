//! Access tokens of clients: one for all, or one signed for each.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;

use crate::cli::RunArguments;

const LIFETIME_S: u64 = 7 * 24 * 3600;

pub(crate) enum Tokens {
    None,
    /// One token for all clients.
    Given(String),
    /// Tokens signed with this key.
    Signed(EncodingKey),
}

// Implemented manually, because keys and tokens are secrets.
impl std::fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Tokens")
    }
}

impl Tokens {
    pub(crate) fn of(arguments: &RunArguments) -> Self {
        match (&arguments.token, &arguments.access_key) {
            (Some(token), _) => Self::Given(token.clone()),
            (None, Some(key)) => Self::Signed(EncodingKey::from_secret(key.as_bytes())),
            (None, None) => Self::None,
        }
    }

    pub(crate) fn of_client(&self, client: usize) -> Option<String> {
        match self {
            Self::None => None,
            Self::Given(token) => Some(token.clone()),
            Self::Signed(key) => {
                let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
                let claims = json!({ "nameid": format!("client-{client}"), "exp": now_s + LIFETIME_S });
                jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, key).ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_a_user_of_its_own() {
        let tokens = Tokens::Signed(EncodingKey::from_secret(b"a key that is long enough"));
        let (one, other) = (tokens.of_client(1).unwrap(), tokens.of_client(2).unwrap());
        assert_ne!(one, other);
        assert_eq!(one.split('.').count(), 3);
        assert_eq!(format!("{tokens:?}"), "Tokens");
    }
}
