//! Connect, whatever the transport: whose connection a request is for, and how a new one is handed to this shard.

use std::sync::Arc;

use axum::response::Response;
use bytestring::ByteString;
use http::StatusCode;
use http::request::Parts;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::manifest::{Transport, USER_ID_CLAIM};
use trunkline_protocol::service::OpenConnection;
use trunkline_protocol::token::{Claim, ConnectionToken};

use super::refusal::because;
use super::request::{headers, raw_query};
use super::{Endpoint, plain};
use crate::auth::User;
use crate::config::unix_seconds;
use crate::limits::AddressPermit;
use crate::shard::{ClientStream, PendingConnection, ShardMessage};
use crate::upstream::Hub;

pub(super) const UNKNOWN_ID: &str = "No Connection with that ID";

/// Whose connection a request is for.
pub(super) struct Caller {
    pub(super) connection_id: String,
    pub(super) user: User,
    /// It may begin the connection: its token is not too old for that.
    pub(super) is_fresh: bool,
    /// This node made its token.
    pub(super) is_ours: bool,
}

/// What a token says, and as whom it may be used.
pub(super) fn identify(endpoint: &Endpoint, hub: &Hub, sealed: String, user: User) -> Result<Caller, Response> {
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
    Ok(Caller { connection_id: token.connection_id.unwrap_or(sealed), user, is_fresh, is_ours })
}

/// A client that may come in, and how.
pub(super) struct Newcomer {
    pub(super) arrival: ClientStream,
    pub(super) transport: Transport,
    pub(super) caller: Caller,
    pub(super) is_negotiated: bool,
    pub(super) seat: Option<Box<AddressPermit>>,
}

/// Hands a new client to this shard.
pub(super) fn admit(endpoint: &Endpoint, hub: &Arc<Hub>, parts: &Parts, newcomer: Newcomer) {
    let Newcomer { arrival, transport, caller, is_negotiated, seat } = newcomer;
    let open = OpenConnection {
        connection_id: caller.connection_id.into(),
        claims: claims(&caller.user),
        headers: headers(parts, transport),
        query: raw_query(&parts.uri),
        protocol: None,
    };
    let expires_s = caller.user.expires_s.filter(|_| hub.settings().close_on_token_expiry);
    let (hub, user) = (hub.clone(), caller.user.id);
    let admission =
        PendingConnection { stream: Some(arrival), transport, hub, open, is_negotiated, user, permit: seat, expires_s };
    endpoint.shard.put(ShardMessage::Accept(Box::new(admission)));
}

fn claims(user: &User) -> Vec<(ByteString, ByteString)> {
    let system = user.id.iter().map(|id| (USER_ID_CLAIM, id.as_str()));
    // Nobody can claim what only this proxy may say.
    let own = user.claims.iter().filter(|(name, _)| !name.starts_with("asrs.s."));
    let own = own.map(|(name, value): &Claim| (name.as_str(), value.as_str()));
    system.chain(own).map(|(name, value)| (name.into(), value.into())).collect()
}

/// The connection has another transport.
pub(super) fn changed_transport() -> Response {
    let answer = plain(StatusCode::BAD_REQUEST, "Cannot change transports mid-connection");
    because(Cause::TransportRefused, answer)
}

/// The hub does not offer this transport.
pub(super) fn not_supported(transport: Transport) -> Response {
    let text = format!("{} transport not supported by this end point type", transport.name());
    because(Cause::TransportRefused, plain(StatusCode::NOT_FOUND, text))
}
