//! Published key sets (JWKS): where they are, and how they are read.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use http::Uri;
use jsonwebtoken::jwk::Jwk;
use serde::Deserialize;
use serde_json::Value;
use trunkline_protocol::key::without_mark;

use super::VerifyingKey;
use super::key::{KeyError, SUPPORTED};
use crate::ground::net::address::{is_loopback_host, shown_url};

/// Maximum number of keys of a set. Further keys are ignored, and named as unusable.
const KEYS_MAX: usize = 256;

/// Maximum number of keys with one id in a set: each costs a check of a signature for every token with this id.
const SAME_ID_MAX: usize = 4;

/// Maximum number of unusable keys that are named.
const NAMED_MAX: usize = 16;

/// Maximum length of the id of an unusable key.
const NAMED_MAX_CHARS: usize = 64;

/// Error of reading a key set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JwksError {
    /// The key set can't be fetched or read.
    #[error("can't be read: {0}")]
    Read(String),
    /// The text is not a key set.
    #[error("is not a JWKS: {0}")]
    Format(String),
    /// The set has no key of a supported kind.
    #[error("contains no key for signatures")]
    NoKey,
    /// All keys of supported kinds are unusable. The error lists their ids.
    #[error("contains no usable key: {SUPPORTED}, unlike the keys {}", .0.join(", "))]
    NoUsableKey(Vec<String>),
}

/// Location of a published key set.
#[derive(Clone, PartialEq, Eq)]
pub enum JwksSource {
    /// Local file with the key set.
    File(PathBuf),
    /// An `https://` or `http://` URL.
    Url(Uri),
}

impl JwksSource {
    /// Returns whether the key set is fetched over TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Url(url) if url.scheme_str() == Some("https"))
    }

    /// Reads the keys of a file. A URL returns no keys before its first fetch.
    ///
    /// # Errors
    /// If the file can't be read, or has no usable key of a supported kind.
    pub fn read_file(&self) -> Result<Vec<VerifyingKey>, JwksError> {
        match self {
            Self::File(path) => parse_file(path).map(|published| published.keys),
            Self::Url(_) => Ok(Vec::new()),
        }
    }
}

impl FromStr for JwksSource {
    type Err = String;

    /// Parses a path or a URL. A file must be valid now; a URL may become available later. The text may hold a secret,
    /// so no error contains it.
    fn from_str(text: &str) -> Result<Self, String> {
        let refused = |problem: &str| Err(format!("{:?} {problem}", shown_url(text)));
        if names_issuer(text) {
            return refused(
                "names an issuer: write a table [issuers.NAME] with issuer and jwks in the configuration file",
            );
        }
        if !text.contains("://") {
            let source = Self::File(text.into());
            return source.read_file().map_err(|cause| format!("{text} {cause}")).map(|_| source);
        }
        let url = text.parse::<Uri>().ok().filter(|url| matches!(url.scheme_str(), Some("http" | "https")));
        // The user name of a URL would not be sent, and its password would be logged.
        let host = url.as_ref().and_then(Uri::authority);
        let host = host.filter(|host| !host.host().is_empty() && !host.as_str().contains('@')).map(ToString::to_string);
        let Some((url, host)) = url.zip(host) else {
            return refused("is neither a file nor a URL like https://issuer.example/jwks.json");
        };
        if url.scheme_str() == Some("http") && !is_loopback_host(&host) {
            return refused(
                "fetches keys without TLS: anyone on the network path could forge tokens of any user. Use https://, or a \
                 file; http:// is only for this machine",
            );
        }
        Ok(Self::Url(url))
    }
}

/// Whether a text is `ISSUER=SOURCE`, where the issuer is a URL: an equals sign in the host, or before another URL.
fn names_issuer(text: &str) -> bool {
    let Some((_, rest)) = text.split_once("://") else { return false };
    let address = rest.split(['?', '#']).next().unwrap_or_default();
    let host = address.split('/').next().unwrap_or_default();
    host.contains('=') || address.split_once("://").is_some_and(|(before, _)| before.contains('='))
}

impl fmt::Debug for JwksSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JwksSource({self})")
    }
}

impl fmt::Display for JwksSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Url(url) => f.write_str(&shown_url(&url.to_string())),
        }
    }
}

/// Keys of a set that can verify tokens, with the ids of unusable keys.
#[derive(Debug, Default)]
pub(crate) struct PublishedKeys {
    pub(crate) keys: Vec<VerifyingKey>,
    pub(crate) unusable: Vec<String>,
}

