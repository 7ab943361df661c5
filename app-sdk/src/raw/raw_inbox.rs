//! Messages of raw connections, and the inbox of one connection: messages waiting for its handler. No I/O: it returns
//! the waker of its reader, and decides when the client must pause.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use axum::extract::ws::Utf8Bytes;
use bytes::Bytes;
use bytestring::ByteString;
use trunkline_protocol::service::{FlowOperation, RawKind};

use crate::connection::{ClientWindow, FlowControl, Limits, SLICE_MIN_BYTES, detached};

/// Cost of a message in addition to its bytes, so that empty messages are not free.
const MESSAGE_BYTES: usize = size_of::<RawMessage>();

#[derive(Debug, Default)]
pub(super) struct RawInbox {
    waiting: VecDeque<RawMessage>,
    flow: FlowControl,
    pub(super) window: ClientWindow,
    reader: Option<Waker>,
    is_closed: bool,
    reassignment: ReaderNotice,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum ReaderNotice {
    #[default]
    None,
    /// The client's last data has arrived.
    Due,
    /// The handler has read all data and was notified.
    Given,
}

impl RawInbox {
    pub(super) fn poll_flow(&mut self, limits: &Limits) -> Option<FlowOperation> {
        self.flow.poll(limits)
    }

    pub(super) fn push(&mut self, message: RawMessage) -> Option<Waker> {
        if self.is_closed {
            return None;
        }
        self.flow.add_bytes(cost(&message));
        let reader = self.reader.take();
        // Without a waiting reader, the message may stay for long.
        self.waiting.push_back(if reader.is_none() { message.detached() } else { message });
        reader
    }

    pub(super) fn poll_next(&mut self, cx: &Context<'_>) -> Poll<Option<RawMessage>> {
        if let Some(message) = self.waiting.pop_front() {
            self.flow.remove_bytes(cost(&message));
            return Poll::Ready(Some(message));
        }
        // An idle connection holds no buffer.
        self.waiting = VecDeque::new();
        if self.is_closed {
            return Poll::Ready(None);
        }
        if self.is_leaving() {
            self.reassignment = ReaderNotice::Given;
            return Poll::Ready(None);
        }
        self.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Starts a reassignment: the client is no longer read.
    pub(super) fn begin_reassignment(&mut self) -> Option<Waker> {
        self.reassignment = ReaderNotice::Due;
        self.reader.take()
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.reassignment != ReaderNotice::None
    }

    /// Returns whether the handler has read all data and was notified of the reassignment.
    pub(super) fn supports_reassignment(&self) -> bool {
        self.reassignment == ReaderNotice::Given
    }

    /// Closes the inbox. Queued messages can still be read.
    pub(super) fn close_inbox(&mut self) -> Option<Waker> {
        self.is_closed = true;
        self.reader.take()
    }

    /// Closes the inbox of a finished reader: drops queued messages, so that they don't pause the client.
    pub(super) fn discard(&mut self) -> Option<Waker> {
        self.flow.remove_bytes(self.waiting.iter().map(cost).sum());
        self.waiting = VecDeque::new();
        self.close_inbox()
    }
}

fn cost(message: &RawMessage) -> usize {
    MESSAGE_BYTES + message.as_bytes().len()
}

/// A message of a raw connection. Over WebSockets, one WebSocket message; over other transports, an arbitrary part of
/// the stream. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RawMessage {
    /// A UTF-8 text message.
    Text(Utf8Bytes),
    /// A binary message with any bytes.
    Binary(Bytes),
}

impl RawMessage {
    /// Bytes of the message, text or binary.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            RawMessage::Text(text) => text.as_bytes(),
            RawMessage::Binary(bytes) => bytes,
        }
    }

    /// Text of the message; `None` if it is binary.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            RawMessage::Text(text) => Some(text),
            RawMessage::Binary(_) => None,
        }
    }

    pub(super) fn new(kind: RawKind, bytes: Bytes) -> Self {
        match kind {
            // Proxies do not forward invalid UTF-8 as text; if one did, the message is treated as binary.
            RawKind::Text => Utf8Bytes::try_from(bytes.clone()).map_or(Self::Binary(bytes), Self::Text),
            RawKind::Binary => Self::Binary(bytes),
        }
    }

    pub(super) fn detached(self) -> Self {
        match self {
            RawMessage::Text(text) if text.len() < SLICE_MIN_BYTES => Self::Text(text.as_str().into()),
            RawMessage::Text(text) => Self::Text(text),
            RawMessage::Binary(bytes) => Self::Binary(detached(bytes)),
        }
    }

    pub(super) fn kind(&self) -> RawKind {
        match self {
            RawMessage::Text(_) => RawKind::Text,
            RawMessage::Binary(_) => RawKind::Binary,
        }
    }
}

