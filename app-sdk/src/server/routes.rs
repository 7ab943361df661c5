//! Routes that proxies use inside a channel, and their refusals.

use std::sync::Arc;

use axum::Json;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;
use trunkline_channel::{HandshakeError, NOT_FRESH};
use trunkline_link::{MalformedHeader, read_capabilities, read_offer, write_answer};
use trunkline_protocol::limits::LINK_FRAME_MAX_BYTES;
use trunkline_protocol::manifest::Manifest;
use trunkline_protocol::service::UpgradeRefusal;
use trunkline_protocol::wire::{
    BOOT_HEADER, INSTANCE_HEADER, NODE_HEADER, REFUSAL_HEADER, REFUSED_DEVELOPMENT_KEY, REFUSED_KEY, SLOT_HEADER,
};

use super::access::AccessError;
use super::server_core::{ReadyServer, ServerCore};
use crate::link::{AppSocket, LinkSocket, Refused, SlotKey};

/// Maximum size of a WebSocket message: a frame of the maximum size after a chunk of small frames.
const MESSAGE_MAX_BYTES: usize = LINK_FRAME_MAX_BYTES + 1024 * 1024;
/// Size of a link's read buffer. There are only a few links per proxy.
const READ_BUFFER_BYTES: usize = 32 * 1024;
/// Size of a link's write buffer: none, because chunks are already batched.
const WRITE_BUFFER_BYTES: usize = 0;

#[derive(Debug, Deserialize)]
pub(super) struct LinkQuery {
    hub: String,
}

/// Reason for refusing a request. The text is a single line for the proxy's log.
#[derive(Debug, thiserror::Error)]
pub(super) enum RouteRefusal {
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error("a channel is opened by a WebSocket upgrade")]
    NoUpgrade,
    #[error("too many channels wait for their first request")]
    Busy,
    #[error(transparent)]
    NotFresh(HandshakeError),
    #[error("this is instance {0}: retry to reach the requested one")]
    Instance(Arc<str>),
    #[error("this app server has no hub named '{0}'")]
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

/// Route `GET /.trunkline/manifest`: lists the hubs.
pub(super) async fn manifest(State(core): State<Arc<ServerCore>>) -> Result<Json<Manifest>, RouteRefusal> {
    let ready = ready(&core)?;
    if core.draining.is_cancelled() {
        return Err(RouteRefusal::Shutdown);
    }
    Ok(Json(ready.manifest.clone()))
}

/// Route `GET /.trunkline/link?hub=NAME`: upgrades to a link.
pub(super) async fn link(
    State(core): State<Arc<ServerCore>>,
    headers: HeaderMap,
    Query(query): Query<LinkQuery>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, RouteRefusal> {
    let ready = ready(&core)?;
    if text(&headers, INSTANCE_HEADER)? != &*core.instance {
        return Err(RouteRefusal::Instance(Arc::clone(&core.instance)));
    }
    let key = slot_key(&query.hub, &headers)?;
    let mut link = core.link(key, ready.outbox_max_bytes, core.shutdown.clone()).ok_or(RouteRefusal::Hub(query.hub))?;
    link.terms.capabilities = read_capabilities(&headers)?;
    let upgrade = upgrade?
        .max_message_size(MESSAGE_MAX_BYTES)
        .max_frame_size(MESSAGE_MAX_BYTES)
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES);
    let (attached, answer) = link.attach(read_offer(&headers)?).await?;
    let tasks = core.tasks.clone();
    let mut response = upgrade
        .on_upgrade(move |socket| tasks.track_future(attached.run(LinkSocket::network(AppSocket::Accepted(socket)))));
    write_answer(&answer, response.headers_mut());
    if let Ok(instance) = HeaderValue::from_str(&core.instance) {
        response.headers_mut().insert(INSTANCE_HEADER, instance);
    }
    Ok(response)
}

pub(super) fn ready(core: &ServerCore) -> Result<&ReadyServer, RouteRefusal> {
    core.ready.get().filter(|_| !core.shutdown.is_cancelled()).ok_or(RouteRefusal::Shutdown)
}

fn slot_key(hub: &str, headers: &HeaderMap) -> Result<SlotKey, RouteRefusal> {
    Ok(SlotKey {
        hub: hub.into(),
        node: text(headers, NODE_HEADER)?.into(),
        boot: text(headers, BOOT_HEADER)?.into(),
        slot: text(headers, SLOT_HEADER)?.parse().map_err(|_| RouteRefusal::Header(SLOT_HEADER))?,
    })
}

fn text<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<&'a str, RouteRefusal> {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.filter(|value| !value.is_empty()).ok_or(RouteRefusal::Header(name))
}

impl From<MalformedHeader> for RouteRefusal {
    fn from(header: MalformedHeader) -> Self {
        Self::Header(header.name)
    }
}

impl RouteRefusal {
    fn status(&self) -> StatusCode {
        match self {
            RouteRefusal::Access(AccessError::DevelopmentKey) => StatusCode::FORBIDDEN,
            RouteRefusal::Access(AccessError::Key) => StatusCode::UNAUTHORIZED,
            RouteRefusal::Access(AccessError::Name) => StatusCode::MISDIRECTED_REQUEST,
            RouteRefusal::Instance(_) => StatusCode::CONFLICT,
            RouteRefusal::Hub(_) => StatusCode::NOT_FOUND,
            RouteRefusal::Header(_) => StatusCode::BAD_REQUEST,
            RouteRefusal::Upgrade(_) | RouteRefusal::NoUpgrade => StatusCode::UPGRADE_REQUIRED,
            RouteRefusal::NotFresh(_) => NOT_FRESH,
            RouteRefusal::Shutdown | RouteRefusal::Busy => StatusCode::SERVICE_UNAVAILABLE,
            // The proxy also ends its session and starts another.
            RouteRefusal::Session(Refused::Judged(UpgradeRefusal::Unknown)) => StatusCode::GONE,
            RouteRefusal::Session(Refused::Session(_)) => StatusCode::GONE,
            RouteRefusal::Session(Refused::Judged(UpgradeRefusal::Stale)) => StatusCode::PRECONDITION_FAILED,
        }
    }

    /// Marks a refusal by the SDK itself, as opposed to a layer around the SDK's router.
    fn mark(&self) -> &'static str {
        match self {
            RouteRefusal::Access(AccessError::Key) => REFUSED_KEY,
            RouteRefusal::Access(AccessError::DevelopmentKey) => REFUSED_DEVELOPMENT_KEY,
            RouteRefusal::Access(AccessError::Name) => "name",
            RouteRefusal::Instance(_) => "instance",
            RouteRefusal::Hub(_) => "hub",
            RouteRefusal::Header(_) => "header",
            RouteRefusal::Upgrade(_) | RouteRefusal::NoUpgrade => "upgrade",
            RouteRefusal::Shutdown => "shutdown",
            RouteRefusal::Busy => "busy",
            RouteRefusal::NotFresh(_) => "clock",
            RouteRefusal::Session(_) => "session",
        }
    }
}

impl IntoResponse for RouteRefusal {
    fn into_response(self) -> Response {
        (self.status(), [(REFUSAL_HEADER, self.mark())], self.to_string()).into_response()
    }
}
