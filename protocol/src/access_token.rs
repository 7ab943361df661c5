//! Access tokens of the fleet: HS256 JWTs for a user, signed with an access key.
//!
//! The command line and apps sign tokens here, and apps verify them. A proxy verifies tokens of any issuer itself, but
//! finds the user in the claims with this code.
//!
//! The key determines the algorithm: tokens that name another one, including `none`, are rejected.

use std::collections::BTreeMap;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use crate::json_text::JsonText;
use crate::key::{AccessKey, AccessKeys};
use crate::limits::{ACCESS_TOKEN_MAX_BYTES, CLOCK_SKEW_S};
use crate::token::Claim;

pub use crate::token::User;

/// Claims that may hold the user id, in order of preference: short names, then .NET's.
pub const USER_CLAIMS: [&str; 3] =
    ["nameid", "sub", "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/nameidentifier"];

/// Part of the audience of Azure-style link tokens. User tokens never contain it.
const SERVER_AUDIENCE: &str = "/server/";

const ALGORITHM: &str = "HS256";

/// Claims of a token. Numbers keep their original digits.
pub type Claims = BTreeMap<String, JsonText>;

/// Reason for rejecting an access token. The texts are shown to its bearer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccessTokenError {
    /// Not a JWT signed with HS256.
    #[error("the access token is not a JWT signed with HS256")]
    Malformed,
    /// Not signed with an access key of the fleet.
    #[error("the access token is not signed with a key of this fleet")]
    Signature,
    /// The expiry is missing or not a number.
    #[error("the access token has no expiry")]
    NoExpiry,
    /// The token has expired.
    #[error("the access token has expired")]
    Expired,
    /// The token is not valid yet.
    #[error("the access token is not valid yet")]
    Immature,
    /// The token is for a link, a hub's clients or the REST data plane, not for users of an app.
    #[error("the access token is for another audience")]
    Audience,
}

impl User {
    /// Creates a user from verified claims. The id is the first non-empty claim of `user_claims`.
    #[must_use]
    pub fn from_claims<N: AsRef<str>>(claims: &Claims, user_claims: &[N]) -> Self {
        let id = user_claims.iter().find_map(|name| user_id(claims.get(name.as_ref())?));
        let expires_s = claims.get("exp").and_then(|end| numeric_date(end.value()));
        let claims = claims.iter().flat_map(|(name, value)| flat(name, value)).collect();
        Self { id, claims, expires_s }
    }

    /// Whether the user has a non-empty id.
    #[must_use]
    pub fn is_named(&self) -> bool {
        self.id.as_ref().is_some_and(|id| !id.is_empty())
    }

    /// Whether this is an Azure-style link token, which identifies no user.
    #[must_use]
    pub fn is_server(&self) -> bool {
        self.claims.iter().any(|(name, value)| name == "aud" && value.contains(SERVER_AUDIENCE))
    }

    /// Whether every audience that names a part of the service is the clients of `hub` or listed verbatim in
    /// `accepted`. Tokens without such an audience are valid everywhere.
    #[must_use]
    pub fn is_for_hub(&self, hub: Option<&str>, accepted: &[String]) -> bool {
        let audiences = self.claims.iter().filter(|(name, _)| name == "aud").map(|(_, audience)| audience);
        audiences.filter(|audience| !accepted.contains(audience)).all(|audience| {
            match ServicePart::from_audience(audience) {
                None => true,
                Some(ServicePart::Client(named)) => hub.is_some_and(|hub| hub.eq_ignore_ascii_case(&named)),
                Some(ServicePart::Server | ServicePart::DataPlane) => false,
            }
        })
    }

    /// Encodes the user for a header between proxy and app server.
    #[must_use]
    pub fn to_header(&self) -> String {
        URL_SAFE_NO_PAD.encode(json!(self).to_string())
    }

    /// Decodes a header written by [`to_header`](Self::to_header).
    #[must_use]
    pub fn from_header(text: &str) -> Option<Self> {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
    }
}

