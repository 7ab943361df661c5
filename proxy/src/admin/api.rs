//! The API behind the observer page: JSON, lists that are paged, streams of events.
//!
//! Whatever is wrong with a request is answered by name: the field, what it was, what it may be.

mod error;
mod events;
mod params;
mod why;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use bytes::Bytes;
use serde_json::{Value, json};
use trunkline_protocol::id::ID_CHARS;

use super::guard::{Access, Guard, log_out};
use super::observe::{Client, Fleet, Listing, NamePage, Observer, Page};

pub(super) use error::ApiError;
use params::{Fields, Params, Scope};

/// Largest body of a request.
const BODY_MAX_BYTES: usize = 4 * 1024;

/// Longest reason that a client is given for its end.
const REASON_MAX_CHARS: usize = 200;

/// Longest name that is asked for.
const NAME_MAX_CHARS: usize = 1_000;

/// Rows of a page, unless told otherwise.
const LIMIT_DEFAULT: usize = 50;

/// Rows of the largest page.
const LIMIT_MAX: usize = 500;

/// What the API is answered from.
#[derive(Debug, Clone)]
pub(super) struct Api {
    pub observer: Arc<Observer>,
    pub guard: Guard,
}

/// What only those may ask whom the guard let in.
pub(super) fn guarded() -> Router<Api> {
    Router::new()
        .route("/api/session", get(session))
        .route("/api/fleet", get(fleet))
        .route("/api/events", get(events::fleet))
        .route("/api/clients", get(clients))
        .route("/api/clients/{id}", get(client))
        .route("/api/clients/{id}/watch", get(events::watch))
        .route("/api/clients/{id}/close", post(close))
        .route("/api/groups", get(groups))
        .route("/api/users", get(users))
        .route("/api/why/{id}", get(why::why))
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
}

/// What anybody may ask: to be let in.
pub(super) fn open() -> Router<Api> {
    let router = Router::new().route("/api/login", post(log_in)).route("/api/logout", post(async || log_out()));
    router.layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
}

/// There is no such path.
pub(super) async fn unknown(uri: Uri) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("there is no {}", uri.path()))
}

async fn session(State(api): State<Api>, Extension(access): Extension<Access>) -> Json<Value> {
    Json(json!({ "access": access, "canLogIn": api.guard.has_token() }))
}

async fn log_in(State(api): State<Api>, headers: HeaderMap, body: Bytes) -> Result<Response, ApiError> {
    let mut fields = Fields::read(&headers, &body)?;
    let token = fields.text("token", BODY_MAX_BYTES)?.ok_or_else(|| ApiError::field("token", "is missing"))?;
    fields.end()?;
    api.guard.log_in(&headers, &token)
}

async fn fleet(State(api): State<Api>, uri: Uri) -> Result<Response, ApiError> {
    let mut params = Params::read(&uri)?;
    let scope = params.scope()?;
    params.end()?;
    Ok(Json(&*fleet_of(&api, scope).await?).into_response())
}

async fn fleet_of(api: &Api, scope: Scope) -> Result<Arc<Fleet>, ApiError> {
    match scope {
        Scope::Fleet => api.observer.fleet().await.ok_or_else(ApiError::ending),
        Scope::Node => {
            let node = api.observer.node().await.ok_or_else(ApiError::ending)?;
            let (at_ms, nodes) = (node.at_ms, vec![node.as_ref().clone()]);
            Ok(Arc::new(Fleet { at_ms, nodes, unreachable: Vec::new() }))
        }
    }
}

async fn clients(State(api): State<Api>, uri: Uri) -> Result<Json<Page<Client>>, ApiError> {
    let mut params = Params::read(&uri)?;
    let scope = params.scope()?;
    let text = |params: &mut Params, name| params.text(name, NAME_MAX_CHARS);
    let listing = Listing {
        hub: text(&mut params, "hub")?,
        group: text(&mut params, "group")?,
        user: text(&mut params, "user")?,
        node: text(&mut params, "node")?,
        after: params.parsed("after")?,
        limit: params.number("limit", 1, LIMIT_MAX)?.unwrap_or(LIMIT_DEFAULT),
    };
    let instance = text(&mut params, "instance")?;
    params.end()?;
    if listing.group.is_some() && listing.hub.is_none() {
        return Err(ApiError::field("hub", "is missing: a group is one of a hub"));
    }
    if listing.group.is_some() && listing.user.is_some() {
        return Err(ApiError::field("user", "can't be given together with group"));
    }
    let page = match scope {
        Scope::Fleet => api.observer.clients(&listing).await,
        Scope::Node if !is_meant(&api, instance).await => None,
        Scope::Node => api.observer.clients_here(&listing).await,
    };
    page.map(Json).ok_or_else(|| no_hub(listing.hub.as_deref()))
}

