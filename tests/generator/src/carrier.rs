//! Transport of a server's messages: WebSocket frames, events of an endless response, or long polls.

use anyhow::{Result, bail, ensure};
use memchr::memchr;

use crate::frame::{Frame, Frames, Opcode};
use crate::http_answer::Answer;

/// End of each JSON hub message; text transports support only JSON.
const MESSAGE_END: u8 = 0x1e;
const FIELD: &[u8] = b"data: ";

/// Transport of a client, with its incomplete data.
#[derive(Debug)]
pub enum Carrier {
    /// WebSocket frames in both directions.
    WebSocket(Frames),
    /// Server-sent events of one endless response.
    EventStream(EventStream),
    /// Long polls in sequence.
    LongPoll(LongPoll),
}

/// Response with a sequence of events.
#[derive(Debug)]
pub struct EventStream {
    answer: Answer,
    /// Line without its line end.
    line: Vec<u8>,
    messages: Messages,
}

/// Long polls, with one always pending.
#[derive(Debug)]
pub struct LongPoll {
    request: Vec<u8>,
    /// Incomplete head of a response.
    head: Vec<u8>,
    answer: Option<Answer>,
    messages: Messages,
    /// Number of completed responses without a following poll.
    due: usize,
}

/// Splitter for hub messages with an incomplete last one.
#[derive(Debug, Default)]
struct Messages(Vec<u8>);

impl From<Vec<u8>> for Carrier {
    fn from(early: Vec<u8>) -> Self {
        Self::WebSocket(Frames::new(early))
    }
}

impl Carrier {
    /// Processes bytes from the socket and passes each complete message on.
    ///
    /// # Errors
    /// The first error of `each`, or if the bytes are invalid for this transport.
    pub fn take(&mut self, bytes: &[u8], mut each: impl FnMut(&Frame<'_>) -> Result<()>) -> Result<()> {
        match self {
            Self::WebSocket(frames) => frames.take(bytes, each),
            Self::EventStream(stream) => stream.take(bytes, |message| each(&text(message))),
            Self::LongPoll(poll) => poll.take(bytes, |message| each(&text(message))),
        }
    }

    /// Returns the request that is due, if any.
    pub fn poll(&mut self) -> Result<Option<&[u8]>> {
        let Self::LongPoll(poll) = self else { return Ok(None) };
        ensure!(poll.due <= 1, "a poll was answered twice");
        Ok((std::mem::take(&mut poll.due) == 1).then_some(poll.request.as_slice()))
    }
}

impl EventStream {
    /// Starts after the head of the response.
    #[must_use]
    pub fn new(answer: Answer) -> Self {
        Self { answer, line: Vec::new(), messages: Messages::default() }
    }

    /// Processes bytes of the response and passes each hub message on.
    ///
    /// # Errors
    /// The first error of `each`, or if the stream ends.
    pub fn take(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let Self { answer, line, messages } = self;
        answer.take(bytes, |mut part| {
            while let Some(end) = memchr(b'\n', part) {
                let (head, rest) = part.split_at_checked(end + 1).unwrap_or((part, &[]));
                line.extend_from_slice(head);
                // Other fields and comments carry no messages, and hub messages contain no line ends.
                if let Some(data) = line.strip_prefix(FIELD) {
                    messages.take(data.trim_ascii_end(), &mut each)?;
                }
                line.clear();
                part = rest;
            }
            line.extend_from_slice(part);
            Ok(())
        })?;
        ensure!(!answer.is_over(), "the event stream has ended");
        Ok(())
    }
}

impl LongPoll {
    /// Starts with a pending poll. All polls use this request.
    #[must_use]
    pub fn new(request: Vec<u8>) -> Self {
        Self { request, head: Vec::new(), answer: None, messages: Messages::default(), due: 0 }
    }

