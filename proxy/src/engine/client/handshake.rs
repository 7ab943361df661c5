//! Hub handshake: reads the client's request before its connection is opened. Raw endpoints have none.
//! Failed handshakes have a reason, and resulting frames for the client.

use std::future::poll_fn;
use std::io::IoSlice;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::task::yield_now;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::{
    Close, HandshakeError, HandshakeRequest, HandshakeResponse, HubMessage, HubProtocol, MessageKind, next_frame,
};
use trunkline_protocol::limits::HANDSHAKE_MAX_BYTES;
use trunkline_protocol::manifest::{HubManifest, Transport};

use super::inbound::{Inbound, Piece};
use super::reader::cause_of;
use crate::engine::shard::{Content, Need, Outbox, Shard, message_frame};
use crate::engine::transport::websocket::{self, CLOSE_GOING_AWAY, CLOSE_NORMAL, CLOSE_PROTOCOL_ERROR, Opcode};
use crate::ground::net::socket::Socket;

/// Maximum transport bytes before the handshake is complete, about two full reads. Includes pings and empty frames,
/// which the handshake's own limit does not cover.
const TRANSPORT_MAX_BYTES: usize = 4 * HANDSHAKE_MAX_BYTES;

#[derive(Debug)]
pub(super) struct Handshake {
    pub(super) request: HandshakeRequest,
    /// Encoded request, for the app server.
    pub(super) bytes: Vec<u8>,
}

impl Handshake {
    /// Checks that the hub supports this protocol, and that the transport can carry it.
    ///
    /// With `any_version`, the app server checks the version.
    pub(super) fn check(
        self,
        settings: &HubManifest,
        transport: Transport,
        any_version: bool,
    ) -> Result<Self, HandshakeFailure> {
        let protocol = self.request.protocol;
        if !any_version {
            self.request.check_version()?;
        }
        if !settings.speaks(protocol) {
            return Err(HandshakeError::Protocol(protocol.name().into()).into());
        }
        if transport == Transport::ServerSentEvents && protocol.is_binary() {
            return Err(HandshakeError::TransferFormat(protocol.name().into()).into());
        }
        Ok(self)
    }

    /// Content of the transport after this handshake; raw without one.
    pub(super) fn content(handshake: Option<&Self>) -> Content {
        handshake.map_or(Content::Raw, |handshake| Content::Hub(handshake.request.protocol))
    }
}

/// Socket of a client before its connection is opened.
#[derive(Debug)]
pub(super) struct PendingSocket {
    pub(super) socket: Socket,
    pub(super) inbound: Inbound,
    /// The token allows stateful reconnect, so the client may be returning to a connection that no longer exists.
    pub(super) may_return: bool,
    /// Maximum size of a hub message.
    pub(super) limit_bytes: usize,
}

impl PendingSocket {
    /// Reads the hub handshake, which starts with these early bytes.
    pub(super) async fn read_handshake(&mut self, shard: &Shard, early: Bytes) -> Result<Handshake, HandshakeFailure> {
        let (mut payload, mut searched) = (Vec::new(), 0);
        let mut received = self.take_bytes(shard, &mut early.to_vec(), &mut payload)?;
        loop {
            let read = HandshakeRequest::read_behind(&payload, searched, HANDSHAKE_MAX_BYTES);
            if self.may_return
                && !matches!(read, Ok(Some(_)))
                && let Some(protocol) = protocol_of_message(&payload)
            {
                return Err(HandshakeFailure::Returned(protocol));
            }
            if let Some((request, used)) = read? {
                self.inbound.keep(payload.get(used..).unwrap_or_default());
                payload.truncate(used);
                return Ok(Handshake { request, bytes: payload });
            }
            if received > TRANSPORT_MAX_BYTES {
                return Err(HandshakeError::Canceled.into());
            }
            searched = payload.len();
            received += self.read_payload(shard, &mut payload).await?;
        }
    }

