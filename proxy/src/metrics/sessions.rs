//! What links went through: sockets lost, sessions resumed, sessions that are over.

use super::Counter;

/// Why a session of a link ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionEnd {
    /// It could not be resumed within the window.
    WindowPassed,
    /// The app server does not know it any more.
    Unknown,
    /// Its pool was given up: another instance answers there, or this node stops.
    Retired,
    /// The app server said goodbye.
    Farewell,
    /// Its socket ended, and the app server does not resume.
    NotResumable,
    /// The app server sent what makes no sense.
    Broken,
}

/// What is counted of all sessions.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    /// Sockets lost after their handshake.
    pub interrupted: Counter,
    /// Sessions that went on over another socket.
    pub resumed: Counter,
    /// Frames that were sent again.
    pub replayed: Counter,
    /// Upward frames that ended with a session; the app server may have some of them.
    pub frames_lost: Counter,
    ended: [Counter; SessionEnd::ALL.len()],
}

impl SessionEnd {
    /// All causes, with their labels.
    pub(crate) const ALL: [(SessionEnd, &'static str); 6] = [
        (SessionEnd::WindowPassed, "window_passed"),
        (SessionEnd::Unknown, "unknown"),
        (SessionEnd::Retired, "retired"),
        (SessionEnd::Farewell, "farewell"),
        (SessionEnd::NotResumable, "not_resumable"),
        (SessionEnd::Broken, "broken"),
    ];
}

impl Sessions {
    /// How many sessions ended for this cause.
    #[must_use]
    pub(crate) fn ended(&self, cause: SessionEnd) -> &Counter {
        let [window, unknown, retired, farewell, not_resumable, broken] = &self.ended;
        match cause {
            SessionEnd::WindowPassed => window,
            SessionEnd::Unknown => unknown,
            SessionEnd::Retired => retired,
            SessionEnd::Farewell => farewell,
            SessionEnd::NotResumable => not_resumable,
            SessionEnd::Broken => broken,
        }
    }
}
