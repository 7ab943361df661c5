//! The first two frames of a link: the app server asks, the proxy answers.

use std::time::Duration;

use axum::extract::ws::Message;
use futures_util::{SinkExt, StreamExt};
use tokio_util::sync::CancellationToken;
use trunkline_protocol::limits::LINK_HANDSHAKE_TIMEOUT_MS;
use trunkline_protocol::service::{FrameBuffer, HandshakeRequest, ServiceMessage};

use super::{LinkEnd, Sink, Stream};

/// Version of the service protocol; there is no other.
const VERSION: i64 = 1;

/// What came behind the proxy's answer.
pub(super) type Frames = FrameBuffer;

/// Shakes hands. Returns the buffer, in which frames may wait already.
pub(super) async fn shake(sink: &mut Sink, stream: &mut Stream, stop: &CancellationToken) -> Result<Frames, LinkEnd> {
    let shaking = tokio::time::timeout(Duration::from_millis(LINK_HANDSHAKE_TIMEOUT_MS), ask(sink, stream));
    tokio::select! {
        shaken = shaking => shaken.unwrap_or(Err(LinkEnd::HandshakeTimeout)),
        () = stop.cancelled() => Err(LinkEnd::Replaced),
    }
}

async fn ask(sink: &mut Sink, stream: &mut Stream) -> Result<Frames, LinkEnd> {
    let request = HandshakeRequest { version: VERSION, ..HandshakeRequest::default() };
    let frame = ServiceMessage::HandshakeRequest(request).to_frame();
    sink.send(Message::Binary(frame)).await.map_err(LinkEnd::Socket)?;
    let mut frames = Frames::default();
    loop {
        match stream.next().await {
            None | Some(Ok(Message::Close(_))) => return Err(LinkEnd::Closed),
            Some(Err(error)) => return Err(LinkEnd::Socket(error)),
            Some(Ok(Message::Text(_))) => return Err(LinkEnd::Text),
            Some(Ok(Message::Binary(bytes))) => frames.push(bytes),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
        }
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
