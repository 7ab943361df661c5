//! Sessions in the API: `GET /api/session`, `POST /api/login`, `POST /api/logout`.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::{Extension, Json};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::admin::admin_caller::AdminCaller;
use crate::admin::admitted_caller::AdmittedCaller;
use crate::admin::api_error::ApiError;
use crate::admin::context::AdminContext;
use crate::admin::parameter::{BODY_MAX_BYTES, BodyFields};

pub(super) async fn session(
    State(context): State<AdminContext>,
    Extension(admitted): Extension<AdmittedCaller>,
) -> Json<Value> {
    Json(json!({ "access": admitted.access, "canLogIn": context.guard.has_token() }))
}

pub(super) async fn log_in(
    State(context): State<AdminContext>,
    caller: AdminCaller,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let mut fields = BodyFields::read(&headers, &body)?;
    let token = fields.text("token", BODY_MAX_BYTES)?.ok_or_else(|| ApiError::field("token", "is missing"))?;
    fields.end()?;
    context.guard.log_in(&headers, caller, &token).await
}

pub(super) async fn log_out(State(context): State<AdminContext>, headers: HeaderMap) -> Result<Response, ApiError> {
    context.guard.log_out(&headers)
}
