//! Dial one link: a WebSocket upgrade, then the handshake in which the app server speaks first.

use std::time::Duration;

use axum::body::Body;
use http::header::{CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, Request, StatusCode};
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
use trunkline_protocol::service::{
    Answer, Capabilities, FrameBuffer, HeaderError, LinkHandshakeResponse, LinkKind, Offer, ServiceMessage,
    parse_received,
};

use super::caller::{Caller, RequestError};
use super::socket::WebSocket;
use super::{LinkSocket, Pool, Reach};
use crate::net::address::Address;

/// The only version of the service protocol.
const SERVICE_PROTOCOL_VERSION: i64 = 1;

/// What the WebSocket layer may read ahead. It is filled with zeros before each read: larger costs more than it spares.
const READ_BUFFER_BYTES: usize = 16 * 1024;

/// Why a link could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum DialError {
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Another instance answers there than the one we want; the manifest is to be read anew.
    #[error("another app server instance answers")]
    OtherInstance,
    /// The app server has ended the session, or never had it.
    #[error("the app server does not know the session any more")]
    UnknownSession,
    /// What it says about the session makes no sense.
    #[error("the app server's answer makes no sense: {0}")]
    Answer(#[from] HeaderError),
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

/// A link that is open, and whose ends have shaken hands.
#[derive(Debug)]
pub(crate) struct Dialled {
    pub socket: LinkSocket,
    /// What came behind the handshake.
    pub frames: FrameBuffer,
    /// What the app server says about the session.
    pub answer: Answer,
}

/// Opens the link of one slot.
///
/// # Errors
/// When it can't be opened; worth another try after a while.
pub(crate) async fn dial(
    pool: &Pool,
    slot: usize,
    offer: &Offer,
    boot: &str,
    caller: Caller<'_>,
) -> Result<Dialled, DialError> {
    let (mut socket, answer) = match &pool.app().reach {
        Reach::Network(address) => {
            let (socket, answer) = upgrade(pool, slot, offer, address, boot, caller).await?;
            (LinkSocket::network(socket), answer)
        }
        Reach::Memory(dialler) => {
            let (near, far) = LinkSocket::memory();
            dialler.dial(pool.hub().name(), caller.node, boot, slot, far);
            // Nothing is lost between two ends of one process, so nothing is kept for it.
            let capabilities = Capabilities { knows_causes: true, ..Capabilities::default() };
            (near, Answer { received: 0, capabilities })
        }
    };
    let frames = timeout(Duration::from_millis(LINK_HANDSHAKE_TIMEOUT_MS), shake_hands(&mut socket))
        .await
        .unwrap_or(Err(DialError::Timeout))?;
    Ok(Dialled { socket, frames, answer })
}

async fn upgrade(
    pool: &Pool,
    slot: usize,
    offer: &Offer,
    address: &Address,
    boot: &str,
    caller: Caller<'_>,
) -> Result<(WebSocket, Answer), DialError> {
    let mut request = Request::get(format!("{LINK_PATH}?hub={}", pool.hub().name()))
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, generate_key())
        .header(BOOT_HEADER, boot)
        .header(INSTANCE_HEADER, &pool.app().instance)
        .header(SLOT_HEADER, slot)
        .header(SESSION_HEADER, offer.session.to_string())
        .header(CAPABILITIES_HEADER, offer.capabilities.to_string());
    if let Some(received) = offer.received {
        request = request.header(RECEIVED_HEADER, received);
    }
    let request = request.body(Body::empty()).map_err(RequestError::from)?;
    let answer = caller.send(address, request).await?;
    match answer.status() {
        StatusCode::SWITCHING_PROTOCOLS => {}
        StatusCode::CONFLICT => return Err(DialError::OtherInstance),
        StatusCode::GONE => return Err(DialError::UnknownSession),
        status => return Err(DialError::Status(status)),
    }
    let told = told(answer.headers(), offer)?;
    let upgraded = hyper::upgrade::on(answer).await.map_err(|error| DialError::Upgrade(error.to_string()))?;
    Ok((into_websocket(upgraded).await, told))
}

/// What the app server says about the session. Both ends resume, or none does.
fn told(headers: &HeaderMap, offer: &Offer) -> Result<Answer, DialError> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let received = text(RECEIVED_HEADER).map(parse_received).transpose()?.unwrap_or_default();
    let capabilities: Capabilities = text(CAPABILITIES_HEADER).map(str::parse).transpose()?.unwrap_or_default();
    let capabilities = match offer.capabilities.resume_ring_bytes {
        Some(_) => capabilities,
        None => Capabilities { knows_causes: capabilities.knows_causes, ..Capabilities::default() },
    };
    Ok(Answer { received, capabilities })
}

async fn into_websocket(upgraded: Upgraded) -> WebSocket {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(Some(2 * LINK_FRAME_MAX_BYTES))
        .max_frame_size(Some(2 * LINK_FRAME_MAX_BYTES));
    // What was read along with the answer is left to hyper. Given to from_partially_read instead, those few bytes would
    // make a buffer that stays that small each time it is made anew, and then each message takes two reads.
    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, Some(config)).await
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

fn answer(version: i64, kind: LinkKind) -> LinkHandshakeResponse {
    let error = match (version, kind) {
        (SERVICE_PROTOCOL_VERSION, LinkKind::Unknown(number)) => Some(format!("link kind {number} is not known")),
        (SERVICE_PROTOCOL_VERSION, _) => None,
        (other, _) => Some(format!("service protocol version {other} is not supported, 1 is")),
    };
    LinkHandshakeResponse { error: error.map(Into::into), connection_id: Some(random_id().into()) }
}
