//! The two HTTP endpoints that proxies use, and what they answer when all is not well.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{ConnectInfo, Query, State};
use axum::response::{IntoResponse, Response};
use http::{Extensions, HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;
use trunkline_link::{MalformedHeader, read_capabilities, read_offer, write_answer};
use trunkline_protocol::limits::LINK_FRAME_MAX_BYTES;
use trunkline_protocol::manifest::{BOOT_HEADER, INSTANCE_HEADER, Manifest, NODE_HEADER, SLOT_HEADER};
use trunkline_protocol::service as session;

use super::access::AccessError;
use super::{Core, Ready};
use crate::link::{LinkSocket, Refused, SlotKey};

/// A WebSocket message may hold one frame of the largest size behind a chunk of small ones.
const MESSAGE_MAX_BYTES: usize = LINK_FRAME_MAX_BYTES + 1024 * 1024;
/// There are a handful of links per proxy; each reads into a buffer of this size.
const READ_BUFFER_BYTES: usize = 32 * 1024;
/// Chunks are gathered before they get here: write them at once.
const WRITE_BUFFER_BYTES: usize = 0;

/// What a link is asked for with.
#[derive(Debug, Deserialize)]
pub(super) struct LinkQuery {
    hub: String,
}

/// Why a request is refused; the text is one line for the proxy's log.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error("this is instance {0}: ask again to reach the other one")]
    Instance(Arc<str>),
    #[error("there is no hub named '{0}' here")]
    Hub(String),
    #[error("header {0} is missing or malformed")]
    Header(&'static str),
    #[error("a link is a WebSocket: {0}")]
    Upgrade(#[from] WebSocketUpgradeRejection),
    #[error("this app server shuts down")]
    Shutdown,
    #[error(transparent)]
    Session(#[from] Refused),
}

/// `GET /.trunkline/manifest`
pub(super) async fn manifest(
    State(core): State<Arc<Core>>,
    headers: HeaderMap,
    extensions: Extensions,
) -> Result<Json<Manifest>, Refusal> {
    let ready = ready(&core, &headers, &extensions)?;
    if core.leaving.is_cancelled() {
        return Err(Refusal::Shutdown);
    }
    Ok(Json(ready.manifest.clone()))
}

/// `GET /.trunkline/link?hub=NAME`
pub(super) async fn link(
    State(core): State<Arc<Core>>,
    headers: HeaderMap,
    extensions: Extensions,
    Query(query): Query<LinkQuery>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Refusal> {
    let ready = ready(&core, &headers, &extensions)?;
    if text(&headers, INSTANCE_HEADER)? != &*core.instance {
        return Err(Refusal::Instance(Arc::clone(&core.instance)));
    }
    let key = slot_key(&query.hub, &headers)?;
    let mut link = core.link(key, ready.outbox_max_bytes, core.shutdown.clone()).ok_or(Refusal::Hub(query.hub))?;
    link.knows_causes = read_capabilities(&headers)?.knows_causes;
    let upgrade = upgrade?
        .max_message_size(MESSAGE_MAX_BYTES)
        .max_frame_size(MESSAGE_MAX_BYTES)
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES);
    let (attached, answer) = link.attach(read_offer(&headers)?).await?;
    let tasks = core.tasks.clone();
    let mut response = upgrade.on_upgrade(move |socket| tasks.track_future(attached.run(LinkSocket::network(socket))));
    write_answer(&answer, response.headers_mut());
    if let Ok(instance) = HeaderValue::from_str(&core.instance) {
        response.headers_mut().insert(INSTANCE_HEADER, instance);
    }
    Ok(response)
}

pub(super) fn ready<'a>(core: &'a Core, headers: &HeaderMap, extensions: &Extensions) -> Result<&'a Ready, Refusal> {
    let ready = core.ready.get().filter(|_| !core.shutdown.is_cancelled()).ok_or(Refusal::Shutdown)?;
    let peer = extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| *address);
    ready.access.check(peer, headers)?;
    Ok(ready)
}

fn slot_key(hub: &str, headers: &HeaderMap) -> Result<SlotKey, Refusal> {
    Ok(SlotKey {
        hub: hub.into(),
        node: text(headers, NODE_HEADER)?.into(),
        boot: text(headers, BOOT_HEADER)?.into(),
        slot: text(headers, SLOT_HEADER)?.parse().map_err(|_| Refusal::Header(SLOT_HEADER))?,
    })
}

fn text<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<&'a str, Refusal> {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.filter(|value| !value.is_empty()).ok_or(Refusal::Header(name))
}

impl From<MalformedHeader> for Refusal {
    fn from(header: MalformedHeader) -> Self {
        Self::Header(header.name)
    }
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Refusal::Access(AccessError::DevelopmentKey) => StatusCode::FORBIDDEN,
            Refusal::Access(AccessError::Credential) => StatusCode::UNAUTHORIZED,
            Refusal::Instance(_) => StatusCode::CONFLICT,
            Refusal::Hub(_) => StatusCode::NOT_FOUND,
            Refusal::Header(_) => StatusCode::BAD_REQUEST,
            Refusal::Upgrade(_) => StatusCode::UPGRADE_REQUIRED,
            Refusal::Shutdown => StatusCode::SERVICE_UNAVAILABLE,
            // The proxy ends its session, too, and begins another one.
            Refusal::Session(Refused::Judged(session::Refusal::Unknown)) => StatusCode::GONE,
            Refusal::Session(Refused::Session(_)) => StatusCode::GONE,
            Refusal::Session(Refused::Judged(session::Refusal::Stale)) => StatusCode::PRECONDITION_FAILED,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status(), self.to_string()).into_response()
    }
}