impl From<&str> for RawMessage {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for RawMessage {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<Utf8Bytes> for RawMessage {
    fn from(text: Utf8Bytes) -> Self {
        Self::Text(text)
    }
}

impl From<ByteString> for RawMessage {
    fn from(text: ByteString) -> Self {
        Self::new(RawKind::Text, text.into_bytes())
    }
}

impl From<Bytes> for RawMessage {
    fn from(bytes: Bytes) -> Self {
        Self::Binary(bytes)
    }
}

impl From<Vec<u8>> for RawMessage {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Binary(bytes.into())
    }
}

impl From<&'static [u8]> for RawMessage {
    fn from(bytes: &'static [u8]) -> Self {
        Self::Binary(Bytes::from_static(bytes))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use trunkline_protocol::service::{FlowOperation, RawKind};

    use super::*;

    fn limits() -> Limits {
        Limits { inbox_max_bytes: 4 * MESSAGE_BYTES, ..Limits::default() }
    }

    fn next(inbox: &mut RawInbox) -> Poll<Option<RawMessage>> {
        inbox.poll_next(&Context::from_waker(Waker::noop()))
    }

    #[test]
    fn messages_are_read_in_their_order_and_the_rest_after_the_end() {
        let mut inbox = RawInbox::default();
        assert!(next(&mut inbox).is_pending());
        assert!(inbox.push("a".into()).is_some(), "somebody waits");
        assert!(inbox.push(vec![1].into()).is_none());
        assert_eq!(next(&mut inbox), Poll::Ready(Some("a".into())));
        inbox.close_inbox();
        assert!(inbox.push("late".into()).is_none());
        assert_eq!(next(&mut inbox), Poll::Ready(Some(vec![1].into())));
        assert_eq!(next(&mut inbox), Poll::Ready(None));
        assert_eq!(next(&mut inbox), Poll::Ready(None));
    }

    #[test]
    fn a_handler_is_notified_of_a_reassignment_after_all_messages() {
        let mut inbox = RawInbox::default();
        inbox.push("a".into());
        assert!(!inbox.is_leaving());
        assert!(inbox.begin_reassignment().is_none(), "nobody waits");
        assert!(inbox.is_leaving() && !inbox.supports_reassignment());
        assert_eq!(next(&mut inbox), Poll::Ready(Some("a".into())));
        assert!(!inbox.supports_reassignment());
        assert_eq!(next(&mut inbox), Poll::Ready(None));
        assert!(inbox.supports_reassignment());
        inbox.close_inbox();
        let mut idle = RawInbox::default();
        assert!(next(&mut idle).is_pending());
        assert!(idle.begin_reassignment().is_some(), "somebody waits");
    }

    #[test]
    fn waiting_bytes_keep_no_buffer_of_the_link() {
        let link = Bytes::from(vec![b'x'; 64 * 1024]);
        let (text, binary) = (RawMessage::new(RawKind::Text, link.slice(..15)), link.slice(15..30).into());
        let mut inbox = RawInbox::default();
        assert!(next(&mut inbox).is_pending());
        inbox.push(link.slice(..15).into());
        let Poll::Ready(Some(RawMessage::Binary(first))) = next(&mut inbox) else { panic!("it is there") };
        assert_eq!(first.as_ptr(), link.as_ptr(), "what is awaited is a slice");
        drop(first);
        inbox.push(text);
        inbox.push(binary);
        assert!(link.is_unique());
        inbox.push(link.clone().into());
        assert!(!link.is_unique(), "what is large is a slice");
    }

    #[test]
    fn too_much_pauses_the_client_even_if_all_of_it_is_empty() {
        let (mut inbox, limits) = (RawInbox::default(), limits());
        for _ in 0..4 {
            inbox.push("".into());
            assert_eq!(inbox.poll_flow(&limits), None);
        }
        inbox.push("".into());
        assert_eq!(inbox.poll_flow(&limits), Some(FlowOperation::Pause));
        for _ in 0..3 {
            assert_eq!(inbox.poll_flow(&limits), None);
            assert!(next(&mut inbox).is_ready());
        }
        assert_eq!(inbox.poll_flow(&limits), Some(FlowOperation::Resume));
    }

    #[test]
    fn a_paused_client_resumes_when_its_handler_stops_reading() {
        let (mut inbox, limits) = (RawInbox::default(), limits());
        inbox.push("x".repeat(1000).into());
        assert_eq!(inbox.poll_flow(&limits), Some(FlowOperation::Pause));
        inbox.discard();
        assert_eq!(inbox.poll_flow(&limits), Some(FlowOperation::Resume));
        inbox.push("x".repeat(1000).into());
        assert_eq!(inbox.poll_flow(&limits), None);
        assert_eq!(next(&mut inbox), Poll::Ready(None));
    }
}
