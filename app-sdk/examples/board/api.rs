//! HTTP API of the board: log in, announce, list the people and notes of a room.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use trunkline::{HubError, User};

use crate::board_client::BoardClient;
use crate::login::{internal, log_in};
use crate::moderation::ROLE;
use crate::note::{Note, Person};
use crate::presence;
use crate::state::Board;

/// Builds the routes below `/api/`.
pub(crate) fn routes(board: Board) -> Router {
    Router::new()
        .route("/api/login", post(log_in))
        .route("/api/announce", post(announce))
        .route("/api/rooms/{room}/people", get(people))
        .route("/api/rooms/{room}/notes", get(notes))
        .with_state(board)
}

/// Sends an announcement to all rooms. Moderators only.
async fn announce(user: User, State(board): State<Board>, text: String) -> axum::response::Result<()> {
    if !user.claims().get_all(ROLE.0).any(|role| role == ROLE.1) {
        return Err((StatusCode::FORBIDDEN, "moderators only").into());
    }
    let sending = async {
        board.server.hub("board")?.clients().all().announced(&text).await?;
        Ok::<_, HubError>(())
    };
    Ok(sending.await.map_err(internal)?)
}

async fn people(State(board): State<Board>, Path(room): Path<String>) -> axum::response::Result<Json<Vec<Person>>> {
    let listing = async { presence::in_room(&board.server.hub("board")?.groups(), &room).await };
    Ok(Json(listing.await.map_err(internal)?))
}

async fn notes(State(board): State<Board>, Path(room): Path<String>) -> axum::response::Result<Json<Vec<Note>>> {
    Ok(Json(board.store.notes(&room).await.map_err(internal)?))
}