/// Whether another node asks for this one, and not for another one that it reaches in the same way.
async fn is_meant(api: &Api, instance: Option<String>) -> bool {
    let Some(instance) = instance else { return true };
    api.observer.node().await.is_some_and(|node| node.instance == instance)
}

async fn groups(State(api): State<Api>, uri: Uri) -> Result<Json<Value>, ApiError> {
    names(&api, "groups", &uri).await
}

async fn users(State(api): State<Api>, uri: Uri) -> Result<Json<Value>, ApiError> {
    names(&api, "users", &uri).await
}

async fn names(api: &Api, kind: &str, uri: &Uri) -> Result<Json<Value>, ApiError> {
    let mut params = Params::read(uri)?;
    let scope = params.scope()?;
    let hub = params.text("hub", NAME_MAX_CHARS)?.ok_or_else(|| ApiError::field("hub", "is missing"))?;
    let after = params.text("after", NAME_MAX_CHARS)?;
    // A node that asks for others wants to know whether there is more.
    let most = if scope == Scope::Node { LIMIT_MAX + 1 } else { LIMIT_MAX };
    let limit = params.number("limit", 1, most)?.unwrap_or(LIMIT_DEFAULT);
    params.end()?;
    let page = match scope {
        Scope::Fleet => api.observer.names(kind, &hub, after, limit).await,
        Scope::Node => api.observer.names_here(kind, &hub, after, limit).await,
    };
    let NamePage { items, next, .. } = page.ok_or_else(|| no_hub(Some(&hub)))?;
    let instance = api.observer.node().await.map(|node| node.instance.clone());
    Ok(Json(json!({ "items": items, "next": next, "instance": instance })))
}

async fn client(State(api): State<Api>, Path(id): Path<String>, uri: Uri) -> Result<Response, ApiError> {
    let mut params = Params::read(&uri)?;
    let scope = params.scope()?;
    params.end()?;
    check_id(&id)?;
    let details = match scope {
        Scope::Fleet => api.observer.client(&id).await,
        Scope::Node => api.observer.client_here(&id).await,
    };
    details.map(|details| Json(details).into_response()).ok_or_else(|| no_client(&id))
}

async fn close(
    State(api): State<Api>,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    let mut params = Params::read(&uri)?;
    let scope = params.scope()?;
    params.end()?;
    let mut fields = Fields::read(&headers, &body)?;
    let reason = fields.text("reason", REASON_MAX_CHARS)?;
    fields.end()?;
    check_id(&id)?;
    let is_closed = match scope {
        Scope::Fleet => api.observer.close(&id, reason).await,
        Scope::Node => api.observer.close_here(&id, reason).await,
    };
    if is_closed { Ok(Json(json!({ "closed": id }))) } else { Err(no_client(&id)) }
}

/// What can't be an id is told so; any other is looked for.
fn check_id(id: &str) -> Result<(), ApiError> {
    if id.len() < ID_CHARS {
        return Err(no_client(id));
    }
    Ok(())
}

fn no_client(id: &str) -> ApiError {
    let shown: String = id.chars().take(ID_CHARS).collect();
    ApiError::new(StatusCode::NOT_FOUND, format!("no node that answers has a client connection {shown:?}"))
}

fn no_hub(hub: Option<&str>) -> ApiError {
    let shown: String = hub.unwrap_or_default().chars().take(100).collect();
    ApiError::new(StatusCode::NOT_FOUND, format!("no node that answers has a hub {shown:?}"))
}

/// Whether a body is said to be JSON: a form of another page can't say so.
fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}
