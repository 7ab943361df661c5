//! Server-sent events: encoding of messages as `text/event-stream`.

use bytes::{BufMut, Bytes, BytesMut};

/// First bytes of an event stream: a comment, because some browsers call a stream open only at its first byte.
pub(crate) const PREAMBLE: &[u8] = b":\r\n";

const FIELD: &[u8] = b"data: ";
const LINE_END: &[u8] = b"\r\n";

/// Encodes one event; each line of the payload becomes a `data` line, and comes out ending in `\n` alone.
#[must_use]
pub(crate) fn encode_event(payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(payload.len() + FIELD.len() + 2 * LINE_END.len());
    for line in payload.split(|&byte| byte == b'\n') {
        out.put_slice(FIELD);
        out.put_slice(line.strip_suffix(b"\r").unwrap_or(line));
        out.put_slice(LINE_END);
    }
    out.put_slice(LINE_END);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_for_each_line_and_an_empty_one() {
        assert_eq!(encode_event(b"{\"type\":6}\x1e").as_ref(), b"data: {\"type\":6}\x1e\r\n\r\n");
        assert_eq!(encode_event(b"a\r\nb\nc").as_ref(), b"data: a\r\ndata: b\r\ndata: c\r\n\r\n");
        assert_eq!(encode_event(b"").as_ref(), b"data: \r\n\r\n");
    }
}
