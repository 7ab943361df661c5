//! Inbox of one connection: decides when a worker must be started and when the client must be paused. Pure logic.
//!
//! ```text
//!  push ──► waiting bytes ──next──► handshake, message, … ──► input ended ──► close
//!                                              │              (when no call is running)
//!                                              └─► calls: running, queued, uploads
//! ```
//!
//! The worker keeps reading while calls are running or queued, for the items, completions and cancellations behind
//! them. Queued calls count as waiting bytes. If a command such as `push` returns `true`, its caller must start a
//! worker.

use std::collections::BTreeSet;
use std::task::Waker;

use bytes::Bytes;
use bytestring::ByteString;
use tokio::sync::{Mutex, Notify};
use trunkline_protocol::cause::Cause;
use trunkline_protocol::fleet::{self, SenderLine};
use trunkline_protocol::hub::{FramingError, HandshakeError, HandshakeRequest, HubProtocol};
use trunkline_protocol::service::FlowOperation;

use super::call_state::CallState;
use super::call_table::{Admission, CallTable, IncomingCall, OverfullWaits};
use super::connection_close::{ConnectionClose, Reassignment};
use super::flow_control::{FlowControl, Limits};
use super::input::{Input, detached};
use super::message_trace::{MessageTrace, TracedPieces};
use super::upload_table::{UploadEnd, UploadItem};

#[derive(Debug)]
pub(crate) struct Inbox<C> {
    input: Input,
    /// Length of the message being handled. Counts as waiting until the worker takes the next message.
    handled_bytes: u32,
    flow: FlowControl,
    calls: CallTable<C>,
    pub(crate) window: ClientWindow,
    /// Rarely used parts, boxed to keep other connections small.
    rare: Option<Box<RareParts>>,
    stage: ReadStage,
    is_closing: bool,
    pub(crate) reassignment: Reassignment,
    /// A worker is running or about to start.
    has_worker: bool,
    /// `on_connected` has succeeded, so `on_disconnected` must run.
    is_connected: bool,
}

#[derive(Debug, Default)]
struct RareParts {
    /// Close that follows all waiting messages.
    close: Option<ConnectionClose>,
    /// The close no longer waits for calls.
    gives_up_calls: bool,
    /// Pieces followed by a live trace.
    traced: TracedPieces,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum ReadStage {
    #[default]
    Handshake,
    Messages,
    Ended,
}

#[derive(Debug)]
pub(crate) enum WorkItem<C> {
    Handshake(Result<HandshakeRequest, HandshakeError>),
    /// Body of a hub message, and the length of its frame.
    Message(Bytes, usize),
    /// A queued call that can start now.
    StartCall(IncomingCall<C>),
    /// The bytes cannot be split into messages. The connection must be closed.
    Unframed(FramingError),
    /// The client sends nothing more. Methods that wait for it must be notified.
    InputEnded,
    /// The connection is closed, and no call is running; `true` if `on_disconnected` must run.
    Close(ConnectionClose, bool),
    /// All messages are read, and no call is running: the connection can be reassigned.
    Reassign,
    Idle,
}

impl<C: AsRef<CallState>> Inbox<C> {
    #[must_use = "a worker must be started"]
    pub(crate) fn push(&mut self, bytes: Bytes) -> bool {
        if self.is_closing || bytes.is_empty() {
            return false;
        }
        self.flow.add_bytes(bytes.len());
        // A busy worker may take long.
        self.input.push(if self.has_worker { detached(bytes) } else { bytes });
        self.start_worker()
    }

    /// Adds bytes from the client that a live trace follows, starting at this mark.
    #[must_use = "a worker must be started"]
    pub(crate) fn push_traced(&mut self, bytes: Bytes, mark: i64) -> bool {
        if !self.is_closing {
            self.rare.get_or_insert_default().traced.push(self.input.len(), bytes.len(), mark);
        }
        self.push(bytes)
    }

    pub(crate) fn take_trace(&mut self) -> Option<Box<MessageTrace>> {
        let taken = self.rare.as_mut()?.traced.take_last();
        self.drop_rare();
        taken
    }

    #[must_use = "a worker must be started"]
    pub(crate) fn close(&mut self, close: ConnectionClose) -> bool {
        debug_assert!(!self.is_closing, "the registry lets only one caller close a connection");
        self.rare.get_or_insert_default().close = Some(close);
        self.is_closing = true;
        self.reassignment.end_reassignment();
        self.start_worker()
    }

    /// Begins reassignment after all waiting messages, unless the connection closes first. Its proxy has stopped
    /// reading from the client.
    #[must_use = "a worker must be started"]
    pub(crate) fn begin_reassignment(&mut self) -> bool {
        if self.is_closing {
            return false;
        }
        self.reassignment.begin_reassignment();
        self.start_worker()
    }

