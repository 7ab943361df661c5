//! Client connections in the API: lists, details, groups and users, closing.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::{Value, json};
use trunkline_protocol::id::ID_CHARS;

use crate::edge::admin::guard::AdminContext;
use crate::edge::admin::parameter::{BodyFields, NAME_MAX_CHARS, QueryParameters, Scope};
use crate::edge::observer::ApiError;
use crate::edge::observer::{ClientFilter, ClientSummary, ListPage, NameKind, NamePage};

/// Maximum length of a close reason.
const REASON_MAX_CHARS: usize = 200;

/// Default number of rows per page.
const LIMIT_DEFAULT: usize = 50;

/// Maximum number of rows per page.
const LIMIT_MAX: usize = 500;

pub(super) async fn clients(
    State(context): State<AdminContext>,
    uri: Uri,
) -> Result<Json<ListPage<ClientSummary>>, ApiError> {
    let mut parameters = QueryParameters::from_uri(&uri)?;
    let scope = parameters.scope()?;
    let text = |parameters: &mut QueryParameters, name| parameters.text(name, NAME_MAX_CHARS);
    let filter = ClientFilter {
        hub: text(&mut parameters, "hub")?,
        group: text(&mut parameters, "group")?,
        user: text(&mut parameters, "user")?,
        node: text(&mut parameters, "node")?,
        after: parameters.parsed("after")?,
        limit: parameters.number("limit", 1, LIMIT_MAX)?.unwrap_or(LIMIT_DEFAULT),
    };
    parameters.refuse_rest()?;
    if filter.group.is_some() && filter.hub.is_none() {
        return Err(ApiError::field("hub", "is missing: a group belongs to a hub"));
    }
    if filter.group.is_some() && filter.user.is_some() {
        return Err(ApiError::field("user", "can't be given together with group"));
    }
    let node = &context.observer.node;
    let page = match scope {
        Scope::Fleet => context.observer.clients(&filter).await,
        Scope::Node => node.clients(&filter).await,
    };
    page.map(Json).ok_or_else(|| ApiError::unknown_hub(filter.hub.as_deref()))
}

pub(super) async fn names(
    State(context): State<AdminContext>,
    kind: NameKind,
    uri: Uri,
) -> Result<Json<NamePage>, ApiError> {
    let mut parameters = QueryParameters::from_uri(&uri)?;
    let scope = parameters.scope()?;
    let hub = parameters.text("hub", NAME_MAX_CHARS)?.ok_or_else(|| ApiError::field("hub", "is missing"))?;
    let after = parameters.text("after", NAME_MAX_CHARS)?;
    // A peer requests one extra row to detect another page.
    let most = if scope == Scope::Node { LIMIT_MAX + 1 } else { LIMIT_MAX };
    let limit = parameters.number("limit", 1, most)?.unwrap_or(LIMIT_DEFAULT);
    parameters.refuse_rest()?;
    let node = &context.observer.node;
    let page = match scope {
        Scope::Fleet => context.observer.names(kind, &hub, after, limit).await,
        Scope::Node => node.names(kind, &hub, after, limit).await,
    };
    page.map(Json).ok_or_else(|| ApiError::unknown_hub(Some(&hub)))
}

pub(super) async fn client(
    State(context): State<AdminContext>,
    Path(id): Path<String>,
    scope: Scope,
) -> Result<Response, ApiError> {
    check_id(&id)?;
    let details = match scope {
        Scope::Fleet => context.observer.client(&id).await,
        Scope::Node => context.observer.node.client(&id).await,
    };
    details.map(|details| Json(details).into_response()).ok_or_else(|| ApiError::unknown_client(&id))
}

pub(super) async fn close_client(
    State(context): State<AdminContext>,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    let mut parameters = QueryParameters::from_uri(&uri)?;
    let scope = parameters.scope()?;
    parameters.refuse_rest()?;
    let mut fields = BodyFields::from_body(&headers, &body)?;
    let reason = fields.text("reason", REASON_MAX_CHARS)?;
    fields.refuse_rest()?;
    check_id(&id)?;
    let is_closed = match scope {
        Scope::Fleet => context.observer.close_client(&id, reason).await,
        Scope::Node => context.observer.node.close_client(&id, reason).await,
    };
    if is_closed { Ok(Json(json!({ "closed": id }))) } else { Err(ApiError::unknown_client(&id)) }
}

/// Checks the minimum length of an id, before nodes are queried.
pub(super) fn check_id(id: &str) -> Result<(), ApiError> {
    if id.len() < ID_CHARS {
        return Err(ApiError::unknown_client(id));
    }
    Ok(())
}
