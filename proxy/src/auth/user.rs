//! Users, as the claims of an access token name them.

use serde_json::{Map, Value};
use trunkline_protocol::token::Claim;

/// User of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct User {
    /// The user id; `None` for an anonymous one.
    pub id: Option<String>,
    /// All claims of the token; names may repeat.
    pub claims: Vec<Claim>,
    /// Expiry of the token, in seconds since 1970.
    pub expires_s: Option<u64>,
}

impl User {
    /// Builds the user of verified claims; its id is the first of `user_claims` that is present.
    pub(super) fn of(claims: &Map<String, Value>, user_claims: &[String]) -> Self {
        let id = user_claims.iter().find_map(|name| claims.get(name)).and_then(|value| match value {
            Value::Array(values) => values.first().map(text),
            one => Some(text(one)),
        });
        let expires_s = claims.get("exp").and_then(seconds);
        let claims = claims.iter().flat_map(|(name, value)| flat(name, value)).collect();
        Self { id, claims, expires_s }
    }
}

/// Reads whole seconds; some issuers write fractions.
fn seconds(value: &Value) -> Option<u64> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "such a cast saturates")]
    value.as_u64().or_else(|| value.as_f64().map(|seconds| seconds as u64))
}

/// Makes one claim for each value of a list.
fn flat(name: &str, value: &Value) -> Vec<Claim> {
    match value {
        Value::Array(values) => values.iter().map(|value| (name.to_owned(), text(value))).collect(),
        one => vec![(name.to_owned(), text(one))],
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::auth::TokenPolicy;

    fn user(claims: &Value) -> User {
        User::of(claims.as_object().unwrap(), &TokenPolicy::default_user_claims())
    }

    #[test]
    fn the_id_is_the_first_claim_of_the_list_that_is_present() {
        assert_eq!(user(&json!({"sub": "s", "nameid": "n"})).id.as_deref(), Some("n"));
        assert_eq!(user(&json!({"sub": 7})).id.as_deref(), Some("7"));
        let long = json!({"http://schemas.xmlsoap.org/ws/2005/05/identity/claims/nameidentifier": "long"});
        assert_eq!(user(&long).id.as_deref(), Some("long"));
        assert_eq!(user(&json!({"name": "x"})).id, None);
    }

    #[test]
    fn a_list_is_a_claim_for_each_of_its_values() {
        let claims = user(&json!({"role": ["a", "b"]})).claims;
        assert_eq!(claims, [("role".to_owned(), "a".to_owned()), ("role".to_owned(), "b".to_owned())]);
    }

    #[test]
    fn the_expiry_may_have_a_fraction() {
        assert_eq!(user(&json!({"exp": 12.9})).expires_s, Some(12));
        assert_eq!(user(&json!({"exp": 12})).expires_s, Some(12));
    }
}
