//! Paths used by nodes, not by operators.

use axum::Extension;
use http::StatusCode;

use crate::edge::admin::api_error::ApiError;
use crate::fleet::FromNode;

/// Checks that the caller is a node of the fleet; operators are referred to the given path.
pub(super) fn check_node(from: Option<&Extension<FromNode>>, path: &str) -> Result<(), ApiError> {
    let refusal = || {
        let text = format!("this path is only for nodes of the fleet: operators use {path}");
        ApiError::new(StatusCode::FORBIDDEN, text)
    };
    from.map(|_| ()).ok_or_else(refusal)
}
