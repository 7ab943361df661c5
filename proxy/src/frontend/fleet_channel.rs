//! Channels at the client listeners: for other nodes, carrying the fleet's requests, and for app servers that dial in,
//! protecting otherwise ordinary requests against reading and changes in transit.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use http::Extensions;
use http::uri::Scheme;
use trunkline_protocol::key::FarEnd;

use crate::auth::ChannelKeys;
use crate::fleet::{ChannelLock, ChannelRefused, OwnNames, open_channel};
use crate::frontend::endpoint::Endpoint;
use crate::frontend::plain_response::plain;
use crate::frontend::request_extension::{FromFleet, InChannel, PeerAddress, peer_address};
use crate::shard::Shared;

/// Route that opens channels, and the routes inside them.
#[derive(Debug, Clone)]
pub(crate) struct FleetChannelRoute {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) inside: Router,
}

/// Opens a channel for a node with a matching key, or for an app server with a node's or its app's key. Others get a
/// 404; the node's name in it, as in all responses, shows that this is a client port.
pub(crate) async fn open(State(route): State<FleetChannelRoute>, mut request: Request) -> Response {
    let FleetChannelRoute { endpoint, inside } = route;
    let mut extensions = Extensions::new();
    if let Some(peer) = peer_address(request.extensions()) {
        extensions.insert(PeerAddress(peer));
    }
    if let Some(scheme) = request.extensions().get::<Scheme>() {
        extensions.insert(scheme.clone());
    }
    let shared = &endpoint.shared;
    let (mut of_fleet, mut of_app) = (extensions.clone(), extensions);
    of_fleet.insert(FromFleet);
    of_app.insert(InChannel);
    let hellos = &shared.fleet.client_port_hellos;
    let names = OwnNames::advertised(shared.settings.advertise.as_ref());
    let lock = ChannelLock { keys: &shared.settings.keys, far_end: FarEnd::NodeClients, names, hellos };
    let opened = match open_channel(&mut request, lock, inside.clone(), of_fleet) {
        Err(ChannelRefused::Stranger) if shared.settings.accepts_dial_in => {
            open_for_app(shared, &mut request, &inside, &of_app)
        }
        opened => opened,
    };
    opened.unwrap_or_else(|refused| {
        endpoint.counters.relay.private_paths.increment();
        let (status, text) = refused.answer();
        let mut answer = plain(status, text);
        endpoint.name_on(&mut answer);
        answer
    })
}

/// Opens a channel for an app server that dials in, trying the keys of each owner.
fn open_for_app(
    shared: &Shared,
    request: &mut Request,
    inside: &Router,
    extensions: &Extensions,
) -> Result<Response, ChannelRefused> {
    let (far_end, names) = (FarEnd::DialIn, OwnNames::Hosts(&shared.settings.hosts));
    for ChannelKeys { keys, hellos, .. } in shared.admission.signing_keys.of_channels().iter() {
        let lock = ChannelLock { keys, far_end, names, hellos };
        match open_channel(request, lock, inside.clone(), extensions.clone()) {
            Err(ChannelRefused::Stranger) => {}
            opened => return opened,
        }
    }
    Err(ChannelRefused::Stranger)
}