/// Issue and expiry time of a token. Converting from a number sets only the expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenTimes {
    /// Issue time (`iat`), in seconds since 1970. Revocation by age treats tokens without one as infinitely old.
    pub issued_s: Option<u64>,
    /// Expiry (`exp`), in seconds since 1970.
    pub expires_s: u64,
}

impl TokenTimes {
    /// Times of a token that is issued now and valid for `lifetime_s` seconds.
    #[must_use]
    pub fn from_now(now_s: u64, lifetime_s: u64) -> Self {
        Self { issued_s: Some(now_s), expires_s: now_s.saturating_add(lifetime_s) }
    }

    pub(crate) fn add_to(self, body: &mut Map<String, Value>) {
        body.extend(self.issued_s.map(|issued_s| ("iat".to_owned(), json!(issued_s))));
        body.insert("exp".to_owned(), json!(self.expires_s));
    }
}

impl From<u64> for TokenTimes {
    fn from(expires_s: u64) -> Self {
        Self { issued_s: None, expires_s }
    }
}

/// Signs a token for a user. Repeated claims become a list.
#[must_use]
pub fn sign(key: &AccessKey, user: &str, claims: &[Claim], times: impl Into<TokenTimes>) -> String {
    let mut body = Map::from_iter([("nameid".to_owned(), json!(user))]);
    claims.iter().for_each(|(name, value)| add_claim(&mut body, name, value));
    times.into().add_to(&mut body);
    sign_claims(key, body)
}

/// Adds a claim to the body of a token. Repeated claims become a list.
pub(crate) fn add_claim(body: &mut Map<String, Value>, name: &str, value: &str) {
    match body.get_mut(name) {
        None => drop(body.insert(name.to_owned(), json!(value))),
        Some(Value::Array(values)) => values.push(json!(value)),
        Some(one) => *one = json!([one.clone(), value]),
    }
}

pub(crate) fn sign_claims(key: &AccessKey, body: Map<String, Value>) -> String {
    let encode = |part: Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let signed = format!("{}.{}", encode(json!({"alg": ALGORITHM, "typ": "JWT"})), encode(Value::Object(body)));
    let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&mac_key(key), signed.as_bytes()));
    format!("{signed}.{signature}")
}

/// Verifies a token with the access keys of the fleet and returns its user. Tokens for a part of the service, such as a
/// hub's clients, are not accepted as an app's log-in.
pub fn verify(token: &str, keys: &AccessKeys, now_s: u64) -> Result<User, AccessTokenError> {
    let claims = open_token(token, keys)?;
    let expires_s = claims.get("exp").and_then(|end| numeric_date(end.value())).ok_or(AccessTokenError::NoExpiry)?;
    if expires_s.saturating_add(CLOCK_SKEW_S) < now_s {
        return Err(AccessTokenError::Expired);
    }
    // An unreadable start time lies in the future.
    let start_s = claims.get("nbf").map_or(0, |start| numeric_date(start.value()).unwrap_or(u64::MAX));
    if start_s > now_s.saturating_add(CLOCK_SKEW_S) {
        return Err(AccessTokenError::Immature);
    }
    let user = User::from_claims(&claims, &USER_CLAIMS);
    match user.is_server() || !user.is_for_hub(None, &[]) {
        true => Err(AccessTokenError::Audience),
        false => Ok(user),
    }
}

fn open_token(token: &str, keys: &AccessKeys) -> Result<Claims, AccessTokenError> {
    let malformed = AccessTokenError::Malformed;
    if token.len() > ACCESS_TOKEN_MAX_BYTES {
        return Err(malformed);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(malformed)?;
    let (header, body) = signed.split_once('.').ok_or(malformed)?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed);
    let header: Map<String, Value> = serde_json::from_slice(&decode(header)?).map_err(|_| malformed)?;
    // `crit` lists header fields that a reader must support; none are supported here.
    if header.get("alg").and_then(Value::as_str) != Some(ALGORITHM) || header.contains_key("crit") {
        return Err(malformed);
    }
    let signature = decode(signature)?;
    if !keys.iter().any(|key| hmac::verify(&mac_key(&key), signed.as_bytes(), &signature).is_ok()) {
        return Err(AccessTokenError::Signature);
    }
    serde_json::from_slice(&decode(body)?).map_err(|_| malformed)
}

