//! Reasons for refusing an access token, with the text for the client and the label in metrics.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::{Error, ErrorKind};
use serde_json::{Map, Value};
use trunkline_protocol::access_token::numeric_date;

use crate::ground::clock::unix_seconds;

/// Advice for a token refused because of its times.
const CLOCKS: &str = "compare the clock of its issuer with that of this node";

/// Maximum length of a part of a token in a refusal.
const SHOWN_MAX_BYTES: usize = 300;

/// Claims that hold a single value.
const SINGLE_CLAIMS: [&str; 3] = ["sub", "exp", "nbf"];

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TokenError {
    #[error("the access token has {bytes} bytes, but --jwt-max-bytes allows {max}")]
    TooLarge { bytes: usize, max: usize },
    /// The text is not a JWT, or not signed.
    #[error("the access token is not valid: it is not a signed JWT with a supported algorithm")]
    Malformed,
    #[error("the access token is not valid: its signing key is unknown")]
    UnknownKey,
    /// A key matches, but the signature is invalid.
    #[error("the access token is not valid: its signature is wrong")]
    Signature,
    /// The token is signed with the key of an app that may not open the hub.
    #[error("the access token is not valid: it is signed with the key of app {0}, which does not open this hub")]
    OtherApp(String),
    #[error("the access token is not valid: it has expired")]
    Expired,
    /// An operator revoked the token before it expired.
    #[error("the access token is not valid: it was revoked, so log in again for a new one")]
    Revoked,
    #[error("the access token is not valid: its validity has not begun")]
    Immature,
    #[error("the access token is not valid: its issuer is not allowed here")]
    Issuer,
    #[error("the access token is not valid: it is for another audience")]
    Audience,
    /// The header requires an extension (`crit`).
    #[error("the access token is not valid: its header requires an unsupported extension (`crit`)")]
    Critical,
    /// A claim is missing or malformed.
    #[error("the access token is not valid: {0}")]
    Claim(String),
}

impl TokenError {
    /// Labels in metrics, in the order of [`index`](Self::index).
    pub(crate) const LABELS: [&'static str; 11] = [
        "too_large",
        "malformed",
        "unknown_key",
        "signature",
        "expired",
        "immature",
        "issuer",
        "audience",
        "claim",
        "critical",
        "revoked",
    ];

    /// Reason with the values of the refused token and the expected ones: times by the clock of this node, audiences,
    /// issuers, and what a key is found by.
    pub(crate) fn describe(&self, token: &str, (audience, issuer): (&str, &str)) -> String {
        let mut parts = token.split('.').map(|part| object(part).unwrap_or_default());
        let (header, claims) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (seconds, now_s) = (|name: &str| claims.get(name).and_then(numeric_date), unix_seconds());
        match self {
            Self::Expired => {
                seconds("exp").map(|end_s| format!("{self} {} s ago: {CLOCKS}", now_s.saturating_sub(end_s)))
            }
            Self::Immature => seconds("nbf")
                .map(|begin_s| format!("{self}; it begins in {} s: {CLOCKS}", begin_s.saturating_sub(now_s))),
            Self::Audience => Some(format!("{self}: {} instead of {audience}", shown(&claims, "aud"))),
            Self::Issuer => Some(format!("{self}: {} instead of {issuer}", shown(&claims, "iss"))),
            Self::UnknownKey | Self::Malformed if !header.is_empty() => Some(format!(
                "{self}; its algorithm is {}, its key id {}",
                shown(&header, "alg"),
                shown(&header, "kid")
            )),
            _ => None,
        }
        .unwrap_or_else(|| self.to_string())
    }

    /// Replaces `Malformed` with the name of the claim that has a wrong type, if there is one.
    pub(super) fn explained(self, token: &str) -> Self {
        if self == Self::Malformed { wrong_type(token).unwrap_or(self) } else { self }
    }

    pub(super) fn index(&self) -> usize {
        match self {
            Self::TooLarge { .. } => 0,
            Self::Malformed => 1,
            Self::UnknownKey => 2,
            Self::Signature | Self::OtherApp(_) => 3,
            Self::Expired => 4,
            Self::Immature => 5,
            Self::Issuer => 6,
            Self::Audience => 7,
            Self::Claim(_) => 8,
            Self::Critical => 9,
            Self::Revoked => 10,
        }
    }
}

