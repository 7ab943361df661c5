//! Decoder of client frames: validates, unmasks in place, and returns data as it arrives.
//!
//! ```text
//!  Header ──complete──► Payload ──all of it──► Header …
//!     └───────────── broken rule ─────────────► ProtocolError (close the socket with 1002)
//! ```

use super::frame_encoder::COMPRESSED;
use super::{ProtocolError, check_close_payload};

/// Event decoded from input. Ranges refer to this input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Unmasked payload of a text or binary frame: any part of a message.
    Data(std::ops::Range<usize>),
    /// A ping, to be answered with the same payload.
    Ping(Vec<u8>),
    /// A pong, which only shows that the client is alive.
    Pong,
    /// The client closes, or answers our close.
    Close,
    /// The input ends within a frame.
    NeedMore,
}

/// Position of a piece of data in its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PiecePosition {
    /// Form of the message.
    pub form: MessageForm,
    /// The message ends with this piece.
    pub is_last: bool,
    /// The message is compressed.
    pub is_compressed: bool,
}

/// Form of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageForm {
    /// UTF-8 text, opcode 1.
    Text,
    /// Binary data, opcode 2.
    Binary,
    /// Not specified by the transport.
    Unknown,
}

impl PiecePosition {
    /// Position for transports without message boundaries.
    pub const UNKNOWN: Self = Self { form: MessageForm::Unknown, is_last: true, is_compressed: false };
}

const HEADER_MAX_BYTES: usize = 14;
const CONTROL_MAX_BYTES: u64 = 125;

/// Maximum number of consecutive empty fragments. Libraries send at most one, at the end of a message, and each costs
/// the sender only a header. Non-empty fragments are limited by the message size.
const EMPTY_FRAGMENTS_MAX: u16 = 1000;

/// Decoder for one client; 64 bytes of state between frames.
#[derive(Debug, Default)]
pub struct Decoder {
    header: [u8; HEADER_MAX_BYTES],
    header_have: u8,
    payload: Option<FramePayload>,
    in_message: bool,
    is_text: bool,
    inflates: bool,
    is_compressed: bool,
    empty_fragments: u16,
    /// Beginning of an incomplete control frame's payload.
    control: Box<[u8]>,
}

#[derive(Debug, Clone, Copy)]
struct FramePayload {
    kind: FrameType,
    left: u64,
    mask: [u8; 4],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FrameType {
    Data,
    Ping,
    Pong,
    Close,
}

impl Decoder {
    /// Creates the decoder for a client, which may have negotiated compression.
    #[must_use]
    pub fn new(inflates: bool) -> Self {
        Self { inflates, ..Self::default() }
    }

    /// Whether the client negotiated compression.
    #[must_use]
    pub fn inflates(&self) -> bool {
        self.inflates
    }

    /// Decodes bytes at the front of `input`; returns their number and the event.
    ///
    /// Call again with the rest until [`Event::NeedMore`].
    ///
    /// # Errors
    /// If the client violated the protocol; decoding can't continue.
    pub fn decode(&mut self, input: &mut [u8]) -> Result<(usize, Event), ProtocolError> {
        let mut used = 0;
        if self.payload.is_none() {
            used = self.read_header(input)?;
            if self.payload.is_none() {
                return Ok((used, Event::NeedMore));
            }
        }
        self.read_payload(input, used)
    }

    /// Position of the data last returned by [`decode`](Self::decode).
    #[must_use]
    pub fn position(&self) -> PiecePosition {
        let form = if self.is_text { MessageForm::Text } else { MessageForm::Binary };
        let is_last = !self.in_message && self.payload.is_none();
        PiecePosition { form, is_last, is_compressed: self.is_compressed }
    }

    /// Whether the last result of [`decode`](Self::decode) ended its frame.
    #[must_use]
    pub fn is_between_frames(&self) -> bool {
        self.payload.is_none()
    }

    fn read_header(&mut self, input: &[u8]) -> Result<usize, ProtocolError> {
        let mut used = 0;
        for &byte in input {
            let Some(place) = self.header.get_mut(usize::from(self.header_have)) else { break };
            *place = byte;
            self.header_have += 1;
            used += 1;
            if let Some(header) = self.header.get(..usize::from(self.header_have))
                && let Some(payload) = parse_header(header, self.in_message, self.inflates)?
            {
                self.header_have = 0;
                self.enter(payload)?;
                break;
            }
        }
        Ok(used)
    }

    fn enter(&mut self, payload: FramePayload) -> Result<(), ProtocolError> {
        let [first, ..] = self.header;
        if payload.kind == FrameType::Data {
            self.in_message = first & 0x80 == 0;
            self.empty_fragments = if self.in_message && payload.left == 0 { self.empty_fragments + 1 } else { 0 };
            if self.empty_fragments > EMPTY_FRAGMENTS_MAX {
                return Err(ProtocolError::EmptyFragments);
            }
            match first & 0x0f {
                0x0 => {}
                opcode => (self.is_text, self.is_compressed) = (opcode == 0x1, first & COMPRESSED != 0),
            }
        }
        self.payload = Some(payload);
        Ok(())
    }

