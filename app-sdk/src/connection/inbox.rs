//! What waits for one connection's handlers. A pure value: it says when a worker must start, and when the
//! client is to be paused.
//!
//! ```text
//!  push ──► waiting bytes ──next──► handshake, message, message, … ──► end ──► nothing more
//!             │  over the budget: pause          at half of it: resume
//! ```

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use bytestring::ByteString;
use trunkline_protocol::hub::{FramingError, HandshakeError, HandshakeRequest, HubProtocol, next_frame};
use trunkline_protocol::limits::HANDSHAKE_MAX_BYTES;

/// The inbox of one connection.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    waiting: VecDeque<Bytes>,
    waiting_bytes: usize,
    stage: Stage,
    /// What comes after all that waits.
    end: Option<End>,
    /// The end is known: nothing more is let in.
    is_ending: bool,
    /// A worker is at it, or about to be.
    is_worked: bool,
    is_paused: bool,
    /// `on_connected` has succeeded, so `on_disconnected` is owed.
    is_connected: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    #[default]
    Handshake,
    Messages,
}

/// How a connection ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct End {
    /// Why; `None` when all is well.
    pub(crate) error: Option<ByteString>,
}

/// What is to be done after a push.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Pushed {
    /// Start a worker.
    pub(crate) start: bool,
    /// Ask the proxy to pause the client.
    pub(crate) pause: bool,
}

/// What a worker is to do next.
#[derive(Debug)]
pub(crate) enum Next {
    /// The client says which protocol it speaks.
    Handshake(Result<HandshakeRequest, HandshakeError>),
    /// The body of a hub message.
    Message(Bytes),
    /// The bytes can't be cut into messages: the connection can't go on.
    Broken(FramingError),
    /// The connection is over; `true`: and `on_disconnected` is owed.
    End(End, bool),
    /// Nothing waits: the worker is to end.
    Idle,
}

impl Inbox {
    /// Bytes came from the client.
    pub(crate) fn push(&mut self, bytes: Bytes, budget_bytes: usize) -> Pushed {
        if self.is_ending || bytes.is_empty() {
            return Pushed::default();
        }
        self.waiting_bytes += bytes.len();
        self.waiting.push_back(bytes);
        let pause = !self.is_paused && self.waiting_bytes > budget_bytes;
        self.is_paused |= pause;
        Pushed { start: !std::mem::replace(&mut self.is_worked, true), pause }
    }

    /// The connection ends after what waits. Returns whether a worker must start.
    pub(crate) fn finish(&mut self, end: End) -> bool {
        debug_assert!(!self.is_ending, "the roster lets only one end a connection");
        self.end = Some(end);
        self.is_ending = true;
        !std::mem::replace(&mut self.is_worked, true)
    }

    /// Drops what waits.
    pub(crate) fn clear(&mut self) {
        self.waiting = VecDeque::new();
        self.waiting_bytes = 0;
    }

    /// `on_connected` has succeeded.
    pub(crate) fn set_connected(&mut self) {
        self.is_connected = true;
    }

    /// What the worker is to do next.
    pub(crate) fn next(&mut self, protocol: HubProtocol, message_max_bytes: usize) -> Next {
        let next = match self.stage {
            Stage::Handshake => self.next_handshake(),
            Stage::Messages => self.next_message(protocol, message_max_bytes),
        };
        next.unwrap_or_else(|| self.rest())
    }

    /// Whether the client is to be resumed, now that less waits than before.
    pub(crate) fn take_resume(&mut self, budget_bytes: usize) -> bool {
        let resume = self.is_paused && !self.is_ending && self.waiting_bytes <= budget_bytes / 2;
        self.is_paused &= !resume;
        resume
    }

    fn next_handshake(&mut self) -> Option<Next> {
        loop {
            match HandshakeRequest::read(self.waiting.front()?, HANDSHAKE_MAX_BYTES) {
                Ok(Some((request, length))) => {
                    self.consume(length);
                    self.stage = Stage::Messages;
                    return Some(Next::Handshake(Ok(request)));
                }
                Ok(None) if self.join_front() => {}
                Ok(None) => return None,
                Err(error) => return Some(Next::Handshake(Err(error))),
            }
        }
    }

    fn next_message(&mut self, protocol: HubProtocol, message_max_bytes: usize) -> Option<Next> {
        loop {
            let front = self.waiting.front()?;
            match next_frame(protocol, front, message_max_bytes) {
                Ok(Some(frame)) => {
                    let body = front.slice(frame.body);
                    self.consume(frame.length);
                    return Some(Next::Message(body));
                }
                Ok(None) if self.join_front() => {}
                Ok(None) => return None,
                Err(error) => return Some(Next::Broken(error)),
            }
        }
    }

    /// No whole message waits.
    fn rest(&mut self) -> Next {
        match self.end.take() {
            Some(end) => {
                self.clear();
                Next::End(end, std::mem::take(&mut self.is_connected))
            }
            None => {
                self.is_worked = false;
                if self.waiting.is_empty() {
                    // An idle connection owns no buffer.
                    self.waiting = VecDeque::new();
                }
                Next::Idle
            }
        }
    }

    fn consume(&mut self, length: usize) {
        self.waiting_bytes = self.waiting_bytes.saturating_sub(length);
        if let Some(front) = self.waiting.front_mut() {
            front.advance(length.min(front.len()));
            if front.is_empty() {
                self.waiting.pop_front();
            }
        }
    }

