//! Redaction of secrets in tapped payloads. Pure.
//!
//! Detects secrets by names of values and formats of tokens. This is only a heuristic, so payloads are shown only on
//! request.

use std::borrow::Cow;

use serde_json::Value;

const REDACTED: &str = "[redacted]";

/// A value is secret if its name, in lower case without `-` and `_`, contains one of these.
const SECRET_NAMES: [&str; 12] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "authorization",
    "apikey",
    "accesskey",
    "privatekey",
    "credential",
    "cookie",
    "signature",
];

/// Names of query parameters with secret values. Applies to whole names only, and not to JSON.
const SECRET_PARAMETERS: [&str; 4] = ["sig", "code", "otp", "pin"];

/// Maximum nesting depth shown. Human-readable data is never this deep.
const DEPTH_MAX: usize = 32;

/// Minimum length of a part of a token.
const TOKEN_LEAST_CHARS: usize = 8;

/// Value without its secrets.
pub(super) fn value(value: Value) -> Value {
    within(value, 0)
}

fn within(value: Value, depth: usize) -> Value {
    match value {
        _ if depth > DEPTH_MAX => Value::String("…".into()),
        Value::String(text) => Value::String(self::text(&text).into_owned()),
        Value::Array(items) => Value::Array(items.into_iter().map(|item| within(item, depth + 1)).collect()),
        Value::Object(fields) => {
            let clean = fields.into_iter().map(|(name, field)| {
                let field = if is_secret(&name) { Value::String(REDACTED.into()) } else { within(field, depth + 1) };
                (name, field)
            });
            Value::Object(clean.collect())
        }
        other => other,
    }
}

/// Text without its secrets: JSON is redacted by names, other text by words.
pub(crate) fn text(text: &str) -> Cow<'_, str> {
    if text.starts_with(['{', '['])
        && let Ok(json) = serde_json::from_str::<Value>(text)
    {
        let clean = value(json.clone());
        return if clean == json { Cow::Borrowed(text) } else { Cow::Owned(clean.to_string()) };
    }
    let is_bearer = |before: Option<&str>| before.is_some_and(|word| word.eq_ignore_ascii_case("bearer"));
    let words: Vec<&str> = text.split(' ').collect();
    let before = std::iter::once(None).chain(words.iter().map(|word| Some(*word)));
    let clean: Vec<Cow<'_, str>> = words
        .iter()
        .zip(before)
        .map(|(word, before)| match is_bearer(before) || is_token(word) {
            true => Cow::Borrowed(REDACTED),
            false => assigned(word),
        })
        .collect();
    if clean.iter().zip(&words).all(|(clean, word)| clean == word) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(clean.join(" "))
}

/// Redacts `name=value` pairs, as in a query.
fn assigned(word: &str) -> Cow<'_, str> {
    if !word.contains('=') {
        return Cow::Borrowed(word);
    }
    let pairs = word.split('&').map(|pair| match pair.split_once('=') {
        Some((name, value))
            if !value.is_empty() && (is_secret(name) || is_secret_parameter(name) || is_token(value)) =>
        {
            format!("{name}={REDACTED}")
        }
        _ => pair.to_owned(),
    });
    Cow::Owned(pairs.collect::<Vec<_>>().join("&"))
}

/// Whether a parameter's value is secret. The first name may be preceded by the URL's path.
fn is_secret_parameter(name: &str) -> bool {
    let name = name.rsplit('?').next().unwrap_or_default();
    SECRET_PARAMETERS.iter().any(|secret| name.eq_ignore_ascii_case(secret))
}

pub(crate) fn is_secret(name: &str) -> bool {
    let plain: String = name.chars().filter(|c| !matches!(c, '-' | '_')).flat_map(char::to_lowercase).collect();
    SECRET_NAMES.iter().any(|secret| plain.contains(secret))
}

/// Whether a word looks like a JWT: three base64url parts, the first starting like a JSON object.
fn is_token(word: &str) -> bool {
    let word = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    let is_part = |part: &str| {
        part.len() >= TOKEN_LEAST_CHARS
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let parts: Vec<&str> = word.split('.').collect();
    matches!(parts.as_slice(), [head, body, sign] if head.starts_with("eyJ") && [head, body, sign].iter().all(|part| is_part(part)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const JWT: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJlLW9mLWFubg";

    #[test]
    fn secrets_are_redacted_by_name_and_by_looks_at_any_depth() {
        let clean = value(json!({
            "user": "ann", "Password": "x", "nested": [{ "api_key": [1, 2], "Set-Cookie": "a", "size": 3 }],
            "note": format!("use {JWT} please"), "inner": r#"{"refreshToken":"r","ok":1}"#,
        }));
        assert_eq!(
            clean,
            json!({
                "user": "ann", "Password": REDACTED,
                "nested": [{ "api_key": REDACTED, "Set-Cookie": REDACTED, "size": 3 }],
                "note": "use [redacted] please", "inner": r#"{"ok":1,"refreshToken":"[redacted]"}"#,
            })
        );
    }

    #[test]
    fn a_text_in_json_without_secrets_keeps_its_spelling() {
        for plain in ["{ \"b\": 2.50, \"a\": [1] }", "[1e3]", "{}"] {
            assert_eq!(text(plain), plain);
        }
        assert_eq!(text("{ \"b\": 2.50, \"token\": 1 }"), "{\"b\":2.5,\"token\":\"[redacted]\"}");
    }

    #[test]
    fn texts_lose_only_tokens_and_secret_assignments() {
        for (stats, clean) in [
            ("hello  world", "hello  world"),
            ("Authorization: Bearer abc123 now", "Authorization: Bearer [redacted] now"),
            ("/hub?access_token=abc&id=7", "/hub?access_token=[redacted]&id=7"),
            ("?sv=1&Sig=abc&spin=1", "?sv=1&Sig=[redacted]&spin=1"),
            ("https://a/cb?code=4%2F0&state=x", "https://a/cb?code=[redacted]&state=x"),
            ("otp=123456&pin=", "otp=[redacted]&pin="),
            ("a=b", "a=b"),
            ("version 1.2.3", "version 1.2.3"),
        ] {
            assert_eq!(text(stats), clean);
        }
        assert_eq!(text(&format!("({JWT})")), REDACTED);
    }

    #[test]
    fn values_that_nest_too_deep_are_not_shown() {
        let deep = (0..100).fold(json!("x"), |inner, _| json!([inner]));
        assert!(value(deep).to_string().contains('…'));
    }
}
