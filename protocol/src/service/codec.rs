//! Encoding of service messages: a length-prefixed MessagePack array.
//!
//! ```text
//!  length (1–5 bytes, 7 bits each, lowest first) │ [ number, field, field, …, extension map ]
//! ```
//!
//! `layout` encodes and decodes messages by their rows in the table of messages; `irregular` has the layouts that don't
//! fit into a row. Messages are written in the layout of Azure's SDK of 2025. Shorter arrays of the oldest SDKs and
//! longer ones of future SDKs are accepted: trailing fields are ignored, which is safe because the length prefix bounds
//! each frame.

mod extension;
mod frame_head;
mod irregular;
mod layout;

use bytes::{BufMut, Bytes, BytesMut};

pub use extension::{claims_from_payload, claims_to_payload};
pub use frame_head::FrameHead;

use super::service_message::name_of;
use super::{ServiceMessage, ServiceMessageError, TracedData};
use crate::fields::Fields;
use crate::message_pack::Writer;

impl ServiceMessage {
    /// Appends the message with its length prefix, byte for byte like Azure's SDK of 2025. Panics if the message
    /// exceeds 2 GiB, the limit of the length prefix. Links allow much less
    /// ([`LINK_FRAME_MAX_BYTES`](crate::limits::LINK_FRAME_MAX_BYTES)).
    pub fn encode(&self, out: &mut BytesMut) {
        write_frame(layout::expected_bytes(self), out, |writer| {
            layout::write(self, writer);
        });
    }

    /// Returns the message with its length prefix.
    #[must_use]
    pub fn to_frame(&self) -> Bytes {
        let mut out = BytesMut::new();
        self.encode(&mut out);
        out.freeze()
    }

    /// Returns the message without its length prefix, as read by [`decode`](Self::decode).
    #[must_use]
    pub fn to_body(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(layout::expected_bytes(self));
        layout::write(self, &mut Writer(&mut out));
        out.freeze()
    }

    /// Decodes a frame body without its length prefix, sharing its memory. Returns `None` for unknown types, which are
    /// skipped. Longer arrays, and the shorter ones of older SDKs, are accepted. Fails if a field is missing or has
    /// another type; names the message and field.
    pub fn decode(body: &Bytes) -> Result<Option<Self>, ServiceMessageError> {
        let (number, mut fields) = Fields::of_message(body)
            .map_err(|error| ServiceMessageError { kind: "of no type".into(), problem: error.to_string() })?;
        layout::read(number, &mut fields).map_err(|error| ServiceMessageError {
            kind: format!("{} ({number})", name_of(number)),
            problem: error.to_string(),
        })
    }

    /// Name of this kind of message in the service protocol, for logs and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        name_of(i64::from(self.number()))
    }
}

/// Appends an encoded [`ServiceMessage::ConnectionData`] directly from borrowed bytes, so that a client's bytes are
/// copied only once, from its read buffer to the link's buffer. Panics as [`ServiceMessage::encode`] does.
pub fn encode_connection_data(connection_id: &str, payload: &[u8], data_type: i64, out: &mut BytesMut) {
    let expected_bytes = layout::ENVELOPE_BYTES + connection_id.len() + payload.len();
    write_frame(expected_bytes, out, |writer| {
        irregular::connection_data(writer, connection_id, payload, data_type, irregular::Ends::WithMessage);
    });
}

/// Appends a [`ServiceMessage::TracedData`] that wraps the output of [`encode_connection_data`]. Panics as
/// [`ServiceMessage::encode`] does.
pub fn encode_traced_data(mark: i64, connection_id: &str, payload: &[u8], data_type: i64, out: &mut BytesMut) {
    let mut body = BytesMut::with_capacity(layout::ENVELOPE_BYTES + connection_id.len() + payload.len());
    irregular::connection_data(&mut Writer(&mut body), connection_id, payload, data_type, irregular::Ends::WithMessage);
    ServiceMessage::TracedData(TracedData { mark, body: body.freeze() }).encode(out);
}

/// Appends the output of `write_body` with a length prefix, without a second buffer.
///
/// `expected_bytes` is the estimated body length, for which capacity and prefix are reserved. If the prefix has another
/// length, the body is moved, which is rare.
pub(crate) fn write_frame(expected_bytes: usize, out: &mut BytesMut, write_body: impl FnOnce(&mut Writer)) {
    let start = out.len();
    let room = prefix_bytes(expected_bytes);
    out.reserve(room + expected_bytes);
    out.put_bytes(0, room);
    write_body(&mut Writer(out));

    let body_bytes = out.len() - start - room;
    let needed = prefix_bytes(body_bytes);
    if needed != room {
        out.put_bytes(0, needed.saturating_sub(room));
        out.copy_within(start + room..start + room + body_bytes, start + needed);
        out.truncate(start + needed + body_bytes);
    }
    write_prefix(out.iter_mut().skip(start).take(needed), body_bytes);
}

