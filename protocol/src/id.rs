//! Connection ids and other random names: 128 random bits in base64url, which reveal no location.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Length of an id: 16 bytes in base64url without padding.
pub const ID_CHARS: usize = 22;

/// Shortens a connection id for display: in negotiate version 0 the full id is a secret.
#[must_use]
pub fn short(connection_id: &str) -> &str {
    connection_id.get(..ID_CHARS).unwrap_or(connection_id)
}

/// Returns a new id of 128 random bits, 22 URL-safe characters. Panics if the operating system provides no randomness,
/// because no id or key would be secure.
#[must_use]
pub fn random_id() -> String {
    URL_SAFE_NO_PAD.encode(random_bytes::<16>())
}

/// Returns `N` random bytes from the operating system. Panics if the operating system provides no randomness, because
/// no id or key would be secure.
#[must_use]
#[expect(clippy::expect_used, reason = "without randomness nothing may go on, and no socket can cause it")]
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// The first 128 bits of a connection id, used as a table key. `None` for ids that no node issued.
///
/// New ids consist of exactly these bits. A connection token, which is the id in negotiate version 0, starts with a
/// random nonce. So keys are evenly distributed, but the whole id must still be compared.
#[must_use]
pub fn routing_key(connection_id: &str) -> Option<u128> {
    let mut bits: u128 = 0;
    for &byte in connection_id.get(..ID_CHARS)?.as_bytes() {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        // 22 characters hold 132 bits: the first 4 wrap around onto bits that are 0 in a new id.
        bits = bits.rotate_left(6) ^ u128::from(six);
    }
    Some(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_id_is_22_url_safe_characters_and_never_the_same() {
        let (a, b) = (random_id(), random_id());
        assert_eq!(a.len(), ID_CHARS);
        assert!(a.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_'));
        assert_ne!(a, b);
    }

    #[test]
    fn a_routing_key_needs_22_url_safe_characters() {
        assert!(routing_key(&random_id()).is_some());
        assert!(routing_key(&format!("{}{}", "_".repeat(22), "tail")).is_some());
        assert_eq!(routing_key("short"), None);
        assert_eq!(routing_key("not/url/safe/at/all/!!"), None);
    }

    #[test]
    fn different_ids_have_different_routing_keys() {
        assert_ne!(routing_key(&random_id()), routing_key(&random_id()));
    }
}
