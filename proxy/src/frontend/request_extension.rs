//! Extensions of requests and answers: what one step of the frontend leaves for a later one.

use std::net::SocketAddr;

use axum::extract::ConnectInfo;
use http::Extensions;

use super::forwarded_header::ForwardedScheme;
use crate::auth::User;

/// Address that a request came from; once it is normalised, the client's.
///
/// Beside it each request carries the [`Scheme`](http::uri::Scheme) of its socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PeerAddress(pub SocketAddr);

/// Scheme that the client used, as far as a load balancer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClientScheme(pub ForwardedScheme);

/// Mark of a request that came through a channel: its sender is a node of the fleet.
#[derive(Debug, Clone)]
pub(crate) struct FromFleet;

/// Mark of a request that came through a channel of an app server that dials in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InChannel;

/// Mark of a request that another node has forwarded here; it goes no further.
#[derive(Debug, Clone)]
pub(crate) struct ForwardedByNode {
    /// User that the request has shown to that node, where the connection demands one.
    pub user: Option<User>,
}

/// Connection id that this node has chosen for a client that skips negotiation, before its connection begins.
#[derive(Debug, Clone)]
pub(crate) struct ChosenConnectionId(pub String);

/// Mark of a client's request that came by dial-in, and has shown a token of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ByDialIn;

/// Mark of an answer that is no refusal of a client: an app server's, or one of the data plane.
#[derive(Debug, Clone)]
pub(crate) struct CountedElsewhere;

/// Returns the address that a request came from.
pub(crate) fn peer_address(extensions: &Extensions) -> Option<SocketAddr> {
    let own = extensions.get::<PeerAddress>().map(|peer| peer.0);
    // Inside an app, its server knows.
    own.or_else(|| extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0))
}
