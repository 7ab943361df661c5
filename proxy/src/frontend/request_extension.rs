//! Extensions of requests and responses: data that one step of the frontend leaves for a later one.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::ConnectInfo;
use http::Extensions;

use super::forwarded_header::ForwardedScheme;
use crate::auth::User;
use crate::limits::LinkPermit;

/// Peer address of a request; after normalisation, the client's.
///
/// Each request also carries the [`Scheme`](http::uri::Scheme) of its socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PeerAddress(pub SocketAddr);

/// Scheme used by the client, as reported by a load balancer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClientScheme(pub ForwardedScheme);

/// Marks a request that came through a channel from a node of the fleet.
#[derive(Debug, Clone)]
pub(crate) struct FromFleet;

/// Marks a request that came through a channel of an app server that dials in, and holds the permit of the channel.
#[derive(Debug, Clone)]
pub(crate) struct InChannel(pub Arc<LinkPermit>);

/// Marks a request forwarded by another node; it is not forwarded again.
#[derive(Debug, Clone)]
pub(crate) struct ForwardedByNode {
    /// User authenticated by that node, if the connection requires one.
    pub user: Option<User>,
}

/// Connection id assigned to a client that skips negotiation, before its connection starts.
#[derive(Debug, Clone)]
pub(crate) struct ChosenConnectionId(pub String);

/// Marks a client's dial-in request with a valid token.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ByDialIn;

/// Marks a response not to be counted as a refusal here: an app server's or the data plane's.
#[derive(Debug, Clone)]
pub(crate) struct CountedElsewhere;

pub(crate) fn peer_address(extensions: &Extensions) -> Option<SocketAddr> {
    let own = extensions.get::<PeerAddress>().map(|peer| peer.0);
    // In an embedded node, the app's server provides it.
    own.or_else(|| extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0))
}