    /// Whether the connection has no running or waiting work.
    pub(crate) fn is_quiet(&self) -> bool {
        let has_nothing = !self.has_worker && self.input.is_empty() && !self.has_calls();
        has_nothing && self.is_connected && !self.calls.has_open_uploads()
    }

    /// Returns the next request to the proxy of a connection in reassignment: to continue reading while an upload is
    /// open or a client result is pending (`has_pending_result`), and to stop afterwards.
    pub(crate) fn poll_reassignment(&mut self, has_pending_result: bool) -> Option<FlowOperation> {
        if self.has_worker || !self.input.is_empty() {
            return None;
        }
        self.reassignment.poll(has_pending_result || self.calls.has_open_uploads())
    }

    #[must_use = "a worker must be started"]
    pub(crate) fn start_reassignment(&mut self, has_pending_result: bool) -> bool {
        self.can_be_reassigned(has_pending_result) && self.start_worker()
    }

    pub(crate) fn has_calls(&self) -> bool {
        !self.calls.is_idle()
    }

    pub(crate) fn ends_with_app_server(&self) -> bool {
        self.reassignment.is_elsewhere() || self.known_close().is_some_and(|close| close.cause == Cause::AppStopped)
    }

    /// Closes the inbox of a reassigned connection: drops waiting messages, and `on_disconnected` does not run.
    #[must_use = "a worker must be started"]
    pub(crate) fn close_reassigned(&mut self) -> bool {
        self.discard();
        self.is_connected = false;
        self.reassignment.end_elsewhere();
        if self.is_closing { false } else { self.close(ConnectionClose::new(Cause::Superseded)) }
    }

    pub(crate) fn discard(&mut self) {
        self.flow.remove_bytes(self.input.clear());
        if let Some(rare) = &mut self.rare {
            rare.traced = TracedPieces::default();
            self.drop_rare();
        }
        self.calls.drop_queued(&mut self.flow);
    }

    pub(crate) fn set_connected(&mut self) {
        self.is_connected = true;
    }

    /// Whether `on_connected` has succeeded and `on_disconnected` has not begun.
    pub(crate) fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// Takes the next work of the worker. `has_pending_result`: a client result is pending, which delays reassignment.
    pub(crate) fn next(&mut self, protocol: HubProtocol, limits: &Limits, has_pending_result: bool) -> WorkItem<C> {
        self.finish_handled();
        if let Some(call) = self.calls.next_queued(limits, &mut self.flow) {
            return WorkItem::StartCall(call);
        }
        let next = match self.stage {
            ReadStage::Handshake => self.next_handshake(),
            ReadStage::Messages => self.next_message(protocol, limits.message_max_bytes),
            ReadStage::Ended => None,
        };
        next.unwrap_or_else(|| self.next_without_message(has_pending_result))
    }

    pub(crate) fn admit(&mut self, call: IncomingCall<C>, limits: &Limits) -> Admission<C> {
        self.finish_handled();
        self.calls.admit(call, limits, &mut self.flow)
    }

    /// Adds an item to an upload. Returns the waker of a waiting reader; `None` if no such upload is open.
    pub(crate) fn push_item(&mut self, id: &str, item: UploadItem, limits: &Limits) -> Option<Option<Waker>> {
        self.finish_handled();
        self.calls.uploads()?.push(id, item, limits.upload_max_items, &mut self.flow).ok()
    }

    /// Ends an upload. Returns the waker of a waiting reader; `None` if no such upload is open.
    pub(crate) fn end_upload(&mut self, id: &str, end: UploadEnd) -> Option<Option<Waker>> {
        self.calls.uploads()?.end_upload(id, end, &mut self.flow).ok()
    }

    #[must_use = "a worker must be started"]
    pub(crate) fn release(&mut self, call: &CallState, limits: &Limits) -> bool {
        self.calls.release(call);
        self.start_if_due(limits)
    }

    /// Lets a close no longer wait for calls, and drops queued ones. Returns the methods still running, and whether a
    /// worker must be started; `None` without running calls.
    pub(crate) fn give_up_calls(&mut self) -> Option<(BTreeSet<ByteString>, bool)> {
        let rare = self.rare.as_mut().filter(|rare| rare.close.is_some() && !self.calls.is_idle())?;
        rare.gives_up_calls = true;
        self.calls.drop_queued(&mut self.flow);
        Some((self.calls.waiting_methods(), self.start_worker()))
    }

