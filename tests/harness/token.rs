//! Access tokens of users, signed with the fleet's access key.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

/// Lifetime of tokens, longer than any test.
const LIFETIME_S: u64 = 3600;

/// Adds an expiry to these claims, unless they have one.
pub fn with_expiry(claims: &Value) -> Result<Value> {
    let mut all = json!({ "exp": in_seconds(LIFETIME_S)? });
    let given = claims.as_object().context("claims are an object")?;
    all.as_object_mut().context("just made")?.extend(given.clone());
    Ok(all)
}

/// Expiry this many seconds from now.
///
/// # Errors
/// Never in practice.
pub fn in_seconds(seconds: u64) -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() + seconds)
}

/// HS256 JWT with these claims and an expiry.
pub fn signed(access_key: &str, claims: &Value) -> Result<String> {
    let key = EncodingKey::from_secret(access_key.as_bytes());
    Ok(jsonwebtoken::encode(&Header::new(Algorithm::HS256), &with_expiry(claims)?, &key)?)
}

/// JWT for a user.
///
/// # Errors
/// Never in practice.
pub fn of_user(access_key: &str, user: &str) -> Result<String> {
    signed(access_key, &json!({ "nameid": user }))
}
