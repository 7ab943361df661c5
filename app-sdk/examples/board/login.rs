//! Admission of clients: by an access token, or by the cookie that the page gets for a name.

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

/// Time for which a token and its cookie are good.
const LIFETIME: Duration = Duration::from_secs(12 * 3600);

const COOKIE_NAME: &str = "board";

/// Request of somebody for a token.
#[derive(Debug, Deserialize)]
pub(crate) struct Login {
    name: String,
    #[serde(default)]
    is_moderator: bool,
}

/// Gives a token to anybody, as an answer and as a cookie. An app asks for more than a name.
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

/// Lets users in whom the proxy has verified, or whom the cookie names, unless they are banned.
pub(crate) async fn admit(
    State(board): State<Board>,
    known: Option<User>,
    headers: HeaderMap,
) -> axum::response::Result<Negotiation> {
    let user = known.or_else(|| board.server.verify(cookie(&headers)?).ok());
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

/// Answer to a request for which something failed here.
pub(crate) fn internal(error: HubError) -> (StatusCode, &'static str) {
    tracing::error!(?error, "request failed");
    (StatusCode::INTERNAL_SERVER_ERROR, "something failed here")
}