fn write_prefix<'a>(prefix: impl ExactSizeIterator<Item = &'a mut u8>, body_bytes: usize) {
    let last = prefix.len() - 1;
    for (at, byte) in prefix.enumerate() {
        let [seven_bits, ..] = ((body_bytes >> (7 * at)) & 0x7f).to_le_bytes();
        *byte = if at == last { seven_bits } else { seven_bits | 0x80 };
    }
}

fn prefix_bytes(body_bytes: usize) -> usize {
    match body_bytes {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        0x20_0000..=0xfff_ffff => 4,
        0x1000_0000..=0x7fff_ffff => 5,
        _ => panic!("a service message of {body_bytes} bytes is too large for a link"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BroadcastData, ConnectionData, FrameBuffer, Payloads, Ping};
    use super::*;
    use crate::hub::HubProtocol;

    #[test]
    fn the_prefix_is_correct_at_every_width_for_any_estimate() {
        for body_bytes in [0, 1, 0x7f, 0x80, 0x3fff, 0x4000, 0x1f_ffff, 0x20_0000] {
            for expected_bytes in [0, 0x80, 0x4000, 0x20_0000] {
                let mut out = BytesMut::from("before");
                write_frame(expected_bytes, &mut out, |writer| {
                    writer.0.put_bytes(b'x', body_bytes);
                });
                let mut reference = b"before".to_vec();
                let mut left = body_bytes;
                while left > 0x7f {
                    reference.push(u8::try_from(left & 0x7f).unwrap() | 0x80);
                    left >>= 7;
                }
                reference.push(u8::try_from(left).unwrap());
                reference.resize(reference.len() + body_bytes, b'x');
                assert!(out == reference, "{body_bytes} bytes, {expected_bytes} expected");
            }
        }
    }

    #[test]
    fn direct_encoding_equals_the_encoding_of_the_message() {
        for (length, data_type) in [(0, 0), (3, 2), (100, 1), (127, 3), (300, 2), (20_000, 4), (70_000, -1)] {
            let payload = Bytes::from(vec![7; length]);
            let mut quick = BytesMut::from("before");
            encode_connection_data("an id", &payload, data_type, &mut quick);
            let message = ConnectionData { connection_id: "an id".into(), payload, data_type, is_partial: false };
            let mut slow = BytesMut::from("before");
            ServiceMessage::ConnectionData(message).encode(&mut slow);
            assert_eq!(quick, slow);
        }
    }

    #[test]
    fn traced_data_covers_the_frame_that_is_not_traced() {
        let (mut plain, mut traced) = (BytesMut::new(), BytesMut::new());
        encode_connection_data("c1", b"{}", 2, &mut plain);
        encode_traced_data(7, "c1", b"{}", 2, &mut traced);
        let mut buffer = FrameBuffer::default();
        buffer.push(traced.freeze());
        let traced = ServiceMessage::decode(&buffer.next_body().unwrap().unwrap()).unwrap();
        let Some(ServiceMessage::TracedData(TracedData { mark: 7, body })) = traced else { panic!("{traced:?}") };
        assert_eq!(ServiceMessage::decode(&body).unwrap().unwrap().to_frame(), plain);
    }

    #[test]
    fn a_large_frame_is_reserved_in_one_step() {
        let payloads = Payloads::single(HubProtocol::Json, Bytes::from(vec![b'x'; 100_000]));
        let message = ServiceMessage::BroadcastData(BroadcastData { excluded: vec!["c1".into()], payloads });
        let expected_bytes = layout::expected_bytes(&message);
        let frame = message.to_frame();
        assert!(frame.len() <= expected_bytes + 5, "{} > {expected_bytes} + 5", frame.len());
        assert!(frame.len() + 100 > expected_bytes);
    }

    #[test]
    fn names_and_numbers_belong_together() {
        let ping = ServiceMessage::Ping(Ping::default());
        assert_eq!((ping.name(), ping.number()), ("Ping", 3));
        assert_eq!(name_of(39), "ConnectionFlowControl");
        assert_eq!(name_of(20), "Ack");
        assert_eq!(name_of(73), "TraceReport");
        assert_eq!(name_of(75), "RefreshConnectionWithAck");
        assert_eq!(name_of(78), "DownDone");
        assert_eq!(name_of(-1), "Unknown");
        assert_eq!(name_of(44), "Unknown");
    }
}
