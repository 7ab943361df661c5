//! Parser of an event stream, which returns the data of its events.
//!
//! ```text
//!  : a comment␍␊
//!  data: one line␍␊      ┐ an event, whose data is
//!  data: and another␍␊   │ "one line␊and another"
//!  ␍␊                    ┘
//! ```
//!
//! Follows the HTML standard, except that it skips the fields unused by SignalR (`event`, `id`, `retry`). No crate was
//! found that is well maintained and allocates no string per field.

use memchr::memchr2;

use super::messages::MESSAGE_MAX_BYTES;

/// Error for an event that exceeds the size limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event without end")]
pub(crate) struct EndlessEvent;

/// Incremental parser of an event stream.
#[derive(Debug, Default)]
pub(crate) struct EventParser {
    /// Buffer for an incomplete line.
    line: Vec<u8>,
    /// Data of the incomplete event, with a line feed after each line.
    data: Vec<u8>,
    /// Whether the last line ended with a carriage return: an immediately following line feed belongs to it.
    is_after_return: bool,
}

impl EventParser {
    /// Processes bytes, split anywhere, and passes on the data of each completed event.
    pub(crate) fn take(&mut self, mut bytes: &[u8], mut notify: impl FnMut(&[u8])) -> Result<(), EndlessEvent> {
        if self.is_after_return && !bytes.is_empty() {
            self.is_after_return = false;
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        while let Some((line, end, rest)) = split_line(bytes) {
            if self.line.is_empty() {
                self.take_line(line, &mut notify);
            } else {
                let mut whole = std::mem::take(&mut self.line);
                whole.extend_from_slice(line);
                self.take_line(&whole, &mut notify);
            }
            self.is_after_return = end == b'\r' && rest.is_empty();
            bytes = if end == b'\r' { rest.strip_prefix(b"\n").unwrap_or(rest) } else { rest };
        }
        self.line.extend_from_slice(bytes);
        if self.line.len() + self.data.len() > MESSAGE_MAX_BYTES { Err(EndlessEvent) } else { Ok(()) }
    }

    fn take_line(&mut self, line: &[u8], notify: &mut impl FnMut(&[u8])) {
        if line.is_empty() {
            // Also frees the memory, so that an idle connection has no buffer.
            let data = std::mem::take(&mut self.data);
            if let Some(data) = data.strip_suffix(b"\n") {
                notify(data);
            }
        } else if let Some(value) = data_of(line) {
            self.data.extend_from_slice(value);
            self.data.push(b'\n');
        }
    }
}

/// First line, its terminator, and the rest.
fn split_line(bytes: &[u8]) -> Option<(&[u8], u8, &[u8])> {
    let (line, rest) = bytes.split_at_checked(memchr2(b'\r', b'\n', bytes)?)?;
    let (&end, rest) = rest.split_first()?;
    Some((line, end, rest))
}

/// Value of a data line; `None` for comments and other fields.
fn data_of(line: &[u8]) -> Option<&[u8]> {
    match line.strip_prefix(b"data")? {
        [] => Some(&[]),
        [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(chunks: &[&[u8]]) -> Vec<String> {
        let mut stream = EventParser::default();
        let mut events = Vec::new();
        for chunk in chunks {
            stream.take(chunk, |data| events.push(String::from_utf8_lossy(data).into_owned())).unwrap();
        }
        events
    }

    /// Bytes of a SignalR server: a comment, then events of one or several lines.
    const STREAM: &[u8] = b":\r\ndata: {\"type\":6}\x1e\r\n\r\ndata: one\r\ndata:two\r\n\r\n";

    #[test]
    fn events_are_whole_however_the_bytes_are_cut() {
        let expected = ["{\"type\":6}\u{1e}", "one\ntwo"];
        assert_eq!(events(&[STREAM]), expected);
        for cut in 0..STREAM.len() {
            assert_eq!(events(&[&STREAM[..cut], &[], &STREAM[cut..]]), expected, "{cut}");
        }
        assert_eq!(events(&STREAM.chunks(1).collect::<Vec<_>>()), expected);
    }

    #[test]
    fn each_end_of_line_is_as_good_as_the_others() {
        for end in ["\n", "\r", "\r\n"] {
            let stream = ["data: a", "data: b", "", "data: c", "", ""].join(end);
            assert_eq!(events(&[stream.as_bytes()]), ["a\nb", "c"], "{end:?}");
            let bytes: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
            assert_eq!(events(&bytes), ["a\nb", "c"], "{end:?}");
        }
    }

    #[test]
    fn only_one_blank_is_taken_off_and_other_fields_are_passed_over() {
        assert_eq!(events(&[b"data:  x\n\n"]), [" x"]);
        assert_eq!(events(&[b"event: e\nid: 1\ndatum: z\nretry: 3\ndata: x\n\n"]), ["x"]);
        assert_eq!(events(&[b"data\ndata:\n\n"]), ["\n"]);
    }

    #[test]
    fn without_data_there_is_no_event_and_without_a_blank_line_no_end() {
        assert_eq!(events(&[b"\n\n: comment\n\nevent: e\n\n"]), [""; 0]);
        assert_eq!(events(&[b"data: begun\n"]), [""; 0]);
    }

    #[test]
    fn an_event_without_end_is_an_error() {
        let mut stream = EventParser::default();
        let part = vec![b'x'; MESSAGE_MAX_BYTES];
        assert_eq!(stream.take(&part, |_| ()), Ok(()));
        assert_eq!(stream.take(b"x", |_| ()), Err(EndlessEvent));
    }

    #[test]
    fn nothing_is_kept_behind_a_whole_event() {
        let mut stream = EventParser::default();
        stream.take(STREAM, |_| ()).unwrap();
        assert_eq!((stream.line.capacity(), stream.data.capacity()), (0, 0));
    }
}
