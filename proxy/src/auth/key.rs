//! Keys that verify access tokens, each with one algorithm.

use std::fmt;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use trunkline_protocol::limits::ACCESS_KEY_MIN_BYTES;

/// Error of parsing a key for access tokens.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The secret is short enough to guess.
    #[error("has {0} bytes, but a secret needs at least {ACCESS_KEY_MIN_BYTES}")]
    ShortSecret(usize),
    /// The key is private. A proxy needs only the public key.
    #[error("contains a private key: use the public key, which is enough to verify tokens")]
    Private,
    /// The text is not a supported public key.
    #[error("contains no PEM public key for RS256 (RSA) or ES256 (P-256)")]
    NoPublicKey,
    /// The parameters of a published key are invalid: the RSA size is not supported, or the point is not on the curve.
    #[error("is not a valid key: RSA needs 2048 to 8192 bits, and EC a point on P-256")]
    Numbers,
}

const COORDINATE_BYTES: usize = 32;

/// Key that verifies access tokens with one algorithm.
#[derive(Clone)]
pub struct VerifyingKey {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl VerifyingKey {
    /// Creates an HS256 key from a secret, without surrounding white space.
    ///
    /// # Errors
    /// If the secret is too short.
    pub fn from_secret(text: &str) -> Result<Self, KeyError> {
        let secret = text.trim().as_bytes();
        if secret.len() < ACCESS_KEY_MIN_BYTES {
            return Err(KeyError::ShortSecret(secret.len()));
        }
        Ok(Self { id: None, algorithm: Algorithm::HS256, key: DecodingKey::from_secret(secret) })
    }

    /// Parses a public key in PEM: RS256 for an RSA key, ES256 for a P-256 key.
    ///
    /// # Errors
    /// Returns an error for any other text.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        if text.contains("PRIVATE KEY-----") {
            return Err(KeyError::Private);
        }
        let rsa = DecodingKey::from_rsa_pem(text.as_bytes()).map(|key| (Algorithm::RS256, key));
        let (algorithm, key) = rsa
            .or_else(|_| DecodingKey::from_ec_pem(text.as_bytes()).map(|key| (Algorithm::ES256, key)))
            .map_err(|_| KeyError::NoPublicKey)?;
        Ok(Self { id: None, algorithm, key })
    }

    /// Converts a key of a JWKS. Returns `None` if the key is not for RS256 or ES256 (a published symmetric key is no
    /// secret), and an error if it can't verify any signature.
    pub(crate) fn from_jwk(jwk: &Jwk) -> Option<Result<Self, KeyError>> {
        let (algorithm, name) = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
                (Algorithm::ES256, KeyAlgorithm::ES256)
            }
            _ => return None,
        };
        let common = &jwk.common;
        let is_for_signing = common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature);
        let is_for_this = common.key_algorithm.is_none_or(|named| named == name);
        let key = (is_for_signing && is_for_this).then(|| published_key(&jwk.algorithm))?;
        let key = key.filter(is_usable).ok_or(KeyError::Numbers);
        Some(key.map(|key| Self { id: common.key_id.clone(), algorithm, key }))
    }

    /// Returns whether this key may have signed a token with this algorithm and key id.
    pub(crate) fn fits(&self, algorithm: Algorithm, id: Option<&str>) -> bool {
        self.algorithm == algorithm && (self.id.is_none() || id.is_none() || self.has_id(id))
    }

    pub(crate) fn has_id(&self, id: Option<&str>) -> bool {
        id.is_some() && self.id.as_deref() == id
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub(crate) fn decoding_key(&self) -> &DecodingKey {
        &self.key
    }
}

/// Builds a key from published parameters. Some issuers add a sign byte, or drop leading zeros.
fn published_key(parameters: &AlgorithmParameters) -> Option<DecodingKey> {
    match parameters {
        AlgorithmParameters::RSA(rsa) => {
            Some(DecodingKey::from_rsa_raw_components(&unsigned(&rsa.n, 0)?, &unsigned(&rsa.e, 0)?))
        }
        AlgorithmParameters::EllipticCurve(ec) => {
            let (x, y) = (unsigned(&ec.x, COORDINATE_BYTES)?, unsigned(&ec.y, COORDINATE_BYTES)?);
            Some(DecodingKey::from_ec_der(&[&[4], x.as_slice(), &y].concat()))
        }
        _ => None,
    }
}

/// Decodes a number, strips its leading zeros and pads it to `length` bytes. A larger number is refused, unless
/// `length` is 0.
fn unsigned(text: &str, length: usize) -> Option<Vec<u8>> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let number: Vec<u8> = bytes.into_iter().skip_while(|byte| *byte == 0).collect();
    let mut filled = vec![0; length.saturating_sub(number.len())];
    filled.extend(number);
    (length == 0 || filled.len() == length).then_some(filled)
}

/// Returns whether the key can verify signatures. The library itself checks this only with the first signature.
fn is_usable(key: &DecodingKey) -> bool {
    match key.kind() {
        DecodingKeyKind::RsaModulusExponent { n, e } => {
            let has_size = matches!((n.len(), n.first()), (256, Some(128..)) | (257..=1024, _));
            has_size && RsaPublicKeyComponents { n, e }.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256).is_ok()
        }
        DecodingKeyKind::SecretOrDer(point) => ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).is_ok(),
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyingKey").field("id", &self.id).field("algorithm", &self.algorithm).finish_non_exhaustive()
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
        assert_eq!(format!("{key:?}"), "VerifyingKey { id: None, algorithm: HS256, .. }");
    }
}
