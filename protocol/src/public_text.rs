//! Texts that are published, or belong elsewhere, given where a secret belongs. Such a text as a shared secret would
//! let anyone who can read it sign tokens.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Number of characters that show the kind of base64 text.
const HEAD_CHARS: usize = 24;

/// Algorithm names in ssh public keys, with their lengths, in base64.
const SSH: [&str; 5] = ["AAAAB3NzaC1", "AAAAC3NzaC1", "AAAAE2VjZHNhLX", "AAAAGnNrLXNza", "AAAAInNrLWVjZHNh"];

/// Names what a text is if it is no secret, with the setting that is meant. Continues a sentence after `is`.
#[must_use]
pub fn public_text(text: &str) -> Option<&'static str> {
    const SET: &str = "a published key set (JWKS) or another JSON text, and no secret: name it in --jwt-jwks, or `jwks` \
                       of [issuers.NAME]";
    const PEM: &str = "a key or certificate, and no secret: name the public key in PEM format, from \
                       `-----BEGIN PUBLIC KEY-----` on, in --jwt-public-key, or `keys` of [issuers.NAME]";
    const OF_SSH: &str = "an ssh public key, and no secret: convert it (`ssh-keygen -e -m PKCS8 -f FILE`) and name it \
                          in --jwt-public-key, or `keys` of [issuers.NAME]";
    let text = text.trim();
    let is_json = |text: &str| matches!(serde_json::from_str(text), Ok(serde_json::Value::Object(_)));
    let is_marked =
        ["-BEGIN ", "PUBLIC KEY", "PRIVATE KEY", "BEGIN CERTIFICATE"].iter().any(|mark| text.contains(mark));
    let coded = decoded_head(text);
    match () {
        () if is_json(text) || coded.starts_with(b"{\"k") => Some(SET),
        () if SSH.iter().any(|name| text.contains(name)) => Some(OF_SSH),
        () if is_marked || coded.starts_with(b"-----BEGIN") || is_der(&coded) => Some(PEM),
        () => None,
    }
}

/// Decodes the first characters of base64, also with line breaks or the URL-safe alphabet. Empty for other text.
fn decoded_head(text: &str) -> Vec<u8> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let chars = text.chars().filter(|c| !c.is_whitespace());
    let head: String = chars.take(HEAD_CHARS).collect();
    GeneralPurpose::new(&STANDARD, config).decode(head.replace('-', "+").replace('_', "/")).unwrap_or_default()
}

/// Returns whether bytes begin as a SubjectPublicKeyInfo, a PKCS#1 key, a certificate or a private key in DER. Of
/// random bytes fewer than one in 100 million do.
fn is_der(bytes: &[u8]) -> bool {
    match bytes {
        [0x30, 0x82, _, _, rest @ ..] | [0x30, 0x81, _, rest @ ..] => {
            matches!(rest, [0x30, _, 0x06, ..] | [0x30 | 0x02, 0x81 | 0x82, ..] | [0x02, 0x01, 0x00, ..])
        }
        [0x30, 0x28..=0x7f, 0x30, _, 0x06, ..] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::random_bytes;

    #[test]
    fn a_public_text_is_no_secret_and_the_setting_that_is_meant_is_named() {
        const RSA: &str = "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAu1SU1LfVLPHCozMxH2Mo";
        for (text, setting) in [
            (r#"{"keys":[{"kty":"RSA","n":"x","e":"AQAB"}]}"#, "--jwt-jwks"),
            (" {\n\"kty\": \"EC\" }\n", "--jwt-jwks"),
            ("eyJrZXlzIjpbeyJrdHkiOiJSU0EifV19", "--jwt-jwks"),
            (RSA, "--jwt-public-key"),
            (&RSA.replace("Igkq", "Igkq\n"), "--jwt-public-key"),
            (&format!("----BEGIN PUBLIC KEY----\n{RSA}\n----END PUBLIC KEY----"), "--jwt-public-key"),
            (&format!("BEGIN PUBLIC KEY\n{RSA}\n"), "--jwt-public-key"),
            ("-----BEGIN CERTIFICATE-----\nMIIC\n", "--jwt-public-key"),
            ("LS0tLS1CRUdJTiBQVUJMSUMgS0VZLS0tLS0K", "--jwt-public-key"),
            ("MIIBCgKCAQEAu1SU1LfVLPHCozMxH2Mo4lgOEePzNm0t", "--jwt-public-key"),
            ("MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEEVs/o5+uQbTjL3chynL4wXgUg2R9", "--jwt-public-key"),
            ("MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=", "--jwt-public-key"),
            ("ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQC7 team@host", "ssh-keygen"),
            ("host ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTY", "ssh-keygen"),
        ] {
            assert!(public_text(text).is_some_and(|found| found.contains(setting)), "{text}");
        }
    }

    #[test]
    fn secrets_of_any_spelling_are_none() {
        let keys = std::iter::repeat_with(|| base64::engine::general_purpose::STANDARD.encode(random_bytes::<32>()))
            .take(1000);
        assert!(keys.map(|key| public_text(&key)).all(|found| found.is_none()));
        for text in
            ["correct horse battery staple", "{curly, but not JSON}", "MIIB", "0123456789abcdef", "[1,2,3,4,5,6]"]
        {
            assert_eq!(public_text(text), None, "{text}");
        }
    }
}
