//! Counters of link sessions: sockets lost, sessions resumed and closed.

use super::Counter;

/// Reason for the end of a link session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionCloseReason {
    /// Nobody resumed the session within the window.
    WindowPassed,
    /// The app server no longer knows it.
    Unknown,
    /// Its pool was retired: another instance answers there, or this node stops.
    Retired,
    /// The app server closed it.
    Farewell,
    /// Its socket was lost, and the app server does not resume sessions.
    NotResumable,
    /// The app server broke the protocol.
    Broken,
}

/// Counters of all link sessions of one shard.
#[derive(Debug, Default)]
pub(crate) struct SessionCounters {
    /// Sockets lost after their opening handshake.
    pub interrupted: Counter,
    /// SessionCounters resumed over another socket.
    pub resumed: Counter,
    /// Frames sent again after a resume.
    pub replayed: Counter,
    /// Upward frames lost with a session; the app server may have some of them.
    pub frames_lost: Counter,
    ended: [Counter; SessionCloseReason::ALL.len()],
}

impl SessionCloseReason {
    /// All reasons with their labels.
    pub(crate) const ALL: [(SessionCloseReason, &'static str); 6] = [
        (SessionCloseReason::WindowPassed, "window_passed"),
        (SessionCloseReason::Unknown, "unknown"),
        (SessionCloseReason::Retired, "retired"),
        (SessionCloseReason::Farewell, "farewell"),
        (SessionCloseReason::NotResumable, "not_resumable"),
        (SessionCloseReason::Broken, "broken"),
    ];
}

impl SessionCounters {
    /// Returns the number of sessions that ended for this reason.
    #[must_use]
    pub(crate) fn ended(&self, reason: SessionCloseReason) -> &Counter {
        let [window, unknown, retired, farewell, not_resumable, broken] = &self.ended;
        match reason {
            SessionCloseReason::WindowPassed => window,
            SessionCloseReason::Unknown => unknown,
            SessionCloseReason::Retired => retired,
            SessionCloseReason::Farewell => farewell,
            SessionCloseReason::NotResumable => not_resumable,
            SessionCloseReason::Broken => broken,
        }
    }
}