    /// Sends the client the reason for the refusal, and waits for its close. Dropping the socket earlier could lose the
    /// last frames.
    pub(super) async fn refuse(mut self, shard: &Shard, failure: &HandshakeFailure, settings: &HubManifest) {
        let mut outbox = Outbox::Empty;
        failure.frames(settings).into_iter().for_each(|frame| outbox.push(frame, Need::Must));
        if poll_fn(|cx| outbox.poll_flush(cx, &self.socket)).await.is_err() || failure.is_closed() {
            return;
        }
        self.left(shard).await;
    }

    /// Waits until the client has left, ignoring its data.
    pub(super) async fn left(&mut self, shard: &Shard) {
        let mut ignored = Vec::new();
        while self.read_payload(shard, &mut ignored).await.is_ok() {
            ignored.clear();
        }
    }

    /// Reads once, appends the hub protocol's data to the payload, and returns the number of bytes read.
    async fn read_payload(&mut self, shard: &Shard, payload: &mut Vec<u8>) -> Result<usize, HandshakeFailure> {
        let count = if self.inbound.is_behind() {
            let mut behind = self.inbound.take_behind();
            self.take_bytes(shard, &mut behind, payload)?
        } else {
            poll_fn(|cx| self.poll_read(shard, cx, payload)).await?
        };
        // Handshakes rarely need several reads; a flood must not block other tasks.
        yield_now().await;
        Ok(count)
    }

    fn poll_read(
        &mut self,
        shard: &Shard,
        cx: &mut Context<'_>,
        payload: &mut Vec<u8>,
    ) -> Poll<Result<usize, HandshakeFailure>> {
        let mut buffer = shard.state().core.lend_read_buffer();
        let read = self.socket.poll_read(cx, &mut buffer).map(|read| match read {
            Ok(count @ 1..) => self.take_bytes(shard, buffer.get_mut(..count).unwrap_or_default(), payload),
            Ok(0) => Err(HandshakeFailure::SocketEnded(Cause::SocketEnded)),
            Err(error) => Err(HandshakeFailure::SocketEnded(cause_of(&error))),
        });
        shard.state().core.return_read_buffer(buffer);
        read
    }

    /// Appends the hub protocol's data of these bytes to the payload. Returns the number of bytes handled.
    fn take_bytes(
        &mut self,
        shard: &Shard,
        bytes: &mut [u8],
        payload: &mut Vec<u8>,
    ) -> Result<usize, HandshakeFailure> {
        let Self { socket, inbound, limit_bytes, .. } = self;
        let (mut is_closed, mut pongs) = (false, BytesMut::new());
        let mut inflater = shard.state().core.inflater.take();
        let (mut pieces, _) = inbound.pieces(bytes, (&mut inflater, *limit_bytes));
        while let Some(piece) = pieces.next().map_err(|error| HandshakeFailure::Transport(error.to_string()))? {
            match piece {
                Piece::Payload(piece, _) => payload.extend_from_slice(piece),
                Piece::Ping(payload) => websocket::put_pong(&payload, &mut pongs),
                Piece::Close => is_closed = true,
            }
        }
        let length = pieces.length();
        shard.state().core.inflater = inflater;
        if !pongs.is_empty() {
            // No data was sent yet, so there is room. A socket that accepts none is about to fail.
            drop(socket.try_write(&[IoSlice::new(&pongs)]));
        }
        if is_closed { Err(HandshakeFailure::ClientClosed) } else { Ok(length) }
    }
}

/// Hub protocol of a client that starts with a message instead of a handshake; `None` for other data.
fn protocol_of_message(payload: &[u8]) -> Option<HubProtocol> {
    [HubProtocol::Json, HubProtocol::MessagePack].into_iter().find(|protocol| {
        let frame = next_frame(*protocol, payload, HANDSHAKE_MAX_BYTES).ok().flatten();
        let scan = frame.and_then(|frame| protocol.scan(payload.get(frame.body)?).ok());
        scan.is_some_and(|scan| !matches!(scan.kind, MessageKind::Unknown(_)))
    })
}

