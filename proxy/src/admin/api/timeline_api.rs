//! Timelines in the API: `GET /api/timeline`.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;

use crate::admin::api_error::ApiError;
use crate::admin::context::AdminContext;
use crate::admin::parameter::{QueryParameters, Scope};
use crate::observer::FleetTimeline;

/// Returns the last hour of the fleet, or of this node; with `since`, only newer entries.
pub(super) async fn timeline(State(context): State<AdminContext>, uri: Uri) -> Result<Json<FleetTimeline>, ApiError> {
    let mut parameters = QueryParameters::read(&uri)?;
    let scope = parameters.scope()?;
    let since_ms = parameters.number("since", 0, usize::MAX)?.unwrap_or_default() as u64;
    parameters.end()?;
    Ok(Json(match scope {
        Scope::Fleet => context.observer.timeline(since_ms).await,
        Scope::Node => context.observer.own_timeline(since_ms),
    }))
}
