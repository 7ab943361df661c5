//! Keys that verify access tokens, each with one algorithm.

use std::fmt;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RsaPublicKeyComponents,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind};
use trunkline_protocol::limits::ACCESS_KEY_MIN_BYTES;
use trunkline_protocol::public_text::public_text;

/// Public keys that can verify tokens.
pub(super) const SUPPORTED: &str = "RSA needs 2048 to 4096 bits and an exponent of at most 32 bits (RS256 to PS512), EC a point on \
                         P-256 or P-384 (ES256, ES384), and EdDSA the curve Ed25519";

/// Error of parsing a key for access tokens.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The secret is short enough to guess.
    #[error("has {0} bytes, but a secret needs at least {ACCESS_KEY_MIN_BYTES}")]
    ShortSecret(usize),
    /// The text is published, or belongs elsewhere. As a secret, it would let its readers sign tokens.
    #[error("is {0}")]
    Public(&'static str),
    /// The key is private. A proxy needs only the public key.
    #[error("contains a private key: use the public key, which is enough to verify tokens")]
    Private,
    /// The text is not a supported public key.
    #[error("contains no public key in PEM format: {SUPPORTED}")]
    NoPublicKey,
    /// The key can't verify any token: its kind, size or curve is not supported, or its point not on the curve.
    #[error("is not a key that can verify tokens: {SUPPORTED}")]
    Unusable,
}

/// Key that verifies access tokens: a secret with HS256, a public key with the algorithms of its kind.
#[derive(Clone)]
pub struct VerifyingKey {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl VerifyingKey {
    /// Reads a file with a public key in PEM format, or a secret.
    ///
    /// # Errors
    /// If the public key can't verify tokens, or the text is no secret.
    pub(crate) fn from_text(text: &str) -> Result<Self, KeyError> {
        if is_pem(text) { Self::from_pem(text) } else { Self::from_secret(text) }
    }

    /// Creates an HS256 key from a secret, without surrounding white space.
    ///
    /// # Errors
    /// If the secret is too short, or a text that is published.
    pub fn from_secret(text: &str) -> Result<Self, KeyError> {
        let secret = text.trim();
        if let Some(found) = public_text(secret) {
            return Err(KeyError::Public(found));
        }
        if secret.len() < ACCESS_KEY_MIN_BYTES {
            return Err(KeyError::ShortSecret(secret.len()));
        }
        let key = DecodingKey::from_secret(secret.as_bytes());
        Ok(Self { id: None, algorithms: vec![Algorithm::HS256], key })
    }

    /// Parses a public key in PEM format.
    ///
    /// # Errors
    /// Returns an error for any other text, and for a key that can't verify tokens.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        if text.contains("PRIVATE KEY-----") {
            return Err(KeyError::Private);
        }
        let pem = text.as_bytes();
        let key = DecodingKey::from_rsa_pem(pem).or_else(|_| DecodingKey::from_ec_pem(pem));
        let key = key.or_else(|_| DecodingKey::from_ed_pem(pem)).map_err(|_| KeyError::NoPublicKey)?;
        let key = if key.family() == AlgorithmFamily::Rsa { rsa_of_der(&key) } else { Some(key) };
        Self::of_public(None, key.ok_or(KeyError::Unusable)?, None)
    }

    /// Converts a key of a JWKS. Returns `None` if it is not for signatures, and an error if it can't verify tokens.
    pub(crate) fn from_jwk(jwk: &Jwk) -> Option<Result<Self, KeyError>> {
        let common = &jwk.common;
        let named = common.key_algorithm.map(|named| named.to_string().parse::<Algorithm>()).transpose().ok()?;
        common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature).then(|| {
            let key = published_key(&jwk.algorithm).ok_or(KeyError::Unusable)?;
            Self::of_public(common.key_id.clone(), key, named)
        })
    }

    fn of_public(id: Option<String>, key: DecodingKey, named: Option<Algorithm>) -> Result<Self, KeyError> {
        let algorithms: Vec<_> =
            algorithms(&key).iter().copied().filter(|one| named.is_none_or(|named| named == *one)).collect();
        if algorithms.is_empty() { Err(KeyError::Unusable) } else { Ok(Self { id, algorithms, key }) }
    }

    /// Returns whether this key may have signed a token with this algorithm and key id.
    pub(crate) fn fits(&self, algorithm: Algorithm, id: Option<&str>) -> bool {
        self.algorithms.contains(&algorithm) && (self.id.is_none() || id.is_none() || self.has_id(id))
    }

    pub(crate) fn has_id(&self, id: Option<&str>) -> bool {
        id.is_some() && self.id.as_deref() == id
    }

    pub(crate) fn is_secret(&self) -> bool {
        self.key.family() == AlgorithmFamily::Hmac
    }

    pub(crate) fn decoding_key(&self) -> &DecodingKey {
        &self.key
    }
}

