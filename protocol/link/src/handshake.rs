//! The first two frames of a link: a request by the app server and the proxy's answer.

use std::time::Duration;

use tokio::time::timeout;
use trunkline_protocol::id::random_id;
use trunkline_protocol::limits::LINK_HANDSHAKE_TIMEOUT_MS;
use trunkline_protocol::service::{LinkHandshakeRequest, LinkHandshakeResponse, LinkKind, ServiceMessage};

use super::{LinkEnd, LinkSocket, LinkWebSocket};

/// The only version of the service protocol.
const SERVICE_PROTOCOL_VERSION: i64 = 1;

/// When a service moves clients of a server connection to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MigrationLevel {
    /// Clients are never moved.
    Off,
    /// When the app server shuts down gracefully.
    OnShutdown,
}

impl MigrationLevel {
    fn number(self) -> i64 {
        match self {
            Self::Off => 0,
            Self::OnShutdown => 1,
        }
    }
}

/// Whether clients of a server connection may use stateful reconnect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatefulReconnects {
    /// The client connection ends with its socket.
    Refused,
    /// A client may continue over another socket.
    Allowed,
}

/// Performs the app server's part: sends the request and waits for the answer. Fails if the proxy refuses or does not
/// answer in time.
pub async fn request_handshake<S: LinkWebSocket>(socket: &mut LinkSocket<S>) -> Result<(), LinkEnd> {
    request_handshake_for(socket, LinkKind::Default, MigrationLevel::Off, StatefulReconnects::Refused).await
}

/// Performs the part of an app server that dialled a service: requests a server connection of this kind. Fails as
/// [`request_handshake`] does.
pub async fn request_handshake_for<S: LinkWebSocket>(
    socket: &mut LinkSocket<S>,
    kind: LinkKind,
    migration: MigrationLevel,
    reconnects: StatefulReconnects,
) -> Result<(), LinkEnd> {
    in_time(async {
        let (version, migration_level) = (SERVICE_PROTOCOL_VERSION, migration.number());
        let allow_stateful_reconnects = reconnects == StatefulReconnects::Allowed;
        let request = LinkHandshakeRequest {
            version,
            kind,
            migration_level,
            allow_stateful_reconnects,
            ..LinkHandshakeRequest::default()
        };
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

/// Performs the proxy's part: waits for the request and answers it. Fails if the request is unacceptable or does not
/// arrive in time.
pub async fn answer_handshake<S: LinkWebSocket>(socket: &mut LinkSocket<S>) -> Result<(), LinkEnd> {
    answer_handshake_if(socket, |_| None).await.map(|_| ())
}

/// Like [`answer_handshake`], with an additional check of the request, which it returns. Fails as [`answer_handshake`]
/// does.
pub async fn answer_handshake_if<S: LinkWebSocket>(
    socket: &mut LinkSocket<S>,
    further_refusal: impl FnOnce(&LinkHandshakeRequest) -> Option<String>,
) -> Result<LinkHandshakeRequest, LinkEnd> {
    in_time(async {
        let request = match socket.reader.next_message().await? {
            Some(ServiceMessage::HandshakeRequest(request)) => request,
            other => return Err(LinkEnd::HandshakeMissing(other.map(|message| message.name()))),
        };
        let refusal = refusal(request.version, request.kind).or_else(|| further_refusal(&request));
        let error = refusal.clone().map(Into::into);
        let response = LinkHandshakeResponse { error, connection_id: Some(random_id().into()) };
        socket.writer.send(ServiceMessage::HandshakeResponse(response).to_frame()).await?;
        refusal.map_or(Ok(request), |text| Err(LinkEnd::HandshakeRefused(text)))
    })
    .await
}

async fn in_time<T>(shaking: impl Future<Output = Result<T, LinkEnd>>) -> Result<T, LinkEnd> {
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
