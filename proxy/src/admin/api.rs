//! Routes of the API behind the observer page: JSON, paged lists, event streams.
//!
//! Errors name the wrong field and its allowed values.

mod announcement_api;
mod client_api;
mod condition_api;
mod event_api;
mod fleet_api;
mod group_api;
mod log_level_api;
mod node_api;
mod node_check;
mod past_api;
mod rebalance_api;
mod revocation_api;
mod session_api;
mod timeline_api;
mod watch_api;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{StatusCode, Uri};
use axum::routing::{get, post};

use super::api_error::ApiError;
use super::context::AdminContext;
use super::parameter::BODY_MAX_BYTES;

pub(super) use node_api::for_nodes;

pub(super) fn guarded() -> Router<AdminContext> {
    Router::new()
        .route("/api/session", get(session_api::session))
        .route("/api/fleet", get(fleet_api::fleet))
        .route("/api/events", get(event_api::fleet))
        .route("/api/conditions", get(condition_api::conditions))
        .route("/api/timeline", get(timeline_api::timeline))
        .route("/api/clients", get(client_api::clients))
        .route("/api/clients/{id}", get(client_api::client))
        .route("/api/clients/{id}/watch", get(watch_api::tap))
        .route("/api/clients/{id}/close", post(client_api::close))
        .route("/api/groups", get(client_api::groups))
        .route("/api/users", get(client_api::users))
        .route("/api/why/{id}", get(past_api::past))
        .route("/api/trace", get(watch_api::trace))
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
        .merge(announcement_api::routes())
        .merge(group_api::routes())
        .merge(rebalance_api::routes())
        .merge(revocation_api::routes())
        .merge(log_level_api::routes())
}

/// Unprotected routes: log-in and log-out.
pub(super) fn open() -> Router<AdminContext> {
    let router =
        Router::new().route("/api/login", post(session_api::log_in)).route("/api/logout", post(session_api::log_out));
    router.layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
}

pub(super) async fn unknown(uri: Uri) -> ApiError {
    let text = format!("the admin port has no {}: hubs, app servers and REST are at the port of --listen", uri.path());
    ApiError::new(StatusCode::NOT_FOUND, text)
}
