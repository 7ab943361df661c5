//! Hub messages and hub handshakes.

use bytes::{Bytes, BytesMut};
use serde_json::Value;
use trunkline_protocol::hub::{
    Completion, Frame, FramingError, HandshakeError, HandshakeRequest, HandshakeResponse, HubMessage, HubProtocol,
    MessageKind, Outcome, Payload, next_frame, next_frame_behind,
};

use crate::random::Random;

/// Handshake and its length; none if more bytes are needed.
type HandshakeResult<T> = Result<Option<(T, usize)>, HandshakeError>;

/// Message limit: low, so that mutations exceed it.
const MESSAGE_MAX_BYTES: usize = 2048;

/// Reads a client's JSON hub messages: framing, scan and decoder.
pub fn hub_json(data: &[u8]) {
    messages(HubProtocol::Json, data);
}

/// Reads a client's MessagePack hub messages: framing, scan and decoder.
pub fn hub_message_pack(data: &[u8]) {
    messages(HubProtocol::MessagePack, data);
}

/// Reads hub handshakes: a client's request and a server's response.
pub fn hub_handshake(data: &[u8]) {
    handshake(data, HandshakeRequest::read_request, HandshakeRequest::encode);
    handshake(data, HandshakeResponse::read_response, HandshakeResponse::encode);
}

fn messages(protocol: HubProtocol, data: &[u8]) {
    let whole = bodies(protocol, &[data]);
    let cut = bodies(protocol, &Random::from_bytes(data).pieces(data));
    // A cut before the last byte of a malformed length prefix may report it as too large: either error closes.
    assert_eq!((&whole.0, whole.1.is_some()), (&cut.0, cut.1.is_some()), "the cuts between reads change the messages");
    for body in whole.0 {
        message(protocol, &body);
    }
    message(protocol, &Bytes::copy_from_slice(data));
}

/// Bodies of all whole frames, and the error that ended them.
fn bodies(protocol: HubProtocol, pieces: &[&[u8]]) -> (Vec<Bytes>, Option<FramingError>) {
    let (mut buffer, mut bodies, mut searched) = (BytesMut::new(), Vec::new(), 0);
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let found = next_frame_behind(protocol, &buffer, searched, MESSAGE_MAX_BYTES);
            assert_eq!(found, next_frame(protocol, &buffer, MESSAGE_MAX_BYTES), "what was searched hides a message");
            match found {
                Ok(Some(frame)) => {
                    searched = 0;
                    bodies.push(take(&mut buffer, frame));
                }
                Ok(None) => {
                    searched = buffer.len();
                    break;
                }
                Err(error) => return (bodies, Some(error)),
            }
        }
        assert!(buffer.len() <= MESSAGE_MAX_BYTES, "{} bytes wait for the rest of a message", buffer.len());
    }
    (bodies, None)
}

fn take(buffer: &mut BytesMut, Frame { body, length }: Frame) -> Bytes {
    assert!(length <= MESSAGE_MAX_BYTES, "a frame of {length} bytes passes");
    buffer.split_to(length).freeze().slice(body)
}

fn message(protocol: HubProtocol, body: &Bytes) {
    let scan = protocol.scan(body);
    match protocol.decode(body) {
        Ok(Some(message)) => {
            let scan = scan.expect("what can be decoded can be scanned");
            assert_eq!(scan.kind, message.kind(), "the scan and the decoder see different kinds");
            let id = message.invocation_id().map(|id| &**id);
            assert_eq!(scan.invocation_id.as_deref(), id, "the scan and the decoder see different ids");
            call(protocol, body, &message);
            payloads(&message).for_each(|payload| read_value(protocol, payload));
            encode_again(protocol, message);
        }
        Ok(None) => {
            let kind = scan.expect("what can be decoded can be scanned").kind;
            assert!(matches!(kind, MessageKind::Unknown(_)), "a {kind:?} is not decoded");
        }
        Err(_) => {}
    }
}

/// The scan for rules must see the call that an app server would run.
fn call(protocol: HubProtocol, body: &Bytes, message: &HubMessage) {
    let scan = protocol.scan_call(body).expect("what can be decoded can be scanned for rules");
    let id = message.invocation_id().map(|id| &**id);
    assert_eq!((scan.kind, scan.invocation_id.as_deref()), (message.kind(), id), "the scans differ");
    let (target, streams) = match message {
        HubMessage::Invocation(call) | HubMessage::StreamInvocation(call) => (Some(&*call.target), &*call.stream_ids),
        _ => (None, &[][..]),
    };
    assert_eq!(scan.target.as_deref(), target, "the scan and the decoder see different methods");
    assert!(
        scan.stream_ids.iter().eq(streams.iter().map(|id| &**id)),
        "the scan and the decoder see different streams"
    );
}

fn payloads(message: &HubMessage) -> Box<dyn Iterator<Item = &Payload> + '_> {
    match message {
        HubMessage::Invocation(call) | HubMessage::StreamInvocation(call) => Box::new(call.arguments.iter()),
        HubMessage::StreamItem(item) => Box::new(std::iter::once(&item.item)),
        HubMessage::Completion(Completion { outcome: Outcome::Value(value), .. }) => Box::new(std::iter::once(value)),
        _ => Box::new(std::iter::empty()),
    }
}

/// A value that was read must survive a round trip.
fn read_value(protocol: HubProtocol, payload: &Payload) {
    let Ok(value) = protocol.value::<Value>(payload) else { return };
    let again = protocol.payload(&value).expect("what was read can be written");
    assert_eq!(protocol.value::<Value>(&again).expect("what was written can be read"), value);
}

fn encode_again(protocol: HubProtocol, message: HubMessage) {
    let mut buffer = BytesMut::new();
    protocol.encode(&message, &mut buffer);
    let frame = next_frame(protocol, &buffer, usize::MAX).expect("an encoded message is framed").expect("it is whole");
    assert_eq!(frame.length, buffer.len(), "an encoded message is one frame");
    let body = buffer.freeze().slice(frame.body);
    assert_eq!(protocol.decode(&body).expect("an encoded message can be decoded"), Some(message));
}

/// Reads a handshake at the front of the data, then from its own encoding; a part of it must never be enough.
fn handshake<T: PartialEq + std::fmt::Debug>(
    data: &[u8],
    read: fn(&[u8], usize) -> HandshakeResult<T>,
    encode: fn(&T) -> Bytes,
) {
    let Ok(Some((value, length))) = read(data, MESSAGE_MAX_BYTES) else { return };
    assert!(length <= data.len().min(MESSAGE_MAX_BYTES), "a handshake of {length} bytes passes");
    let part = data.get(..Random::from_bytes(data).below(length)).unwrap_or_default();
    assert!(matches!(read(part, MESSAGE_MAX_BYTES), Ok(None)), "a part of a handshake is taken for all of it");
    let encoded = encode(&value);
    let again = read(&encoded, usize::MAX).expect("an encoded handshake can be read");
    assert_eq!(again, Some((value, encoded.len())));
}
