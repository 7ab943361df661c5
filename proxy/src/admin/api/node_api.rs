//! Routes for other nodes only, over node links: parts of lists of the data plane.
//!
//! They are not at the admin port, so operators can't reach them.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::routing::get;
use axum::{Json, Router};

use crate::admin::api_error::ApiError;
use crate::admin::context::AdminContext;
use crate::rest::{ListedPart, PART_PATH, PartQuestion};

pub(crate) fn for_nodes() -> Router<AdminContext> {
    Router::new().route(PART_PATH, get(part))
}

async fn part(State(context): State<AdminContext>, uri: Uri) -> Result<Json<ListedPart>, ApiError> {
    let question = PartQuestion::read(uri.query().unwrap_or_default());
    let question = question.map_err(|problem| ApiError::new(StatusCode::BAD_REQUEST, problem))?;
    question.answer(context.observer.node().shared()).await.map(Json).ok_or_else(ApiError::stopping)
}
