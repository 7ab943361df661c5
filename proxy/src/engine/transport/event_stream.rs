//! Server-sent events: messages as `text/event-stream`, for a response body or, from frames, as raw response bytes.

use bytes::{BufMut, Bytes, BytesMut};
use memchr::memchr2;

use super::websocket::{FrameContent, FrameHead};
use crate::ground::net::socket::Translate;

/// Start of an event stream: a comment, because some browsers report the stream as open only after its first byte.
pub(crate) const PREAMBLE: &[u8] = b":\r\n";

const FIELD: &[u8] = b"data: ";
const NEXT_LINE: &[u8] = b"\r\ndata: ";
const EVENT_END: &[u8] = b"\r\n\r\n";

/// Head of a chunk with a placeholder for its length: six digits, for less than 16 MiB.
const CHUNK_HEAD: &[u8] = b"000000\r\n";
const CHUNK_END: &[u8] = b"\r\n";
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Encodes one event. Each line of the payload becomes a `data` line, received with `\n` as its end. Receivers split
/// lines at `\r\n`, `\n` or `\r`; an unescaped line end would let the payload inject fields.
pub(crate) fn encode_event(payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(payload.len() + FIELD.len() + EVENT_END.len());
    out.put_slice(FIELD);
    EventText::default().put(payload, &mut out);
    out.put_slice(EVENT_END);
    out.freeze()
}

#[derive(Debug, Default)]
struct EventText {
    /// The last part ended with `\r`; a following `\n` belongs to the same line end.
    is_behind_return: bool,
}

impl EventText {
    fn put(&mut self, text: &[u8], out: &mut impl BufMut) {
        let mut text = text;
        if std::mem::take(&mut self.is_behind_return) {
            text = text.strip_prefix(b"\n").unwrap_or(text);
        }
        while let Some((line, end)) = memchr2(b'\r', b'\n', text).and_then(|end| text.split_at_checked(end)) {
            out.put_slice(line);
            out.put_slice(NEXT_LINE);
            self.is_behind_return = end == b"\r";
            text = end.strip_prefix(b"\r\n").or_else(|| end.get(1..)).unwrap_or_default();
        }
        out.put_slice(text);
    }
}

/// Encodes our frames as the rest of an event stream response: each message as an event, the events of one call as an
/// HTTP/1.1 chunk, and a close frame as the end of the response. Frames may be split arbitrarily.
#[derive(Debug, Default)]
pub(crate) struct EventEncoder {
    /// Bytes of an incomplete frame head.
    head: [u8; FrameHead::BYTES_MAX],
    head_bytes: u8,
    /// Content of the current frame, and the number of payload bytes left.
    within: Option<(FrameContent, usize)>,
    text: EventText,
    is_ended: bool,
}

impl EventEncoder {
    fn read_head(&mut self, byte: u8, out: &mut Vec<u8>) {
        if let Some(place) = self.head.get_mut(usize::from(self.head_bytes)) {
            *place = byte;
            self.head_bytes += 1;
        }
        let read = self.head.get(..usize::from(self.head_bytes)).unwrap_or_default();
        let Some(head) = FrameHead::parse(read) else { return };
        self.head_bytes = 0;
        self.within = Some((head.content, head.payload_bytes));
        match head.content {
            FrameContent::Message => out.extend_from_slice(FIELD),
            FrameContent::Close => self.is_ended = true,
            FrameContent::Other => {}
        }
        self.read_payload(&[], out);
    }

    fn read_payload<'a>(&mut self, bytes: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        let Some((content, left)) = self.within else { return bytes };
        let (payload, rest) = bytes.split_at_checked(left).unwrap_or((bytes, &[]));
        let left = left - payload.len();
        self.within = (left > 0).then_some((content, left));
        if content == FrameContent::Message {
            self.text.put(payload, out);
            if left == 0 {
                out.extend_from_slice(EVENT_END);
                self.text = EventText::default();
            }
        }
        rest
    }
}

impl Translate for EventEncoder {
    fn translate(&mut self, frames: &[u8], out: &mut Vec<u8>) {
        if self.is_ended {
            return;
        }
        let begin = out.len();
        out.extend_from_slice(CHUNK_HEAD);
        let mut rest = frames;
        while !self.is_ended && !rest.is_empty() {
            rest = match (self.within, rest.split_first()) {
                (None, Some((byte, behind))) => {
                    self.read_head(*byte, out);
                    behind
                }
                _ => self.read_payload(rest, out),
            };
        }
        let length = out.len() - begin - CHUNK_HEAD.len();
        if length == 0 {
            out.truncate(begin);
        } else {
            out.extend_from_slice(CHUNK_END);
            put_length(length, out.get_mut(begin..).unwrap_or_default());
        }
        if self.is_ended {
            out.extend_from_slice(LAST_CHUNK);
        }
    }

