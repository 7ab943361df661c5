//! The first two frames of a link: the app server asks, the proxy answers.

use std::time::Duration;

use tokio::time::timeout;
use trunkline_protocol::id::random_id;
use trunkline_protocol::limits::LINK_HANDSHAKE_TIMEOUT_MS;
use trunkline_protocol::service::{LinkHandshakeRequest, LinkHandshakeResponse, LinkKind, ServiceMessage};

use super::{LinkEnd, LinkSocket, LinkWebSocket};

/// The only version of the service protocol.
const SERVICE_PROTOCOL_VERSION: i64 = 1;

/// The app server's part: asks, and waits for the answer.
///
/// # Errors
/// When the proxy refuses, or does not answer in time.
pub async fn request_handshake<S: LinkWebSocket>(socket: &mut LinkSocket<S>) -> Result<(), LinkEnd> {
    in_time(async {
        let request = LinkHandshakeRequest { version: SERVICE_PROTOCOL_VERSION, ..LinkHandshakeRequest::default() };
        socket.writer.send(ServiceMessage::HandshakeRequest(request).to_frame()).await?;
        match socket.reader.next_message().await? {
            Some(ServiceMessage::HandshakeResponse(response)) => match response.error.filter(|text| !text.is_empty()) {
                None => Ok(()),
                Some(text) => Err(LinkEnd::HandshakeRefused(text.into())),
            },
            other => Err(LinkEnd::HandshakeMissing(other.map(|message| message.name()))),
        }
    })
    .await
}

/// The proxy's part: waits until it is asked, and answers.
///
/// # Errors
/// When the request is not one that a proxy can accept, or does not come in time.
pub async fn answer_handshake<S: LinkWebSocket>(socket: &mut LinkSocket<S>) -> Result<(), LinkEnd> {
    in_time(async {
        let refusal = match socket.reader.next_message().await? {
            Some(ServiceMessage::HandshakeRequest(request)) => refusal(request.version, request.kind),
            other => return Err(LinkEnd::HandshakeMissing(other.map(|message| message.name()))),
        };
        let error = refusal.clone().map(Into::into);
        let response = LinkHandshakeResponse { error, connection_id: Some(random_id().into()) };
        socket.writer.send(ServiceMessage::HandshakeResponse(response).to_frame()).await?;
        refusal.map_or(Ok(()), |text| Err(LinkEnd::HandshakeRefused(text)))
    })
    .await
}

async fn in_time(shaking: impl Future<Output = Result<(), LinkEnd>>) -> Result<(), LinkEnd> {
    let limit = Duration::from_millis(LINK_HANDSHAKE_TIMEOUT_MS);
    timeout(limit, shaking).await.unwrap_or(Err(LinkEnd::HandshakeTimeout))
}

fn refusal(version: i64, kind: LinkKind) -> Option<String> {
    match (version, kind) {
        (SERVICE_PROTOCOL_VERSION, LinkKind::Unknown(number)) => Some(format!("link kind {number} is not known")),
        (SERVICE_PROTOCOL_VERSION, _) => None,
        (other, _) => Some(format!("service protocol version {other} is not supported, 1 is")),
    }
}
