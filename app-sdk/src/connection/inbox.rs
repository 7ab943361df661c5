//! What waits for one connection's handlers. A pure value: it says when a worker must start, and when the
//! client is to be paused.
//!
//! ```text
//!  push ──► waiting bytes ──next──► handshake, message, message, … ──► over ──► end ──► nothing more
//!                                              │                        (when no call runs any more)
//!                                              └─► calls: running, held until their turn, streams
//! ```
//!
//! The worker reads on while calls run or are held, because items, completions and cancellations behind them must get
//! through; what is held still counts as waiting.

use std::collections::VecDeque;
use std::task::Waker;

use bytes::{Buf, Bytes, BytesMut};
use bytestring::ByteString;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::{FramingError, HandshakeError, HandshakeRequest, HubProtocol, Payload, next_frame};
use trunkline_protocol::limits::HANDSHAKE_MAX_BYTES;
use trunkline_protocol::manifest::CAUSE_HEADER;
use trunkline_protocol::service::{CloseConnection, FlowOperation};

use super::calls::{Calls, Hopeless, Incoming};
use super::flow::Flow;
use super::limits::Limits;
use super::{Admission, Scope, UploadEnd};

/// The inbox of one connection.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    waiting: VecDeque<Bytes>,
    /// Length of the message that the worker has in hand; it counts as waiting until the worker asks for the next, or
    /// it is held.
    in_hand_bytes: usize,
    flow: Flow,
    calls: Calls,
    /// What comes after all that waits; seldom there, so it is kept elsewhere.
    end: Option<Box<End>>,
    stage: Stage,
    /// The end is known: nothing more is let in.
    is_ending: bool,
    /// It ends by going on elsewhere.
    is_moving: bool,
    /// A worker is at it, or about to be.
    is_worked: bool,
    /// `on_connected` has succeeded, so `on_disconnected` is owed.
    is_connected: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    #[default]
    Handshake,
    Messages,
    /// All messages are read.
    Over,
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    /// Why.
    pub(crate) cause: Cause,
    /// What went wrong; `None` when all is well.
    pub(crate) error: Option<ByteString>,
}

impl End {
    /// An end at which nothing went wrong.
    pub(crate) fn of(cause: Cause) -> Self {
        Self { cause, error: None }
    }

    /// An end by what went wrong.
    pub(crate) fn by(cause: Cause, error: impl Into<ByteString>) -> Self {
        Self { cause, error: Some(error.into()) }
    }

    /// What a proxy says of the end of a connection. One that names no cause tells apart only what went wrong and what
    /// did not.
    pub(crate) fn told(close: &CloseConnection) -> Self {
        let error = close.error.clone().filter(|error| !error.is_empty());
        let named = close.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(CAUSE_HEADER));
        let named = named.and_then(|(_, values)| Cause::from_label(values.first()?));
        let plain = if error.is_some() { Cause::Unnamed } else { Cause::ClientClosed };
        Self { cause: named.unwrap_or(plain), error }
    }
}

/// What a worker is to do next.
#[derive(Debug)]
pub(crate) enum Next {
    /// The client says which protocol it speaks.
    Handshake(Result<HandshakeRequest, HandshakeError>),
    /// The body of a hub message, and the length of its frame.
    Message(Bytes, usize),
    /// The turn of a call has come that was held.
    Start(Incoming),
    /// The bytes can't be cut into messages: the connection can't go on.
    Broken(FramingError),
    /// The client says nothing more: whoever waits for it is to be told.
    Over,
    /// The connection is over, and no call runs any more; `true`: and `on_disconnected` is owed.
    End(End, bool),
    /// All messages are read and no call runs any more: it may go on elsewhere.
    Move,
    /// Nothing can be done now: the worker is to end.
    Idle,
}

