//! Body of `:refresh`: the time at which a connection closes.

use chrono::DateTime;
use serde_json::{Map, Value};

use super::rest_error::RestError;

/// Reads `{"expireTime": "2027-01-31T12:00:00Z"}`, or a number of seconds since 1970. Case does not count in the name.
///
/// # Errors
/// When the body is something else.
pub(super) fn read_expire_time(body: &[u8]) -> Result<i64, RestError> {
    let bad = || {
        let problem =
            "is no JSON like {\"expireTime\": \"2027-01-31T12:00:00Z\"}: a time of RFC 3339, or seconds since 1970";
        RestError::bad_value("body", problem)
    };
    let members: Map<String, Value> = serde_json::from_slice(body).map_err(|_| bad())?;
    let named = members.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("expireTime"));
    let seconds = match named {
        Some((_, Value::String(text))) => DateTime::parse_from_rfc3339(&text).ok().map(|time| time.timestamp()),
        Some((_, Value::Number(number))) => number.as_i64(),
        _ => None,
    };
    seconds.filter(|seconds| *seconds >= 0).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
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
}
