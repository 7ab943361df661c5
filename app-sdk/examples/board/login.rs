//! Authentication: by access token, or by the cookie that the page gets after a log-in.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use serde::Deserialize;
use trunkline::{HubError, Negotiation, User};

use crate::moderation::ROLE;
use crate::state::Board;

/// Lifetime of a token and its cookie.
const LIFETIME: Duration = Duration::from_secs(12 * 3600);

const COOKIE_NAME: &str = "board";

/// Body of a log-in request.
#[derive(Debug, Deserialize)]
pub(crate) struct Login {
    name: String,
    #[serde(default)]
    is_moderator: bool,
}

/// Issues a token, in the response body and as a cookie. This example accepts any name; a real app checks a password.
pub(crate) async fn log_in(
    State(board): State<Board>,
    Json(login): Json<Login>,
) -> axum::response::Result<impl IntoResponse> {
    let token = board.server.token(login.name).lifetime(LIFETIME);
    let token = if login.is_moderator { token.claim(ROLE.0, ROLE.1) } else { token };
    let token = token.sign().map_err(|error| (StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    let cookie = format!("{COOKIE_NAME}={token}; Path=/; HttpOnly; SameSite=Strict; Max-Age={}", LIFETIME.as_secs());
    Ok(([(SET_COOKIE, cookie)], token))
}

/// Accepts users verified by the proxy or named by the cookie, unless they are banned.
pub(crate) async fn admit(
    State(board): State<Board>,
    verified: Option<User>,
    headers: HeaderMap,
) -> axum::response::Result<Negotiation> {
    let user = verified.or_else(|| board.server.verify(cookie(&headers)?).ok());
    let user = user.ok_or((StatusCode::UNAUTHORIZED, "log in first"))?;
    if board.store.is_banned(user.id()).await.map_err(internal)? {
        return Err((StatusCode::FORBIDDEN, "you were banned").into());
    }
    let roles = user.claims().get_all(ROLE.0);
    Ok(roles.fold(Negotiation::user(user.id()), |negotiation, role| negotiation.claim(ROLE.0, role)))
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split("; ")).filter_map(|pair| pair.split_once('='));
    pairs.find_map(|(name, value)| (name == COOKIE_NAME).then_some(value))
}

/// Logs an internal error and hides its details from the client.
pub(crate) fn internal(error: HubError) -> (StatusCode, &'static str) {
    tracing::error!(?error, "request failed");
    (StatusCode::INTERNAL_SERVER_ERROR, "internal error")
}
