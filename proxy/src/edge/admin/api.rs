//! Routes of the API behind the observer page: JSON, paged lists, event streams.
//!
//! Errors name the wrong field and its allowed values.

mod act_api;
mod client_api;
mod fleet_api;
mod log_level_api;
mod order_body;
mod watch_api;

use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::edge::admin::access::AdminCaller;
use crate::edge::admin::guard::AdminContext;
use crate::edge::admin::parameter::{BODY_MAX_BYTES, BodyFields, QueryParameters, Scope};
use crate::edge::admin::session::AdmittedCaller;
use crate::edge::observer::ApiError;
use crate::edge::observer::{FleetConditions, FleetTimeline, NameKind};
use crate::engine::shard::REMEMBERED_MS;

pub(super) fn guarded() -> Router<AdminContext> {
    Router::new()
        .route("/api/session", get(session))
        .route("/api/fleet", get(fleet_api::fleet))
        .route("/api/events", get(fleet_api::fleet_events))
        .route("/api/conditions", get(conditions))
        .route("/api/timeline", get(timeline))
        .route("/api/clients", get(client_api::clients))
        .route("/api/clients/{id}", get(client_api::client))
        .route("/api/clients/{id}/watch", get(watch_api::tap))
        .route("/api/clients/{id}/close", post(client_api::close_client))
        .route("/api/groups", get(|state, uri| client_api::names(state, NameKind::Groups, uri)))
        .route("/api/users", get(|state, uri| client_api::names(state, NameKind::Users, uri)))
        .route("/api/why/{id}", get(past))
        .route("/api/trace", get(watch_api::trace))
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
        .merge(act_api::routes())
        .merge(log_level_api::routes())
}

/// Unprotected routes: log-in and log-out.
pub(super) fn open_routes() -> Router<AdminContext> {
    let router = Router::new().route("/api/login", post(log_in)).route("/api/logout", post(log_out));
    router.layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
}

pub(super) async fn unknown(uri: Uri) -> ApiError {
    let text = format!("the admin port has no {}: hubs, app servers and REST are at the port of --listen", uri.path());
    ApiError::new(StatusCode::NOT_FOUND, text)
}

/// Returns the conditions of the fleet, or of this node: the active ones and the last day.
async fn conditions(State(context): State<AdminContext>, scope: Scope) -> Json<FleetConditions> {
    Json(match scope {
        Scope::Fleet => context.observer.conditions().await,
        Scope::Node => context.observer.own_conditions(),
    })
}

/// Maximum length of a requested id; in negotiate version 0, it is the sealed token.
const ID_MAX_BYTES: usize = 16 * 1024;

const FIELD: &str = "connectionId";

async fn past(
    State(context): State<AdminContext>,
    Path(id): Path<String>,
    scope: Scope,
) -> Result<Json<Value>, ApiError> {
    if id.len() > ID_MAX_BYTES {
        return Err(ApiError::field(FIELD, format!("may have {ID_MAX_BYTES} bytes at most")));
    }
    let known = match scope {
        Scope::Fleet => context.observer.past(&id).await,
        Scope::Node => context.observer.node.past(&id),
    };
    known.map(Json).ok_or_else(|| {
        let minutes = REMEMBERED_MS / 60_000;
        let problem = format!("is unknown: no reachable node had this connection in the last {minutes} minutes");
        ApiError::field(FIELD, problem).with_status(StatusCode::NOT_FOUND)
    })
}

async fn session(State(context): State<AdminContext>, Extension(admitted): Extension<AdmittedCaller>) -> Json<Value> {
    Json(json!({ "access": admitted.access, "canLogIn": context.guard.has_token() }))
}

async fn log_in(
    State(context): State<AdminContext>,
    caller: AdminCaller,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let mut fields = BodyFields::from_body(&headers, &body)?;
    let token = fields.text("token", BODY_MAX_BYTES)?.ok_or_else(|| ApiError::field("token", "is missing"))?;
    fields.refuse_rest()?;
    context.guard.log_in(&headers, caller, &token).await
}

async fn log_out(State(context): State<AdminContext>, headers: HeaderMap) -> Result<Response, ApiError> {
    context.guard.log_out(&headers)
}

/// Returns the last hour of the fleet, or of this node; with `since`, only newer entries.
async fn timeline(State(context): State<AdminContext>, uri: Uri) -> Result<Json<FleetTimeline>, ApiError> {
    let mut parameters = QueryParameters::from_uri(&uri)?;
    let scope = parameters.scope()?;
    let since_ms = parameters.number("since", 0, usize::MAX)?.unwrap_or_default() as u64;
    parameters.refuse_rest()?;
    Ok(Json(match scope {
        Scope::Fleet => context.observer.timeline(since_ms).await,
        Scope::Node => context.observer.own_timeline(since_ms),
    }))
}
