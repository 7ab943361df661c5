//! What a session gives out: pieces for its socket, verdicts, and what is left over.

use bytes::Bytes;

use super::Frames;

/// A piece for the socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Whole frames.
    pub bytes: Bytes,
    /// How many of them count; 0 for a ping.
    pub frames: u64,
}

/// What the passing of time came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The socket is dead: close it and detach.
    PeerSilent,
    /// The session is to be ended.
    Over(Cause),
}

/// Why a session is over, as far as an end decides it alone. The driver has reasons of its own: the instance is gone,
/// a newer session took the slot, the peer does not know it, the peer made no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
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

/// What was in the ring of a session that is over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leftover {
    /// Sent and not acknowledged: the peer may have them or not.
    pub uncertain: Frames,
    /// Never given to a socket: another session may carry them.
    pub unsent: Frames,
}
