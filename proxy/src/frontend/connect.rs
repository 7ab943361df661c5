//! Connect by any transport: identifies the connection of a request, and hands a new one to this shard.

pub(super) mod http_transport_request;
mod http_transport_response;
pub(super) mod websocket_upgrade;

use std::sync::Arc;

use axum::response::Response;
use bytestring::ByteString;
use http::StatusCode;
use http::request::Parts;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::manifest::{Transport, USER_ID_CLAIM};
use trunkline_protocol::service::OpenConnection;
use trunkline_protocol::token::{Claim, ConnectionToken};
use trunkline_protocol::wire::PRIVATE_CLAIM_PREFIX;

use crate::auth::User;
use crate::clock::unix_seconds;
use crate::frontend::endpoint::Endpoint;
use crate::frontend::plain_response::{because, plain};
use crate::frontend::request::{headers, raw_query};
use crate::limits::AddressPermit;
use crate::shard::{ClientStream, PendingConnection, ShardMessage};
use crate::upstream::Hub;

pub(crate) const UNKNOWN_ID: &str = "No Connection with that ID";

/// Client and connection that a request is for.
pub(crate) struct ConnectingClient {
    pub(super) connection_id: String,
    pub(super) user: User,
    /// Its token is not too old to begin the connection.
    pub(super) is_fresh: bool,
    /// Its token is of this node.
    pub(super) is_ours: bool,
}

/// Opens a connection token, and checks that the user may use it.
///
/// # Errors
/// The refusal.
pub(crate) fn identify(
    endpoint: &Endpoint,
    hub: &Hub,
    sealed: String,
    user: User,
) -> Result<ConnectingClient, Response> {
    let unknown = || plain(StatusCode::NOT_FOUND, UNKNOWN_ID);
    let token = ConnectionToken::open(&sealed, &endpoint.shared.settings.keys).map_err(|_| unknown())?;
    if !token.hub.eq_ignore_ascii_case(&hub.settings().path) {
        return Err(unknown());
    }
    if user.id.is_some() && user.id != token.user {
        return Err(plain(StatusCode::UNAUTHORIZED, "the access token is not the one that was negotiated with"));
    }
    let (is_fresh, is_ours) = (!token.is_expired(unix_seconds()), token.boot == endpoint.shared.boot);
    // A fresh token may say more than the one at negotiate; without one, that one counts.
    let user = if user.id.is_some() {
        user
    } else {
        User { id: token.user, claims: token.claims, expires_s: token.expires_s }
    };
    Ok(ConnectingClient { connection_id: token.connection_id.unwrap_or(sealed), user, is_fresh, is_ours })
}

/// New client connection for this shard.
pub(crate) struct NewConnection {
    pub(super) socket: ClientStream,
    pub(super) transport: Transport,
    pub(super) client: ConnectingClient,
    pub(super) is_negotiated: bool,
    pub(super) permit: Option<Box<AddressPermit>>,
}

/// Hands a new client connection to this shard.
pub(crate) fn admit(endpoint: &Endpoint, hub: &Arc<Hub>, parts: &Parts, new: NewConnection) {
    let NewConnection { socket, transport, client, is_negotiated, permit } = new;
    let open = OpenConnection {
        connection_id: client.connection_id.into(),
        claims: claims(&client.user),
        headers: headers(parts, transport),
        query: raw_query(&parts.uri),
        protocol: None,
    };
    let expires_s = client.user.expires_s.filter(|_| hub.settings().close_on_token_expiry);
    let (hub, user) = (hub.clone(), client.user.id);
    let stream = Some(socket);
    let pending = PendingConnection { stream, transport, hub, open, is_negotiated, user, permit, expires_s };
    endpoint.shard.put(ShardMessage::Accept(Box::new(pending)));
}

fn claims(user: &User) -> Vec<(ByteString, ByteString)> {
    let system = user.id.iter().map(|id| (USER_ID_CLAIM, id.as_str()));
    // Clients can't claim what only this proxy may.
    let own = user.claims.iter().filter(|(name, _)| !name.starts_with(PRIVATE_CLAIM_PREFIX));
    let own = own.map(|(name, value): &Claim| (name.as_str(), value.as_str()));
    system.chain(own).map(|(name, value)| (name.into(), value.into())).collect()
}

/// Makes the refusal of a request by another transport than the connection's.
pub(crate) fn changed_transport() -> Response {
    let answer = plain(StatusCode::BAD_REQUEST, "Cannot change transports mid-connection");
    because(Cause::TransportRefused, answer)
}

/// Makes the refusal of a transport that the hub does not offer.
pub(crate) fn not_supported(transport: Transport) -> Response {
    let text = format!("{} transport not supported by this end point type", transport.name());
    because(Cause::TransportRefused, plain(StatusCode::NOT_FOUND, text))
}