impl Inbox {
    /// Bytes came from the client. Returns whether a worker must start.
    pub(crate) fn push(&mut self, bytes: Bytes) -> bool {
        if self.is_ending || bytes.is_empty() {
            return false;
        }
        self.flow.add_bytes(bytes.len());
        self.waiting.push_back(bytes);
        !std::mem::replace(&mut self.is_worked, true)
    }

    /// The connection ends after what waits. Returns whether a worker must start.
    pub(crate) fn finish(&mut self, end: End) -> bool {
        debug_assert!(!self.is_ending || self.is_moving, "the roster lets only one end a connection");
        self.end = Some(Box::new(end));
        (self.is_ending, self.is_moving) = (true, false);
        !std::mem::replace(&mut self.is_worked, true)
    }

    /// The connection goes on elsewhere after what waits; unless it ends before. Returns whether a worker must start.
    pub(crate) fn finish_by_moving(&mut self) -> bool {
        if self.is_ending {
            return false;
        }
        let start = self.finish(End::of(Cause::Superseded));
        self.is_moving = true;
        start
    }

    /// Whether the connection is about to go on elsewhere.
    pub(crate) fn is_moving(&self) -> bool {
        self.is_moving
    }

    /// The connection has gone on elsewhere: what waits is dropped, and no `on_disconnected` is owed. Returns whether a
    /// worker must start.
    pub(crate) fn finish_quietly(&mut self) -> bool {
        self.clear();
        (self.is_connected, self.is_moving) = (false, false);
        if self.is_ending { false } else { self.finish(End::of(Cause::Superseded)) }
    }

    /// Drops what waits.
    pub(crate) fn clear(&mut self) {
        self.flow.remove_bytes(self.waiting.iter().map(Bytes::len).sum());
        self.waiting = VecDeque::new();
        self.calls.drop_held(&mut self.flow);
    }

    /// `on_connected` has succeeded.
    pub(crate) fn set_connected(&mut self) {
        self.is_connected = true;
    }

    /// Whether `on_connected` has succeeded, and `on_disconnected` has not begun.
    pub(crate) fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// What the worker is to do next.
    pub(crate) fn next(&mut self, protocol: HubProtocol, limits: &Limits) -> Next {
        self.put_down();
        if let Some(call) = self.calls.next_held(limits, &mut self.flow) {
            return Next::Start(call);
        }
        let next = match self.stage {
            Stage::Handshake => self.next_handshake(),
            Stage::Messages => self.next_message(protocol, limits.message_max_bytes),
            Stage::Over => None,
        };
        next.unwrap_or_else(|| self.rest())
    }

    /// A call has come.
    pub(crate) fn admit(&mut self, call: Incoming, limits: &Limits) -> Admission {
        self.put_down();
        self.calls.admit(call, limits, &mut self.flow)
    }

    /// An item of an upload has come; returns who waits for it. `None`: nobody knows the upload.
    pub(crate) fn take_item(
        &mut self,
        id: &str,
        item: Payload,
        bytes: usize,
        limits: &Limits,
    ) -> Option<Option<Waker>> {
        self.put_down();
        self.calls.uploads()?.push(id, item, bytes, limits.upload_max_items, &mut self.flow).ok()
    }

    /// An upload ends; returns who waits for its items. `None`: nobody knows the upload.
    pub(crate) fn end_upload(&mut self, id: &str, end: UploadEnd) -> Option<Option<Waker>> {
        self.calls.uploads()?.end(id, end, &mut self.flow).ok()
    }

    /// The call is over. Returns whether a worker must start.
    pub(crate) fn release(&mut self, scope: &Scope, limits: &Limits) -> bool {
        self.calls.release(scope);
        self.start_if_due(limits)
    }

    /// The call gives back its slot. Returns whether a worker must start.
    pub(crate) fn release_slot(&mut self, scope: &Scope, limits: &Limits) -> bool {
        self.calls.release_slot(scope);
        self.start_if_due(limits)
    }

