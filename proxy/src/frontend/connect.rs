//! Connect by any transport: hands a new connection to this shard.

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
use trunkline_protocol::token::Claim;
use trunkline_protocol::wire::PRIVATE_CLAIM_PREFIX;

use crate::auth::User;
use crate::frontend::endpoint::Endpoint;
use crate::frontend::identify::ConnectingClient;
use crate::frontend::plain_response::{because, plain};
use crate::frontend::request::{headers, raw_query};
use crate::limits::AddressPermit;
use crate::shard::{ClientStream, PendingConnection, ShardMessage};
use crate::upstream::Hub;

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
