//! Who a request is from: an HS256 JWT signed with an access key, by header or by query.
//!
//! No token, no user; a token that is no good is refused, because its bearer believes to be somebody.

use http::Request;
use http::header::AUTHORIZATION;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde_json::{Map, Value, json};
use trunkline_protocol::key::{AccessKey, AccessKeys};
use trunkline_protocol::limits::CLOCK_SKEW_S;
use trunkline_protocol::token::Claim;

use super::request::query_value;

/// Claims that name the user, the first that is there.
const USER_CLAIMS: [&str; 2] = ["nameid", "sub"];

/// Part of the audience of tokens that open links in Azure's way: a user's never does.
const SERVER_AUDIENCE: &str = "/server/";

/// Who a request is from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// The user id; `None` for nobody in particular.
    pub id: Option<String>,
    /// What the token says; names may repeat.
    pub claims: Vec<Claim>,
}

/// Finds out who a request is from.
///
/// # Errors
/// Why its token is no good.
pub(super) fn authenticate<B>(request: &Request<B>, keys: &AccessKeys) -> Result<User, String> {
    match token(request) {
        None => Ok(User::default()),
        Some(token) => verify(&token, keys),
    }
}

fn token<B>(request: &Request<B>) -> Option<String> {
    let bearer = request.headers().get(AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
    });
    bearer.or_else(|| query_value(request.uri(), "access_token")).filter(|token| !token.is_empty())
}

fn verify(token: &str, keys: &AccessKeys) -> Result<User, String> {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.leeway = CLOCK_SKEW_S;
    validation.validate_nbf = true;
    // Any audience will do but one: see below.
    validation.validate_aud = false;
    let mut problem = String::new();
    for key in keys.iter() {
        match decode::<Map<String, Value>>(token, &DecodingKey::from_secret(key.expose().as_bytes()), &validation) {
            Ok(data) => return user(&data.claims),
            Err(error) => problem = error.to_string(),
        }
    }
    Err(format!("the access token is not valid: {problem}"))
}

fn user(claims: &Map<String, Value>) -> Result<User, String> {
    let claims: Vec<Claim> = claims.iter().flat_map(|(name, value)| flat(name, value)).collect();
    if claims.iter().any(|(name, value)| name == "aud" && value.contains(SERVER_AUDIENCE)) {
        return Err("the access token is for app servers, not for users".into());
    }
    let id = USER_CLAIMS.iter().find_map(|wanted| claims.iter().find(|(name, _)| name == wanted));
    Ok(User { id: id.map(|(_, value)| value.clone()), claims })
}

/// A list is one claim for each of its values.
fn flat(name: &str, value: &Value) -> Vec<Claim> {
    match value {
        Value::Array(values) => values.iter().map(|value| (name.to_owned(), text(value))).collect(),
        one => vec![(name.to_owned(), text(one))],
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Signs a token for a user: what an app would do for its own users, for tests and first steps.
///
/// # Errors
/// When it can't be signed.
pub fn sign_user_token(
    key: &AccessKey,
    user: &str,
    claims: &[Claim],
    expires_s: u64,
) -> Result<String, jsonwebtoken::errors::Error> {
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
    use super::*;
    use crate::config::unix_seconds;

    fn key() -> AccessKey {
        AccessKey::new("a key of the fleet, long enough").unwrap()
    }

    fn keys() -> AccessKeys {
        AccessKeys::new(vec![AccessKey::random(), key()]).unwrap()
    }

    fn sign(claims: &Value) -> String {
        encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(key().expose().as_bytes())).unwrap()
    }

    fn by_query(token: &str) -> Result<User, String> {
        let request = Request::get(format!("/chat?access_token={token}")).body(()).unwrap();
        authenticate(&request, &keys())
    }

    fn soon() -> u64 {
        unix_seconds() + 60
    }

    #[test]
    fn no_token_no_user() {
        let request = Request::get("/chat").body(()).unwrap();
        assert_eq!(authenticate(&request, &keys()), Ok(User::default()));
    }

    #[test]
    fn a_user_is_nameid_else_sub_by_query_or_header() {
        let token = sign(&json!({"sub": "s", "nameid": "n", "exp": soon()}));
        assert_eq!(by_query(&token).unwrap().id.as_deref(), Some("n"));
        let request =
            Request::get("/").header("Authorization", format!("bearer {}", sign(&json!({"sub": "s", "exp": soon()}))));
        let user = authenticate(&request.body(()).unwrap(), &keys()).unwrap();
        assert_eq!(user.id.as_deref(), Some("s"));
    }

    #[test]
    fn a_list_is_a_claim_for_each_of_its_values() {
        let token = sign_user_token(&key(), "ann", &[("role".into(), "a".into()), ("role".into(), "b".into())], soon());
        let claims = by_query(&token.unwrap()).unwrap().claims;
        let roles: Vec<_> = claims.iter().filter(|(name, _)| name == "role").map(|(_, value)| value.as_str()).collect();
        assert_eq!(roles, ["a", "b"]);
    }

    #[test]
    fn expired_forged_endless_and_server_tokens_are_refused() {
        let expired = sign(&json!({"sub": "s", "exp": 1_000}));
        let endless = sign(&json!({"sub": "s"}));
        let server = sign(&json!({"sub": "s", "exp": soon(), "aud": "http://proxy/server/?hub=chat"}));
        let stranger = AccessKey::new("some other key, long enough too").unwrap();
        let forged = sign_user_token(&stranger, "ann", &[], soon()).unwrap();
        for token in [expired, endless, server, forged, "garbage".into()] {
            assert!(by_query(&token).is_err(), "{token}");
        }
    }
}