pub(crate) fn parse_file(path: &Path) -> Result<PublishedKeys, JwksError> {
    parse(&std::fs::read(path).map_err(|error| JwksError::Read(error.to_string()))?)
}

/// Key id for logs: a text of the set, without control characters.
fn shown_id(id: &str) -> String {
    let shown: String = id.chars().filter(|c| !c.is_control()).take(NAMED_MAX_CHARS).collect();
    if shown.is_empty() { "without kid".into() } else { shown }
}

pub(crate) fn parse(text: &[u8]) -> Result<PublishedKeys, JwksError> {
    /// Parses keys one by one, so that an unsupported key does not invalidate the whole set.
    #[derive(Deserialize)]
    struct JwksDocument {
        keys: Vec<Value>,
    }
    let text = std::str::from_utf8(text).map_err(|error| JwksError::Format(error.to_string()))?;
    let document: JwksDocument =
        serde_json::from_str(without_mark(text)).map_err(|error| JwksError::Format(error.to_string()))?;
    let (mut published, mut same_id) = (PublishedKeys::default(), HashMap::<String, usize>::new());
    for value in document.keys {
        let id = value.get("kid").and_then(Value::as_str).unwrap_or_default().to_owned();
        let is_for_encryption = value.get("use").is_some_and(|usage| usage == "enc");
        let read = match serde_json::from_value::<Jwk>(value) {
            Ok(jwk) => VerifyingKey::from_jwk(&jwk),
            Err(_) => (!is_for_encryption).then_some(Err(KeyError::Unusable)),
        };
        let known = same_id.entry(id.clone()).or_default();
        match read {
            Some(Ok(key)) if published.keys.len() < KEYS_MAX && (id.is_empty() || *known < SAME_ID_MAX) => {
                *known += 1;
                published.keys.push(key);
            }
            Some(_) if published.unusable.len() < NAMED_MAX => published.unusable.push(shown_id(&id)),
            _ => {}
        }
    }
    match (published.keys.is_empty(), published.unusable.is_empty()) {
        (false, _) => Ok(published),
        (true, true) => Err(JwksError::NoKey),
        (true, false) => Err(JwksError::NoUsableKey(published.unusable)),
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use jsonwebtoken::{Algorithm, EncodingKey};
    use serde_json::json;

    use super::*;

    /// Public key on P-256 of RFC 7517, appendix A.1.
    fn ec_key() -> Value {
        json!({ "kty": "EC", "crv": "P-256", "kid": "1", "use": "sig",
                "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
                "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM" })
    }

    fn signed_by(kind: &'static rcgen::SignatureAlgorithm, algorithm: Algorithm) -> (Value, String) {
        let pem = rcgen::KeyPair::generate_for(kind).unwrap().serialize_pem();
        let key = if algorithm == Algorithm::ES256 { EncodingKey::from_ec_pem } else { EncodingKey::from_rsa_pem };
        let key = key(pem.as_bytes()).unwrap();
        let token = jsonwebtoken::encode(&jsonwebtoken::Header::new(algorithm), &json!({}), &key).unwrap();
        (json!(Jwk::from_encoding_key(&key, algorithm).unwrap()), token)
    }

    fn parsed(document: &Value) -> Result<usize, JwksError> {
        parse(document.to_string().as_bytes()).map(|published| published.keys.len())
    }

    #[test]
    fn keys_of_unknown_kinds_spoil_no_other() {
        let unknown = [json!({ "kty": "new" }), json!({ "kty": "oct", "k": "c2VjcmV0" }), json!(7)];
        let [first, second, third] = unknown;
        assert_eq!(parsed(&json!({ "keys": [first, ec_key(), second, third] })), Ok(1));
    }

    #[test]
    fn a_set_with_a_byte_order_mark_is_the_set() {
        let marked = format!("\u{feff}{}\r\n", json!({ "keys": [ec_key()] }));
        assert_eq!(parse(marked.as_bytes()).map(|published| published.keys.len()), Ok(1));
        assert!(matches!(parse(b"\xff\xfe{\0"), Err(JwksError::Format(_))));
    }

    #[test]
    fn a_set_without_a_key_for_signatures_is_refused() {
        let mut for_encryption = ec_key();
        for_encryption["use"] = json!("enc");
        assert_eq!(parsed(&json!({ "keys": [for_encryption] })), Err(JwksError::NoKey));
        assert_eq!(parsed(&json!({ "keys": [] })), Err(JwksError::NoKey));
        assert!(matches!(parsed(&json!([])), Err(JwksError::Format(_))));
    }

    #[test]
    fn numbers_with_a_sign_byte_or_without_their_leading_zeros_make_the_same_key() {
        let signed = |text: &Value| {
            URL_SAFE_NO_PAD.encode([&[0], &*URL_SAFE_NO_PAD.decode(text.as_str().unwrap()).unwrap()].concat())
        };
        let verifies = |key: &Value, token: &str, algorithm| {
            let published = parse(json!({ "keys": [key] }).to_string().as_bytes()).unwrap();
            let mut terms = jsonwebtoken::Validation::new(algorithm);
            terms.required_spec_claims.clear();
            jsonwebtoken::decode::<Value>(token, published.keys[0].decoding_key(), &terms).is_ok()
        };
        // One key in 256 has a short coordinate.
        for name in ["x", "y"] {
            let (key, token) = std::iter::repeat_with(|| signed_by(&rcgen::PKCS_ECDSA_P256_SHA256, Algorithm::ES256))
                .find(|(key, _)| URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap()[0] == 0)
                .unwrap();
            let mut short = key.clone();
            short[name] =
                json!(URL_SAFE_NO_PAD.encode(&URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap()[1..]));
            let mut padded = key.clone();
            padded[name] = json!(signed(&key[name]));
            assert!([key, short, padded].iter().all(|key| verifies(key, &token, Algorithm::ES256)), "{name}");
        }
        let (key, token) = signed_by(&rcgen::PKCS_RSA_SHA256, Algorithm::RS256);
        for name in ["n", "e"] {
            let mut padded = key.clone();
            padded[name] = json!(signed(&key[name]));
            assert!(verifies(&padded, &token, Algorithm::RS256), "{name}");
        }
    }

    #[test]
    fn keys_that_can_not_be_used_are_left_out_and_named() {
        let change = |name: &str, value: &str| {
            let mut key = ec_key();
            key["kid"] = json!(name);
            key[name] = json!(value);
            key
        };
        let off_curve = [change("x", "AQ"), change("y", &URL_SAFE_NO_PAD.encode([9; 34])), change("x", "")];
        let small = json!({ "kty": "RSA", "e": "AQAB", "n": URL_SAFE_NO_PAD.encode([255; 128]) });
        let [x, y, empty] = off_curve;
        let named = JwksError::NoUsableKey(["x", "y", "x", "without kid"].map(Into::into).into());
        assert!(named.to_string().ends_with("unlike the keys x, y, x, without kid"), "{named}");
        assert_eq!(parsed(&json!({ "keys": [x, y, empty, small] })), Err(named));
        let published = parse(json!({ "keys": [ec_key(), change("y", "AQ")] }).to_string().as_bytes()).unwrap();
        assert_eq!((published.keys.len(), published.unusable), (1, vec!["y".to_owned()]));
    }

    #[test]
    fn keys_of_kinds_that_can_not_verify_are_named_and_those_of_one_id_bounded() {
        let mut keys = vec![ec_key()];
        for (kty, crv) in [("EC", "P-521"), ("EC", "secp256k1"), ("OKP", "X25519"), ("AKP", "x")] {
            keys.push(json!({ "kty": kty, "crv": crv, "kid": format!("{crv}\n"), "x": "AQ", "y": "AQ" }));
        }
        let mut of_other_algorithm = ec_key();
        of_other_algorithm["alg"] = json!("ES384");
        of_other_algorithm["kid"] = json!("other");
        keys.push(of_other_algorithm);
        keys.push(json!({ "kty": "EC", "crv": "P-521", "kid": "enc", "use": "enc", "x": "AQ", "y": "AQ" }));
        let published = parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap();
        assert_eq!(published.keys.len(), 1);
        assert_eq!(published.unusable, ["P-521", "secp256k1", "X25519", "x", "other"]);
        let same = parse(json!({ "keys": vec![ec_key(); 1200] }).to_string().as_bytes()).unwrap();
        assert_eq!((same.keys.len(), same.unusable.len()), (SAME_ID_MAX, NAMED_MAX));
    }

    #[test]
    fn the_query_of_a_url_is_not_shown() {
        let source = JwksSource::Url("https://issuer.example:8443/keys.json?api-key=hush&v=1".parse().unwrap());
        assert_eq!(source.to_string(), "https://issuer.example:8443/keys.json?…");
        assert!(!format!("{source:?}").contains("hush"));
    }
}