    fn is_ended(&self) -> bool {
        self.is_ended
    }
}

/// Writes a length as the hexadecimal digits of a chunk head.
fn put_length(length: usize, chunk: &mut [u8]) {
    let digits = CHUNK_HEAD.len() - CHUNK_END.len();
    for (place, digit) in chunk.iter_mut().take(digits).rev().enumerate() {
        *digit = b"0123456789abcdef".get(length >> (4 * place) & 0xf).copied().unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::websocket::{CLOSE_NORMAL, Opcode, close_frame, frame, ping};
    use super::*;

    /// Data of the events in a stream, parsed according to the HTML standard.
    fn events(stream: &str) -> Vec<String> {
        let (mut events, mut data) = (Vec::new(), Vec::new());
        for line in stream.replace("\r\n", "\n").split(['\n', '\r']) {
            match line.strip_prefix("data:") {
                Some(value) => data.push(value.strip_prefix(' ').unwrap_or(value).to_owned()),
                None if line.is_empty() && !data.is_empty() => events.push(std::mem::take(&mut data).join("\n")),
                None => assert!(line.is_empty(), "a field of its own: {line}"),
            }
        }
        events
    }

    proptest! {
        #[test]
        fn whatever_a_client_sends_stays_within_one_event(payload in "[a:\r\n {}data]{0,40}") {
            let encoded = encode_event(payload.as_bytes());
            let read = payload.replace("\r\n", "\n").replace('\r', "\n");
            prop_assert_eq!(events(std::str::from_utf8(&encoded).unwrap()), [read]);
        }
    }

    /// Payloads of the chunks of an HTTP/1.1 response, and whether it is complete.
    fn unchunked(mut bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut text = Vec::new();
        while !bytes.is_empty() {
            let end = bytes.windows(2).position(|pair| pair == b"\r\n").unwrap();
            let length = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
            let (chunk, rest) = bytes[end + 2..].split_at(length);
            assert!(rest.starts_with(b"\r\n"), "a chunk ends where its head says");
            if length == 0 {
                assert_eq!(rest, b"\r\n", "nothing follows the end");
                return (text, true);
            }
            text.extend_from_slice(chunk);
            bytes = &rest[2..];
        }
        (text, false)
    }

    proptest! {
        #[test]
        fn frames_in_any_parts_become_the_same_events(
            payloads in proptest::collection::vec("[a:\r\n é]{0,140}", 0..6),
            cuts in proptest::collection::vec(1_usize..9, 1..40),
            closes in any::<bool>(),
        ) {
            let mut frames: Vec<u8> = Vec::new();
            for payload in &payloads {
                frames.extend_from_slice(&frame(Opcode::Text, payload.as_bytes()));
                frames.extend_from_slice(&ping());
            }
            if closes {
                frames.extend_from_slice(&close_frame(CLOSE_NORMAL));
            }
            let (mut encoder, mut out, mut rest) = (EventEncoder::default(), Vec::new(), &frames[..]);
            for cut in cuts.iter().cycle() {
                let (part, behind) = rest.split_at((*cut).min(rest.len()));
                encoder.translate(part, &mut out);
                rest = behind;
                if rest.is_empty() {
                    break;
                }
            }
            let whole: Vec<u8> = payloads.iter().flat_map(|one| encode_event(one.as_bytes())).collect();
            prop_assert_eq!(unchunked(&out), (whole, closes));
            prop_assert_eq!(encoder.is_ended(), closes);
            if closes {
                let length = out.len();
                encoder.translate(&frame(Opcode::Text, b"late"), &mut out);
                prop_assert_eq!(out.len(), length);
            }
        }
    }

    #[test]
    fn frames_of_one_call_are_one_chunk_however_long() {
        for length in [0, 1, 125, 126, 65_535, 65_536, 300_000] {
            let payload = vec![b'a'; length];
            let frames = [&frame(Opcode::Text, &payload)[..], &frame(Opcode::Text, b"b")].concat();
            let mut out = Vec::new();
            EventEncoder::default().translate(&frames, &mut out);
            let text = format!("data: {}\r\n\r\ndata: b\r\n\r\n", "a".repeat(length));
            assert_eq!(out, format!("{:06x}\r\n{text}\r\n", text.len()).into_bytes());
        }
    }

    #[test]
    fn an_event_is_one_line_for_each_line_and_an_empty_one() {
        assert_eq!(encode_event(b"{\"type\":6}\x1e").as_ref(), b"data: {\"type\":6}\x1e\r\n\r\n");
        assert_eq!(encode_event(b"a\r\nb\nc\rd").as_ref(), b"data: a\r\ndata: b\r\ndata: c\r\ndata: d\r\n\r\n");
        assert_eq!(encode_event(b"").as_ref(), b"data: \r\n\r\n");
    }
}
