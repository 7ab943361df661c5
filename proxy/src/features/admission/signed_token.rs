//! Claims of a verified token: user, audiences and time of issue.

use serde_json::Value;
use trunkline_protocol::access_token::{Claims, numeric_date};
use trunkline_protocol::json_text::JsonText;

/// Token with a valid signature and valid times.
#[derive(Debug, Clone, Copy)]
pub(super) struct SignedToken<'a> {
    pub claims: &'a Claims,
    pub user: Option<&'a str>,
    pub app: Option<&'a str>,
}

impl<'a> SignedToken<'a> {
    /// Time of issue in seconds since 1970, if present.
    pub(super) fn issued_s(&self) -> Option<u64> {
        self.claims.get("iat").and_then(|time| numeric_date(time.value()))
    }

    pub(super) fn audiences(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        audiences(self.claims)
    }
}

/// Audiences in the claims of a token: a string or a list.
pub(super) fn audiences(claims: &Claims) -> impl Iterator<Item = &str> {
    let (one, several) = match claims.get("aud").map(JsonText::value) {
        Some(Value::Array(all)) => (None, all.as_slice()),
        Some(Value::String(one)) => (Some(one.as_str()), [].as_slice()),
        _ => (None, [].as_slice()),
    };
    one.into_iter().chain(several.iter().filter_map(Value::as_str))
}
