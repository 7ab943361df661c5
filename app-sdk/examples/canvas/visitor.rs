//! Visitors: their admission by a name, and the extractor of the caller.

use axum::extract::Query;
use axum::http::StatusCode;
use serde::Deserialize;
use trunkline::{FromContext, Negotiation};

const NAME_MAX_CHARS: usize = 24;
const ROOM_MAX_CHARS: usize = 40;

/// The caller: a user, in the room that the URL of its connection names.
#[derive(Debug, FromContext)]
pub(crate) struct Visitor {
    #[user]
    pub(crate) name: String,
    #[query("room")]
    pub(crate) room: String,
}

/// Query of a client that asks to come in.
#[derive(Debug, Deserialize)]
pub(crate) struct Admission {
    name: String,
    room: String,
}

/// Accepts any client with a name, which becomes its user id at the proxies. Real apps require more.
pub(crate) async fn admit(Query(asked): Query<Admission>) -> Result<Negotiation, (StatusCode, String)> {
    let refusal = |text: String| (StatusCode::BAD_REQUEST, text);
    let is_named = !asked.name.trim().is_empty() && asked.name.chars().count() <= NAME_MAX_CHARS;
    if !is_named || asked.name.chars().any(char::is_control) {
        return Err(refusal(format!("a name has 1 to {NAME_MAX_CHARS} characters")));
    }
    let is_allowed = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '-';
    if !(1..=ROOM_MAX_CHARS).contains(&asked.room.len()) || !asked.room.chars().all(is_allowed) {
        return Err(refusal(format!("a room has 1 to {ROOM_MAX_CHARS} small letters, digits and -")));
    }
    Ok(Negotiation::user(asked.name))
}