    #[must_use = "a worker must be started"]
    pub(crate) fn release_slot(&mut self, call: &CallState, limits: &Limits) -> bool {
        self.calls.release_slot(call);
        self.start_if_due(limits)
    }

    pub(crate) fn calls(&mut self) -> (&mut CallTable<C>, &mut FlowControl) {
        (&mut self.calls, &mut self.flow)
    }

    pub(crate) fn is_overfull(&self, limits: &Limits) -> bool {
        self.flow.is_overfull(limits)
    }

    /// Takes the methods that wait for the client while the inbox is overfull, to be woken after unlocking.
    pub(crate) fn take_overfull_waits(&mut self, limits: &Limits) -> OverfullWaits {
        if self.flow.is_overfull(limits) { self.calls.fail_waits(&mut self.flow) } else { OverfullWaits::default() }
    }

    /// Returns the next request to the proxy, if one is due; none after the close is known.
    pub(crate) fn poll_flow(&mut self, limits: &Limits) -> Option<FlowOperation> {
        if self.is_closing { None } else { self.flow.poll(limits) }
    }

    pub(crate) fn is_client_paused(&self) -> bool {
        self.flow.is_paused()
    }

    /// Lists remaining state of a connection that should be idle.
    #[cfg(test)]
    pub(crate) fn left_over(&self) -> Vec<String> {
        let mut left = self.calls.left_over();
        if !self.is_closing && !self.flow.is_idle() || self.flow.waiting_bytes() != 0 {
            left.push(format!("{:?}", self.flow));
        }
        left
    }

    fn start_if_due(&mut self, limits: &Limits) -> bool {
        let is_due = self.calls.has_startable(limits) || (self.is_ending() && self.calls.is_idle());
        is_due && self.start_worker()
    }

    /// Whether only running calls delay the next step.
    fn is_ending(&self) -> bool {
        self.known_close().is_some() || self.reassignment.is_at_boundary()
    }

    fn can_be_reassigned(&self, has_pending_result: bool) -> bool {
        self.reassignment.is_at_boundary()
            && !self.reassignment.is_leaving()
            && !has_pending_result
            && self.calls.is_idle()
    }

    /// Claims the role of the connection's worker. Returns `false` if it has one.
    fn start_worker(&mut self) -> bool {
        !std::mem::replace(&mut self.has_worker, true)
    }

    fn next_handshake(&mut self) -> Option<WorkItem<C>> {
        let taken = self.input.take_handshake()?;
        Some(WorkItem::Handshake(taken.map(|(request, length)| {
            self.note_taken(length);
            self.stage = ReadStage::Messages;
            request
        })))
    }

    fn next_message(&mut self, protocol: HubProtocol, message_max_bytes: usize) -> Option<WorkItem<C>> {
        let (body, length) = match self.input.take_message(protocol, message_max_bytes)? {
            Ok(taken) => taken,
            Err(error) => return Some(WorkItem::Unframed(error)),
        };
        self.note_taken(length);
        // Counts as waiting until it is handled.
        self.handled_bytes = u32::try_from(length).unwrap_or(u32::MAX);
        self.flow.add_bytes(length);
        // While calls are running, a message may have to wait: a call for a slot, an item for its method.
        let body = if self.calls.is_idle() { body } else { detached(body) };
        Some(WorkItem::Message(body, length))
    }

    /// Returns the next work if no complete message is waiting.
    fn next_without_message(&mut self, has_pending_result: bool) -> WorkItem<C> {
        if self.known_close().is_some() && self.stage != ReadStage::Ended {
            self.stage = ReadStage::Ended;
            self.flow.remove_bytes(self.input.clear());
            return WorkItem::InputEnded;
        }
        if self.can_be_reassigned(has_pending_result) && self.reassignment.begin_leaving() {
            return WorkItem::Reassign;
        }
        let gives_up_calls = self.rare.as_ref().is_some_and(|rare| rare.gives_up_calls);
        if (self.calls.is_idle() || gives_up_calls)
            && let Some(close) = self.take_close()
        {
            return WorkItem::Close(close, std::mem::take(&mut self.is_connected));
        }
        self.has_worker = false;
        self.input.rest();
        WorkItem::Idle
    }

    fn known_close(&self) -> Option<&ConnectionClose> {
        self.rare.as_ref()?.close.as_ref()
    }

    fn take_close(&mut self) -> Option<ConnectionClose> {
        let close = self.rare.as_mut()?.close.take();
        self.drop_rare();
        close
    }

    fn drop_rare(&mut self) {
        if self.rare.as_ref().is_some_and(|rare| rare.close.is_none() && rare.traced.is_empty()) {
            self.rare = None;
        }
    }