fn mac_key(key: &AccessKey) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, key.expose().as_bytes())
}

/// Reads a token time in whole seconds since 1970. Some issuers write fractions.
#[must_use]
pub fn numeric_date(value: &Value) -> Option<u64> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "such a cast saturates")]
    value.as_u64().or_else(|| value.as_f64().map(|seconds| seconds as u64))
}

/// Reads a user id: a string, a number, or the first item of a list. Empty values, `null` and other types yield `None`.
fn user_id(claim: &JsonText) -> Option<String> {
    match claim.value() {
        Value::Array(_) => claim.items()?.first().filter(|first| !first.value().is_array()).and_then(user_id),
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(_) => Some(claim.get().to_owned()),
        _ => None,
    }
}

/// Returns one claim per item of a list, ignoring `null`.
fn flat(name: &str, claim: &JsonText) -> Vec<Claim> {
    let values = claim.items().unwrap_or_else(|| vec![claim.clone()]);
    let values = values.iter().filter(|value| !value.value().is_null());
    values.map(|value| (name.to_owned(), value.value().as_str().unwrap_or(value.get()).to_owned())).collect()
}

const SERVER: &str = "/server";
const CLIENT: &str = "/client";

/// Path prefix of the REST data plane.
const DATA_PLANE: &str = "/api";

/// Part of the service named by an audience in Azure SignalR's form `http://HOST/client/?hub=H`.
///
/// Host, port and path prefix are ignored, because a node behind a load balancer can't verify them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServicePart {
    /// Links of app servers.
    Server,
    /// Clients of a hub. The name is empty if the audience names no hub or several.
    Client(String),
    /// The REST data plane, or a part of it.
    DataPlane,
}

impl ServicePart {
    /// Parses an audience. Returns `None` for an app's own audience.
    #[must_use]
    pub fn from_audience(audience: &str) -> Option<Self> {
        let (_, rest) = audience.split_once("://")?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = place.get(place.find('/')?..)?.trim_end_matches('/').to_ascii_lowercase();
        if path.ends_with(SERVER) {
            Some(Self::Server)
        } else if path.ends_with(CLIENT) {
            Some(Self::Client(hub(query).unwrap_or_default()))
        } else if path.ends_with(DATA_PLANE) || path.contains("/api/") {
            Some(Self::DataPlane)
        } else {
            None
        }
    }
}

