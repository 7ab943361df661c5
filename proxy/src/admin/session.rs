//! Sessions of the observer page: a signed cookie in exchange for the admin token.

use axum::Json;
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use jsonwebtoken::errors::Error;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::access::Access;
use crate::auth::AdminToken;
use crate::clock::unix_seconds;

const COOKIE_NAME: &str = "trunkline_admin";

/// Lifetime of a session: a working day.
const LIFETIME_S: u64 = 12 * 3600;

/// Audience of session cookies, so that no other token signed with the same secret opens a session.
const AUDIENCE: &str = "trunkline-observer";

#[derive(Serialize, Deserialize)]
struct SessionClaims {
    aud: String,
    exp: u64,
}

/// Answers a log-in with the cookie of a new session, signed with the admin token.
///
/// # Errors
/// When it can't be signed.
pub(super) fn begin(token: &AdminToken) -> Result<Response, Error> {
    let claims = SessionClaims { aud: AUDIENCE.into(), exp: unix_seconds() + LIFETIME_S };
    let key = EncodingKey::from_secret(token.expose().as_bytes());
    Ok(with_cookie(&encode(&Header::new(Algorithm::HS256), &claims, &key)?, LIFETIME_S, Access::Act))
}

/// Answers a log-out: removes the cookie.
#[must_use]
pub(super) fn end() -> Response {
    with_cookie("", 0, Access::Read)
}

/// Whether a request carries the cookie of a session that this token signed.
///
/// An expired cookie, or one of another node on this machine, counts as none: then the page asks to log in.
pub(super) fn is_open(token: &AdminToken, headers: &HeaderMap) -> bool {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut values = cookies.flat_map(|all| all.split("; ")).filter_map(|one| one.split_once('='));
    values.any(|(name, value)| name == COOKIE_NAME && is_signed(token, value))
}

fn is_signed(token: &AdminToken, value: &str) -> bool {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.set_audience(&[AUDIENCE]);
    decode::<SessionClaims>(value, &DecodingKey::from_secret(token.expose().as_bytes()), &validation).is_ok()
}

fn with_cookie(value: &str, lifetime_s: u64, access: Access) -> Response {
    let cookie = format!("{COOKIE_NAME}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={lifetime_s}");
    let mut response = Json(json!({ "access": access })).into_response();
    // A JWT has no character that a header can't carry.
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str) -> AdminToken {
        AdminToken::new(text).unwrap()
    }

    fn cookies(texts: &[&str]) -> HeaderMap {
        texts.iter().map(|text| (COOKIE, text.parse().unwrap())).collect()
    }

    #[test]
    fn a_session_is_open_for_the_token_that_signed_it() {
        let (ours, others) = (token("the-token-of-this-node"), token("the-token-of-another"));
        let answer = begin(&ours).unwrap();
        let pair = answer.headers()[SET_COOKIE].to_str().unwrap().split(';').next().unwrap();
        let among_others = format!("theme=dark; {pair}; x=y");
        for headers in [cookies(&[pair]), cookies(&[&among_others]), cookies(&["a=b", pair])] {
            assert!(is_open(&ours, &headers) && !is_open(&others, &headers));
        }
        assert!(!is_open(&ours, &HeaderMap::new()));
    }

    #[test]
    fn the_end_of_a_session_removes_its_cookie() {
        let cookie = end().headers()[SET_COOKIE].to_str().unwrap().to_owned();
        assert_eq!(cookie, "trunkline_admin=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0");
    }
}
