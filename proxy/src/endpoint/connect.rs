//! Connect: check who comes with which token, answer the upgrade, and hand the socket to this shard.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytestring::ByteString;
use http::header::{
    ACCEPT, CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderName, StatusCode};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use trunkline_protocol::id::random_id;
use trunkline_protocol::manifest::Transport;
use trunkline_protocol::service::OpenConnection;
use trunkline_protocol::token::{Claim, ConnectionToken};

use super::authenticate::User;
use super::negotiate::who;
use super::request::{headers, query_value, raw_query};
use super::{Endpoint, origin, plain};
use crate::config::unix_seconds;
use crate::directory::ReserveError;
use crate::link::Hub;
use crate::shard::{Admission, Parcel};

/// The claim that tells an app server the user id, as Azure's service does.
const USER_ID_CLAIM: &str = "asrs.s.uid";

pub(super) const UNKNOWN_ID: &str = "No Connection with that ID";

/// `GET`: a WebSocket, or one of the transports that are not offered yet.
pub(super) fn get(endpoint: &Endpoint, hub: &Arc<Hub>, request: Request) -> Response {
    if !is_upgrade(request.headers()) {
        return get_without_upgrade(endpoint, hub, &request);
    }
    if !origin::may_upgrade(&endpoint.shared.settings, &request) {
        return plain(StatusCode::FORBIDDEN, "pages of this origin may not connect: see --allow-origin");
    }
    let Some(accept) = accept_key(request.headers()) else {
        return plain(StatusCode::BAD_REQUEST, "the WebSocket upgrade is malformed: version 13 and a key are needed");
    };
    match admit(endpoint, hub, request) {
        Ok(()) => switching_protocols(&accept),
        Err(refusal) => refusal,
    }
}

fn admit(endpoint: &Endpoint, hub: &Arc<Hub>, mut request: Request) -> Result<(), Response> {
    let user = who(endpoint, hub, &request)?;
    let token = query_value(request.uri(), "id");
    let is_negotiated = token.is_some();
    let (connection_id, user) = match token {
        None => (random_id(), user),
        Some(token) => identify(endpoint, hub, token, user)?,
    };
    endpoint.shared.routes.reserve(&connection_id).map_err(|error| match error {
        ReserveError::Taken => plain(StatusCode::CONFLICT, ""),
        ReserveError::Unknown => plain(StatusCode::NOT_FOUND, UNKNOWN_ID),
    })?;
    let upgrade = hyper::upgrade::on(&mut request);
    let (parts, _) = request.into_parts();
    let open = OpenConnection {
        connection_id: connection_id.into(),
        claims: claims(&user),
        headers: headers(&parts),
        query: raw_query(&parts.uri),
        protocol: None,
    };
    let admission = Admission { upgrade, hub: hub.clone(), open, is_negotiated, user: user.id };
    endpoint.shard.put(Parcel::Admit(Box::new(admission)));
    Ok(())
}

/// The connection id of a token, and as whom it may be used.
fn identify(endpoint: &Endpoint, hub: &Hub, sealed: String, user: User) -> Result<(String, User), Response> {
    let unknown = || plain(StatusCode::NOT_FOUND, UNKNOWN_ID);
    let token = ConnectionToken::open(&sealed, &endpoint.shared.settings.keys).map_err(|_| unknown())?;
    if !token.hub.eq_ignore_ascii_case(&hub.settings().path) || token.is_expired(unix_seconds()) {
        return Err(unknown());
    }
    if user.id.is_some() && user.id != token.user {
        return Err(plain(StatusCode::UNAUTHORIZED, "the access token is not the one that was negotiated with"));
    }
    // A fresh token may say more than the one at negotiate; without one, that one counts.
    let user = if user.id.is_some() { user } else { User { id: token.user, claims: token.claims } };
    Ok((token.connection_id.unwrap_or(sealed), user))
}

fn claims(user: &User) -> Vec<(ByteString, ByteString)> {
    let system = user.id.iter().map(|id| (USER_ID_CLAIM, id.as_str()));
    // Nobody can claim what only this proxy may say.
    let own = user.claims.iter().filter(|(name, _)| !name.starts_with("asrs.s."));
    let own = own.map(|(name, value): &Claim| (name.as_str(), value.as_str()));
    system.chain(own).map(|(name, value)| (name.into(), value.into())).collect()
}

/// Whether a GET asks for an event stream; a poll accepts anything.
pub(super) fn wants_events(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().any(|accept| {
        accept
            .to_str()
            .is_ok_and(|accept| accept.split(',').any(|one| one.trim().eq_ignore_ascii_case("text/event-stream")))
    })
}

fn get_without_upgrade(endpoint: &Endpoint, hub: &Hub, request: &Request) -> Response {
    if let Some(refusal) = check_id(endpoint, request) {
        return refusal;
    }
    let transport = if wants_events(request.headers()) { Transport::ServerSentEvents } else { Transport::LongPolling };
    debug_assert!(!hub.settings().transports.is_empty());
    plain(StatusCode::NOT_FOUND, format!("{transport:?} transport not supported by this end point type"))
}

/// `POST`: sends of transports that are not offered yet.
pub(super) fn post(endpoint: &Endpoint, _hub: &Hub, request: &Request) -> Response {
    check_id(endpoint, request).unwrap_or_else(|| {
        plain(StatusCode::METHOD_NOT_ALLOWED, "POST requests are not allowed for WebSocket connections.")
    })
}

/// `DELETE`: the end of long polling, which is not offered yet.
pub(super) fn delete(endpoint: &Endpoint, _hub: &Hub, request: &Request) -> Response {
    check_id(endpoint, request).unwrap_or_else(|| {
        plain(StatusCode::BAD_REQUEST, "Cannot terminate this connection using the DELETE endpoint.")
    })
}

/// What to answer when a request names no connection, or none that is here.
fn check_id(endpoint: &Endpoint, request: &Request) -> Option<Response> {
    let Some(sealed) = query_value(request.uri(), "id") else {
        return Some(plain(StatusCode::BAD_REQUEST, "Connection ID required"));
    };
    let is_here = ConnectionToken::open(&sealed, &endpoint.shared.settings.keys)
        .is_ok_and(|token| endpoint.shared.routes.find(&token.connection_id.unwrap_or(sealed)).is_some());
    (!is_here).then(|| plain(StatusCode::NOT_FOUND, UNKNOWN_ID))
}

pub(super) fn is_upgrade(headers: &HeaderMap) -> bool {
    has_word(headers, &CONNECTION, "upgrade") && has_word(headers, &UPGRADE, "websocket")
}

fn has_word(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.split(',').any(|one| one.trim().eq_ignore_ascii_case(word)))
}

fn accept_key(headers: &HeaderMap) -> Option<HeaderValue> {
    let is_version_13 = headers.get(SEC_WEBSOCKET_VERSION)?.as_bytes() == b"13";
    let key = headers.get(SEC_WEBSOCKET_KEY)?;
    (is_version_13 && key.len() == 24).then(|| HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok())?
}

fn switching_protocols(accept: &HeaderValue) -> Response {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept.clone());
    answer
}