/// Whether a text has a public key in PEM format.
pub(crate) fn is_pem(text: &str) -> bool {
    text.contains("-----BEGIN ") && !text.contains("PRIVATE KEY")
}

/// Builds a key from published parameters. Some issuers add a sign byte, or drop leading zeros.
fn published_key(parameters: &AlgorithmParameters) -> Option<DecodingKey> {
    match parameters {
        AlgorithmParameters::RSA(rsa) => {
            Some(DecodingKey::from_rsa_raw_components(&unsigned(&rsa.n, 0)?, &unsigned(&rsa.e, 0)?))
        }
        AlgorithmParameters::EllipticCurve(ec) => {
            let bytes = match ec.curve {
                EllipticCurve::P256 => 32,
                EllipticCurve::P384 => 48,
                _ => return None,
            };
            let (x, y) = (unsigned(&ec.x, bytes)?, unsigned(&ec.y, bytes)?);
            Some(DecodingKey::from_ec_der(&[&[4], x.as_slice(), &y].concat()))
        }
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            Some(DecodingKey::from_ed_der(&URL_SAFE_NO_PAD.decode(&pair.x).ok()?))
        }
        // A published symmetric key is no secret.
        _ => None,
    }
}

/// Decodes a number, strips its leading zeros and pads it to `length` bytes. A larger number is refused, unless
/// `length` is 0.
fn unsigned(text: &str, length: usize) -> Option<Vec<u8>> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let number = without_zeros(&bytes);
    let mut filled = vec![0; length.saturating_sub(number.len())];
    filled.extend(number);
    (length == 0 || filled.len() == length).then_some(filled)
}

fn without_zeros(mut number: &[u8]) -> &[u8] {
    while let [0, rest @ ..] = number {
        number = rest;
    }
    number
}

/// Splits an RSA key of a PEM file into its numbers, whose sizes are checked.
fn rsa_of_der(key: &DecodingKey) -> Option<DecodingKey> {
    let (sequence, _) = der_element(key.try_get_as_bytes().ok()?)?;
    let (n, rest) = der_element(sequence)?;
    let (e, _) = der_element(rest)?;
    Some(DecodingKey::from_rsa_raw_components(without_zeros(n), without_zeros(e)))
}

/// Splits the content of the first DER element from what follows.
fn der_element(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = match der {
        [_, length @ 0..=0x7f, rest @ ..] | [_, 0x81, length, rest @ ..] => (usize::from(*length), rest),
        [_, 0x82, high, low, rest @ ..] => (usize::from(u16::from_be_bytes([*high, *low])), rest),
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// Algorithms with which a public key can verify tokens. The library itself checks keys only with the first signature,
/// and bounds neither the exponent nor the time that a signature of a stranger costs.
fn algorithms(key: &DecodingKey) -> &'static [Algorithm] {
    const RSA: [Algorithm; 6] =
        [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];
    match (key.kind(), key.family()) {
        (DecodingKeyKind::RsaModulusExponent { n, e }, _) => {
            let has_size = matches!((n.len(), n.first()), (256, Some(128..)) | (257..=512, _)) && e.len() <= 4;
            let parsed = || RsaPublicKeyComponents { n, e }.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256);
            if has_size && parsed().is_ok() { &RSA } else { &[] }
        }
        (DecodingKeyKind::SecretOrDer(point), AlgorithmFamily::Ed) => {
            ParsedPublicKey::new(&ED25519, point).map_or(&[], |_| &[Algorithm::EdDSA])
        }
        (DecodingKeyKind::SecretOrDer(point), AlgorithmFamily::Ec) => {
            if ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).is_ok() {
                &[Algorithm::ES256]
            } else {
                ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).map_or(&[], |_| &[Algorithm::ES384])
            }
        }
        _ => &[],
    }
}

