//! Bodies of `:refresh`, `:refreshAuth` and `claims`: connection, expiry and claims.

use bytestring::ByteString;
use chrono::DateTime;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::rest_error::RestError;

/// Refreshed sign-in of a connection, from a request body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NamedLogIn {
    /// Connection token, known only to the connection's client and app.
    pub(super) connection_token: String,
    /// In seconds since 1970; `None` in a query.
    pub(super) expires_s: Option<i64>,
    /// `None` keeps the claims unchanged.
    pub(super) claims: Option<Vec<(ByteString, ByteString)>>,
}

#[derive(Deserialize)]
struct NamedClaim {
    #[serde(alias = "Type")]
    r#type: String,
    #[serde(alias = "Value")]
    value: String,
}

/// Parses `{"expireTime": "2027-01-31T12:00:00Z"}`, or a number of seconds since 1970. The name is case-insensitive.
/// Fails if the body has another form.
pub(super) fn read_expire_time(body: &[u8]) -> Result<i64, RestError> {
    let bad = || {
        let problem =
            "is not JSON like {\"expireTime\": \"2027-01-31T12:00:00Z\"}: a time of RFC 3339, or seconds since 1970";
        RestError::bad_value("body", problem)
    };
    let mut members: Map<String, Value> = serde_json::from_slice(body).map_err(|_| bad())?;
    take_member(&mut members, "expireTime").and_then(seconds_of).ok_or_else(bad)
}

/// Parses `{"connectionToken": "…", "expireTime": "2027-01-31T12:00:00Z", "claims": [{"type": "role", "value": "x"}]}`;
/// claims and time are optional. Names are case-insensitive. Fails if the body has another form.
pub(super) fn read_log_in(body: &[u8]) -> Result<NamedLogIn, RestError> {
    let bad = || {
        let problem = "is not JSON like {\"connectionToken\": \"the token of the negotiate answer\", \"expireTime\": \
                       \"2027-01-31T12:00:00Z\", \"claims\": [{\"type\": \"role\", \"value\": \"cook\"}]}";
        RestError::bad_value("body", problem)
    };
    let mut members: Map<String, Value> = serde_json::from_slice(body).map_err(|_| bad())?;
    let Some(Value::String(connection_token)) = take_member(&mut members, "connectionToken") else { return Err(bad()) };
    let time = take_member(&mut members, "expireTime").filter(|time| !time.is_null());
    let expires_s = time.map(|time| seconds_of(time).ok_or_else(bad)).transpose()?;
    let named = take_member(&mut members, "claims").filter(|claims| !claims.is_null());
    let named = named.map(serde_json::from_value::<Vec<NamedClaim>>).transpose().map_err(|_| bad())?;
    let claims = named.map(|all| all.into_iter().map(|claim| (claim.r#type.into(), claim.value.into())).collect());
    Ok(NamedLogIn { connection_token, expires_s, claims })
}

fn take_member(members: &mut Map<String, Value>, wanted: &str) -> Option<Value> {
    let name = members.keys().find(|name| name.eq_ignore_ascii_case(wanted))?.clone();
    members.remove(&name)
}

fn seconds_of(time: Value) -> Option<i64> {
    let seconds = match time {
        Value::String(text) => DateTime::parse_from_rfc3339(&text).ok()?.timestamp(),
        Value::Number(number) => number.as_i64()?,
        _ => return None,
    };
    (seconds >= 0).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use trunkline_protocol::service::RefreshAuth;

    use super::*;

    #[test]
    fn a_time_comes_as_text_or_in_seconds() {
        let read = |body: &str| read_expire_time(body.as_bytes()).map_err(|error| error.to_string());
        for body in [
            "{\"expireTime\":\"2027-01-31T12:00:00Z\"}",
            "{\"ExpireTime\":\"2027-01-31T13:00:00.5+01:00\"}",
            "{\"expireTime\":1801396800}",
        ] {
            assert_eq!(read(body), Ok(1_801_396_800), "{body}");
        }
        for body in ["", "{}", "[]", "{\"expireTime\":\"tomorrow\"}", "{\"expireTime\":-1}", "{\"expireTime\":1e300}"] {
            assert!(read(body).unwrap_err().contains("RFC 3339"), "{body}");
        }
    }

    #[test]
    fn a_log_in_names_its_connection_and_perhaps_claims() {
        let read = |body: &str| read_log_in(body.as_bytes()).map_err(|error| error.to_string());
        let whole = read(
            "{\"ConnectionToken\":\"t\",\"expireTime\":\"9999-12-31T23:59:59.9999999+00:00\",\
             \"claims\":[{\"type\":\"role\",\"value\":\"cook\"},{\"Type\":\"role\",\"Value\":\"admin\"}]}",
        );
        let NamedLogIn { expires_s, claims, .. } = whole.unwrap();
        assert!(expires_s.unwrap() >= RefreshAuth::NO_END_S);
        assert_eq!(claims.unwrap(), [("role".into(), "cook".into()), ("role".into(), "admin".into())]);
        let least = NamedLogIn { connection_token: "t".into(), expires_s: None, claims: None };
        assert_eq!(read("{\"connectionToken\":\"t\",\"claims\":null}"), Ok(least));
        for body in ["", "{}", "{\"connectionToken\":1}", "{\"connectionToken\":\"t\",\"expireTime\":\"soon\"}"] {
            assert!(read(body).unwrap_err().contains("connectionToken"), "{body}");
        }
    }
}
