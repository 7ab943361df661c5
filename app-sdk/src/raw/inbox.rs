//! What waits for the handler of one raw connection. A pure value: it says whom to wake, and when the client is to be
//! paused.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use trunkline_protocol::service::FlowOperation;

use super::RawMessage;
use crate::connection::{Flow, Limits};

/// What a message costs beside its bytes: empty ones shall not come for nothing.
const MESSAGE_BYTES: usize = size_of::<RawMessage>();

/// The inbox of one raw connection.
#[derive(Debug, Default)]
pub(super) struct RawInbox {
    waiting: VecDeque<RawMessage>,
    flow: Flow,
    reader: Option<Waker>,
    /// Nothing more comes in.
    is_over: bool,
}

impl RawInbox {
    /// A message came; returns who waits for it.
    pub(super) fn push(&mut self, message: RawMessage) -> Option<Waker> {
        if self.is_over {
            return None;
        }
        self.flow.add_bytes(cost(&message));
        self.waiting.push_back(message);
        self.reader.take()
    }

    /// The next message; `None` when there will be no more.
    pub(super) fn poll_next(&mut self, cx: &Context<'_>) -> Poll<Option<RawMessage>> {
        if let Some(message) = self.waiting.pop_front() {
            self.flow.remove_bytes(cost(&message));
            return Poll::Ready(Some(message));
        }
        // An idle connection owns no buffer.
        self.waiting = VecDeque::new();
        if self.is_over {
            return Poll::Ready(None);
        }
        self.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Nothing more comes; what waits may still be read. Returns who waits.
    pub(super) fn finish(&mut self) -> Option<Waker> {
        self.is_over = true;
        self.reader.take()
    }

    /// Nobody reads it any more: what comes is dropped, and the client is not paused for it. Returns who waits.
    pub(super) fn discard(&mut self) -> Option<Waker> {
        self.flow.remove_bytes(self.waiting.iter().map(cost).sum());
        self.waiting = VecDeque::new();
        self.finish()
    }

    /// What the proxy is to be asked now.
    pub(super) fn poll_flow(&mut self, limits: &Limits) -> Option<FlowOperation> {
        self.flow.poll(limits)
    }
}

fn cost(message: &RawMessage) -> usize {
    MESSAGE_BYTES + message.as_bytes().len()
}

#[cfg(test)]
mod tests {
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
        inbox.finish();
        assert!(inbox.push("late".into()).is_none());
        assert_eq!(next(&mut inbox), Poll::Ready(Some(vec![1].into())));
        assert_eq!(next(&mut inbox), Poll::Ready(None));
        assert_eq!(next(&mut inbox), Poll::Ready(None));
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
    fn who_is_paused_may_go_on_when_nobody_reads_any_more() {
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
