//! Key by which nodes show each other that they have the admin token, without showing it.
//!
//! The addresses of peers come from DNS, and an address may have a new owner. So a peer is shown a seal over the one
//! request that it is asked, good for a minute or two: whoever gets it can't act with it, and learns nothing of the token.

use std::fmt;

use hkdf::Hkdf;
use http::{Method, Uri};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use trunkline_protocol::limits::CLOCK_SKEW_S;

use super::AdminToken;
use crate::clock::unix_seconds;

/// Scheme of the `Authorization` header.
const SCHEME: &str = "Trunkline-Peer ";

/// Purpose of the subkey (HKDF-SHA-256 of the admin token, this as info).
const PURPOSE: &[u8] = b"trunkline 1 admin peer";

/// Time for which a seal is good, besides the difference of clocks.
const LIFETIME_S: u64 = 30;

/// Key of one admin token; its `Debug` form does not show it.
#[derive(Clone)]
pub(crate) struct PeerKey {
    sealing: EncodingKey,
    opening: DecodingKey,
}

/// Request that a seal is good for.
#[derive(Serialize, Deserialize)]
struct SealedRequest {
    method: String,
    target: String,
    exp: u64,
}

impl PeerKey {
    /// Derives the key of an admin token.
    #[must_use]
    #[expect(clippy::expect_used, reason = "32 bytes are below the 8160 that HKDF-SHA-256 can give")]
    pub(crate) fn of(token: &AdminToken) -> Self {
        let mut key = [0; 32];
        Hkdf::<Sha256>::new(None, token.expose().as_bytes())
            .expand(PURPOSE, &mut key)
            .expect("32 bytes can be derived");
        Self { sealing: EncodingKey::from_secret(&key), opening: DecodingKey::from_secret(&key) }
    }

    /// Seals one request; returns the value of its `Authorization`.
    ///
    /// # Errors
    /// When it can't be signed.
    pub(crate) fn seal(&self, method: &Method, target: &str) -> Result<String, jsonwebtoken::errors::Error> {
        let sealed =
            SealedRequest { method: method.as_str().into(), target: target.into(), exp: unix_seconds() + LIFETIME_S };
        Ok(format!("{SCHEME}{}", encode(&Header::new(Algorithm::HS256), &sealed, &self.sealing)?))
    }

    /// Returns the seal in the value of an `Authorization`, if it is one.
    #[must_use]
    pub(crate) fn seal_in(authorization: &str) -> Option<&str> {
        authorization.strip_prefix(SCHEME)
    }

    /// Whether a seal is good for this request.
    #[must_use]
    pub(crate) fn opens(&self, seal: &str, method: &Method, uri: &Uri) -> bool {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = CLOCK_SKEW_S;
        let target = uri.path_and_query().map_or("", |target| target.as_str());
        decode::<SealedRequest>(seal, &self.opening, &validation)
            .is_ok_and(|sealed| sealed.claims.method == method.as_str() && sealed.claims.target == target)
    }
}

impl fmt::Debug for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PeerKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(token: &str) -> PeerKey {
        PeerKey::of(&AdminToken::new(token).unwrap())
    }

    #[test]
    fn a_seal_is_good_for_its_request_alone_and_tells_nothing_of_the_token() {
        let (ours, others) = (key("the-token-of-this-fleet"), key("the-token-of-another"));
        let (target, uri) = ("/api/fleet?scope=node", Uri::from_static("/api/fleet?scope=node"));
        let authorization = ours.seal(&Method::GET, target).unwrap();
        assert!(!authorization.contains("the-token"));
        let seal = PeerKey::seal_in(&authorization).unwrap();
        assert!(ours.opens(seal, &Method::GET, &uri));
        assert!(!others.opens(seal, &Method::GET, &uri));
        assert!(!ours.opens(seal, &Method::POST, &uri));
        assert!(!ours.opens(seal, &Method::GET, &Uri::from_static("/api/clients?scope=node")));
        assert!(!ours.opens("rubbish", &Method::GET, &uri));
        let old = SealedRequest { method: "GET".into(), target: target.into(), exp: unix_seconds() - CLOCK_SKEW_S - 1 };
        let old = encode(&Header::new(Algorithm::HS256), &old, &ours.sealing).unwrap();
        assert!(!ours.opens(&old, &Method::GET, &uri));
        let by_token = EncodingKey::from_secret(b"the-token-of-this-fleet");
        let sealed = SealedRequest { method: "GET".into(), target: target.into(), exp: unix_seconds() + 30 };
        let forged = encode(&Header::new(Algorithm::HS256), &sealed, &by_token).unwrap();
        assert!(!ours.opens(&forged, &Method::GET, &uri), "the token itself signs nothing");
    }
}
