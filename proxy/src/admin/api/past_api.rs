//! Past connections, `GET /api/why/{connectionId}`: why a connection closed or was refused in the last minutes.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use serde_json::Value;

use crate::admin::api_error::ApiError;
use crate::admin::context::AdminContext;
use crate::admin::parameter::{QueryParameters, Scope};
use crate::shard::REMEMBERED_MS;

/// Maximum length of a requested id; in negotiate version 0, it is the sealed token.
const ID_MAX_BYTES: usize = 16 * 1024;

const FIELD: &str = "connectionId";

pub(super) async fn past(
    State(context): State<AdminContext>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    let mut parameters = QueryParameters::read(&uri)?;
    let scope = parameters.scope()?;
    parameters.end()?;
    if id.len() > ID_MAX_BYTES {
        return Err(ApiError::field(FIELD, &format!("may have {ID_MAX_BYTES} bytes at most")));
    }
    let known = match scope {
        Scope::Fleet => context.observer.past(&id).await,
        Scope::Node => context.observer.node().past(&id),
    };
    known.map(Json).ok_or_else(|| {
        let minutes = REMEMBERED_MS / 60_000;
        let problem = format!("is unknown: no reachable node had this connection in the last {minutes} minutes");
        ApiError::field(FIELD, &problem).with_status(StatusCode::NOT_FOUND)
    })
}
