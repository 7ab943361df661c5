//! Access tokens (JWT) and published key sets (JWKS).

use std::sync::LazyLock;

use trunkline_protocol::key::{AccessKey, AccessKeys};
use trunkline_proxy::fuzzing;

use crate::token::KEYS;

static OTHER: LazyLock<AccessKeys> =
    LazyLock::new(|| AccessKeys::new(vec![AccessKey::random()]).expect("there is a key"));

/// Verifies access tokens, one per line, and reads the data as a key set.
pub fn access_tokens(data: &[u8]) {
    if let Some(keys) = fuzzing::key_set(data) {
        assert!(keys > 0, "a key set without a key is accepted");
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    for token in text.lines() {
        let Some(user) = fuzzing::access_token(token, &KEYS) else { continue };
        assert_eq!(fuzzing::access_token(token, &KEYS), Some(user), "a token has two users");
        assert_eq!(fuzzing::access_token(token, &OTHER), None, "a token is good for another fleet");
        let (claims, _) = token.rsplit_once('.').expect("a token has a signature");
        assert_eq!(fuzzing::access_token(&format!("{claims}."), &KEYS), None, "a token needs no signature");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_tokens_of_the_fleet_and_key_sets() {
        for token in
            [include_str!("../corpus/access_tokens/user.txt"), include_str!("../corpus/access_tokens/dotnet.txt")]
        {
            assert_eq!(fuzzing::access_token(token, &KEYS), Some(Some("ann".into())));
        }
        assert_eq!(fuzzing::access_token(include_str!("../corpus/access_tokens/server.txt"), &KEYS), None);
        assert!(fuzzing::key_set(include_bytes!("../corpus/access_tokens/keys.json")).is_some_and(|keys| keys > 0));
    }
}
