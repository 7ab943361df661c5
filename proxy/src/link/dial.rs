//! Dial one link: a WebSocket upgrade, then the handshake in which the app server speaks first.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use trunkline_protocol::id::random_id;
use trunkline_protocol::limits::{LINK_FRAME_MAX_BYTES, LINK_HANDSHAKE_TIMEOUT_MS};
use trunkline_protocol::manifest::{
    BOOT_HEADER, CAPABILITIES_HEADER, INSTANCE_HEADER, LINK_PATH, RECEIVED_HEADER, SESSION_HEADER, SLOT_HEADER,
};
use trunkline_protocol::service::{FrameBuffer, HandshakeResponse, LinkKind, ServiceMessage};

use super::http_client::{Caller, RequestError};
use super::{LinkSocket, Pool, Reach};
use crate::config::Address;
use crate::connector::Wire;

/// The only version of the service protocol.
const SERVICE_PROTOCOL_VERSION: i64 = 1;

/// What the WebSocket layer may read ahead: a link is busy, but there are only a few.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// Why a link could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// No answer.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Another instance answers there than the one we want; the manifest is to be read anew.
    #[error("another app server instance answers")]
    OtherInstance,
    /// The upgrade was refused.
    #[error("the app server answers {0} instead of an upgrade")]
    Status(StatusCode),
    /// The upgrade broke off.
    #[error("the upgrade broke off: {0}")]
    Upgrade(String),
    /// The first frame is no handshake that we know.
    #[error("the app server's handshake is wrong: {0}")]
    Handshake(String),
    /// The handshake did not come in time.
    #[error("the app server sent no handshake within {} s", LINK_HANDSHAKE_TIMEOUT_MS / 1000)]
    Timeout,
}

/// Opens the link of one slot.
///
/// # Errors
/// When it can't be opened; worth another try after a while.
pub async fn dial(
    pool: &Pool,
    slot: usize,
    boot: &str,
    caller: Caller<'_>,
) -> Result<(LinkSocket, FrameBuffer), DialError> {
    let mut socket = match &pool.app().reach {
        Reach::Network(address) => LinkSocket::network(upgrade(pool, slot, address, boot, caller).await?),
        Reach::Memory(dialler) => {
            let (near, far) = LinkSocket::memory();
            dialler.dial(pool.hub().name(), caller.node, boot, slot, far);
            near
        }
    };
    let frames = timeout(Duration::from_millis(LINK_HANDSHAKE_TIMEOUT_MS), shake_hands(&mut socket))
        .await
        .unwrap_or(Err(DialError::Timeout))?;
    Ok((socket, frames))
}

async fn upgrade(
    pool: &Pool,
    slot: usize,
    address: &Address,
    boot: &str,
    caller: Caller<'_>,
) -> Result<WebSocketStream<Wire>, DialError> {
    let request = Request::get(format!("{LINK_PATH}?hub={}", pool.hub().name()))
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, generate_key())
        .header(BOOT_HEADER, boot)
        .header(INSTANCE_HEADER, &pool.app().instance)
        .header(SLOT_HEADER, slot)
        .header(SESSION_HEADER, random_id())
        .header(RECEIVED_HEADER, 0)
        .header(CAPABILITIES_HEADER, "")
        .body(Empty::<Bytes>::new())
        .map_err(RequestError::from)?;
    let answer = caller.send(address, request).await?;
    match answer.status() {
        StatusCode::SWITCHING_PROTOCOLS => {}
        StatusCode::CONFLICT => return Err(DialError::OtherInstance),
        status => return Err(DialError::Status(status)),
    }
    into_websocket(hyper::upgrade::on(answer).await.map_err(|error| DialError::Upgrade(error.to_string()))?).await
}

async fn into_websocket(upgraded: Upgraded) -> Result<WebSocketStream<Wire>, DialError> {
    let parts = upgraded
        .downcast::<TokioIo<Wire>>()
        .map_err(|_| DialError::Upgrade("the connection is none of ours".into()))?;
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(Some(2 * LINK_FRAME_MAX_BYTES))
        .max_frame_size(Some(2 * LINK_FRAME_MAX_BYTES));
    let socket = parts.io.into_inner();
    Ok(WebSocketStream::from_partially_read(socket, parts.read_buf.to_vec(), Role::Client, Some(config)).await)
}

/// Waits for the app server's handshake and answers it.
async fn shake_hands(socket: &mut LinkSocket) -> Result<FrameBuffer, DialError> {
    let mut frames = FrameBuffer::default();
    let wrong = |problem: String| DialError::Handshake(problem);
    let body = loop {
        if let Some(body) = frames.next_body().map_err(|error| wrong(error.to_string()))? {
            break body;
        }
        frames.push(socket.reader.next().await.map_err(|error| wrong(error.to_string()))?);
    };
    let answer = match ServiceMessage::decode(&body).map_err(|error| wrong(error.to_string()))? {
        Some(ServiceMessage::HandshakeRequest(request)) => answer(request.version, request.kind),
        other => {
            return Err(wrong(format!("the first frame is {}", other.map_or("unknown", |message| message.name()))));
        }
    };
    let refusal = answer.error.clone();
    let frame = ServiceMessage::HandshakeResponse(answer).to_frame();
    socket.writer.send(frame).await.map_err(|error| wrong(error.to_string()))?;
    refusal.map_or(Ok(frames), |text| Err(wrong(text.to_string())))
}

fn answer(version: i64, kind: LinkKind) -> HandshakeResponse {
    let error = match (version, kind) {
        (SERVICE_PROTOCOL_VERSION, LinkKind::Unknown(number)) => Some(format!("link kind {number} is not known")),
        (SERVICE_PROTOCOL_VERSION, _) => None,
        (other, _) => Some(format!("service protocol version {other} is not supported, 1 is")),
    };
    HandshakeResponse { error: error.map(Into::into), connection_id: Some(random_id().into()) }
}
