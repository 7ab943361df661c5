//! The first two frames of a link: the app server asks, the proxy answers.

use std::time::Duration;

use trunkline_protocol::limits::LINK_HANDSHAKE_TIMEOUT_MS;
use trunkline_protocol::service::{FrameBuffer, LinkHandshakeRequest, ServiceMessage};

use super::LinkEnd;
use super::socket::LinkSocket;

/// Version of the service protocol; there is no other.
const VERSION: i64 = 1;

/// What came behind the proxy's answer.
pub(super) type Frames = FrameBuffer;

/// Shakes hands. Returns the buffer, in which frames may wait already.
pub(super) async fn shake(socket: &mut LinkSocket) -> Result<Frames, LinkEnd> {
    let limit = Duration::from_millis(LINK_HANDSHAKE_TIMEOUT_MS);
    tokio::time::timeout(limit, ask(socket)).await.unwrap_or(Err(LinkEnd::HandshakeTimeout))
}

async fn ask(socket: &mut LinkSocket) -> Result<Frames, LinkEnd> {
    let request = LinkHandshakeRequest { version: VERSION, ..LinkHandshakeRequest::default() };
    socket.writer.send(ServiceMessage::HandshakeRequest(request).to_frame()).await?;
    let mut frames = Frames::default();
    loop {
        frames.push(socket.reader.next().await?);
        if let Some(body) = frames.next_body()? {
            return check(ServiceMessage::decode(&body)?).map(|()| frames);
        }
    }
}

fn check(answer: Option<ServiceMessage>) -> Result<(), LinkEnd> {
    match answer {
        Some(ServiceMessage::HandshakeResponse(response)) => match response.error.filter(|error| !error.is_empty()) {
            None => Ok(()),
            Some(error) => Err(LinkEnd::HandshakeRefused(error.into())),
        },
        Some(other) => Err(LinkEnd::HandshakeMissing(other.name())),
        None => Err(LinkEnd::HandshakeMissing("a message of an unknown type")),
    }
}
