//! Routes for other nodes inside channels: greeting and node-link upgrade.

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use http::header::{CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderMap, HeaderValue, StatusCode};
use hyper::upgrade::OnUpgrade;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use trunkline_link::{read_offer, write_answer};
use trunkline_protocol::fleet::{Greeting, WireVersions};
use trunkline_protocol::limits::GREETING_MAX_BYTES;
use trunkline_protocol::service::UpgradeRefusal;
use trunkline_protocol::wire::{BOOT_HEADER, FLEET_GREET_PATH, FLEET_LINK_PATH, INSTANCE_HEADER};

use super::accepted_socket::AcceptedSocket;
use super::fleet_core::Fleet;

/// Routes for holders of the fleet's key.
pub(crate) fn routes(fleet: Fleet) -> Router {
    Router::new()
        .route(FLEET_GREET_PATH, post(greet))
        .route(FLEET_LINK_PATH, get(link))
        .layer(DefaultBodyLimit::max(GREETING_MAX_BYTES))
        .with_state(fleet)
}

/// Answers a greeting. A node of another version gets a greeting too, so that it can log the version conflict.
async fn greet(State(fleet): State<Fleet>, body: Bytes) -> Response {
    if fleet.members().has_left() {
        return (StatusCode::SERVICE_UNAVAILABLE, "this node is about to stop").into_response();
    }
    let greeting = match Greeting::read(&body) {
        Ok(greeting) => greeting,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    if greeting.boot != fleet.shared().boot && WireVersions::CURRENT.common(greeting.wire).is_some() {
        // The other node opens its link next.
        fleet.meet(&greeting, None);
        fleet.members().record_addresses(&greeting);
    }
    ([(CONTENT_TYPE, "application/json")], fleet.members().greeting().to_json()).into_response()
}

/// Upgrades to the link of a node that has greeted.
async fn link(State(fleet): State<Fleet>, upgrade: Option<Extension<OnUpgrade>>, headers: HeaderMap) -> Response {
    let refuse = |status: StatusCode, text: &'static str| (status, text).into_response();
    if text(&headers, INSTANCE_HEADER) != fleet.shared().boot {
        return refuse(StatusCode::CONFLICT, "this is another start of a node");
    }
    let Some(member) = fleet.members().find(text(&headers, BOOT_HEADER)) else {
        return refuse(StatusCode::GONE, "greet first");
    };
    let accept = derive_accept_key(text(&headers, SEC_WEBSOCKET_KEY.as_str()).as_bytes());
    let offer = match read_offer(&headers) {
        Ok(Some(offer)) => offer,
        Ok(None) => return refuse(StatusCode::BAD_REQUEST, "node link resumed"),
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    let Some(Extension(upgrade)) = upgrade else {
        return refuse(StatusCode::UPGRADE_REQUIRED, "a node link is a WebSocket");
    };
    let (socket, answer) = match AcceptedSocket::attach(&fleet, &member, &offer).await {
        Ok(attached) => attached,
        Err(UpgradeRefusal::Unknown) => return refuse(StatusCode::GONE, "the session is not known here"),
        Err(UpgradeRefusal::Stale) => return refuse(StatusCode::PRECONDITION_FAILED, "the upgrade comes too late"),
    };
    tokio::spawn(socket.run(upgrade));
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    write_answer(&answer, headers);
    response
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}
