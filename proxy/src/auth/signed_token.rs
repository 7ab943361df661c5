//! Claims of a token whose signature is good, as far as they say for whom and when it was issued.

use serde_json::{Map, Value};
use trunkline_protocol::access_token::numeric_date;

/// Token whose signature and times are good.
#[derive(Debug, Clone, Copy)]
pub(super) struct SignedToken<'a> {
    pub claims: &'a Map<String, Value>,
    /// Id of its user.
    pub user: Option<&'a str>,
    /// Name of the app whose key has signed it.
    pub app: Option<&'a str>,
}

impl<'a> SignedToken<'a> {
    /// When it was issued, in seconds since 1970, if it says so.
    pub(super) fn issued_s(&self) -> Option<u64> {
        self.claims.get("iat").and_then(numeric_date)
    }

    /// Audiences that it names.
    pub(super) fn audiences(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        audiences(self.claims)
    }
}

/// Audiences in the claims of a token: one, or a list.
pub(super) fn audiences(claims: &Map<String, Value>) -> impl Iterator<Item = &str> {
    let (one, several) = match claims.get("aud") {
        Some(Value::Array(all)) => (None, all.as_slice()),
        Some(Value::String(one)) => (Some(one.as_str()), [].as_slice()),
        _ => (None, [].as_slice()),
    };
    one.into_iter().chain(several.iter().filter_map(Value::as_str))
}
