//! Signing of access tokens, as an app does for its own users: for tests and first steps.

use jsonwebtoken::errors::Error;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Map, Value, json};
use trunkline_protocol::key::AccessKey;
use trunkline_protocol::token::Claim;

/// Signs a token for a user with HS256.
///
/// # Errors
/// When the claims can't be encoded.
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

#[cfg(test)]
mod tests {
    use jsonwebtoken::{DecodingKey, Validation, decode};

    use super::*;

    #[test]
    fn claims_of_one_name_become_a_list() {
        let key = AccessKey::new("a key of the fleet, long enough").unwrap();
        let claims = ["a", "b", "c"].map(|role| ("role".to_owned(), role.to_owned()));
        let token = sign_user_token(&key, "ann", &claims, u64::from(u32::MAX)).unwrap();
        let secret = DecodingKey::from_secret(key.expose().as_bytes());
        let body = decode::<Value>(&token, &secret, &Validation::new(Algorithm::HS256)).unwrap().claims;
        assert_eq!(body, json!({ "nameid": "ann", "exp": u32::MAX, "role": ["a", "b", "c"] }));
    }
}
