//! Acts of operators in the API, each for all nodes, with its reports and the requests between nodes.

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::routing::{MethodFilter, MethodRouter, get, on, post};
use axum::{Extension, Json, Router};
use bytes::Bytes;
use serde::Serialize;
use trunkline_protocol::service::RecordAct;

use super::order_body::{
    ANNOUNCEMENT_MAX_BYTES, REVOCATION_MAX_BYTES, announcement, group_order, rebalance, record_order, revocation,
};
use crate::edge::admin::access::check_node;
use crate::edge::admin::guard::AdminContext;
use crate::edge::admin::parameter::{BODY_MAX_BYTES, BodyFields, NAME_MAX_CHARS, QueryParameters, Scope};
use crate::edge::observer::{
    ApiError, GroupStep, ListPage, Observer, REVOKE_OWN_PATH, RebalanceReport, RecordRow, RevocationList,
    RevocationOrder, RevokedAnswer, SHED_PATH, SHED_PER_SECOND_MAX, STOP_PATH, ShedAnswer,
};
use crate::fleet::FromNode;

/// Default number of listed revocations.
const REVOCATIONS_DEFAULT: usize = 100;

/// Maximum number of listed revocations.
const REVOCATIONS_MAX: usize = 1000;

pub(super) fn routes() -> Router<AdminContext> {
    let announce = async |on: Observer, order| on.announcer.announce(order).await;
    let change_group = async |on: Observer, order| on.groups.change(order).await;
    let change_record = async |on: Observer, order| on.records.change(order).await;
    let begin = async |on: Observer, order| on.rebalancer.begin_rebalance(order).await;
    let revoke = async |on: Observer, order| on.revoker.revoke(order).await;
    let (join, leave) = (group_order(GroupStep::Join), group_order(GroupStep::Leave));
    let (finish, delete) = (record_order(RecordAct::Finish), record_order(RecordAct::Delete));
    let between_nodes = Router::new()
        .route(SHED_PATH, post(shed))
        .route(STOP_PATH, post(stop_own))
        .route(REVOKE_OWN_PATH, post(revoke_own));
    Router::new()
        .route("/api/announce", act(ANNOUNCEMENT_MAX_BYTES, announcement, announce))
        .route("/api/groups/join", act(BODY_MAX_BYTES, join, change_group))
        .route("/api/groups/leave", act(BODY_MAX_BYTES, leave, change_group))
        .route("/api/records", get(records))
        .route("/api/records/finish", act(BODY_MAX_BYTES, finish, change_record))
        .route("/api/records/delete", act(BODY_MAX_BYTES, delete, change_record))
        .route("/api/rebalance", act(BODY_MAX_BYTES, rebalance, begin).get(progress).delete(stop))
        .route("/api/revocations", act(REVOCATION_MAX_BYTES, revocation, revoke).get(revocations))
        .merge(between_nodes.layer(DefaultBodyLimit::max(REVOCATION_MAX_BYTES)))
}

/// Handler of an act: reads its order from the body, and answers with its report.
fn act<O: Send + 'static, R: Serialize + 'static, F: Future<Output = Result<R, ApiError>> + Send + 'static>(
    max_bytes: usize,
    read: impl Fn(&mut BodyFields) -> Result<O, ApiError> + Clone + Send + Sync + 'static,
    run: impl Fn(Observer, O) -> F + Clone + Send + Sync + 'static,
) -> MethodRouter<AdminContext> {
    let handler = async move |State(context): State<AdminContext>, request: Request| {
        let mut fields = BodyFields::of_order(request, max_bytes).await?;
        let order = read(&mut fields)?;
        fields.refuse_rest()?;
        run(context.observer, order).await.map(Json)
    };
    on(MethodFilter::POST, handler).layer(DefaultBodyLimit::max(max_bytes))
}

async fn records(State(context): State<AdminContext>, uri: Uri) -> Result<Json<ListPage<RecordRow>>, ApiError> {
    let mut parameters = QueryParameters::from_uri(&uri)?;
    let scope = parameters.scope()?;
    let hub = parameters.text("hub", NAME_MAX_CHARS)?.ok_or_else(|| ApiError::field("hub", "is missing"))?;
    parameters.refuse_rest()?;
    Ok(Json(match scope {
        Scope::Fleet => context.observer.records.list(&hub).await,
        Scope::Node => context.observer.records.list_here(&hub).await,
    }))
}

async fn revocations(State(context): State<AdminContext>, uri: Uri) -> Result<Json<RevocationList>, ApiError> {
    let mut parameters = QueryParameters::from_uri(&uri)?;
    let user = parameters.text("user", NAME_MAX_CHARS)?;
    let limit = parameters.number("limit", 1, REVOCATIONS_MAX)?.unwrap_or(REVOCATIONS_DEFAULT);
    parameters.refuse_rest()?;
    Ok(Json(context.observer.revoker.list(user.as_deref(), limit)))
}

async fn revoke_own(
    State(context): State<AdminContext>,
    from: Option<Extension<FromNode>>,
    body: Bytes,
) -> Result<Json<RevokedAnswer>, ApiError> {
    check_node(from.as_ref(), "/api/revocations")?;
    // Later versions may send additional fields.
    let order: RevocationOrder =
        serde_json::from_slice(&body).map_err(|error| ApiError::field("body", format!("is invalid: {error}")))?;
    context.observer.revoker.revoke_own(&order).await.map(Json)
}

async fn progress(State(context): State<AdminContext>, scope: Scope) -> Json<RebalanceReport> {
    Json(match scope {
        Scope::Fleet => context.observer.rebalancer.report().await,
        Scope::Node => context.observer.rebalancer.own(),
    })
}

async fn stop(State(context): State<AdminContext>, uri: Uri) -> Result<Json<RebalanceReport>, ApiError> {
    QueryParameters::from_uri(&uri)?.refuse_rest()?;
    context.observer.rebalancer.stop().await.map(Json).ok_or_else(none_runs)
}

async fn stop_own(
    State(context): State<AdminContext>,
    from: Option<Extension<FromNode>>,
) -> Result<Json<RebalanceReport>, ApiError> {
    check_node(from.as_ref(), "/api/rebalance")?;
    context.observer.rebalancer.stop_own().map(Json).ok_or_else(none_runs)
}

fn none_runs() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "no rebalance runs in the fleet")
}

/// Makes some clients reconnect elsewhere, for a rebalance coordinated by another node.
async fn shed(
    State(context): State<AdminContext>,
    from: Option<Extension<FromNode>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<ShedAnswer>, ApiError> {
    check_node(from.as_ref(), "/api/rebalance")?;
    let mut fields = BodyFields::from_body(&headers, &body)?;
    let clients = fields.number("clients", 1, SHED_PER_SECOND_MAX)?;
    let clients = clients.ok_or_else(|| ApiError::field("clients", "is missing"))?;
    Ok(Json(context.observer.rebalancer.shed(clients).await))
}
