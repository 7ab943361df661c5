//! Server-sent events: encoding of messages as `text/event-stream`.

use bytes::{BufMut, Bytes, BytesMut};

/// First bytes of an event stream: a comment, because some browsers call a stream open only at its first byte.
pub(crate) const PREAMBLE: &[u8] = b":\r\n";

const FIELD: &[u8] = b"data: ";
const LINE_END: &[u8] = b"\r\n";

/// Encodes one event; each line of the payload becomes a `data` line, and comes out ending in `\n` alone. To who reads
/// it a line ends with `\r\n`, `\n` or `\r`: one that did not end here could hold fields of the payload's own.
#[must_use]
pub(crate) fn encode_event(payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(payload.len() + FIELD.len() + 2 * LINE_END.len());
    let mut rest = Some(payload);
    while let Some(lines) = rest {
        let (line, behind) = split_line(lines);
        out.put_slice(FIELD);
        out.put_slice(line);
        out.put_slice(LINE_END);
        rest = behind;
    }
    out.put_slice(LINE_END);
    out.freeze()
}

/// Splits the first line from what is behind it, if anything is.
fn split_line(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    match text.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
        Some(end) => {
            let (line, behind) = text.split_at(end);
            let behind = behind.strip_prefix(b"\r\n").or_else(|| behind.get(1..));
            (line, behind)
        }
        None => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Data of the events of a stream, as the HTML standard has them read.
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

    #[test]
    fn an_event_is_one_line_for_each_line_and_an_empty_one() {
        assert_eq!(encode_event(b"{\"type\":6}\x1e").as_ref(), b"data: {\"type\":6}\x1e\r\n\r\n");
        assert_eq!(encode_event(b"a\r\nb\nc\rd").as_ref(), b"data: a\r\ndata: b\r\ndata: c\r\ndata: d\r\n\r\n");
        assert_eq!(encode_event(b"").as_ref(), b"data: \r\n\r\n");
    }
}
