//! Channels at the client listeners. They carry the fleet's requests, and protect requests of app servers that dial in
//! against reading and changes in transit.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use trunkline_channel::key_tag;
use trunkline_protocol::key::{KeyTag, PeerKind};
use trunkline_protocol::wire::HELLO_HEADER;

use crate::edge::frontend::dial_in::report_refused;
use crate::edge::frontend::endpoint::Endpoint;
use crate::edge::frontend::plain_response::plain;
use crate::edge::frontend::request_context::{RequestContext, RequestSource, SourceChannel};
use crate::edge::frontend::request_query::RequestQuery;
use crate::engine::shard::Shared;
use crate::features::admission::ChannelKeys;
use crate::fleet::{ChannelLock, ChannelRefused, OwnNames, open_channel};

#[derive(Debug, Clone)]
pub(crate) struct FleetChannelRoute {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) inside: Router,
}

/// Opens a channel for a node with a matching key, or an app server with a node's or its app's key. Others get a 404,
/// with the node's name to show that this is a client port.
pub(crate) async fn open_fleet_channel(State(route): State<FleetChannelRoute>, mut request: Request) -> Response {
    let FleetChannelRoute { endpoint, inside } = route;
    let source = RequestSource::take_source(&mut request);
    let mut is_of_node = false;
    let opened = match key_of(&endpoint, &request) {
        // The tag belongs to no key of this node, or is missing, so nothing is computed for the hello.
        None => Err(ChannelRefused::Stranger),
        Some(key) => {
            is_of_node = matches!(key, HelloKey::Node);
            let throttle = &endpoint.shared.limits.failed_hellos;
            let peer = source.peer.map(|peer| peer.ip());
            match throttle.wait(peer, endpoint.shared.uptime()) {
                // Other requests come first.
                Duration::ZERO => tokio::task::yield_now().await,
                wait => tokio::time::sleep(wait).await,
            }
            let opened = try_key(&endpoint, key, (&request, &source), &inside);
            if matches!(opened, Err(ChannelRefused::Stranger)) {
                let hello = request.headers().get(HELLO_HEADER).and_then(|hello| hello.to_str().ok());
                throttle.note_wrong(peer, hello.unwrap_or_default(), endpoint.shared.uptime());
            }
            opened
        }
    };
    if opened.is_ok()
        && is_of_node
        && let Some(peer) = source.peer
    {
        endpoint.shared.reports.clocks.agree(peer.ip().to_canonical());
    }
    opened.unwrap_or_else(|refused| {
        endpoint.counters.relay.private_paths.increment();
        let is_reported = match (&refused, source.peer.map(|peer| peer.ip().to_canonical())) {
            (ChannelRefused::NotFresh { ahead_min }, Some(from)) if is_of_node => {
                endpoint.shared.reports.clocks.note(from, *ahead_min);
                false
            }
            (refused, _) => matches!(refused, ChannelRefused::Full(_) | ChannelRefused::NotFresh { .. }),
        };
        let (status, text) = refused.status_and_text();
        let mut answer = plain(status, text);
        if is_reported {
            let query = RequestQuery::parse(request.uri());
            report_refused(&endpoint, request.headers(), &RequestContext::new(source, query), &answer);
        }
        endpoint.name_on(&mut answer);
        answer
    })
}

enum HelloKey {
    /// One of the fleet, of another node.
    Node,
    /// One of the fleet or of an app, of an app server that dials in.
    App(KeyTag),
}

fn key_of(endpoint: &Endpoint, request: &Request) -> Option<HelloKey> {
    let (settings, channels) = (&endpoint.shared.settings, endpoint.admission.signing_keys.of_channels());
    let tag = key_tag(request)?;
    if settings.keys.tagged_secret(PeerKind::NodeClients, tag).is_some() {
        return Some(HelloKey::Node);
    }
    (settings.accepts_dial_in && channels.tagged(tag).is_some()).then_some(HelloKey::App(tag))
}

fn try_key(
    endpoint: &Endpoint,
    key: HelloKey,
    (request, source): (&Request, &RequestSource),
    inside: &Router,
) -> Result<Response, ChannelRefused> {
    let (shared, channels) = (&endpoint.shared, endpoint.admission.signing_keys.of_channels());
    match key {
        HelloKey::Node => open_for_node(shared, (request, source), inside),
        HelloKey::App(tag) => channels
            .tagged(tag)
            .map_or(Err(ChannelRefused::Stranger), |keys| open_for_app(shared, (request, source), inside, keys)),
    }
}

fn open_for_node(
    shared: &Shared,
    (request, source): (&Request, &RequestSource),
    inside: &Router,
) -> Result<Response, ChannelRefused> {
    let hellos = &shared.fleet.client_port_hellos;
    let names = OwnNames::advertised(shared.settings.advertise.as_ref());
    let lock = ChannelLock { keys: &shared.settings.keys, peer_kind: PeerKind::NodeClients, names, hellos };
    open_channel(request, lock, inside.clone(), || Ok(source_inside(source, SourceChannel::Node)))
}

/// Opens a channel to an app server that dials in, by the keys of one holder. It counts as a link of the holder.
fn open_for_app(
    shared: &Shared,
    (request, source): (&Request, &RequestSource),
    inside: &Router,
    ChannelKeys { signer, keys, hellos }: &ChannelKeys,
) -> Result<Response, ChannelRefused> {
    let names = OwnNames::Hosts(&shared.settings.hosts);
    let lock = ChannelLock { keys, peer_kind: PeerKind::DialIn, names, hellos };
    let address = source.counted_ip(&shared.settings);
    open_channel(request, lock, inside.clone(), || {
        let permit = shared.limits.links.take_dialled_in(&shared.share_of(signer), address);
        let permit = permit.inspect_err(|refusal| shared.limits.refusals.count("links", refusal.label()));
        let permit = permit.map_err(ChannelRefused::Full)?.into();
        Ok(source_inside(source, SourceChannel::AppServer(permit)))
    })
}

/// Source of the requests inside a channel that was opened from this source.
fn source_inside(source: &RequestSource, channel: SourceChannel) -> RequestSource {
    RequestSource { peer: source.peer, is_tls: source.is_tls, channel, ..RequestSource::default() }
}