    /// Reads payload from this position of the input. Returns the position of the rest.
    fn read_payload(&mut self, input: &mut [u8], from: usize) -> Result<(usize, Event), ProtocolError> {
        let Some(payload) = &mut self.payload else { return Ok((from, Event::NeedMore)) };
        let take = usize::try_from(payload.left).unwrap_or(usize::MAX).min(input.len().saturating_sub(from));
        let end = from + take;
        let piece = input.get_mut(from..end).unwrap_or_default();
        unmask(piece, payload.mask);
        payload.mask.rotate_left(take % 4);
        payload.left -= take as u64;
        let (kind, done) = (payload.kind, payload.left == 0);
        if done {
            self.payload = None;
        }
        if kind == FrameType::Data {
            let event = if take == 0 && !done { Event::NeedMore } else { Event::Data(from..end) };
            return Ok((end, event));
        }
        Ok((end, self.read_control(kind, piece, done)?))
    }

    fn read_control(&mut self, kind: FrameType, piece: &[u8], done: bool) -> Result<Event, ProtocolError> {
        // The content of a pong is ignored.
        let piece = if kind == FrameType::Pong { &[] } else { piece };
        let payload = [&std::mem::take(&mut self.control), piece].concat();
        if !done {
            self.control = payload.into_boxed_slice();
            return Ok(Event::NeedMore);
        }
        Ok(match kind {
            FrameType::Ping => Event::Ping(payload),
            FrameType::Close => {
                check_close_payload(&payload)?;
                Event::Close
            }
            FrameType::Pong | FrameType::Data => Event::Pong,
        })
    }
}

/// Parses a complete header; validates its bytes as soon as they are available.
fn parse_header(header: &[u8], in_message: bool, inflates: bool) -> Result<Option<FramePayload>, ProtocolError> {
    let &[first, second, ref rest @ ..] = header else { return Ok(None) };
    // Set in the first frame of a compressed message.
    let may_be_compressed = inflates && matches!(first & 0x0f, 0x1 | 0x2);
    if first & 0x70 & !(if may_be_compressed { COMPRESSED } else { 0 }) != 0 {
        return Err(ProtocolError::Reserved);
    }
    if second & 0x80 == 0 {
        return Err(ProtocolError::Unmasked);
    }
    let kind = kind(first, in_message)?;
    let (left, rest) = match second & 0x7f {
        126 => match rest.split_first_chunk() {
            Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
            None => return Ok(None),
        },
        127 => match rest.split_first_chunk() {
            Some((length, rest)) => (u64::from_be_bytes(*length), rest),
            None => return Ok(None),
        },
        short => (u64::from(short), rest),
    };
    if left > i64::MAX as u64 {
        return Err(ProtocolError::Length);
    }
    if kind != FrameType::Data && (left > CONTROL_MAX_BYTES || first & 0x80 == 0) {
        return Err(ProtocolError::Control);
    }
    Ok(rest.first_chunk().map(|&mask| FramePayload { kind, left, mask }))
}

fn kind(first: u8, in_message: bool) -> Result<FrameType, ProtocolError> {
    match (first & 0x0f, in_message) {
        (0x0, true) | (0x1 | 0x2, false) => Ok(FrameType::Data),
        (0x0..=0x2, _) => Err(ProtocolError::Fragment),
        (0x8, _) => Ok(FrameType::Close),
        (0x9, _) => Ok(FrameType::Ping),
        (0xa, _) => Ok(FrameType::Pong),
        (opcode, _) => Err(ProtocolError::Opcode(opcode)),
    }
}

/// Eight bytes at a time, which the compiler vectorises.
fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = bytes.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0x11, 0x22, 0x33, 0x44];
        let mut out = vec![first];
        match payload.len() {
            short @ 0..126 => out.push(0x80 | u8::try_from(short).unwrap()),
            middle @ 126..65_536 => {
                out.push(0x80 | 126);
                out.extend(u16::try_from(middle).unwrap().to_be_bytes());
            }
            long => {
                out.push(0x80 | 127);
                out.extend((long as u64).to_be_bytes());
            }
        }
        out.extend(mask);
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        out
    }

    /// Feeds `bytes` in pieces of `chunk`; joins the decoded data.
    fn decode_all(bytes: &[u8], chunk: usize) -> Result<(Vec<u8>, Vec<Event>), ProtocolError> {
        let (mut decoder, mut data, mut others) = (Decoder::default(), vec![], vec![]);
        for piece in bytes.chunks(chunk) {
            let mut input = piece.to_vec();
            let mut at = 0;
            loop {
                let (used, event) = decoder.decode(&mut input[at..])?;
                match event {
                    Event::Data(range) => data.extend_from_slice(&input[at..][range]),
                    Event::NeedMore => break,
                    other => others.push(other),
                }
                at += used;
            }
        }
        Ok((data, others))
    }

    #[test]
    fn frames_of_every_length_come_through_any_split() {
        for length in [0, 1, 3, 4, 125, 126, 127, 300, 65_535, 65_536, 70_000] {
            let payload: Vec<u8> = (0..length).map(|i| u8::try_from(i % 251).unwrap()).collect();
            let bytes = [client_frame(0x82, &payload), client_frame(0x81, b"end")].concat();
            for chunk in [1, 2, 3, 7, 64, 4096, bytes.len()] {
                if length > 1000 && chunk < 7 {
                    continue;
                }
                let (data, others) = decode_all(&bytes, chunk).unwrap();
                assert_eq!(data, [payload.as_slice(), b"end"].concat(), "length {length}, chunk {chunk}");
                assert_eq!(others, []);
            }
        }
    }

    #[test]
    fn control_frames_may_stand_between_fragments() {
        let bytes = [
            client_frame(0x01, b"he"),
            client_frame(0x89, b"are you there"),
            client_frame(0x80, b"llo"),
            client_frame(0x88, &[3, 232]),
        ]
        .concat();
        for chunk in [1, 5, bytes.len()] {
            let (data, others) = decode_all(&bytes, chunk).unwrap();
            assert_eq!(data, b"hello");
            assert_eq!(others, [Event::Ping(b"are you there".to_vec()), Event::Close]);
        }
    }

    #[test]
    fn a_compressed_message_is_marked_in_its_first_frame_only_and_only_if_that_was_negotiated() {
        let decode = |bytes: &[u8]| {
            let (mut decoder, mut input, mut at, mut seen) = (Decoder::new(true), bytes.to_vec(), 0, Vec::new());
            loop {
                match decoder.decode(&mut input[at..])? {
                    (_, Event::NeedMore) => return Ok(seen),
                    (used, Event::Data(_)) => {
                        let position = decoder.position();
                        seen.push((position.is_compressed, position.is_last));
                        at += used;
                    }
                    (used, _) => at += used,
                }
            }
        };
        let ping = client_frame(0x89, b"x");
        let parts = [client_frame(0x41, b"a"), ping.clone(), client_frame(0x00, b"b"), client_frame(0x80, b"c")];
        let plain = [client_frame(0x02, b"a"), client_frame(0x80, b"c"), client_frame(0xc2, b"")];
        assert_eq!(decode(&parts.concat()), Ok(vec![(true, false), (true, false), (true, true)]));
        assert_eq!(decode(&plain.concat()), Ok(vec![(false, false), (false, true), (true, true)]));
        let middle = [client_frame(0x41, b"a"), client_frame(0x40, b"b")].concat();
        for broken in [&middle, &client_frame(0xc9, b""), &client_frame(0xa1, b""), &client_frame(0x91, b"")] {
            assert_eq!(decode(broken), Err(ProtocolError::Reserved), "{broken:?}");
        }
    }

    #[test]
    fn empty_fragments_in_a_row_are_bounded() {
        let empty = |first| client_frame(first, b"");
        let most = usize::from(EMPTY_FRAGMENTS_MAX);
        let begin = [client_frame(0x01, b"x"), empty(0x00).repeat(most)].concat();
        let ended = [begin.clone(), client_frame(0x00, b"y"), empty(0x00).repeat(most), empty(0x80)].concat();
        assert_eq!(decode_all(&ended, 100).unwrap().0, b"xy");
        let endless = [begin, empty(0x00)].concat();
        assert_eq!(decode_all(&endless, 100), Err(ProtocolError::EmptyFragments));
        // Complete empty messages are limited elsewhere.
        assert!(decode_all(&empty(0x81).repeat(most + 1), 100).is_ok());
    }

    #[test]
    fn broken_rules_are_named() {
        let of = |bytes: &[u8]| decode_all(bytes, bytes.len()).unwrap_err();
        assert_eq!(of(&[0x81, 0x02, b'h', b'i']), ProtocolError::Unmasked);
        assert_eq!(of(&client_frame(0xc1, b"x")), ProtocolError::Reserved);
        assert_eq!(of(&client_frame(0x83, b"x")), ProtocolError::Opcode(3));
        assert_eq!(of(&client_frame(0x80, b"x")), ProtocolError::Fragment);
        assert_eq!(of(&[client_frame(0x01, b"x"), client_frame(0x81, b"y")].concat()), ProtocolError::Fragment);
        assert_eq!(of(&client_frame(0x09, b"x")), ProtocolError::Control);
        assert_eq!(of(&client_frame(0x89, &[0; 126])), ProtocolError::Control);
        assert_eq!(of(&[0x82, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0]), ProtocolError::Length);
    }
}