    fn finish_handled(&mut self) {
        self.flow.remove_bytes(std::mem::take(&mut self.handled_bytes) as usize);
    }

    fn note_taken(&mut self, length: usize) {
        self.flow.remove_bytes(length);
        if let Some(rare) = &mut self.rare {
            rare.traced.take_bytes(length);
        }
    }
}

impl<C> Default for Inbox<C> {
    fn default() -> Self {
        Self {
            input: Input::default(),
            handled_bytes: 0,
            flow: FlowControl::default(),
            calls: CallTable::default(),
            window: ClientWindow::default(),
            rare: None,
            stage: ReadStage::default(),
            is_closing: false,
            reassignment: Reassignment::default(),
            has_worker: false,
            is_connected: false,
        }
    }
}

pub(crate) type ClientWindow = fleet::ClientWindow<WindowLine>;

/// Line of senders that wait for the window of a client.
#[derive(Debug, Default)]
pub(crate) struct WindowLine {
    pub(crate) turn: Mutex<()>,
    pub(crate) freed: Notify,
}

impl SenderLine for WindowLine {
    fn wake(&self) {
        self.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use trunkline_protocol::hub::Invocation;

    use super::super::call_state::{CallKind, Concurrency};
    use super::super::call_table::ReplyKind;
    use super::*;

    fn open() -> Inbox<CallState> {
        Inbox { stage: ReadStage::Messages, ..Inbox::default() }
    }

    fn limits() -> Limits {
        Limits { message_max_bytes: 1000, inbox_max_bytes: 100, ..Limits::default() }
    }

    fn next(inbox: &mut Inbox<CallState>) -> WorkItem<CallState> {
        inbox.next(HubProtocol::Json, &limits(), false)
    }

    fn message(inbox: &mut Inbox<CallState>) -> Bytes {
        match next(inbox) {
            WorkItem::Message(body, _) => body,
            other => panic!("{other:?}"),
        }
    }

    fn error(text: &str) -> ConnectionClose {
        ConnectionClose::with_error(Cause::AppError, text)
    }

    #[test]
    fn a_worker_starts_once_and_again_after_it_went_idle() {
        let mut inbox = open();
        assert!(inbox.push(Bytes::from_static(b"a\x1e")));
        assert!(!inbox.push(Bytes::from_static(b"b\x1e")));
        assert_eq!(message(&mut inbox), "a");
        assert_eq!(message(&mut inbox), "b");
        assert!(matches!(next(&mut inbox), WorkItem::Idle));
        assert!(inbox.push(Bytes::from_static(b"c\x1e")));
    }

    #[test]
    fn messages_are_joined_however_they_were_cut() {
        let mut inbox = open();
        for piece in ["a", "b\x1ec", "d", "e\x1ef\x1e"] {
            let _ = inbox.push(Bytes::from_static(piece.as_bytes()));
        }
        assert_eq!(message(&mut inbox), "ab");
        assert_eq!(message(&mut inbox), "cde");
        assert_eq!(message(&mut inbox), "f");
        assert!(matches!(next(&mut inbox), WorkItem::Idle));
    }

    #[test]
    fn the_handshake_comes_first_and_messages_may_follow_in_the_same_piece() {
        let mut inbox = Inbox::<CallState>::default();
        let _ = inbox.push(Bytes::from_static(b"{\"protocol\":\"json\",\"version\":1}\x1ea\x1e"));
        assert!(matches!(next(&mut inbox), WorkItem::Handshake(Ok(_))));
        assert_eq!(message(&mut inbox), "a");
    }

    #[test]
    fn a_handled_message_counts_as_waiting_until_the_next_one() {
        let mut inbox = open();
        let _ = inbox.push(Bytes::from([b"x".repeat(150).as_slice(), b"\x1e"].concat()));
        assert_eq!(inbox.poll_flow(&limits()), Some(FlowOperation::Pause));
        message(&mut inbox);
        assert_eq!(inbox.poll_flow(&limits()), None, "the worker has it in hand");
        assert!(matches!(next(&mut inbox), WorkItem::Idle));
        assert_eq!(inbox.poll_flow(&limits()), Some(FlowOperation::Resume));
    }

    #[test]
    fn waiting_messages_are_read_before_the_close_only() {
        let mut inbox = open();
        inbox.set_connected();
        let _ = inbox.push(Bytes::from_static(b"a\x1ehalf"));
        assert!(!inbox.close(error("gone")));
        assert!(!inbox.push(Bytes::from_static(b"late\x1e")));
        assert_eq!(message(&mut inbox), "a");
        assert!(matches!(next(&mut inbox), WorkItem::InputEnded));
        assert!(matches!(next(&mut inbox), WorkItem::Close(reason, true) if reason == error("gone")));
        assert!(matches!(next(&mut inbox), WorkItem::Idle));
        assert!(!inbox.push(Bytes::from_static(b"late\x1e")));
    }

    #[test]
    fn a_client_that_left_immediately_is_still_read() {
        let mut inbox = Inbox::<CallState>::default();
        let _ = inbox.push(Bytes::from_static(b"{\"protocol\":\"json\",\"version\":1}\x1ea\x1e"));
        let _ = inbox.close(ConnectionClose::new(Cause::ClientClosed));
        assert!(matches!(next(&mut inbox), WorkItem::Handshake(Ok(_))));
        assert_eq!(message(&mut inbox), "a");
        assert!(matches!(next(&mut inbox), WorkItem::InputEnded));
        assert!(matches!(next(&mut inbox), WorkItem::Close(_, false)));
    }

    #[test]
    fn a_client_that_never_connected_gets_no_on_disconnected() {
        let mut inbox = Inbox::<CallState>::default();
        assert!(inbox.push(Bytes::from_static(b"{\"proto")));
        assert!(!inbox.close(ConnectionClose::new(Cause::ClientClosed)));
        assert!(matches!(next(&mut inbox), WorkItem::InputEnded));
        assert!(matches!(next(&mut inbox), WorkItem::Close(_, false)));
    }

    #[test]
    fn an_oversized_message_is_a_framing_error() {
        let mut inbox = open();
        let _ = inbox.push(Bytes::from(vec![b'x'; 1001]));
        assert!(matches!(next(&mut inbox), WorkItem::Unframed(FramingError::TooLarge { limit: 1000 })));
    }

    #[test]
    fn waiting_bytes_keep_no_buffer_of_the_link() {
        let mut inbox = open();
        let link = Bytes::from([b"a\x1e".repeat(100), vec![b'x'; 60_000]].concat());
        assert!(inbox.push(link.slice(..2)));
        (1..100).for_each(|at| assert!(!inbox.push(link.slice(2 * at..2 * at + 2)), "the worker is busy"));
        assert_eq!(message(&mut inbox), "a");
        assert!(link.is_unique(), "99 messages wait");
    }

    #[test]
    fn the_rest_of_a_message_that_has_begun_keeps_no_buffer_of_the_link() {
        let mut inbox = open();
        let link = Bytes::from(b"a\x1ehalf".to_vec());
        let _ = inbox.push(link.clone());
        assert_eq!(message(&mut inbox), "a");
        assert!(matches!(next(&mut inbox), WorkItem::Idle));
        assert!(link.is_unique());
        let _ = inbox.push(Bytes::from_static(b"!\x1e"));
        assert_eq!(message(&mut inbox), "half!");
    }

    #[test]
    fn a_message_beside_a_call_keeps_no_buffer_of_the_link_and_one_alone_is_not_copied() {
        let mut inbox = open();
        let link = Bytes::from(b"a\x1eb\x1e".to_vec());
        let _ = inbox.push(link.clone());
        let first = message(&mut inbox);
        assert_eq!(first.as_ptr(), link.as_ptr(), "the first is a slice");
        let kind = CallKind::Method(Concurrency::Slot);
        let call = IncomingCall {
            call: Arc::new(CallState::new(kind, None)),
            invocation: Invocation::default(),
            stream_count: 0,
            reply_kind: ReplyKind::Result,
            bytes: 2,
        };
        assert!(matches!(inbox.admit(call, &limits()), Admission::Start(_)));
        drop(first);
        let second = message(&mut inbox);
        assert_eq!(second, "b");
        assert!(link.is_unique());
    }

    #[test]
    fn a_traced_message_behind_waiting_ones_keeps_its_mark() {
        let mut inbox = open();
        let _ = inbox.push(Bytes::from_static(b"a\x1e"));
        let _ = inbox.push_traced(Bytes::from_static(b"b\x1ec\x1e"), 7);
        let mut marks = Vec::new();
        for _ in 0..3 {
            message(&mut inbox);
            marks.push(inbox.take_trace().map(|trace| trace.taken("c1".into()).mark));
        }
        assert_eq!(marks, [None, Some(7), Some(8)]);
        assert!(inbox.rare.is_none());
    }

    #[test]
    fn an_idle_inbox_owns_no_memory() {
        let mut inbox = open();
        let _ = inbox.push(Bytes::from_static(b"a\x1e"));
        message(&mut inbox);
        assert!(matches!(next(&mut inbox), WorkItem::Idle));
        assert_eq!(inbox.input.capacity(), 0);
    }
}