    /// Processes bytes of responses and passes each hub message on.
    ///
    /// # Errors
    /// The first error of `each`, or if a poll's response contains no messages.
    pub fn take(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let Self { head, answer, messages, due, .. } = self;
        let mut body = |part: &[u8]| messages.take(part, &mut each);
        // Branches, because optimised rustc 1.95 omits the addition of a bool here.
        let mut is_over = |answer: &Answer| {
            if answer.is_over() {
                *due += 1;
                return true;
            }
            false
        };
        if let Some(begun) = answer {
            let rest = begun.take(bytes, &mut body)?;
            if !is_over(begun) {
                return Ok(());
            }
            *answer = None;
            head.extend_from_slice(rest);
        } else {
            head.extend_from_slice(bytes);
        }
        while let Some((mut begun, rest)) = Answer::begin(head)? {
            if begun.status != 200 {
                bail!("a poll is answered with {}", begun.status);
            }
            let rest = begun.take(rest, &mut body)?.to_vec();
            *head = rest;
            if !is_over(&begun) {
                *answer = Some(begun);
                break;
            }
        }
        Ok(())
    }
}

impl Messages {
    /// Passes each complete message on, including its terminator.
    fn take(&mut self, mut bytes: &[u8], each: &mut impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        while let Some(end) = memchr(MESSAGE_END, bytes) {
            let (message, rest) = bytes.split_at_checked(end + 1).unwrap_or((bytes, &[]));
            if self.0.is_empty() {
                each(message)?;
            } else {
                self.0.extend_from_slice(message);
                each(&std::mem::take(&mut self.0))?;
            }
            bytes = rest;
        }
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

fn text(message: &[u8]) -> Frame<'_> {
    Frame { is_final: true, opcode: Opcode::Text, payload: message, rest: &[] }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

    /// Messages received when the bytes are split here, and the number of due polls.
    fn received(mut carrier: Carrier, bytes: &[u8], cut: usize) -> (Vec<Vec<u8>>, usize) {
        let (mut messages, mut polls) = (Vec::new(), 0);
        for part in [&bytes[..cut], &bytes[cut..]] {
            let note = |frame: &Frame<'_>| -> Result<()> {
                messages.push(frame.payload.to_vec());
                Ok(())
            };
            carrier.take(part, note).unwrap();
            polls += usize::from(carrier.poll().unwrap().is_some());
        }
        (messages, polls)
    }

    #[test]
    fn events_are_hub_messages_wherever_the_bytes_are_cut() {
        let events = b"15\r\n:\r\ndata: one\x1e\r\n\r\ndata\r\ne\r\n: two\x1ethree\x1e\r\n\r\n2\r\n\r\n\r\n";
        for cut in 0..events.len() {
            let (answer, _) = Answer::begin(CHUNKED).unwrap().unwrap();
            let carrier = Carrier::EventStream(EventStream::new(answer));
            let expected = [b"one\x1e".to_vec(), b"two\x1e".to_vec(), b"three\x1e".to_vec()];
            assert_eq!(received(carrier, events, cut), (expected.to_vec(), 0), "cut at {cut}");
        }
    }

    #[test]
    fn each_whole_answer_makes_one_poll_due_and_messages_are_not_lost_at_a_cut() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\none\x1etwo\x1e";
        for cut in 0..answer.len() {
            let carrier = Carrier::LongPoll(LongPoll::new(b"GET".to_vec()));
            assert_eq!(
                received(carrier, answer, cut),
                (vec![b"one\x1e".to_vec(), b"two\x1e".to_vec()], 1),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn an_end_and_a_refusal_are_errors() {
        let (answer, _) = Answer::begin(CHUNKED).unwrap().unwrap();
        assert!(EventStream::new(answer).take(b"0\r\n\r\n", |_| Ok(())).is_err());
        assert!(LongPoll::new(Vec::new()).take(b"HTTP/1.1 204 No Content\r\n\r\n", |_| Ok(())).is_err());
    }
}
