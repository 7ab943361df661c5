//! Dialling of one link: a WebSocket upgrade, which node links share, then a handshake begun by the app server. Links
//! requested through dial-in are [`IncomingLink`]s.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use http::header::{CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use trunkline_link::{LinkEnd, MalformedHeader, answer_handshake, read_answer, write_offer};
use trunkline_protocol::limits::{LINK_FRAME_MAX_BYTES, LINK_HANDSHAKE_TIMEOUT_MS};
use trunkline_protocol::manifest::{BOOT_HEADER, INSTANCE_HEADER, LINK_PATH, SLOT_HEADER};
use trunkline_protocol::service::{Answer, Capabilities, Offer, Role as LinkRole};

use super::caller::{Caller, RequestError};
use super::{AppTarget, Hub, Pool};
use crate::ground::auth::TokenSigner;
use crate::ground::limits::LinkPermit;
use crate::ground::net::address::Address;

pub(crate) type UpstreamWebSocket = WebSocketStream<TokioIo<Upgraded>>;

type LinkSocket = trunkline_link::LinkSocket<UpstreamWebSocket>;

/// Read buffer of the WebSocket layer in bytes. It is zeroed before each read, so a larger one costs more than it
/// saves.
const READ_BUFFER_BYTES: usize = 16 * 1024;

/// Maximum WebSocket message from an app server. Frames over the limit are skipped; a message is read whole.
const MESSAGE_MAX_BYTES: usize = 8 * LINK_FRAME_MAX_BYTES;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum DialError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Upgrade(#[from] LinkUpgradeError),
    /// The first frame is not a supported handshake.
    #[error("the app server's handshake is wrong: {0}")]
    Handshake(String),
    #[error("the app server sent no handshake within {} s", LINK_HANDSHAKE_TIMEOUT_MS / 1000)]
    Timeout,
}

/// An open link; that of an app server after the handshake.
#[derive(Debug)]
pub(crate) struct Dialled {
    pub socket: LinkSocket,
    pub answer: Answer,
}

/// Opens the link of one slot. After an error, the caller may retry later.
pub(crate) async fn dial(
    pool: &Pool,
    slot: usize,
    offer: &Offer,
    boot: &str,
    caller: Caller<'_>,
) -> Result<Dialled, DialError> {
    let mut dialled = match &pool.app.target {
        AppTarget::Network(address) => upgrade(pool, slot, offer, address, boot, caller).await?,
        AppTarget::Memory(dialler) => {
            let (near, far) = LinkSocket::memory();
            dialler.dial(pool.hub.name(), caller.node, boot, slot, far);
            // Both ends share a process, so no frame is lost, and none is kept.
            let capabilities = Capabilities { supports_traces: dialler.supports_traces(), ..Capabilities::plain() };
            Dialled { socket: near, answer: Answer { received: 0, capabilities } }
        }
        AppTarget::DialsIn(_) => return Err(DialError::Handshake("the app server dials in".into())),
    };
    answer_handshake(&mut dialled.socket).await?;
    Ok(dialled)
}

async fn upgrade(
    pool: &Pool,
    slot: usize,
    offer: &Offer,
    address: &Address,
    boot: &str,
    caller: Caller<'_>,
) -> Result<Dialled, DialError> {
    let target = format!("{LINK_PATH}?hub={}", pool.hub.name());
    let mut request = link_request(&target, boot, &pool.app.instance, offer).map_err(RequestError::from)?;
    request.headers_mut().insert(SLOT_HEADER, slot.into());
    Ok(open_link(caller.send(address, request).await?, offer).await?)
}

/// Reason why the answer to a [`link_request`] is no upgrade.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkUpgradeError {
    #[error("another process answers")]
    OtherInstance,
    /// The peer has ended the session, or never had it.
    #[error("the session is unknown to the peer")]
    UnknownSession,
    #[error("the session headers of the answer are invalid: {0}")]
    Answer(#[from] MalformedHeader),
    #[error("the peer answers {0} instead of an upgrade")]
    Status(StatusCode),
    #[error("the upgrade failed: {0}")]
    Upgrade(#[from] hyper::Error),
}

/// Builds the request for the upgrade of a link: the process with this boot id offers a session to a process.
pub(crate) fn link_request(
    target: &str,
    boot: &str,
    instance: &str,
    offer: &Offer,
) -> Result<Request<Body>, http::Error> {
    let mut request = Request::get(target)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, generate_key())
        .header(BOOT_HEADER, boot)
        .header(INSTANCE_HEADER, instance)
        .body(Body::empty())?;
    write_offer(offer, request.headers_mut());
    Ok(request)
}

/// Opens the link that an answer grants.
pub(crate) async fn open_link(response: Response<Incoming>, offer: &Offer) -> Result<Dialled, LinkUpgradeError> {
    match response.status() {
        StatusCode::SWITCHING_PROTOCOLS => {}
        StatusCode::CONFLICT => return Err(LinkUpgradeError::OtherInstance),
        StatusCode::GONE => return Err(LinkUpgradeError::UnknownSession),
        status => return Err(LinkUpgradeError::Status(status)),
    }
    let answer = read_answer(response.headers(), offer)?;
    let websocket = into_websocket(hyper::upgrade::on(response).await?, Role::Client).await;
    Ok(Dialled { socket: LinkSocket::network(websocket), answer })
}

/// Creates the WebSocket of a link to an app server or node.
pub(crate) async fn into_websocket(upgraded: Upgraded, side: Role) -> UpstreamWebSocket {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(Some(MESSAGE_MAX_BYTES))
        .max_frame_size(Some(MESSAGE_MAX_BYTES));
    // Bytes read along with the response stay in hyper. With from_partially_read they would size the buffer at every
    // reallocation, and each message would take two reads.
    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), side, Some(config)).await
}

impl From<LinkEnd> for DialError {
    fn from(end: LinkEnd) -> Self {
        match end {
            LinkEnd::HandshakeTimeout => Self::Timeout,
            other => Self::Handshake(other.reason(LinkRole::Proxy)),
        }
    }
}

/// Link requested by an app server through dial-in, before its handshake.
#[derive(Debug)]
pub(crate) struct IncomingLink {
    pub upgrade: OnUpgrade,
    pub hub: Arc<Hub>,
    /// Id of the app server, shared by all its links.
    pub instance: String,
    /// Address of the app server; `None` if another node carries the link.
    pub from: Option<IpAddr>,
    /// Host that the app server dialled.
    pub endpoint: String,
    pub signer: TokenSigner,
    /// Whether another node carries the link.
    pub is_carried: bool,
    /// Reason to refuse the handshake, if already known.
    pub refusal: Option<String>,
    /// Permit of the link, held until its socket is closed.
    pub permit: Arc<LinkPermit>,
}
