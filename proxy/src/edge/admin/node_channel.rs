//! Channels of other nodes at the admin port: greetings, node links and the API, for holders of the fleet's key.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use trunkline_channel::HelloTable;
use trunkline_protocol::key::{AccessKeys, PeerKind};
use trunkline_protocol::wire::CHANNEL_PATH;

use super::access::AdminCaller;
use super::exposition::AdminCounters;
use super::guard::AdminContext;
use crate::edge::observer::ApiError;
use crate::edge::rest::{ListedPart, PART_PATH, PartQuestion};
use crate::engine::shard::Shared;
use crate::features::webhook::{BatchAnswer, HubConnection, HubUser, Reported, Subject};
use crate::fleet::{ChannelLock, ChannelRefused, FromNode, OwnNames, open_channel};

#[derive(Debug, Clone)]
struct NodeChannelRoute {
    keys: AccessKeys,
    hellos: HelloTable,
    inside: Router,
    counters: Arc<AdminCounters>,
    shared: Arc<Shared>,
}

pub(super) fn router(shared: Arc<Shared>, inside: Router, counters: Arc<AdminCounters>) -> Router {
    let keys = shared.settings.keys.clone();
    let route = NodeChannelRoute { keys, hellos: HelloTable::default(), inside, counters, shared };
    Router::new().route(CHANNEL_PATH, get(open_node_channel)).with_state(route)
}

/// Opens a channel for a node that has a matching key. Others get a 404.
async fn open_node_channel(
    State(route): State<NodeChannelRoute>,
    AdminCaller(from): AdminCaller,
    request: Request,
) -> Response {
    let NodeChannelRoute { keys, hellos, inside, counters, shared } = route;
    let lock = ChannelLock { keys: &keys, peer_kind: PeerKind::NodeAdmin, names: OwnNames::Any, hellos: &hellos };
    let (opened, clocks) = (open_channel(&request, lock, inside, || Ok(FromNode)), &shared.reports.clocks);
    match (&opened, from.map(|from| from.to_canonical())) {
        (Ok(_), Some(from)) => clocks.agree(from),
        (Err(ChannelRefused::Stranger), _) => counters.strangers.increment(),
        (Err(ChannelRefused::NotFresh { ahead_min }), Some(from)) => clocks.note(from, *ahead_min),
        _ => {}
    }
    opened.unwrap_or_else(|refused| refused.status_and_text().into_response())
}

/// Routes for other nodes only: parts of lists of the data plane, and users of webhook hubs. They are not at the admin
/// port, so operators can't reach them, and the audit log has no acts of them.
pub(crate) fn for_nodes() -> Router<AdminContext> {
    Router::new()
        .route(PART_PATH, get(part))
        .route(HubUser::PATH, post(presence::<HubUser>))
        .route(HubConnection::PATH, post(presence::<HubConnection>))
}

async fn part(State(context): State<AdminContext>, uri: Uri) -> Result<Json<ListedPart>, ApiError> {
    let question = PartQuestion::from_query(uri.query().unwrap_or_default());
    let question = question.map_err(|problem| ApiError::new(StatusCode::BAD_REQUEST, problem))?;
    question.answer_part(&context.observer.node.shared).await.map(Json).ok_or_else(ApiError::stopping)
}

/// Applies a batch of another node. 409 asks for all its subjects again.
async fn presence<S: Reported>(
    State(context): State<AdminContext>,
    body: Bytes,
) -> Result<(StatusCode, Json<BatchAnswer>), ApiError> {
    let absent = || ApiError::new(StatusCode::NOT_FOUND, format!("this node has no {}", S::FLAG));
    let presence = S::presence(&context.webhooks).ok_or_else(absent)?;
    let batch = serde_json::from_slice(&body);
    let batch = batch.map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, error.to_string()))?;
    Ok(match presence.take_batch(batch) {
        Ok(answer) => (StatusCode::OK, Json(answer)),
        Err(_) => (StatusCode::CONFLICT, Json(BatchAnswer::default())),
    })
}
