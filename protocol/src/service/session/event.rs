//! Results of a session for its driver.

use bytes::Bytes;

use super::Frames;

/// Data to write to the socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Bytes of whole frames.
    pub bytes: Bytes,
    /// Number of counted frames; 0 for a ping.
    pub frames: u64,
}

/// Event for the driver of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEvent {
    /// The peer is silent and the socket dead: close and detach it.
    PeerSilent,
    /// The session has to be ended.
    End(SessionEndReason),
}

/// Reason why one end alone ends a session. The driver has further reasons: the instance is gone, a newer session took
/// the slot, the peer does not know the session, or the peer is inconsistent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SessionEndReason {
    /// The proxy could not resume the session in time.
    #[error("it could not be resumed within the window")]
    WindowPassed,
    /// The app server's ring was full and the peer silent.
    #[error("its ring was full, and the proxy was silent for the window")]
    GivenUp,
    /// The peer was silent for so long that the proxy must have ended the session.
    #[error("the proxy was silent for twice the window")]
    Forgotten,
    /// The peer can't resume: the session ends with its socket.
    #[error("its socket ended, and the peer does not resume")]
    NotResumable,
}

/// Frames left in the ring of an ended session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UndeliveredFrames {
    /// Sent but unacknowledged: the peer may or may not have them.
    pub uncertain: Frames,
    /// Never written to a socket: another session may send them.
    pub unsent: Frames,
}

/// Peer contradicts the state of its session. The driver ends the session, because its numbers can't be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The peer acknowledges frames that were never sent.
    #[error("frame {acknowledged} was acknowledged, but only {sent} were sent")]
    AheadOfUs {
        /// Last frame that the peer claims to have.
        acknowledged: u64,
        /// Last frame that was sent.
        sent: u64,
    },
    /// The peer withdraws an acknowledgement.
    #[error("frame {acknowledged} was acknowledged after frame {before}")]
    Backwards {
        /// Last frame that the peer claims to have.
        acknowledged: u64,
        /// Last frame that it previously claimed.
        before: u64,
    },
    /// The acknowledgement is not a number.
    #[error("an acknowledgement is not a number")]
    NoNumber,
    /// The peer can no longer resume the session.
    #[error("the peer no longer resumes sessions")]
    CapabilityLost,
}
