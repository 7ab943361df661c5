//! Transport frames of downstream messages, created once per message and shared by all receivers,
//! and their compressed twins.

use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use trunkline_protocol::hub::{HubMessage, HubProtocol, whole_messages};
use trunkline_protocol::service::{Payloads, RawKind};

use crate::engine::shard::content::Content;
use crate::engine::transport::websocket::{self, Deflater, Opcode, payload_bytes};
use crate::ground::config::OutboxLimits;

/// Size above which a message is compressed by the task that reads it from a link, in pieces, before the shards get it.
pub(crate) const LARGE_BYTES: usize = 64 * 1024;

/// One message in the transport frame of each protocol: JSON and raw text, MessagePack and raw bytes,
/// BlazorPack.
#[derive(Debug, Clone)]
pub(crate) struct Framed {
    text: Option<Bytes>,
    binary: Option<Bytes>,
    blazor: Option<Bytes>,
    /// Compressed twins of large frames, once made; shared by the shards.
    twins: Option<Arc<[OnceLock<Bytes>; 3]>>,
}

impl Framed {
    pub(crate) fn new(payloads: &Payloads) -> Self {
        let frame = |protocol, kind| {
            let payload = payloads.get(protocol).or_else(|| payloads.get_raw(kind));
            payload.map(|payload| frame_for(protocol, payload))
        };
        let blazor = payloads.get(HubProtocol::BlazorPack).map(|payload| frame_for(HubProtocol::BlazorPack, payload));
        let (text, binary) =
            (frame(HubProtocol::Json, RawKind::Text), frame(HubProtocol::MessagePack, RawKind::Binary));
        let is_large = |frame: &Option<Bytes>| frame.as_ref().is_some_and(|frame| payload_bytes(frame) > LARGE_BYTES);
        let twins = [&text, &binary, &blazor].into_iter().any(is_large).then(Arc::default);
        Self { text, binary, blazor, twins }
    }

    pub(crate) fn is_large(&self) -> bool {
        self.twins.is_some()
    }

    /// Twin of the large frame of a protocol, if made.
    pub(crate) fn twin(&self, content: Content) -> Option<&Bytes> {
        self.twin_slot(content)?.get()
    }

    pub(crate) fn set_twin(&self, content: Content, twin: Bytes) {
        let _ = self.twin_slot(content).map(|slot| slot.set(twin));
    }

    fn twin_slot(&self, content: Content) -> Option<&OnceLock<Bytes>> {
        let [text, binary, blazor] = &**self.twins.as_ref()?;
        Some(match content {
            Content::Hub(HubProtocol::Json) | Content::Raw => text,
            Content::Hub(HubProtocol::MessagePack) => binary,
            Content::Hub(HubProtocol::BlazorPack) => blazor,
        })
    }

    /// Joins messages with frames for identical contents.
    #[must_use]
    pub(crate) fn join<'a>(messages: impl Iterator<Item = &'a Framed> + Clone) -> Self {
        let join = |frame_of: fn(&Framed) -> Option<&Bytes>| {
            let frames: Vec<&[u8]> = messages.clone().filter_map(frame_of).map(|frame| &frame[..]).collect();
            (!frames.is_empty()).then(|| frames.concat().into())
        };
        Self {
            text: join(|message| message.text.as_ref()),
            binary: join(|message| message.binary.as_ref()),
            blazor: join(|message| message.blazor.as_ref()),
            twins: None,
        }
    }

    /// Whether both messages have frames for the same contents.
    pub(crate) fn is_like(&self, other: &Framed) -> bool {
        let shape = |message: &Framed| [&message.text, &message.binary, &message.blazor].map(Option::is_some);
        shape(self) == shape(other)
    }

    pub(crate) fn bytes(&self) -> usize {
        [&self.text, &self.binary, &self.blazor].into_iter().flatten().map(Bytes::len).sum()
    }

    /// Frame for clients with this content; `None` skips them.
    pub(crate) fn get(&self, content: Content) -> Option<&Bytes> {
        match content {
            Content::Hub(HubProtocol::Json) => self.text.as_ref(),
            Content::Hub(HubProtocol::MessagePack) => self.binary.as_ref(),
            Content::Hub(HubProtocol::BlazorPack) => self.blazor.as_ref(),
            Content::Raw => self.text.as_ref().or(self.binary.as_ref()),
        }
    }
}

/// Transport frame of encoded hub messages in this protocol.
pub(crate) fn frame_for(protocol: HubProtocol, payload: &[u8]) -> Bytes {
    websocket::frame(if protocol.is_binary() { Opcode::Binary } else { Opcode::Text }, payload)
}

pub(crate) fn message_frame(protocol: HubProtocol, message: &HubMessage) -> Bytes {
    let mut encoded = BytesMut::new();
    protocol.encode(message, &mut encoded);
    frame_for(protocol, &encoded)
}

pub(crate) fn raw_frame(kind: RawKind, payload: &[u8]) -> Bytes {
    let opcode = match kind {
        RawKind::Text => Opcode::Text,
        RawKind::Binary => Opcode::Binary,
    };
    websocket::frame(opcode, payload)
}

/// Whether the bytes are a close message that permits reconnecting, which app servers send to clients when they
/// stop.
pub(crate) fn is_goodbye(protocol: HubProtocol, payload: &[u8]) -> bool {
    let Some(message) = whole_messages(protocol, payload).next() else { return false };
    let message = protocol.decode(&Bytes::copy_from_slice(message.body));
    matches!(message, Ok(Some(HubMessage::Close(close))) if close.allow_reconnect)
}

/// Frame for a client, plain and as it is written. Both are the same without compression.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WireFrame<'a> {
    pub plain: &'a Bytes,
    pub wire: &'a Bytes,
}

impl WireFrame<'_> {
    /// Bytes for this number of clients: plain, and as written.
    pub(super) fn bytes(&self, count: u64) -> [u64; 2] {
        [self.plain, self.wire].map(|frame| frame.len() as u64 * count)
    }
}

impl<'a> From<&'a Bytes> for WireFrame<'a> {
    #[inline]
    fn from(frame: &'a Bytes) -> Self {
        Self { plain: frame, wire: frame }
    }
}

/// Compressor of a shard, created for the first message that needs it.
///
/// ```text
///  plain frame ─┬──────────────► clients without compression; replay buffers, taps, counters of messages
///               └─ Deflater ─► twin ─► all clients with compression
/// ```
///
/// A shard compresses no large message: that is done in pieces, by the task that reads the message from a link. A
/// client has no compressor: its messages are compressed each by itself, so a twin is as good for one client as for the
/// next. A message is sent plain if compression does not make it smaller.
#[derive(Debug)]
pub(crate) struct Compression {
    min_bytes: usize,
    deflater: Option<Box<Deflater>>,
}

impl Compression {
    pub(crate) fn new(limits: &OutboxLimits) -> Self {
        Self { min_bytes: limits.compress_min_bytes, deflater: None }
    }

    /// Twin of a frame; `None` if the message is short or large, or gets no smaller.
    pub(crate) fn deflate(&mut self, frame: &Bytes) -> Option<Bytes> {
        if !(self.min_bytes..=LARGE_BYTES).contains(&payload_bytes(frame)) {
            return None;
        }
        self.deflater.get_or_insert_default().deflate_frame(frame)
    }

    /// Whether a message was compressed.
    #[cfg(test)]
    pub(super) fn has_begun(&self) -> bool {
        self.deflater.is_some()
    }
}
