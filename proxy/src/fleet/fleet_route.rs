//! Routes for other nodes inside channels: greeting and node-link upgrade, with the sockets of incoming node links.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use http::header::{CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderMap, HeaderValue, StatusCode};
use hyper::upgrade::OnUpgrade;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role as Side;
use tracing::{debug, info};
use trunkline_link::{LinkSocket, SocketStop, StopReason, read_offer, wait_for_verdict, write_answer};
use trunkline_protocol::fleet::{Greeting, WireVersions};
use trunkline_protocol::limits::GREETING_MAX_BYTES;
use trunkline_protocol::service::{Answer, Attachment, Incoming, Offer, Role, SessionEvent, UpgradeRefusal};
use trunkline_protocol::wire::{BOOT_HEADER, FLEET_GREET_PATH, FLEET_LINK_PATH, INSTANCE_HEADER};

use super::accepted_link::{AcceptedSession, TakenSession};
use super::fleet_core::Fleet;
use super::fleet_member::FleetMember;
use super::node_link::{LinkOver, NodeLink, node_carrier};
use super::node_sink::{LinkDirection, NodeSink};
use crate::engine::upstream::into_websocket;

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
    let greeting = match Greeting::from_json(&body) {
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

/// Guard of a session's current socket. Dropping it detaches the socket.
pub(super) struct AcceptedSocket {
    fleet: Fleet,
    member: Arc<FleetMember>,
    link: Arc<NodeLink>,
    attachment: Attachment,
    incoming: Incoming,
    stop: SocketStop,
    /// Set if the session ends together with this socket.
    over: Option<LinkOver>,
}

impl AcceptedSocket {
    pub(super) async fn attach(
        fleet: &Fleet,
        member: &Arc<FleetMember>,
        offer: &Offer,
    ) -> Result<(Self, Answer), UpgradeRefusal> {
        let begun = |link: &Arc<NodeLink>| {
            fleet.presence().note_change();
            tokio::spawn(keep(fleet.clone(), member.clone(), link.clone()));
        };
        loop {
            match fleet.accepted().take_link((member, fleet.members().clock), offer, begun)? {
                TakenSession::Attached(AcceptedSession { link, attachment, incoming, stop }, answer) => {
                    let (fleet, member) = (fleet.clone(), member.clone());
                    return Ok((Self { fleet, member, link, attachment, incoming, stop, over: None }, answer));
                }
                TakenSession::Occupied(link) => {
                    link.stop_socket(StopReason::Replaced);
                    link.detached().await;
                }
            }
        }
    }

    pub(super) async fn run(mut self, upgrade: OnUpgrade) {
        let upgraded = match upgrade.await {
            Ok(upgraded) => upgraded,
            Err(error) => return debug!(peer = self.member.name(), %error, "upgrade of a node link failed"),
        };
        let LinkSocket { reader, mut writer } = LinkSocket::network(into_websocket(upgraded, Side::Server).await);
        let (mut incoming, stop) = (std::mem::take(&mut self.incoming), self.stop.clone());
        let Self { fleet, member, link, attachment, .. } = &self;
        let carrier = node_carrier(link, &fleet.fleet_relay().counters, *attachment, stop);
        let mut sink = NodeSink::new(fleet, member, link, LinkDirection::ByIt);
        let end = carrier.run(&mut incoming, reader, &mut writer, &mut sink, link.given_up()).await;
        drop(sink);
        self.incoming = incoming;
        if !end.is_resumable() {
            self.over = Some(LinkOver::from(&end));
        }
        drop(self);
        if let Some(words) = end.close_frame(Role::AppServer) {
            writer.close_socket(words).await;
        }
    }
}

impl Drop for AcceptedSocket {
    fn drop(&mut self) {
        let Self { fleet, member, link, attachment, .. } = self;
        link.end_socket(std::mem::take(&mut self.incoming));
        let is_over = fleet.accepted().detach(member, (link, *attachment), self.over.is_some());
        link.notify_detached();
        if is_over {
            let reason = self.over.as_ref().map(|over| over.reason.as_str());
            let is_gone = self.over.as_ref().is_some_and(|over| over.is_gone);
            match is_gone || fleet.members().has_left() {
                true => debug!(peer = member.name(), reason, "link from a node closed"),
                false => info!(peer = member.name(), reason, "link from a node closed"),
            }
            if is_gone {
                member.set_left();
                fleet.members().note_gone(member);
            }
            fleet.link_over(member);
        }
    }
}

/// Watches for silence of the other node and ends the session after too long a silence.
async fn keep(fleet: Fleet, member: Arc<FleetMember>, link: Arc<NodeLink>) {
    loop {
        let reason = tokio::select! {
            () = link.given_up() => StopReason::Shutdown,
            verdict = wait_for_verdict(link.outbox(), link.clock, |_| {}) => match verdict {
                None => break,
                Some(SessionEvent::PeerSilent) => {
                    link.stop_socket(StopReason::Silent);
                    continue;
                }
                Some(SessionEvent::End(cause)) => StopReason::Over(cause),
            }
        };
        link.stop_socket(reason);
        link.detached().await;
        if fleet.accepted().end_detached(&member, &link) || link.is_given_up() {
            break;
        }
    }
    fleet.link_over(&member);
}
