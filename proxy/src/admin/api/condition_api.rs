//! Conditions in the API: `GET /api/conditions`.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;

use crate::admin::api_error::ApiError;
use crate::admin::context::AdminContext;
use crate::admin::parameter::{QueryParameters, Scope};
use crate::observer::FleetConditions;

/// Returns the conditions of the fleet, or of this node: active ones, and those of the last day.
pub(super) async fn conditions(
    State(context): State<AdminContext>,
    uri: Uri,
) -> Result<Json<FleetConditions>, ApiError> {
    let mut parameters = QueryParameters::read(&uri)?;
    let scope = parameters.scope()?;
    parameters.end()?;
    Ok(Json(match scope {
        Scope::Fleet => context.observer.conditions().await,
        Scope::Node => context.observer.own_conditions(),
    }))
}