/// Failed handshake: its reason, and the resulting frames for the client.
#[derive(Debug)]
pub(super) enum HandshakeFailure {
    /// The hub handshake is answered with this error.
    Refused(HandshakeError),
    /// The handshake is valid, but the app servers are gone or this node is draining. The client may retry.
    TryAgain(Content),
    /// Tokens of the user were revoked during the connect. The client may retry with a valid one.
    Revoked(Content),
    /// The client returned to a connection that no longer exists: it sends messages of this protocol without a
    /// handshake.
    Returned(HubProtocol),
    TimedOut,
    /// The client violated the transport protocol.
    Transport(String),
    /// The client closed its transport.
    ClientClosed,
    SocketEnded(Cause),
}

impl HandshakeFailure {
    /// Standard cause; `is_drained` if this node is draining.
    pub(super) fn cause(&self, is_drained: bool) -> Cause {
        match self {
            Self::Refused(HandshakeError::Canceled) => Cause::HandshakeTooLarge,
            Self::Refused(HandshakeError::Malformed { .. }) => Cause::HandshakeInvalid,
            Self::Refused(_) => Cause::HandshakeUnsupported,
            Self::TryAgain(_) if is_drained => Cause::Drained,
            Self::TryAgain(_) => Cause::NoAppServer,
            Self::Revoked(_) => Cause::TokenRevoked,
            Self::Returned(_) => Cause::IdUnknown,
            Self::TimedOut => Cause::HandshakeTimeout,
            Self::Transport(_) => Cause::WebsocketProtocol,
            Self::ClientClosed => Cause::ClientClosed,
            Self::SocketEnded(cause) => *cause,
        }
    }

    /// Detail for logs and history, if the cause is not sufficient.
    pub(super) fn detail(&self) -> Option<String> {
        match self {
            Self::Refused(HandshakeError::Malformed { detail }) => Some(detail.clone()),
            Self::Refused(error) => Some(error.to_string()),
            Self::Transport(detail) => Some(detail.clone()),
            _ => None,
        }
    }

    /// Whether the transport is closed or the socket has ended, so no close can be awaited.
    pub(super) fn is_closed(&self) -> bool {
        matches!(self, Self::ClientClosed | Self::SocketEnded(_))
    }

    /// Last frames for the client: the handshake answer, if a request was read, and the transport's close.
    pub(super) fn frames(&self, settings: &HubManifest) -> Vec<Bytes> {
        let mut frames = Vec::new();
        match self {
            Self::SocketEnded(_) => return frames,
            Self::ClientClosed => {}
            Self::Transport(_) => {
                frames.push(websocket::close_frame(CLOSE_PROTOCOL_ERROR));
                return frames;
            }
            Self::TimedOut => frames.push(handshake_answer(Some(HandshakeError::Canceled.to_string()))),
            Self::Refused(error) => {
                let text = match error {
                    HandshakeError::Malformed { detail } if settings.detailed_errors => {
                        format!("{error} InvalidDataException: {detail}")
                    }
                    other => other.to_string(),
                };
                frames.push(handshake_answer(Some(text)));
            }
            Self::TryAgain(Content::Raw) | Self::Revoked(Content::Raw) => {
                frames.push(websocket::close_frame(CLOSE_GOING_AWAY));
                return frames;
            }
            Self::TryAgain(Content::Hub(protocol)) | Self::Revoked(Content::Hub(protocol)) => {
                frames.push(handshake_answer(None));
                frames.push(reconnect(*protocol));
            }
            Self::Returned(protocol) => {
                // The client ignores messages before a sequence number. With one not above its own, it starts over.
                frames.push(message_frame(*protocol, &HubMessage::Sequence { sequence_id: 1 }));
                frames.push(reconnect(*protocol));
            }
        }
        frames.push(websocket::close_frame(CLOSE_NORMAL));
        frames
    }
}

