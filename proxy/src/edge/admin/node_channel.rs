//! Channels of other nodes at the admin port: greetings, node links and the API, for holders of the fleet's key.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use trunkline_channel::HelloTable;
use trunkline_protocol::key::{AccessKeys, PeerKind};
use trunkline_protocol::wire::CHANNEL_PATH;

use super::admin_caller::AdminCaller;
use super::admin_counters::AdminCounters;
use crate::engine::shard::Shared;
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
    Router::new().route(CHANNEL_PATH, get(open)).with_state(route)
}

/// Opens a channel for a node that has a matching key. Others get a 404.
async fn open(State(route): State<NodeChannelRoute>, AdminCaller(from): AdminCaller, request: Request) -> Response {
    let NodeChannelRoute { keys, hellos, inside, counters, shared } = route;
    let lock = ChannelLock { keys: &keys, peer_kind: PeerKind::NodeAdmin, names: OwnNames::Any, hellos: &hellos };
    let (opened, clocks) = (open_channel(&request, lock, inside, || Ok(FromNode)), &shared.reports.clocks);
    match (&opened, from.map(|from| from.to_canonical())) {
        (Ok(_), Some(from)) => clocks.agree(from),
        (Err(ChannelRefused::Stranger), _) => counters.strangers.increment(),
        (Err(ChannelRefused::NotFresh { ahead_min }), Some(from)) => clocks.note(from, *ahead_min),
        _ => {}
    }
    opened.unwrap_or_else(|refused| refused.answer().into_response())
}
