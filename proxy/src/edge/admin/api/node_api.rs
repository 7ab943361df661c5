//! Routes for other nodes only, over node links: parts of lists of the data plane, and users of webhook hubs.
//!
//! They are not at the admin port, so operators can't reach them, and the audit log has no acts of them.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;

use crate::edge::admin::api_error::ApiError;
use crate::edge::admin::context::AdminContext;
use crate::edge::rest::{ListedPart, PART_PATH, PartQuestion};
use crate::features::webhook::{BatchAnswer, HubConnection, HubUser, Reported, Subject};

pub(crate) fn for_nodes() -> Router<AdminContext> {
    Router::new()
        .route(PART_PATH, get(part))
        .route(HubUser::PATH, post(presence::<HubUser>))
        .route(HubConnection::PATH, post(presence::<HubConnection>))
}

async fn part(State(context): State<AdminContext>, uri: Uri) -> Result<Json<ListedPart>, ApiError> {
    let question = PartQuestion::read(uri.query().unwrap_or_default());
    let question = question.map_err(|problem| ApiError::new(StatusCode::BAD_REQUEST, problem))?;
    question.answer(context.observer.node().shared()).await.map(Json).ok_or_else(ApiError::stopping)
}

/// Applies a batch of another node. 409 asks for all its subjects again.
async fn presence<S: Reported>(
    State(context): State<AdminContext>,
    body: Bytes,
) -> Result<(StatusCode, Json<BatchAnswer>), ApiError> {
    let absent = || ApiError::new(StatusCode::NOT_FOUND, format!("this node has no {}", S::FLAG));
    let presence = S::presence(&context.webhooks).ok_or_else(absent)?;
    let batch = serde_json::from_slice(&body);
    let batch = batch.map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, error.to_string()))?;
    Ok(match presence.take(batch) {
        Ok(answer) => (StatusCode::OK, Json(answer)),
        Err(_) => (StatusCode::CONFLICT, Json(BatchAnswer::default())),
    })
}