fn hub(query: &str) -> Option<String> {
    let mut hubs = query.split('&').filter_map(|pair| pair.strip_prefix("hub="));
    // With several `hub=`, one may be part of an unescaped name.
    let (Some(hub), None) = (hubs.next(), hubs.next()) else { return None };
    let plain = hub.replace('+', " ");
    percent_decode_str(&plain).decode_utf8().ok().map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_S: u64 = 1_000_000;
    const KEY: &str = "a key of the fleet, long enough";

    fn key(text: &str) -> AccessKey {
        AccessKey::new(text).unwrap()
    }

    fn keys() -> AccessKeys {
        AccessKeys::new(vec![AccessKey::random(), key(KEY)]).unwrap()
    }

    fn signed(header: &Value, body: &Value) -> String {
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let signed = format!("{}.{}", encode(header), encode(body));
        let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&mac_key(&key(KEY)), signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    fn of_claims(body: &Value) -> Result<User, AccessTokenError> {
        verify(&signed(&json!({"alg": "HS256"}), body), &keys(), NOW_S)
    }

    fn user(claims: &Value) -> User {
        User::from_claims(&serde_json::from_value(claims.clone()).unwrap(), &USER_CLAIMS)
    }

    #[test]
    fn a_signed_token_names_its_user_and_lists_of_claims() {
        let claims = ["a", "b", "c"].map(|role| ("role".to_owned(), role.to_owned()));
        let token = sign(&key(KEY), "ann", &claims, NOW_S + 1);
        let user = verify(&token, &keys(), NOW_S).unwrap();
        assert_eq!((user.id.as_deref(), user.expires_s), (Some("ann"), Some(NOW_S + 1)));
        let roles: Vec<_> = user.claims.iter().filter(|(name, _)| name == "role").map(|(_, value)| &**value).collect();
        assert_eq!(roles, ["a", "b", "c"]);
        assert_eq!(User::from_header(&user.to_header()), Some(user));
    }

    #[test]
    fn claims_can_not_change_the_issue_time_of_a_token() {
        let claims = [("iat".to_owned(), "9".to_owned()), ("exp".to_owned(), "9".to_owned())];
        let times = TokenTimes::from_now(NOW_S, 60);
        assert_eq!(times, TokenTimes { issued_s: Some(NOW_S), expires_s: NOW_S + 60 });
        let claims_of = |token: &str| open_token(token, &keys()).unwrap();
        let body = claims_of(&sign(&key(KEY), "ann", &claims, times));
        assert_eq!(json!(body), json!({ "nameid": "ann", "iat": NOW_S, "exp": NOW_S + 60 }));
        let body = claims_of(&sign(&key(KEY), "ann", &[], NOW_S));
        assert_eq!(json!(body), json!({ "nameid": "ann", "exp": NOW_S }), "it was not asked to");
    }

    #[test]
    fn forged_and_foreign_tokens_are_refused() {
        let good = sign(&key(KEY), "ann", &[], NOW_S);
        let forged = sign(&key("the key of another fleet"), "ann", &[], NOW_S);
        assert_eq!(verify(&forged, &keys(), NOW_S), Err(AccessTokenError::Signature));
        for at in 0..good.len() {
            let mut changed = good.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert!(verify(std::str::from_utf8(&changed).unwrap(), &keys(), NOW_S).is_err(), "at {at}");
        }
        for algorithm in ["none", "HS512", "RS256", "hs256"] {
            let token = signed(&json!({"alg": algorithm}), &json!({"sub": "ann", "exp": NOW_S}));
            assert_eq!(verify(&token, &keys(), NOW_S), Err(AccessTokenError::Malformed), "{algorithm}");
        }
        for rubbish in ["", ".", "..", "a.b", "a.b.c", &"x".repeat(ACCESS_TOKEN_MAX_BYTES + 1)] {
            assert_eq!(verify(rubbish, &keys(), NOW_S), Err(AccessTokenError::Malformed));
        }
    }

    #[test]
    fn a_token_has_its_time_with_some_skew_of_clocks() {
        let with = |exp: u64, nbf: u64| of_claims(&json!({"sub": "ann", "exp": exp, "nbf": nbf})).map(drop);
        assert_eq!(with(NOW_S - CLOCK_SKEW_S, NOW_S + CLOCK_SKEW_S), Ok(()));
        assert_eq!(with(NOW_S - CLOCK_SKEW_S - 1, 0), Err(AccessTokenError::Expired));
        assert_eq!(with(NOW_S, NOW_S + CLOCK_SKEW_S + 1), Err(AccessTokenError::Immature));
        assert_eq!(of_claims(&json!({"sub": "ann"})), Err(AccessTokenError::NoExpiry));
        for part in ["server/?hub=chat", "server?hub=chat", "client/?hub=chat", "api/", "api/hubs/chat/"] {
            let of_service = json!({"sub": "ann", "exp": NOW_S, "aud": [format!("https://x/{part}")]});
            assert_eq!(of_claims(&of_service), Err(AccessTokenError::Audience), "{part}");
        }
        assert!(of_claims(&json!({"sub": "ann", "exp": NOW_S, "aud": "shop"})).is_ok());
    }

    #[test]
    fn the_id_is_the_first_claim_of_the_list_that_is_present() {
        assert_eq!(user(&json!({"sub": "s", "nameid": "n"})).id.as_deref(), Some("n"));
        assert_eq!(user(&json!({"sub": 7})).id.as_deref(), Some("7"));
        for number in ["18446744073709551616", "1e5", "12345678901234567890.10"] {
            let claims = format!("{{\"sub\":{number},\"n\":[{number},{{\"a\":{number}}}]}}");
            let user = User::from_claims(&serde_json::from_str(&claims).unwrap(), &USER_CLAIMS);
            assert_eq!(user.id.as_deref(), Some(number));
            let texts: Vec<_> = user.claims.into_iter().map(|(_, value)| value).collect();
            assert_eq!(texts, [number.to_owned(), format!("{{\"a\":{number}}}"), number.to_owned()]);
        }
        assert_eq!(user(&json!({ USER_CLAIMS[2]: "long" })).id.as_deref(), Some("long"));
        assert_eq!(user(&json!({"name": "x"})).id, None);
    }

    #[test]
    fn a_missing_null_or_invalid_claim_names_no_user() {
        for nobody in [json!(null), json!(""), json!([]), json!([null]), json!([["ann"]]), json!({}), json!(true)] {
            let found = user(&json!({ "sub": nobody }));
            assert_eq!((found.id.as_deref(), found.is_named()), (None, false), "{nobody}");
            let next = user(&json!({ "nameid": nobody, "sub": "ann" }));
            assert_eq!(next.id.as_deref(), Some("ann"), "{nobody} hides no other claim");
        }
        assert!(user(&json!({ "sub": null, "role": [null] })).claims.is_empty());
        assert!(!User { id: Some(String::new()), ..User::default() }.is_named());
    }

    #[test]
    fn a_header_that_must_be_understood_is_refused() {
        for critical in [json!(["b64"]), json!(["exp"]), json!([]), json!(null), json!("x")] {
            let header = json!({ "alg": "HS256", "crit": critical, "b64": false });
            let token = signed(&header, &json!({ "sub": "ann", "exp": NOW_S }));
            assert_eq!(verify(&token, &keys(), NOW_S), Err(AccessTokenError::Malformed), "{critical}");
        }
    }

    #[test]
    fn times_that_are_no_numbers_are_no_times() {
        let with = |claims: Value| of_claims(&claims).map(drop);
        assert_eq!(with(json!({ "sub": "ann", "exp": NOW_S, "nbf": "soon" })), Err(AccessTokenError::Immature));
        assert_eq!(with(json!({ "sub": "ann", "exp": NOW_S, "nbf": 1e300 })), Err(AccessTokenError::Immature));
        assert_eq!(with(json!({ "sub": "ann", "exp": NOW_S.to_string() })), Err(AccessTokenError::NoExpiry));
        assert_eq!(with(json!({ "sub": "ann", "exp": -1 })), Err(AccessTokenError::Expired));
        assert_eq!(with(json!({ "sub": "ann", "exp": 1e300 })), Ok(()));
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

    #[test]
    fn parts_of_the_service_are_recognized_below_any_host_and_prefix() {
        let client = |hub: &str| Some(ServicePart::Client(hub.into()));
        for (audience, part) in [
            ("http://a/server/?hub=chat", Some(ServicePart::Server)),
            ("https://a.example:1/x/Server?hub=chat", Some(ServicePart::Server)),
            ("http://a/client/?hub=chat", client("chat")),
            ("http://a/client?x=1&hub=Shop_Chat", client("Shop_Chat")),
            ("http://a/live/client/?hub=a%26b+c", client("a&b c")),
            ("http://a/client/", client("")),
            ("http://a/client/?hub=a&hub=b", client("")),
            ("http://a/api/", Some(ServicePart::DataPlane)),
            ("http://a/api", Some(ServicePart::DataPlane)),
            ("http://a/live/api/hubs/chat/", Some(ServicePart::DataPlane)),
            ("http://a/", None),
            ("http://a", None),
            ("http://a?/api/", None),
            ("https://a/clients/", None),
            ("https://a/apis/", None),
            ("/client/?hub=chat", None),
            ("chat", None),
            ("", None),
        ] {
            assert_eq!(ServicePart::from_audience(audience), part, "{audience}");
        }
    }
}
