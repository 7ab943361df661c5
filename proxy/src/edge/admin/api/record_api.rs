//! Records in the API: `GET /api/records` lists them, `POST /api/records/finish` and `POST /api/records/delete` end
//! or delete one, at all nodes.

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, Uri};
use axum::routing::{get, post};
use axum::{Json, Router};
use trunkline_protocol::service::{RecordAct, RecordedSet};

use crate::edge::admin::api_error::ApiError;
use crate::edge::admin::guard::AdminContext;
use crate::edge::admin::parameter::{BODY_MAX_BYTES, BodyFields, NAME_MAX_CHARS, OrderFields, QueryParameters, Scope};
use crate::edge::observer::{ListPage, RecordOrder, RecordOrderError, RecordReport, RecordRow};

pub(super) fn routes() -> Router<AdminContext> {
    Router::new()
        .route("/api/records", get(records))
        .route("/api/records/finish", post(|state, fields| change(state, RecordAct::Finish, fields)))
        .route("/api/records/delete", post(|state, fields| change(state, RecordAct::Delete, fields)))
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
}

async fn records(State(context): State<AdminContext>, uri: Uri) -> Result<Json<ListPage<RecordRow>>, ApiError> {
    let mut parameters = QueryParameters::from_uri(&uri)?;
    let scope = parameters.scope()?;
    let hub = parameters.text("hub", NAME_MAX_CHARS)?.ok_or_else(|| ApiError::field("hub", "is missing"))?;
    parameters.refuse_rest()?;
    Ok(Json(match scope {
        Scope::Fleet => context.observer.records.list(&hub).await,
        Scope::Node => context.observer.records.list_here(&hub).await,
    }))
}

async fn change(
    State(context): State<AdminContext>,
    act: RecordAct,
    OrderFields(mut fields): OrderFields<BODY_MAX_BYTES>,
) -> Result<Json<RecordReport>, ApiError> {
    let order = order(act, &mut fields)?;
    fields.refuse_rest()?;
    let hub = order.hub.clone();
    context.observer.records.change(order).await.map(Json).map_err(|error| match error {
        RecordOrderError::UnknownHub => ApiError::unknown_hub(Some(&hub)),
        RecordOrderError::UnknownRecord => ApiError::new(StatusCode::NOT_FOUND, error.to_string()),
        RecordOrderError::Refused(_) => ApiError::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    })
}

fn order(act: RecordAct, fields: &mut BodyFields) -> Result<RecordOrder, ApiError> {
    let hub = fields.required_text("hub", NAME_MAX_CHARS)?;
    let set = match (fields.name("group", NAME_MAX_CHARS)?, fields.name("user", NAME_MAX_CHARS)?) {
        (Some(group), None) => RecordedSet::group(group),
        (None, Some(user)) => RecordedSet::user(user),
        (None, None) => return Err(ApiError::field("group", "is missing: a group or a user is needed")),
        (Some(_), Some(_)) => return Err(ApiError::field("user", "can't be given together with group")),
    };
    Ok(RecordOrder { hub, set, act })
}