impl fmt::Display for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let algorithms: Vec<_> = self.algorithms.iter().map(|one| format!("{one:?}")).collect();
        let kind = if self.is_secret() { "secret" } else { "public key" };
        write!(f, "{kind} ({})", algorithms.join(", "))
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyingKey")
            .field("id", &self.id)
            .field("algorithms", &self.algorithms)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_secret_and_a_private_key_are_refused() {
        assert_eq!(VerifyingKey::from_secret(" short\n").unwrap_err(), KeyError::ShortSecret(5));
        let private = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert_eq!(VerifyingKey::from_pem(private).unwrap_err(), KeyError::Private);
        assert_eq!(VerifyingKey::from_pem("no key").unwrap_err(), KeyError::NoPublicKey);
    }

    #[test]
    fn a_secret_fits_tokens_of_its_algorithm_whatever_their_key_id() {
        let key = VerifyingKey::from_secret("a secret that is long enough").unwrap();
        assert!(key.fits(Algorithm::HS256, None) && key.fits(Algorithm::HS256, Some("1")));
        assert!(!key.fits(Algorithm::RS256, None));
        assert!(!key.has_id(None) && !key.has_id(Some("1")));
    }

    #[test]
    fn the_key_itself_is_never_shown() {
        let key = VerifyingKey::from_secret("a secret that is long enough").unwrap();
        assert_eq!(format!("{key:?}"), "VerifyingKey { id: None, algorithms: [HS256], .. }");
    }

    const SECP256K1: &str = "MFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAE6ESbhN3JcLclb8d1GSrvUxo/KeJcdYobXEvHLtxVkN0i8z+1LXTYyGRyjShCLF+Sq/DR\
         aP1LT3adigdVLCOY8Q==";
    const RSA_1024: &str = "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDflI/ku8lidRfOythqWzGT+UmqOnCLDlA/lTruB6t56bS+hCsnRA5uimXwhaex\
         nGMaR4P0HqAOX+Dq9YL+hiNAD+FZUv4eHMPOTzV7p+Y1bMtMcrmpdzvzNUMHNppfZhnHqja6me5jPH+VtZuDsildCySBqNmxnHFy\
         YLGzz4C2GwIDAQAB";

    fn public_pem(algorithm: &'static rcgen::SignatureAlgorithm) -> String {
        rcgen::KeyPair::generate_for(algorithm).unwrap().public_key_pem()
    }

    #[test]
    fn a_public_key_verifies_with_the_algorithms_of_its_kind_and_no_secret_does() {
        let of = |algorithm| VerifyingKey::from_pem(&public_pem(algorithm)).unwrap().algorithms;
        assert_eq!(of(&rcgen::PKCS_ECDSA_P256_SHA256), [Algorithm::ES256]);
        assert_eq!(of(&rcgen::PKCS_ECDSA_P384_SHA384), [Algorithm::ES384]);
        assert_eq!(of(&rcgen::PKCS_ED25519), [Algorithm::EdDSA]);
        let rsa = of(&rcgen::PKCS_RSA_SHA256);
        assert_eq!(rsa, AlgorithmFamily::Rsa.algorithms());
        let secret = VerifyingKey::from_secret("a secret that is long enough").unwrap();
        assert!(rsa.iter().all(|algorithm| !secret.fits(*algorithm, None)));
    }

    #[test]
    fn a_public_key_that_can_never_verify_is_refused() {
        let p521 = public_pem(&rcgen::PKCS_ECDSA_P521_SHA512);
        assert_eq!(VerifyingKey::from_pem(&p521).unwrap_err(), KeyError::Unusable);
        // secp256k1 and RSA of 1024 bits, by OpenSSL.
        for text in [SECP256K1, RSA_1024] {
            let pem = format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n");
            assert_eq!(VerifyingKey::from_text(&pem).unwrap_err(), KeyError::Unusable, "{text}");
        }
        let usable = |n: &[u8], e: &[u8]| !algorithms(&DecodingKey::from_rsa_raw_components(n, e)).is_empty();
        assert!(usable(&[255; 256], &[1, 0, 1]) && usable(&[255; 512], &[1, 0, 1]));
        for (bytes, exponent) in [(255, vec![1, 0, 1]), (513, vec![1, 0, 1]), (256, vec![1, 0, 0, 0, 1])] {
            assert!(!usable(&vec![255; bytes], &exponent), "{bytes} {exponent:?}");
        }
    }

    #[test]
    fn a_public_text_is_no_secret() {
        for text in
            ["{\"keys\":[{\"kty\":\"RSA\"}]}", SECP256K1, "----BEGIN PUBLIC KEY----\nMIIB", "ssh-rsa AAAAB3NzaC1yc2E"]
        {
            assert!(matches!(VerifyingKey::from_text(text), Err(KeyError::Public(_))), "{text}");
        }
    }
}
