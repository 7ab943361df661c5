//! WebSocket frames of clients.

use std::ops::Range;

use bytes::BytesMut;
use trunkline_proxy::websocket::{
    Decoder, Event, MessageForm, Opcode, PiecePosition, ProtocolError, Unframed, frame, unframe, unframe_whole,
};

use crate::random::Random;

/// Part of a client's stream: message bytes or a control frame.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Data { form: MessageForm, is_compressed: bool, payload: Vec<u8>, is_whole: bool },
    Ping(Vec<u8>),
    Pong,
    Close,
}

/// Decodes a client's frames, and splits our own frames.
pub fn websocket(data: &[u8]) {
    for inflates in [false, true] {
        let whole = parts_of(Decoder::new(inflates), &[data]);
        let cut = parts_of(Decoder::new(inflates), &Random::from_bytes(data).pieces(data));
        assert_eq!(whole, cut, "the cuts between reads change the frames");
    }
    for payload in data.chunks(usize::from(u16::MAX)) {
        come_back(payload);
    }
    own_frames(data);
}

/// All parts of a stream before its first error; joins the pieces of each message.
fn parts(pieces: &[&[u8]]) -> (Vec<Part>, Option<ProtocolError>) {
    parts_of(Decoder::default(), pieces)
}

fn parts_of(mut decoder: Decoder, pieces: &[&[u8]]) -> (Vec<Part>, Option<ProtocolError>) {
    let mut parts = Vec::new();
    for piece in pieces {
        let mut bytes = piece.to_vec();
        let mut rest = bytes.as_mut_slice();
        loop {
            let (used, event) = match decoder.decode(rest) {
                Ok(step) => step,
                Err(error) => return (parts, Some(error)),
            };
            assert!(used <= rest.len(), "the decoder takes {used} of {} bytes", rest.len());
            match event {
                Event::NeedMore => {
                    assert_eq!(used, rest.len(), "the decoder leaves bytes and asks for more");
                    break;
                }
                Event::Data(range) => add(&mut parts, rest, range, &decoder),
                Event::Ping(payload) => parts.push(Part::Ping(payload)),
                Event::Pong => parts.push(Part::Pong),
                Event::Close => parts.push(Part::Close),
            }
            rest = rest.get_mut(used..).unwrap_or_default();
        }
    }
    (parts, None)
}

fn add(parts: &mut Vec<Part>, bytes: &[u8], range: Range<usize>, decoder: &Decoder) {
    let bytes = bytes.get(range).expect("the decoder names bytes that it took");
    let place = decoder.position();
    if let Some(Part::Data { payload, is_whole: is_whole @ false, .. }) = parts.last_mut() {
        payload.extend_from_slice(bytes);
        *is_whole = place.is_last;
    } else {
        let PiecePosition { form, is_last, is_compressed } = place;
        parts.push(Part::Data { form, is_compressed, payload: bytes.to_vec(), is_whole: is_last });
    }
}

/// A client's frame of these bytes must leave the decoder unchanged.
fn come_back(payload: &[u8]) {
    let mut stream = masked(payload);
    let length = stream.len();
    let (parts, error) = parts(&[&stream]);
    assert_eq!(error, None);
    let (form, payload) = (MessageForm::Binary, payload.to_vec());
    assert_eq!(parts, [Part::Data { form, is_compressed: false, payload, is_whole: true }]);
    stream.truncate(length - 1);
    assert_ne!(self::parts(&[&stream]).0, parts, "a part of a frame is taken for all of it");
}

fn masked(payload: &[u8]) -> Vec<u8> {
    let mut stream = frame(Opcode::Binary, payload).to_vec();
    let header = stream.len() - payload.len();
    let mut random = Random::from_bytes(payload);
    let mask: Vec<u8> = (0..4).map(|_| random.byte()).collect();
    if let Some(second) = stream.get_mut(1) {
        *second |= 0x80;
    }
    stream.iter_mut().skip(header).zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    stream.splice(header..header, mask);
    stream
}

/// Splitting frames that this end wrote must return their parts.
fn own_frames(data: &[u8]) {
    for (opcode, is_close) in [(Opcode::Binary, false), (Opcode::Text, false), (Opcode::Close, true)] {
        let frame = frame(opcode, data);
        let mut buffer = BytesMut::from(&frame[..]);
        let peeled = unframe(&mut buffer).expect("a whole frame is taken apart");
        assert!(buffer.is_empty(), "bytes of the frame are left");
        assert_eq!(matches!(peeled, Unframed::Close), is_close);
        assert_eq!(unframe_whole(&frame), Some(peeled));
        let mut part = BytesMut::from(frame.get(..frame.len() - 1).unwrap_or_default());
        assert_eq!(unframe(&mut part), None, "a part of a frame is taken for all of it");
    }
}