    /// The calls, and the flow that they have a share in.
    pub(crate) fn calls(&mut self) -> (&mut Calls, &mut Flow) {
        (&mut self.calls, &mut self.flow)
    }

    /// Whether waiting for the client is in vain.
    pub(crate) fn is_overfull(&self, limits: &Limits) -> bool {
        self.flow.is_overfull(limits)
    }

    /// Those who wait for the client in vain, because too much stands before what they wait for.
    pub(crate) fn take_hopeless(&mut self, limits: &Limits) -> Hopeless {
        if self.flow.is_overfull(limits) { self.calls.give_up_waits(&mut self.flow) } else { Hopeless::default() }
    }

    /// What the proxy is to be asked now; nothing any more when the end is known.
    pub(crate) fn poll_flow(&mut self, limits: &Limits) -> Option<FlowOperation> {
        if self.is_ending { None } else { self.flow.poll(limits) }
    }

    /// What should not be there when nothing is going on.
    #[cfg(test)]
    pub(crate) fn left_over(&self) -> Vec<String> {
        let mut left = self.calls.left_over();
        if !self.is_ending && !self.flow.is_at_rest() || self.flow.waiting_bytes() != 0 {
            left.push(format!("{:?}", self.flow));
        }
        left
    }

    fn start_if_due(&mut self, limits: &Limits) -> bool {
        let is_due = self.calls.has_startable(limits) || (self.end.is_some() && self.calls.are_over());
        is_due && !std::mem::replace(&mut self.is_worked, true)
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
                    self.in_hand_bytes = frame.length;
                    self.flow.add_bytes(frame.length);
                    return Some(Next::Message(body, frame.length));
                }
                Ok(None) if self.join_front() => {}
                Ok(None) => return None,
                Err(error) => return Some(Next::Broken(error)),
            }
        }
    }

    /// No whole message waits.
    fn rest(&mut self) -> Next {
        if self.end.is_some() && self.stage != Stage::Over {
            self.stage = Stage::Over;
            self.flow.remove_bytes(self.waiting.iter().map(Bytes::len).sum());
            self.waiting = VecDeque::new();
            return Next::Over;
        }
        if self.is_moving && self.calls.are_over() {
            return Next::Move;
        }
        if self.calls.are_over()
            && let Some(end) = self.end.take()
        {
            return Next::End(*end, std::mem::take(&mut self.is_connected));
        }
        self.is_worked = false;
        if self.waiting.is_empty() {
            // An idle connection owns no buffer.
            self.waiting = VecDeque::new();
        }
        Next::Idle
    }

    fn put_down(&mut self) {
        self.flow.remove_bytes(std::mem::take(&mut self.in_hand_bytes));
    }

    fn consume(&mut self, length: usize) {
        self.flow.remove_bytes(length);
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

    fn open() -> Inbox {
        Inbox { stage: Stage::Messages, ..Inbox::default() }
    }

    fn limits() -> Limits {
        Limits { message_max_bytes: 1000, inbox_max_bytes: 100, ..Limits::default() }
    }

    fn next(inbox: &mut Inbox) -> Next {
        inbox.next(HubProtocol::Json, &limits())
    }

    fn message(inbox: &mut Inbox) -> Bytes {
        match next(inbox) {
            Next::Message(body, _) => body,
            other => panic!("{other:?}"),
        }
    }

    fn end(text: &str) -> End {
        End::by(Cause::AppError, text)
    }

    #[test]
    fn a_worker_starts_once_and_again_after_it_went_idle() {
        let mut inbox = open();
        assert!(inbox.push(Bytes::from_static(b"a\x1e")));
        assert!(!inbox.push(Bytes::from_static(b"b\x1e")));
        assert_eq!(message(&mut inbox), "a");
        assert_eq!(message(&mut inbox), "b");
        assert!(matches!(next(&mut inbox), Next::Idle));
        assert!(inbox.push(Bytes::from_static(b"c\x1e")));
    }

    #[test]
    fn messages_come_whole_however_they_were_cut() {
        let mut inbox = open();
        for piece in ["a", "b\x1ec", "d", "e\x1ef\x1e"] {
            inbox.push(Bytes::from_static(piece.as_bytes()));
        }
        assert_eq!(message(&mut inbox), "ab");
        assert_eq!(message(&mut inbox), "cde");
        assert_eq!(message(&mut inbox), "f");
        assert!(matches!(next(&mut inbox), Next::Idle));
    }

    #[test]
    fn the_handshake_comes_first_and_messages_may_follow_in_the_same_piece() {
        let mut inbox = Inbox::default();
        inbox.push(Bytes::from_static(b"{\"protocol\":\"json\",\"version\":1}\x1ea\x1e"));
        assert!(matches!(next(&mut inbox), Next::Handshake(Ok(_))));
        assert_eq!(message(&mut inbox), "a");
    }

    #[test]
    fn what_was_read_waits_no_longer() {
        let mut inbox = open();
        inbox.push(Bytes::from([b"x".repeat(150).as_slice(), b"\x1e"].concat()));
        assert_eq!(inbox.poll_flow(&limits()), Some(FlowOperation::Pause));
        message(&mut inbox);
        assert_eq!(inbox.poll_flow(&limits()), None, "the worker has it in hand");
        assert!(matches!(next(&mut inbox), Next::Idle));
        assert_eq!(inbox.poll_flow(&limits()), Some(FlowOperation::Resume));
    }

    #[test]
    fn what_waits_is_taken_before_the_end_and_nothing_after_it() {
        let mut inbox = open();
        inbox.set_connected();
        inbox.push(Bytes::from_static(b"a\x1ehalf"));
        assert!(!inbox.finish(end("gone")));
        assert!(!inbox.push(Bytes::from_static(b"late\x1e")));
        assert_eq!(message(&mut inbox), "a");
        assert!(matches!(next(&mut inbox), Next::Over));
        assert!(matches!(next(&mut inbox), Next::End(reason, true) if reason == end("gone")));
        assert!(matches!(next(&mut inbox), Next::Idle));
        assert!(!inbox.push(Bytes::from_static(b"late\x1e")));
    }

    #[test]
    fn a_client_that_connected_spoke_and_left_at_once_is_heard_out() {
        let mut inbox = Inbox::default();
        inbox.push(Bytes::from_static(b"{\"protocol\":\"json\",\"version\":1}\x1ea\x1e"));
        inbox.finish(End::of(Cause::ClientClosed));
        assert!(matches!(next(&mut inbox), Next::Handshake(Ok(_))));
        assert_eq!(message(&mut inbox), "a");
        assert!(matches!(next(&mut inbox), Next::Over));
        assert!(matches!(next(&mut inbox), Next::End(_, false)));
    }

    #[test]
    fn a_client_that_was_never_connected_is_owed_no_farewell() {
        let mut inbox = Inbox::default();
        assert!(inbox.push(Bytes::from_static(b"{\"proto")));
        assert!(!inbox.finish(End::of(Cause::ClientClosed)));
        assert!(matches!(next(&mut inbox), Next::Over));
        assert!(matches!(next(&mut inbox), Next::End(_, false)));
    }

    #[test]
    fn an_oversized_message_breaks_the_connection() {
        let mut inbox = open();
        inbox.push(Bytes::from(vec![b'x'; 1001]));
        assert!(matches!(next(&mut inbox), Next::Broken(FramingError::TooLarge { limit: 1000 })));
    }

    #[test]
    fn an_idle_inbox_owns_no_memory() {
        let mut inbox = open();
        inbox.push(Bytes::from_static(b"a\x1e"));
        message(&mut inbox);
        assert!(matches!(next(&mut inbox), Next::Idle));
        assert_eq!(inbox.waiting.capacity(), 0);
    }
}
