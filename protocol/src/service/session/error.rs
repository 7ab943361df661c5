//! Why a session can't go on: the peer says what can't be.

/// Why what a peer says about a session makes no sense. The session is to be ended: its numbers can't be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// It acknowledges what was never sent.
    #[error("frame {acknowledged} was acknowledged, but only {sent} were sent")]
    AheadOfUs {
        /// What the peer claims to have.
        acknowledged: u64,
        /// What was sent.
        sent: u64,
    },
    /// It takes back an acknowledgement.
    #[error("frame {acknowledged} was acknowledged after frame {before}")]
    Backwards {
        /// What the peer claims to have.
        acknowledged: u64,
        /// What it had claimed before.
        before: u64,
    },
    /// The value is no number.
    #[error("an acknowledgement is no number")]
    NoNumber,
    /// It could resume the session, and can't any more.
    #[error("the peer no longer resumes sessions")]
    CapabilityLost,
}