/// Finds a value with a JSON type that violates RFC 7515 or RFC 7519, in a token that can't be parsed.
fn wrong_type(token: &str) -> Option<TokenError> {
    let mut parts = token.split('.').map(object);
    let (header, claims) = (parts.next()??, parts.next()??);
    if header.get("kid").is_some_and(|kid| !kid.is_string() && !kid.is_null()) {
        return Some(TokenError::Claim("the key id in its header (`kid`) has to be a text".into()));
    }
    let is_nested = |name: &&str| claims.get(*name).is_some_and(|value| value.is_array() || value.is_object());
    let name = SINGLE_CLAIMS.into_iter().find(is_nested)?;
    Some(TokenError::Claim(format!("its claim {name:?} has to be a single value, but is a list or an object")))
}

fn shown(object: &Map<String, Value>, name: &str) -> String {
    let mut text = object.get(name).map_or_else(|| "none".to_owned(), ToString::to_string);
    text.truncate(text.floor_char_boundary(SHOWN_MAX_BYTES));
    text
}

fn object(part: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

impl From<Error> for TokenError {
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::InvalidSignature => Self::Signature,
            ErrorKind::ExpiredSignature => Self::Expired,
            ErrorKind::ImmatureSignature => Self::Immature,
            ErrorKind::InvalidIssuer => Self::Issuer,
            ErrorKind::InvalidAudience => Self::Audience,
            ErrorKind::MissingRequiredClaim(name) => Self::Claim(format!("its claim {name:?} is missing")),
            ErrorKind::InvalidClaimFormat(name) => Self::Claim(format!("its claim {name:?} is malformed")),
            _ => Self::Malformed,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_part_of_a_wrong_type_is_named() {
        let explained = |header: &str, claims: &str| {
            let token = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
            TokenError::Malformed.explained(&format!("{token}.x")).to_string()
        };
        assert!(explained(r#"{"alg":"HS256","kid":7}"#, "{}").contains("`kid`"));
        assert!(explained(r#"{"alg":"HS256"}"#, r#"{"sub":["ann"]}"#).contains(r#""sub" has to be a single value"#));
        for (header, claims) in [(r#"{"alg":"none"}"#, "{}"), ("x", "{}"), ("{}", r#"{"aud":["a"],"sub":"ann"}"#)] {
            assert_eq!(explained(header, claims), TokenError::Malformed.to_string());
        }
    }

    #[test]
    fn times_and_audiences_are_described_with_those_of_the_token() {
        let described = |error: TokenError, claims: &Value| {
            let token = format!("x.{}.x", URL_SAFE_NO_PAD.encode(claims.to_string()));
            error.describe(&token, ("a URL below http://a/api/", "\"shop\""))
        };
        let now_s = unix_seconds();
        let expired = described(TokenError::Expired, &json!({ "exp": now_s - 300 }));
        assert!(expired.contains("it has expired 30") && expired.contains("clock"), "{expired}");
        let early = described(TokenError::Immature, &json!({ "nbf": now_s + 3000 }));
        assert!(early.contains("it begins in ") && early.contains("clock"), "{early}");
        let other = described(TokenError::Audience, &json!({ "aud": ["http://b/"] }));
        assert!(other.ends_with("another audience: [\"http://b/\"] instead of a URL below http://a/api/"), "{other}");
        assert!(described(TokenError::Audience, &json!({})).contains("audience: none instead"));
        assert_eq!(described(TokenError::Expired, &json!("x")), TokenError::Expired.to_string());
        let foreign = described(TokenError::Issuer, &json!({ "iss": "news" }));
        assert!(foreign.ends_with(r#"not allowed here: "news" instead of "shop""#), "{foreign}");
        let token = format!("{}.x.x", URL_SAFE_NO_PAD.encode(r#"{"alg":"ES512","kid":"k\u202e7"}"#));
        for error in [TokenError::UnknownKey, TokenError::Malformed] {
            let text = error.describe(&token, ("", ""));
            assert!(text.contains(r#"its algorithm is "ES512", its key id "k"#), "{text}");
        }
    }

    #[test]
    fn every_reason_has_a_label_of_its_own() {
        let all = [
            TokenError::TooLarge { bytes: 2, max: 1 },
            TokenError::Malformed,
            TokenError::UnknownKey,
            TokenError::Signature,
            TokenError::Expired,
            TokenError::Immature,
            TokenError::Issuer,
            TokenError::Audience,
            TokenError::Claim("its claim \"exp\" is missing".into()),
            TokenError::Critical,
            TokenError::Revoked,
        ];
        let indices: Vec<_> = all.iter().map(TokenError::index).collect();
        assert_eq!(indices, (0..TokenError::LABELS.len()).collect::<Vec<_>>());
    }
}