impl From<HandshakeError> for HandshakeFailure {
    fn from(error: HandshakeError) -> Self {
        Self::Refused(error)
    }
}

/// Close message that allows the client to reconnect.
fn reconnect(protocol: HubProtocol) -> Bytes {
    message_frame(protocol, &HubMessage::Close(Close { error: None, allow_reconnect: true }))
}

fn handshake_answer(error: Option<String>) -> Bytes {
    websocket::frame(Opcode::Text, &HandshakeResponse { error }.encode())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_instead_of_a_handshake_reveals_its_protocol() {
        let (json, message_pack) = (Some(HubProtocol::Json), Some(HubProtocol::MessagePack));
        assert_eq!(protocol_of_message(b"{\"type\":9,\"sequenceId\":1}\x1e{\"type\":1"), json);
        assert_eq!(protocol_of_message(b"{\"sequenceId\":4,\"type\":9}\x1e"), json);
        assert_eq!(protocol_of_message(b"\x03\x92\x09\x01"), message_pack);
        assert_eq!(protocol_of_message(b"\x03\x92\x09\x1e\x02\x91\x06"), message_pack, "a separator is a number here");
        assert_eq!(protocol_of_message(b"\x02\x91\x06"), message_pack);
        for other in [
            &b"{\"protocol\":\"json\",\"version\":2}\x1e"[..],
            b"{\"type\":9,\"sequenceId\":1}",
            b"\x03\x92\x09",
            b"{\"type\":99}\x1e",
            b"GET / HTTP/1.1\r\n\x1e",
            b"\x1e",
            b"",
        ] {
            assert_eq!(protocol_of_message(other), None, "{other:?}");
        }
    }

    fn frames(failure: &HandshakeFailure) -> Vec<u8> {
        failure.frames(&HubManifest::new("chat", "/chat")).concat()
    }

    #[test]
    fn a_client_without_an_app_server_is_accepted_and_asked_to_reconnect() {
        let told = frames(&HandshakeFailure::TryAgain(Content::Hub(HubProtocol::Json)));
        let told = String::from_utf8_lossy(&told).into_owned();
        assert!(told.contains("{}\u{1e}") && told.contains("\"allowReconnect\":true"), "{told}");
        assert_eq!(frames(&HandshakeFailure::TryAgain(Content::Raw)), websocket::close_frame(CLOSE_GOING_AWAY));
    }

    #[test]
    fn a_client_that_can_not_resume_is_asked_to_start_over_in_its_own_protocol() {
        let told = frames(&HandshakeFailure::Returned(HubProtocol::Json));
        let told = String::from_utf8_lossy(&told).into_owned();
        let (sequence, close) = (told.find("{\"type\":9,\"sequenceId\":1}"), told.find("\"allowReconnect\":true"));
        assert!(sequence < close && sequence.is_some() && !told.contains("error"), "{told}");
        let told = frames(&HandshakeFailure::Returned(HubProtocol::MessagePack));
        assert!(told.starts_with(b"\x82\x04\x03\x92\x09\x01\x82"), "{told:?}");
    }

    #[test]
    fn only_a_client_that_still_reads_is_answered() {
        assert_eq!(frames(&HandshakeFailure::SocketEnded(Cause::SocketReset)), b"");
        assert_eq!(frames(&HandshakeFailure::ClientClosed), websocket::close_frame(CLOSE_NORMAL));
        assert_eq!(frames(&HandshakeFailure::Transport("bad".into())), websocket::close_frame(CLOSE_PROTOCOL_ERROR));
        assert!(String::from_utf8_lossy(&frames(&HandshakeFailure::TimedOut)).contains("\"error\":"));
    }

    #[test]
    fn the_cause_of_a_missing_app_server_depends_on_the_drain() {
        let failure = HandshakeFailure::TryAgain(Content::Raw);
        assert_eq!((failure.cause(false), failure.cause(true)), (Cause::NoAppServer, Cause::Drained));
    }
}
