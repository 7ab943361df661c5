//! Issuer of access tokens: keys of all kinds, and a server that publishes them as a JWKS.
//!
//! The keys in `tests/keys/` are only for tests.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};

use anyhow::Result;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::harness::tls::{Authority, TlsEnd};
use crate::harness::token::with_expiry;

const PATH: &str = "/jwks.json";

/// Key pair of an issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pair {
    /// RSA key for RS256.
    Rsa,
    /// Elliptic curve key for ES256.
    Ec,
    /// Another elliptic curve key for ES256.
    OtherEc,
}

impl Pair {
    fn name(self) -> &'static str {
        match self {
            Pair::Rsa => "rsa",
            Pair::Ec => "ec-1",
            Pair::OtherEc => "ec-2",
        }
    }

    fn algorithm(self) -> Algorithm {
        match self {
            Pair::Rsa => Algorithm::RS256,
            Pair::Ec | Pair::OtherEc => Algorithm::ES256,
        }
    }

    fn file(self, ending: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("harness/keys").join(format!("{}.{ending}", self.name()))
    }

    fn private(self) -> Result<EncodingKey> {
        let pem = std::fs::read(self.file("pem"))?;
        Ok(match self {
            Pair::Rsa => EncodingKey::from_rsa_pem(&pem)?,
            Pair::Ec | Pair::OtherEc => EncodingKey::from_ec_pem(&pem)?,
        })
    }

    /// PEM file with its public key.
    #[must_use]
    pub fn public_file(self) -> String {
        self.file("public.pem").to_string_lossy().into_owned()
    }

    /// Public key as a JWK with its name as the id.
    pub fn jwk(self) -> Result<Value> {
        let mut jwk = Jwk::from_encoding_key(&self.private()?, self.algorithm())?;
        jwk.common.key_id = Some(self.name().into());
        Ok(serde_json::to_value(jwk)?)
    }

    /// Signs a token with these claims, an expiry and the key id.
    pub fn sign(self, claims: &Value) -> Result<String> {
        let mut header = Header::new(self.algorithm());
        header.kid = Some(self.name().into());
        Ok(jsonwebtoken::encode(&header, &with_expiry(claims)?, &self.private()?)?)
    }
}

/// Set of public keys in published form.
pub fn jwks(pairs: &[Pair]) -> Result<Value> {
    // Includes a key of an unsupported kind, as is common.
    let strange = json!({ "kty": "OKP", "crv": "X448", "kid": "strange", "use": "enc", "x": "AAAA" });
    let keys = std::iter::once(Ok(strange)).chain(pairs.iter().map(|pair| pair.jwk())).collect::<Result<Vec<_>>>()?;
    Ok(json!({ "keys": keys }))
}

/// Server of a key set, stopped with the test.
#[derive(Debug, Clone)]
pub struct Issuer {
    address: String,
    page: Arc<KeyPage>,
}

#[derive(Debug, Default)]
struct KeyPage {
    set: RwLock<Option<Value>>,
    asked: AtomicUsize,
}

impl Issuer {
    /// Publishes these keys.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn start(pairs: &[Pair]) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let issuer = Self { address: listener.local_addr()?.to_string(), page: Arc::default() };
        issuer.publish(pairs)?;
        let router = Router::new().route(PATH, get(serve)).with_state(issuer.page.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(issuer)
    }

    /// Publishes these keys instead. An empty list makes the server fail.
    pub fn publish(&self, pairs: &[Pair]) -> Result<()> {
        let set = if pairs.is_empty() { None } else { Some(jwks(pairs)?) };
        *self.page.set.write().unwrap_or_else(std::sync::PoisonError::into_inner) = set;
        Ok(())
    }

    /// URL of the key set.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}{PATH}", self.address)
    }

    /// Also publishes the keys over TLS, as `localhost`.
    pub async fn with_tls(&self, authority: &Authority) -> Result<SecureIssuer> {
        Ok(SecureIssuer(TlsEnd::start(&authority.sign("issuer", &["localhost"])?, &self.address).await?))
    }

    /// Number of requests so far.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.page.asked.load(Ordering::Relaxed)
    }
}

/// TLS endpoint of an issuer.
#[derive(Debug)]
pub struct SecureIssuer(TlsEnd);

impl SecureIssuer {
    /// URL of the key set, with the certificate's host name.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}{PATH}", self.0.address().replace("127.0.0.1", "localhost"))
    }
}

async fn serve(State(page): State<Arc<KeyPage>>) -> Response {
    page.asked.fetch_add(1, Ordering::Relaxed);
    match page.set.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone() {
        Some(set) => Json(set).into_response(),
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
