//! Channels of other nodes at the client listeners: what nodes forward is served inside them, as requests of the fleet.

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use http::uri::Scheme;
use http::{Extensions, StatusCode};

use crate::fleet::{ChannelLock, ChannelRefused, open_channel};
use crate::frontend::endpoint::Endpoint;
use crate::frontend::plain_response::plain;
use crate::frontend::request_extension::{FromFleet, PeerAddress, peer_address};

/// Route that opens channels, and the routes inside them.
#[derive(Debug, Clone)]
pub(crate) struct FleetChannelRoute {
    pub(crate) endpoint: Endpoint,
    pub(crate) inside: Router,
}

/// Opens a channel to a node that has one of our keys. Others learn that there is nothing.
pub(crate) async fn open(State(route): State<FleetChannelRoute>, mut request: Request) -> Response {
    let FleetChannelRoute { endpoint, inside } = route;
    let mut extensions = Extensions::new();
    extensions.insert(FromFleet);
    if let Some(peer) = peer_address(request.extensions()) {
        extensions.insert(PeerAddress(peer));
    }
    if let Some(scheme) = request.extensions().get::<Scheme>() {
        extensions.insert(scheme.clone());
    }
    let shared = &endpoint.shared;
    let lock = ChannelLock { keys: &shared.settings.keys, hellos: &shared.fleet.client_port_hellos };
    open_channel(&mut request, lock, inside, extensions).unwrap_or_else(|refused| {
        endpoint.counters.relay.private_paths.increment();
        match refused {
            ChannelRefused::Busy => {
                plain(StatusCode::SERVICE_UNAVAILABLE, "too many channels wait for their first request")
            }
            ChannelRefused::Stranger => plain(StatusCode::NOT_FOUND, "not found"),
        }
    })
}
