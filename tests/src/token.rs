//! Access tokens of users, signed with the fleet's access key.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

/// Longer than any test.
const LIFETIME_S: u64 = 3600;

/// A JWT (HS256) with these claims and an expiry.
///
/// # Errors
/// When the claims are no object.
pub fn signed(access_key: &str, claims: &Value) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let mut all = json!({ "exp": now + LIFETIME_S });
    if let (Some(all), Some(claims)) = (all.as_object_mut(), claims.as_object()) {
        all.extend(claims.clone());
    }
    let key = EncodingKey::from_secret(access_key.as_bytes());
    Ok(jsonwebtoken::encode(&Header::new(Algorithm::HS256), &all, &key)?)
}

/// A JWT that names a user.
///
/// # Errors
/// Never in practice.
pub fn of_user(access_key: &str, user: &str) -> Result<String> {
    signed(access_key, &json!({ "nameid": user }))
}