    /// Puts the first two pieces together, when a message is cut between them; `false` when there is only one.
    fn join_front(&mut self) -> bool {
        if self.waiting.len() < 2 {
            return false;
        }
        let mut joined = BytesMut::new();
        for _ in 0..2 {
            joined.extend_from_slice(&self.waiting.pop_front().unwrap_or_default());
        }
        self.waiting.push_front(joined.freeze());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: usize = 100;

    fn open() -> Inbox {
        Inbox { stage: Stage::Messages, ..Inbox::default() }
    }

    fn next(inbox: &mut Inbox) -> Next {
        inbox.next(HubProtocol::Json, 1000)
    }

    fn message(inbox: &mut Inbox) -> Bytes {
        match next(inbox) {
            Next::Message(body) => body,
            other => panic!("{other:?}"),
        }
    }

    fn end(text: &str) -> End {
        End { error: Some(text.into()) }
    }

    #[test]
    fn a_worker_starts_once_and_again_after_it_went_idle() {
        let mut inbox = open();
        assert!(inbox.push(Bytes::from_static(b"a\x1e"), BUDGET).start);
        assert!(!inbox.push(Bytes::from_static(b"b\x1e"), BUDGET).start);
        assert_eq!(message(&mut inbox), "a");
        assert_eq!(message(&mut inbox), "b");
        assert!(matches!(next(&mut inbox), Next::Idle));
        assert!(inbox.push(Bytes::from_static(b"c\x1e"), BUDGET).start);
    }

    #[test]
    fn messages_come_whole_however_they_were_cut() {
        let mut inbox = open();
        for piece in ["a", "b\x1ec", "d", "e\x1ef\x1e"] {
            inbox.push(Bytes::from_static(piece.as_bytes()), BUDGET);
        }
        assert_eq!(message(&mut inbox), "ab");
        assert_eq!(message(&mut inbox), "cde");
        assert_eq!(message(&mut inbox), "f");
        assert!(matches!(next(&mut inbox), Next::Idle));
    }

    #[test]
    fn the_handshake_comes_first_and_messages_may_follow_in_the_same_piece() {
        let mut inbox = Inbox::default();
        inbox.push(Bytes::from_static(b"{\"protocol\":\"json\",\"version\":1}\x1ea\x1e"), BUDGET);
        assert!(matches!(next(&mut inbox), Next::Handshake(Ok(_))));
        assert_eq!(message(&mut inbox), "a");
    }

    #[test]
    fn too_much_pauses_once_and_half_of_it_resumes() {
        let mut inbox = open();
        let piece = || Bytes::from([b"x".repeat(39).as_slice(), b"\x1e"].concat());
        assert!(!inbox.push(piece(), BUDGET).pause);
        assert!(!inbox.push(piece(), BUDGET).pause);
        assert!(inbox.push(piece(), BUDGET).pause);
        assert!(!inbox.push(piece(), BUDGET).pause, "it was asked for already; what was in flight is taken");
        for left in [120, 80] {
            message(&mut inbox);
            assert_eq!(inbox.waiting_bytes, left);
            assert!(!inbox.take_resume(BUDGET));
        }
        message(&mut inbox);
        assert!(inbox.take_resume(BUDGET));
        assert!(!inbox.take_resume(BUDGET));
    }

    #[test]
    fn what_waits_is_taken_before_the_end_and_nothing_after_it() {
        let mut inbox = open();
        inbox.set_connected();
        inbox.push(Bytes::from_static(b"a\x1ehalf"), BUDGET);
        assert!(!inbox.finish(end("gone")));
        assert!(!inbox.push(Bytes::from_static(b"late\x1e"), BUDGET).start);
        assert_eq!(message(&mut inbox), "a");
        assert!(matches!(next(&mut inbox), Next::End(reason, true) if reason == end("gone")));
        assert!(matches!(next(&mut inbox), Next::Idle));
        assert!(!inbox.push(Bytes::from_static(b"late\x1e"), BUDGET).start);
    }

    #[test]
    fn a_client_that_connected_spoke_and_left_at_once_is_heard_out() {
        let mut inbox = Inbox::default();
        inbox.push(Bytes::from_static(b"{\"protocol\":\"json\",\"version\":1}\x1ea\x1e"), BUDGET);
        inbox.finish(End::default());
        assert!(matches!(next(&mut inbox), Next::Handshake(Ok(_))));
        assert_eq!(message(&mut inbox), "a");
        assert!(matches!(next(&mut inbox), Next::End(_, false)));
    }

    #[test]
    fn a_client_that_was_never_connected_is_owed_no_farewell() {
        let mut inbox = Inbox::default();
        assert!(inbox.push(Bytes::from_static(b"{\"proto"), BUDGET).start);
        assert!(!inbox.finish(End::default()));
        assert!(matches!(next(&mut inbox), Next::End(_, false)));
    }

    #[test]
    fn an_oversized_message_breaks_the_connection() {
        let mut inbox = open();
        inbox.push(Bytes::from(vec![b'x'; 1001]), BUDGET);
        assert!(matches!(next(&mut inbox), Next::Broken(FramingError::TooLarge { limit: 1000 })));
    }

    #[test]
    fn an_idle_inbox_owns_no_memory() {
        let mut inbox = open();
        inbox.push(Bytes::from_static(b"a\x1e"), BUDGET);
        message(&mut inbox);
        assert!(matches!(next(&mut inbox), Next::Idle));
        assert_eq!(inbox.waiting.capacity(), 0);
    }
}
