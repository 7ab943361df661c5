//! Snapshots in the API: `GET /api/fleet`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};

use crate::admin::api_error::ApiError;
use crate::admin::context::AdminContext;
use crate::admin::parameter::{QueryParameters, Scope};
use crate::observer::FleetSnapshot;

/// Returns a snapshot of the fleet, or of this node alone.
pub(super) async fn fleet(State(context): State<AdminContext>, uri: Uri) -> Result<Response, ApiError> {
    let mut parameters = QueryParameters::read(&uri)?;
    let scope = parameters.scope()?;
    parameters.end()?;
    Ok(Json(&*snapshot(&context, scope).await?).into_response())
}

/// Gets a fresh snapshot; that of one node is a fleet of one.
pub(super) async fn snapshot(context: &AdminContext, scope: Scope) -> Result<Arc<FleetSnapshot>, ApiError> {
    match scope {
        Scope::Fleet => context.observer.fleet().await.ok_or_else(ApiError::stopping),
        Scope::Node => {
            let node = context.observer.node().snapshot().await.ok_or_else(ApiError::stopping)?;
            let (at_ms, nodes) = (node.at_ms, vec![node.as_ref().clone()]);
            Ok(Arc::new(FleetSnapshot { at_ms, nodes, agree: true, unreachable: Vec::new() }))
        }
    }
}
