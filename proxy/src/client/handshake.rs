//! Hub handshake: reads the client's request before its connection is opened. At a raw endpoint there is none.

use std::future::poll_fn;
use std::io::IoSlice;
use std::task::{Context, Poll};

use bytes::Bytes;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::{HandshakeError, HandshakeRequest, HubProtocol};
use trunkline_protocol::limits::HANDSHAKE_MAX_BYTES;
use trunkline_protocol::manifest::{HubManifest, Transport};

use super::handshake_failure::HandshakeFailure;
use super::inbound::{Inbound, Piece};
use super::reader::cause_of;
use crate::net::socket::Socket;
use crate::shard::{Content, Shard};
use crate::transport::websocket;

/// Hub handshake of a client.
#[derive(Debug)]
pub(super) struct Handshake {
    pub(super) request: HandshakeRequest,
    /// Its bytes, for the app server.
    pub(super) bytes: Vec<u8>,
}

impl Handshake {
    /// Checks that the hub speaks this protocol, and that the transport can carry it.
    pub(super) fn check(self, settings: &HubManifest, transport: Transport) -> Result<Self, HandshakeFailure> {
        let protocol = self.request.protocol;
        if !settings.speaks(protocol) {
            return Err(HandshakeError::Protocol(protocol.name().into()).into());
        }
        if transport == Transport::ServerSentEvents && protocol == HubProtocol::MessagePack {
            return Err(HandshakeError::TransferFormat(protocol.name().into()).into());
        }
        Ok(self)
    }

    /// Content that the transport carries after this handshake; raw without one.
    pub(super) fn content(handshake: Option<&Self>) -> Content {
        handshake.map_or(Content::Raw, |handshake| Content::Hub(handshake.request.protocol))
    }
}

/// Socket of a client whose connection is not open yet.
#[derive(Debug)]
pub(super) struct PendingSocket {
    pub(super) socket: Socket,
    pub(super) inbound: Inbound,
}

impl PendingSocket {
    /// Reads the hub handshake, which begins with these early bytes.
    pub(super) async fn read_handshake(&mut self, shard: &Shard, early: Bytes) -> Result<Handshake, HandshakeFailure> {
        let mut payload = Vec::new();
        self.take(&mut early.to_vec(), &mut payload)?;
        loop {
            if let Some((request, used)) = HandshakeRequest::read(&payload, HANDSHAKE_MAX_BYTES)? {
                self.inbound.keep(payload.get(used..).unwrap_or_default());
                payload.truncate(used);
                return Ok(Handshake { request, bytes: payload });
            }
            poll_fn(|cx| self.poll_read(shard, cx, &mut payload)).await?;
        }
    }

    /// Tells the client why it is not accepted, and waits for its close: dropping the socket before could cost it the
    /// last frames.
    pub(super) async fn refuse(mut self, shard: &Shard, failure: &HandshakeFailure, settings: &HubManifest) {
        let mut frames = failure.frames(settings);
        if poll_fn(|cx| frames.poll_flush(cx, &self.socket)).await.is_err() || failure.is_closed() {
            return;
        }
        let mut ignored = Vec::new();
        while poll_fn(|cx| self.poll_read(shard, cx, &mut ignored)).await.is_ok() {
            ignored.clear();
        }
    }

    /// Reads once, and appends the hub protocol's part to the payload.
    fn poll_read(
        &mut self,
        shard: &Shard,
        cx: &mut Context<'_>,
        payload: &mut Vec<u8>,
    ) -> Poll<Result<(), HandshakeFailure>> {
        let mut buffer = shard.state().lend_read_buffer();
        let read = self.socket.poll_read(cx, &mut buffer).map(|read| match read {
            Ok(count @ 1..) => self.take(buffer.get_mut(..count).unwrap_or_default(), payload),
            Ok(0) => Err(HandshakeFailure::SocketEnded(Cause::SocketEnded)),
            Err(error) => Err(HandshakeFailure::SocketEnded(cause_of(&error))),
        });
        shard.state().return_read_buffer(buffer);
        read
    }

    fn take(&mut self, bytes: &mut [u8], payload: &mut Vec<u8>) -> Result<(), HandshakeFailure> {
        let Self { socket, inbound } = self;
        let mut is_closed = false;
        let mut pieces = inbound.pieces(bytes);
        while let Some(piece) = pieces.next().map_err(|error| HandshakeFailure::Transport(error.to_string()))? {
            match piece {
                Piece::Payload(piece, _) => payload.extend_from_slice(piece),
                // Nothing was sent to it yet, so there is room; a socket that takes nothing now is gone soon.
                Piece::Ping(payload) => drop(socket.try_write(&[IoSlice::new(&websocket::pong(&payload))])),
                Piece::Close => is_closed = true,
            }
        }
        if is_closed { Err(HandshakeFailure::ClientClosed) } else { Ok(()) }
    }
}
