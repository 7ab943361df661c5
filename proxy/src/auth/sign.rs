//! Sign an access token: what an app would do for its own users, for tests and first steps.

use jsonwebtoken::errors::Error;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Map, Value, json};
use trunkline_protocol::key::AccessKey;
use trunkline_protocol::token::Claim;

/// Signs a token for a user, by HS256.
///
/// # Errors
/// When it can't be signed.
pub(crate) fn sign_user_token(key: &AccessKey, user: &str, claims: &[Claim], expires_s: u64) -> Result<String, Error> {
    let mut body = Map::from_iter([("nameid".to_owned(), json!(user)), ("exp".to_owned(), json!(expires_s))]);
    for (name, value) in claims {
        match body.get_mut(name) {
            None => drop(body.insert(name.clone(), json!(value))),
            Some(Value::Array(values)) => values.push(json!(value)),
            Some(one) => *one = json!([one.clone(), value]),
        }
    }
    encode(&Header::new(Algorithm::HS256), &body, &EncodingKey::from_secret(key.expose().as_bytes()))
}
