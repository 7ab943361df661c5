//! Reasons to pause reading from a client, and the wake-up of its reader.

use std::rc::Rc;

use tokio::sync::Notify;

/// Reason to pause reading from a client. Its data waits in the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum PauseReason {
    /// Requested by an app server.
    AppServer = 1,
    /// No primary, or a message waits for an app server of its group.
    Unassigned = 2,
    /// Too many unanswered calls.
    PendingCalls = 4,
    /// A handover by an app server is in progress.
    HandingOver = 8,
    /// The link to an app server is full.
    FullLink = 16,
    /// The client exceeded its quota.
    Throttled = 32,
    /// Other clients of its app are being read.
    Turn = 64,
    /// More than its limit is queued for the client.
    UnreadAnswers = 128,
}

/// Reasons of the reader itself; a new reader starts without them.
const READER_REASONS: u8 = PauseReason::FullLink as u8 | PauseReason::Throttled as u8 | PauseReason::Turn as u8;

#[derive(Debug, Default)]
pub(crate) struct Pauses {
    reasons: u8,
    /// The socket was cut while the client was paused, so its reader only reads the end.
    is_cut: bool,
    resumed: Option<Rc<Notify>>,
}

impl Pauses {
    pub(crate) fn contains(&self, reason: PauseReason) -> bool {
        self.reasons & reason as u8 != 0
    }

    /// Whether the client is not paused.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.reasons == 0
    }

    #[inline]
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut
    }

    pub(crate) fn add_reason(&mut self, reason: PauseReason) {
        self.reasons |= reason as u8;
    }

    /// Removes a reason. Returns `true` if it was the last one, so that reading resumes.
    pub(super) fn remove(&mut self, reason: PauseReason) -> bool {
        let had = self.contains(reason);
        self.reasons &= !(reason as u8);
        let is_read_again = had && self.is_empty();
        if is_read_again {
            self.wake_reader();
        }
        is_read_again
    }

    pub(super) fn clear(&mut self) {
        self.reasons = 0;
        self.wake_reader();
    }

    /// Notification for the reader; `None` if the client is not paused or its socket is cut.
    pub(crate) fn resumed(&mut self) -> Option<Rc<Notify>> {
        let waits = !self.is_empty() && !self.is_cut;
        waits.then(|| Rc::clone(self.resumed.get_or_insert_default()))
    }

    /// Records that the socket was cut. A waiting reader then only reads the end.
    pub(super) fn cut(&mut self) {
        self.is_cut = !self.is_empty();
        if self.is_cut {
            self.wake_reader();
        }
    }

    /// Records that another reader serves the client.
    pub(super) fn change_reader(&mut self) {
        self.is_cut = false;
        self.reasons &= !READER_REASONS;
        self.wake_reader();
    }

    fn wake_reader(&mut self) {
        if let Some(resumed) = self.resumed.take() {
            resumed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_resumes_when_no_reason_is_left() {
        let mut pauses = Pauses::default();
        pauses.add_reason(PauseReason::AppServer);
        pauses.add_reason(PauseReason::PendingCalls);
        assert!(!pauses.remove(PauseReason::AppServer) && !pauses.remove(PauseReason::AppServer));
        assert!(pauses.contains(PauseReason::PendingCalls) && !pauses.contains(PauseReason::AppServer));
        assert!(pauses.remove(PauseReason::PendingCalls) && pauses.is_empty());
    }

    #[test]
    fn a_reader_waits_while_its_client_is_paused_and_its_socket_is_there() {
        let mut pauses = Pauses::default();
        assert!(pauses.resumed().is_none());
        pauses.add_reason(PauseReason::Throttled);
        assert!(pauses.resumed().is_some());
        pauses.cut();
        assert!(pauses.is_cut() && pauses.resumed().is_none());
        pauses.change_reader();
        assert!(!pauses.is_cut() && pauses.is_empty(), "its reasons went with the reader");
    }
}
