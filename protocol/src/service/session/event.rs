//! Results of a session: pieces for its socket, events and errors for its driver, undelivered frames.

use bytes::Bytes;

use super::Frames;

/// Piece to write to the socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Bytes of whole frames.
    pub bytes: Bytes,
    /// Number of frames that count; 0 for a ping.
    pub frames: u64,
}

/// Event that the driver of a session has to act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEvent {
    /// The peer is silent and the socket dead: close it and detach.
    PeerSilent,
    /// The session is to be ended.
    End(SessionEndReason),
}

/// Reason why one end alone ends a session. The driver has other reasons: the instance is gone,
/// a newer session took the slot, the peer does not know it, the peer made no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SessionEndReason {
    /// The proxy could not resume it in time.
    #[error("it could not be resumed within the window")]
    WindowPassed,
    /// The app server's ring was full and nothing was heard.
    #[error("its ring was full, and the proxy was silent for the window")]
    GivenUp,
    /// The app server heard nothing for so long that the proxy must have ended it.
    #[error("the proxy was silent for twice the window")]
    Forgotten,
    /// The peer can't resume: the session ends with its socket.
    #[error("its socket ended, and the peer does not resume")]
    NotResumable,
}

/// Frames that were in the ring of a session when it ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UndeliveredFrames {
    /// Sent and not acknowledged: the peer may have them or not.
    pub uncertain: Frames,
    /// Never given to a socket: another session may carry them.
    pub unsent: Frames,
}

/// Error of a peer that contradicts the state of its session. The driver ends the session: its numbers can't be
/// trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// It acknowledges frames that were never sent.
    #[error("frame {acknowledged} was acknowledged, but only {sent} were sent")]
    AheadOfUs {
        /// The last frame that the peer claims to have.
        acknowledged: u64,
        /// The last frame that was sent.
        sent: u64,
    },
    /// It takes back an acknowledgement.
    #[error("frame {acknowledged} was acknowledged after frame {before}")]
    Backwards {
        /// The last frame that the peer claims to have.
        acknowledged: u64,
        /// The last frame that it had claimed before.
        before: u64,
    },
    /// The value of the acknowledgement is no number.
    #[error("an acknowledgement is no number")]
    NoNumber,
    /// It could resume the session, and can't any longer.
    #[error("the peer no longer resumes sessions")]
    CapabilityLost,
}
