//! Snapshots in the API: `GET /api/fleet`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};

use crate::edge::admin::api_error::ApiError;
use crate::edge::admin::context::AdminContext;
use crate::edge::admin::parameter::{QueryParameters, Scope};
use crate::edge::observer::{FleetSnapshot, Freshness};

pub(super) async fn fleet(State(context): State<AdminContext>, uri: Uri) -> Result<Response, ApiError> {
    let mut parameters = QueryParameters::read(&uri)?;
    let scope = parameters.scope()?;
    let is_fresh = parameters.number("fresh", 0, 1)? == Some(1);
    parameters.end()?;
    let snapshot = match (is_fresh, scope) {
        (true, Scope::Fleet) => Arc::new(context.observer.fresh_fleet().await),
        (true, Scope::Node) => of_node(&context, Freshness::Asked).await?,
        (false, scope) => snapshot(&context, scope).await?,
    };
    Ok(Json(&*snapshot).into_response())
}

/// Returns a snapshot; for a single node, a fleet of one.
pub(super) async fn snapshot(context: &AdminContext, scope: Scope) -> Result<Arc<FleetSnapshot>, ApiError> {
    match scope {
        Scope::Fleet => context.observer.fleet().await.ok_or_else(ApiError::stopping),
        Scope::Node => of_node(context, Freshness::Recent).await,
    }
}

async fn of_node(context: &AdminContext, freshness: Freshness) -> Result<Arc<FleetSnapshot>, ApiError> {
    let node = context.observer.node().snapshot(freshness).await.ok_or_else(ApiError::stopping)?;
    Ok(Arc::new(FleetSnapshot { at_ms: node.at_ms, nodes: vec![node], ..FleetSnapshot::default() }))
}
