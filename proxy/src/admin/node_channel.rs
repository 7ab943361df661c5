//! Channels of other nodes at the admin port: greetings, node links and the API, for holders of the fleet's key.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use trunkline_channel::HelloTable;
use trunkline_protocol::key::{AccessKeys, PeerKind};
use trunkline_protocol::wire::CHANNEL_PATH;

use super::admin_counters::AdminCounters;
use crate::fleet::{ChannelLock, ChannelRefused, FromNode, OwnNames, open_channel};

#[derive(Debug, Clone)]
struct NodeChannelRoute {
    keys: AccessKeys,
    hellos: HelloTable,
    inside: Router,
    counters: Arc<AdminCounters>,
}

pub(super) fn router(keys: AccessKeys, inside: Router, counters: Arc<AdminCounters>) -> Router {
    let route = NodeChannelRoute { keys, hellos: HelloTable::default(), inside, counters };
    Router::new().route(CHANNEL_PATH, get(open)).with_state(route)
}

/// Opens a channel for a node that has a matching key. Others get a 404.
async fn open(State(route): State<NodeChannelRoute>, request: Request) -> Response {
    let NodeChannelRoute { keys, hellos, inside, counters } = route;
    let lock = ChannelLock { keys: &keys, peer_kind: PeerKind::NodeAdmin, names: OwnNames::Any, hellos: &hellos };
    open_channel(&request, lock, inside, || Ok(FromNode)).unwrap_or_else(|refused| {
        if refused == ChannelRefused::Stranger {
            counters.strangers.increment();
        }
        refused.answer().into_response()
    })
}
